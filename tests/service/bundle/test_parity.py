from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from service.bundle.parity import log_det_unit, relative_error

arrays = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e12, 1e12) | st.just(-np.inf))


@given(arrays)
def test_an_array_agrees_with_itself_infinities_included(values):
    assert relative_error(values, values) == 0.0


@given(arrays.filter(lambda a: np.isfinite(a).all()), st.floats(0, 1e3))
def test_it_is_the_greatest_error_over_one_plus_size(values, shift):
    expected = max(abs((v + shift) - v) / (1 + abs(v)) for v in values.tolist())
    assert relative_error(values + shift, values) == pytest.approx(expected, abs=1e-300)


@pytest.mark.parametrize(
    ("actual", "expected"), [(np.nan, np.nan), (np.nan, 0), (0, np.nan), (np.inf, 0), (0, -np.inf), (np.inf, -np.inf)]
)
def test_what_cannot_be_compared_is_infinitely_wrong(actual, expected):
    assert relative_error([1.0, actual], [1.0, expected]) == np.inf


def test_shapes_must_match():
    with pytest.raises(ValueError, match="shapes differ"):
        relative_error(np.zeros((2, 1)), np.zeros(2))


def test_nothing_is_no_error():
    assert relative_error([], []) == 0.0


def test_a_log_determinant_is_measured_beside_the_log_prob_that_it_is_a_part_of():
    """What is left of large terms of both signs has their rounding errors, and goes into log_prob alone."""
    unit = log_det_unit([-600.0, -600.0, -np.inf], 784)
    np.testing.assert_array_equal(unit, [601.0, 601.0, 1.0])
    expected = np.array([0.5, -500.0, 2.0])
    assert relative_error((expected + np.array([0.03, 0.0, 0.0])) / unit, expected / unit) == pytest.approx(
        0.03 / 601.5
    )
    assert relative_error((expected + np.array([0.0, 0.0, 0.03])) / unit, expected / unit) == pytest.approx(0.01)
    assert relative_error(-expected / unit, expected / unit) > 0.5, "a wrong sign is seen"


def test_a_log_prob_of_a_row_far_outside_excuses_no_log_determinant():
    unit = log_det_unit([-1e6, 3.0], 16)
    np.testing.assert_array_equal(unit, [17.0, 4.0])
    assert relative_error(np.array([2.5]) / unit[:1], np.array([2.0]) / unit[:1]) > 0.02
