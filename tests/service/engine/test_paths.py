from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.engine.paths import Path
from service.errors import InvalidArgument

coordinates = st.floats(-100, 100, width=32)
several_points = st.integers(1, 6).flatmap(
    lambda width: arrays.arrays(np.float32, st.tuples(st.integers(2, 5), st.just(width)), elements=coordinates)
)


def walk(points, steps, kind):
    path = Path(np.asarray(points, np.float32), steps, kind)
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
