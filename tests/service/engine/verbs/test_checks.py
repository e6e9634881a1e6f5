"""Checks of an answer: the rows that are named, whichever way they went into the run."""

from __future__ import annotations

import numpy as np
import pytest

from service.engine.verbs.checks import check_finite, check_inside, check_outputs
from service.errors import EngineFailed, NotFinite, OutOfSupport, PushforwardError
from service.plan import Outputs

INF = np.float32(np.inf)


def values(count, *bad):
    found = np.zeros((count, 2), np.float32)
    found[list(bad), 1] = np.nan
    return found


def named(error):
    return [(reason.loc, reason.row) for reason in error.errors]


def test_each_row_that_holds_no_number_is_named():
    check_finite(values(9), "x", NotFinite)
    with pytest.raises(EngineFailed, match="row 3: the flow's answer") as caught:
        check_finite(values(9, 3, 7), "x", EngineFailed)
    assert named(caught.value) == [(("x",), 3), (("x",), 7)]


def test_rows_that_went_in_round_after_round_are_named_by_their_place_in_the_round():
    with pytest.raises(NotFinite) as caught:
        check_finite(values(12, 1, 5, 11), "x", NotFinite, period=4)
    assert [row for _, row in named(caught.value)] == [1, 3]


def test_rows_that_went_in_several_times_each_are_named_by_the_row_that_they_repeat():
    with pytest.raises(NotFinite) as caught:
        check_finite(values(12, 1, 2, 11), "context", NotFinite, each=3)
    assert [row for _, row in named(caught.value)] == [0, 3]


def test_no_more_rows_are_named_than_an_error_tells():
    with pytest.raises(NotFinite) as caught:
        check_finite(values(500, *range(500)), "x", NotFinite)
    assert len(caught.value.errors) == PushforwardError.MAX_REASONS


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({}, True),
        ({"log_prob": -INF}, True),
        ({"log_prob": INF}, False),
        ({"log_prob": np.float32(np.nan)}, False),
        ({"log_abs_det_jacobian": -INF}, False),
        ({"value": INF}, False),
        ({"value": INF, "finite": True}, True),  # looked at once a batch
    ],
)
def test_of_all_numbers_log_prob_alone_may_be_minus_infinity(change, passes):
    fields = {"value": values(3), "log_abs_det_jacobian": np.zeros(3, np.float32), "log_prob": np.zeros(3, np.float32)}
    for name, number in change.items():
        if name != "finite":
            fields[name] = fields[name].copy()
            fields[name][2] = number
    outputs = Outputs(**fields, finite=change.get("finite", False))
    if passes:
        check_outputs(outputs, "x", NotFinite)
        return
    with pytest.raises(NotFinite) as caught:
        check_outputs(outputs, "x", NotFinite)
    assert named(caught.value) == [(("x",), 2)]


@pytest.mark.parametrize(("argument", "other"), [("x", "latent"), ("z", "data")])
def test_a_row_of_density_zero_has_no_other_side(argument, other):
    check_inside(np.float32([0, 1]), argument)
    with pytest.raises(OutOfSupport, match=f"{argument}, row 1 lies where .* it has no {other}") as caught:
        check_inside(np.float32([0, -INF, -INF]), argument)
    assert named(caught.value) == [((argument,), 1), ((argument,), 2)]
