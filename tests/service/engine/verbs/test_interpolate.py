"""Walks through latent space: their points, the path between them, and the points that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from service.bundle.bases import DiagonalNormalBase, UniformBase
from service.engine.verbs.interpolate import interpolate
from service.errors import OutOfSupport, WrongShape
from service.plan import run_now
from tests.service.engine.verbs.test_flow import NORMAL, based, some_rows


def test_a_diagonal_normal_is_walked_about_its_mean(flows):
    base = DiagonalNormalBase(mean=[1.0] * 5, standard_deviation=[2.0, 1.0, 1.0, 1.0, 1.0])
    z = np.array([[3, 1, 1, 1, 1], [1, 2, 1, 1, 1]], np.float32)
    found = run_now(interpolate(based(flows["coupling"], base), z, 3, space="z")).z
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found[1], [1 + 2 * half, 1 + half, 1, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("kind", [None, "linear"])
@pytest.mark.parametrize("name", NORMAL)
def test_interpolation_passes_through_every_point(flows, parts, name, kind):
    x, context = some_rows(parts[name], 3)
    one = None if context is None else context[0]
    if one is not None:
        x, _ = parts[name].inverse(np.random.default_rng(0).normal(size=(3, 3)), np.repeat(context[:1], 3, 0))
        x = x.astype(np.float32)
    found = run_now(interpolate(flows[name], x, 40, kind, context=one))
    assert found.t.tolist() == (np.arange(79) / 39).tolist()
    np.testing.assert_allclose(found.x[::39], x, rtol=1e-4, atol=1e-5)
    assert found.round_trip_error.max() < 1e-4
    assert len(found.z) == len(found.x) == len(found.log_prob) == 79
    expected = parts[name].log_prob(found.x, None if one is None else np.repeat(one[None], 79, 0))
    np.testing.assert_allclose(found.log_prob, expected, rtol=1e-4, atol=1e-4)


def test_interpolation_between_latents(flows):
    z = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32)
    found = run_now(interpolate(flows["coupling"], z, 5, space="z"))
    assert found.z[[0, -1]].tobytes() == z.tobytes()
    np.testing.assert_allclose(np.linalg.norm(found.z, axis=1), 1, rtol=1e-6)


def test_a_uniform_base_is_walked_straight(flows):
    found = run_now(interpolate(flows["square"], np.array([[0.25], [2.25]], np.float32), 3))
    np.testing.assert_allclose(found.x[:, 0], [0.25, 1.0, 2.25], rtol=1e-6)


@pytest.mark.parametrize(("space", "points"), [("x", [[1.0], [-3.0], [5.0]]), ("z", [[1.0], [2.5], [-0.1]])])
def test_a_point_of_density_zero_is_named(flows, space, points):
    with pytest.raises(OutOfSupport, match="point 1 lies where the density is zero") as caught:
        run_now(interpolate(flows["square"], np.array(points, np.float32), 3, space=space))
    assert [reason.row for reason in caught.value.errors] == [1, 2]


def test_one_point_is_no_path(flows):
    with pytest.raises(WrongShape, match="at least two points") as caught:
        run_now(interpolate(flows["two-moons"], np.ones((1, 2), np.float32), 3))
    assert [reason.loc for reason in caught.value.errors] == [("points",)]


@pytest.mark.parametrize("end", [-1.0, 1.0])
def test_the_edges_of_a_uniform_base_belong_to_it(flows, end):
    flow = based(flows["coupling"], UniformBase(low=-1.0, high=1.0))
    edge = np.full((2, 5), end, np.float32)
    assert run_now(interpolate(flow, edge, 3, space="z")).z.tolist() == [[end] * 5] * 3
    beyond = edge.copy()
    beyond[1, 4] = np.nextafter(np.float32(end), np.float32(2 * end))
    with pytest.raises(OutOfSupport) as caught:
        run_now(interpolate(flow, beyond, 3, space="z"))
    assert [reason.row for reason in caught.value.errors] == [1]


def test_a_context_for_every_point_or_both_ends_or_the_whole_walk(flows):
    flow = flows["conditional"]
    points, contexts = np.zeros((3, 3), np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    for count in (1, 2, 3):
        run_now(interpolate(flow, points, 3, space="z", context=contexts[:count]))
    with pytest.raises(WrongShape, match=r"two for its ends, or 3 for its points, and has 4") as caught:
        run_now(interpolate(flow, points, 3, space="z", context=np.zeros((4, 2), np.float32)))
    assert [reason.loc for reason in caught.value.errors] == [("context",)]
    with pytest.raises(WrongShape, match=r"two for its ends, and has 3$"):
        run_now(interpolate(flow, points[:2], 3, space="z", context=contexts))


@pytest.mark.parametrize("space", ["x", "z"])
def test_several_walks_are_each_what_it_is_alone(flows, space):
    flow = flows["coupling"]
    points = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    together = run_now(interpolate(flow, points, 4, space=space))
    assert (together.z.shape, together.x.shape, together.log_prob.shape) == ((2, 7, 5), (2, 7, 5), (2, 7))
    for at, walk in enumerate(points):
        alone = run_now(interpolate(flow, walk, 4, space=space))
        for name in ("z", "x", "log_prob", "round_trip_error"):
            assert getattr(together, name)[at].tobytes() == getattr(alone, name).tobytes()
