from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.bundle.bases import DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase, UniformBase
from service.engine.verbs.paths import Path, PathContext, context_at, default_path
from service.errors import InvalidArgument
from tests.service.bundle.conftest import make_manifest

coordinates = st.floats(-100, 100, width=32)
several_points = st.integers(1, 6).flatmap(
    lambda width: arrays.arrays(np.float32, st.tuples(st.integers(2, 5), st.just(width)), elements=coordinates)
)


def walk(points, steps, kind, base=None):
    path = Path(np.asarray(points, np.float32), steps, kind, base)
    return path.t, path[0 : len(path)]


@given(several_points, st.integers(2, 9), st.sampled_from(["linear", "slerp"]))
def test_a_path_passes_through_every_point_exactly(points, steps, kind):
    try:
        t, z = walk(points, steps, kind)
    except InvalidArgument:
        assert kind == "slerp"
        return
    assert len(t) == len(z) == (len(points) - 1) * (steps - 1) + 1
    assert z[:: steps - 1].tobytes() == points.tobytes()
    assert t[:: steps - 1].tolist() == list(range(len(points)))
    assert np.isfinite(z).all()


@given(several_points, st.integers(2, 40), st.data())
def test_a_row_has_the_same_bits_in_every_slice(points, steps, data):
    points[:, 0] = np.abs(points[:, 0]) + 1  # no two are opposite
    path = Path(points, steps, "slerp")
    whole = path[0 : len(path)]
    start = data.draw(st.integers(0, len(path) - 1))
    stop = data.draw(st.integers(start + 1, len(path)))
    assert path[start:stop].tobytes() == whole[start:stop].tobytes()


def test_linear_is_straight():
    t, z = walk([[0, 0], [2, 4], [2, 0]], 5, "linear")
    np.testing.assert_allclose(z[:5], np.outer(t[:5], [2, 4]))
    np.testing.assert_allclose(z[4:, 1], 4 * (2 - t[4:]))


def test_slerp_keeps_the_norm_and_turns_evenly():
    _, z = walk([[3, 0, 0], [0, 3, 0]], 7, "slerp")
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 3, rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(z[:, 1], z[:, 0]), np.linspace(0, np.pi / 2, 7), atol=1e-6)


def test_slerp_between_different_norms_interpolates_the_norm():
    _, z = walk([[1, 0], [0, 3]], 5, "slerp")
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), [1, 1.5, 2, 2.5, 3], rtol=1e-6)


@pytest.mark.parametrize("second", [[2, 0], [0, 0], [1, 1e-7]])
def test_slerp_without_an_angle_is_straight(second):
    _, z = walk([[1, 0], second], 5, "slerp")
    np.testing.assert_allclose(z, np.linspace([1, 0], second, 5), atol=1e-6)


def test_slerp_near_a_half_turn_still_turns():
    _, z = walk([[1, 0], [-1, 1e-3]], 5, "slerp")
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)


def test_opposite_points_are_refused_and_named():
    with pytest.raises(InvalidArgument, match=r"points 1 and 2 are exactly opposite.*path=linear") as caught:
        walk([[0, 1], [1, 2], [-2, -4]], 5, "slerp")
    assert caught.value.errors[0].row == 1


DIAGONAL = DiagonalNormalBase(mean=[10.0, -7.0], standard_deviation=[0.3, 25.0])


def test_slerp_of_a_diagonal_normal_is_about_its_mean_in_units_of_its_deviations():
    points = np.array([[10.3, -7.0], [10.0, 18.0], [9.1, -7.0]])
    _, z = walk(points, 7, "slerp", DIAGONAL)
    white = (z - DIAGONAL.mean) / DIAGONAL.standard_deviation
    expected = walk((points - DIAGONAL.mean) / DIAGONAL.standard_deviation, 7, "slerp")[1]
    np.testing.assert_allclose(white, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(white[:7], axis=1), 1, rtol=1e-5)
    assert z[::6].tobytes() == points.astype(np.float32).tobytes()


@given(arrays.arrays(np.float32, st.tuples(st.integers(2, 5), st.just(2)), elements=coordinates), st.integers(2, 9))
def test_a_path_about_a_mean_passes_through_every_point_exactly(points, steps):
    try:
        _, z = walk(points, steps, "slerp", DIAGONAL)
    except InvalidArgument:
        return
    assert z[:: steps - 1].tobytes() == points.tobytes()


def test_linear_is_straight_whatever_the_base():
    _, z = walk([[0, 0], [2, 4]], 5, "linear", DIAGONAL)
    np.testing.assert_allclose(z, np.linspace([0, 0], [2, 4], 5), atol=1e-5)


@pytest.mark.parametrize(
    ("base", "path"),
    [
        (NormalBase(), "slerp"),
        (DIAGONAL, "slerp"),
        (StudentTBase(degrees_of_freedom=3), "linear"),
        (MixtureBase(weights=[1.0], means=[[0.0, 0.0]], standard_deviations=[[1.0, 1.0]]), "linear"),
        (UniformBase(low=0.0, high=1.0), "linear"),
    ],
    ids=lambda value: getattr(value, "family", ""),
)
def test_the_path_that_a_base_takes_where_nobody_says(base, path):
    assert default_path(make_manifest(base=base)) == path


def test_one_dimension_has_no_circle():
    assert default_path(make_manifest(event_shape=[1], latent_width=1)) == "linear"


SPACINGS = ["parameter", "arc_length"]
KINDS = ["linear", "slerp"]


def lengths(z):
    return np.linalg.norm(np.diff(np.asarray(z, np.float64), axis=0), axis=1)


@given(several_points, st.integers(2, 9), st.sampled_from(KINDS))
def test_a_path_by_arc_length_passes_through_every_point_exactly(points, steps, kind):
    points[:, 0] = np.abs(points[:, 0]) + 1  # no two are opposite
    path = Path(points, steps, kind, spacing="arc_length")
    t, z = path.t, path[0 : len(path)]
    assert len(t) == len(z) == (len(points) - 1) * (steps - 1) + 1
    assert (np.diff(t) >= 0).all()
    assert np.isfinite(z).all()
    for k, point in enumerate(points):
        assert point.tobytes() in {row.tobytes() for row in z[t == k]}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_by_arc_length_are_equally_long(kind):
    points = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32) * [[1], [4], [0.2], [2], [2]]
    path = Path(points.astype(np.float32), 4001, kind, spacing="arc_length")
    far = lengths(path[0 : len(path)])
    assert far.max() / far.min() < 1.01
    by_parameter = Path(points.astype(np.float32), 4001, kind)
    far = lengths(by_parameter[0 : len(by_parameter)])
    assert far.max() / far.min() > 1.5


def test_by_arc_length_within_a_turn_that_grows():
    path = Path(np.float32([[1, 0], [0, 9]]), 2001, "slerp", spacing="arc_length")
    far = lengths(path[0 : len(path)])
    np.testing.assert_allclose(far, far.mean(), rtol=1e-3)
    assert not np.allclose(np.diff(path.t), 1 / 2000, rtol=0.1)


def test_slerp_by_arc_length_along_one_ray_goes_evenly():
    path = Path(np.float32([[1, 1], [2, 2], [5, 5]]), 3, "slerp", spacing="arc_length")
    np.testing.assert_allclose(path[0:5], [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]], rtol=1e-6)


def test_slerp_by_arc_length_of_one_norm_is_slerp():
    by_length, by_parameter = (
        Path(np.float32([[3, 0, 0], [0, 3, 0]]), 7, "slerp", spacing=spacing)[0:7] for spacing in SPACINGS
    )
    np.testing.assert_allclose(by_length, by_parameter, atol=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_points_are_a_stretch_that_stands_still(kind, spacing):
    point = np.float32([0.1, -7.3, 1e-3])
    path = Path(np.stack([point, point, point]), 6, kind, spacing=spacing)
    assert path[0 : len(path)].tobytes() == np.tile(point, (11, 1)).tobytes()
    assert path.t.tolist() == (np.arange(11) / 5).tolist()
    mixed = Path(np.stack([point, point, 2 * point]), 6, kind, spacing=spacing)
    z, t = mixed[0 : len(mixed)], mixed.t
    assert (z[t <= 1] == point).all()
    assert (z[-1] == 2 * point).all()
    assert (t == 1).sum() == 1


@given(st.integers(1, 4), st.integers(2, 4), st.integers(2, 7), st.sampled_from(KINDS), st.sampled_from(SPACINGS))
def test_several_walks_are_each_what_it_is_alone(walks, count, steps, kind, spacing):
    points = np.random.default_rng(walks * count).normal(size=(walks, count, 3)).astype(np.float32)
    together = Path(points, steps, kind, spacing=spacing)
    alone = [Path(walk, steps, kind, spacing=spacing) for walk in points]
    assert together[0 : len(together)].tobytes() == b"".join(path[0 : len(path)].tobytes() for path in alone)
    t = np.broadcast_to(together.t, (walks, len(alone[0])))
    assert t.tolist() == [path.t.tolist() for path in alone]


@given(st.sampled_from(SPACINGS), st.integers(1, 3), st.data())
def test_a_row_of_several_walks_has_the_same_bits_in_every_slice(spacing, walks, data):
    points = np.random.default_rng(5).normal(size=(walks, 3, 4)).astype(np.float32)
    path = Path(points, 17, "slerp", spacing=spacing)
    along = PathContext(np.float32([[0, 1], [2, -1]]), path, 3)
    start = data.draw(st.integers(0, len(path) - 1))
    stop = data.draw(st.integers(start + 1, len(path)))
    assert path[start:stop].tobytes() == path[0 : len(path)][start:stop].tobytes()
    assert along[start:stop].tobytes() == along[0 : len(along)][start:stop].tobytes()


def test_a_context_is_linear_in_t_between_those_that_are_given():
    t = np.array([0, 0.5, 1, 2, 3])
    ends, points = np.float32([[0], [6]]), np.float32([[0], [1], [5], [5]])
    assert context_at(ends, t, 4).ravel().tolist() == [0, 1, 2, 4, 6]
    assert context_at(points, t, 4).ravel().tolist() == [0, 0.5, 1, 5, 5]
    assert context_at(ends[1:], t, 4).ravel().tolist() == [6] * 5


def test_opposite_points_of_a_later_walk_are_named():
    points = np.float32([[[1, 0], [0, 1]], [[1, 2], [-1, -2]]])
    with pytest.raises(InvalidArgument, match="points 2 and 3 are exactly opposite") as caught:
        Path(points, 3, "slerp")
    assert [reason.row for reason in caught.value.errors] == [2]
