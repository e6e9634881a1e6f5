from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from service.engine.verbs.arc_length import Arc, share_steps


def arc(growth, angle, radius):
    return Arc(*(np.array([value], np.float64) for value in (growth, angle, radius)))


@pytest.mark.parametrize(
    ("growth", "angle", "radius"), [(0, 1.5, 2), (3, 3.1, 1e-3), (-5, 3.14, 5.001), (2, 0, 7), (1e-9, 2, 1)]
)
def test_the_length_is_the_integral_of_the_speed_and_back(growth, angle, radius):
    curve = arc(growth, angle, radius)
    for s in (0.1, 0.5, 1.0):
        exact, _ = integrate.quad(lambda u: np.hypot(growth, angle * (radius + growth * u)), 0, s, epsabs=1e-12)
        found = curve.length(np.array([s]))
        np.testing.assert_allclose(found, exact, rtol=1e-7)
        np.testing.assert_allclose(curve.fraction(found), s, atol=1e-9)


def test_a_curve_without_length_stands_still():
    assert arc(0, 0, 0).length(np.ones(1)) == 0
    assert arc(0, 0, 0).fraction(np.zeros(1)) == 0


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6), st.integers(0, 50))
def test_every_segment_gets_a_step_and_no_step_is_lost(lengths, more):
    steps = len(lengths) + more
    (given,) = share_steps(np.array([lengths]), steps)
    assert given.sum() == steps
    assert given.min() >= 1
    total = sum(lengths)
    if total > 0 and min(lengths) / total * steps >= 1:
        np.testing.assert_allclose(given, np.array(lengths) / total * steps, atol=1 + len(lengths))


@pytest.mark.parametrize(
    ("lengths", "steps", "shares"),
    [([3, 1, 0], 9, [6, 2, 1]), ([1, 1], 5, [3, 2]), ([0, 0, 0], 6, [2, 2, 2]), ([1, 0], 2, [1, 1]), ([5], 4, [4])],
)
def test_steps_are_shared_out_in_proportion_to_the_lengths(lengths, steps, shares):
    assert share_steps(np.array([lengths], np.float64), steps).tolist() == [shares]
