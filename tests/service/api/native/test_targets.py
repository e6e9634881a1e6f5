from __future__ import annotations

import numpy as np
import pytest

from service.api.native.targets import log_target_rows
from service.errors import InvalidArgument, NotFinite, WrongShape

LOC = ("body", "log_target")


@pytest.mark.parametrize(
    "value",
    [[-1.5, None, 2], [[-1.5], [None], [2]], np.array([-1.5, -np.inf, 2.0]), np.array([[-1.5], [-np.inf], [2]])],
)
def test_numbers_and_null(value):
    found = log_target_rows(value, 3, LOC)
    assert found.dtype == np.float64
    assert found.tolist() == [-1.5, -np.inf, 2.0]


@pytest.mark.parametrize(
    ("value", "error", "match", "row"),
    [
        ([1.0, float("nan")], NotFinite, "log_target, row 1: expected a finite number.*found NaN", 1),
        (np.array([1.0, np.inf]), NotFinite, "row 1.*found infinity", 1),
        ([1.0, 10**400], NotFinite, "row 1.*found infinity", 1),
        ([1.0, "2"], InvalidArgument, "row 1: expected a number, and found a string", 1),
        ([True, 1.0], InvalidArgument, "row 0: expected a number, and found a boolean", 0),
        ([[1.0, 2.0], 1.0], InvalidArgument, "row 0: expected a number, and found an array", 0),
        ([1.0], WrongShape, "expected a number for each of the 2 rows, and found 1", None),
        (np.ones((2, 2)), WrongShape, r"expected shape \[2\], and found \[2, 2\]", None),
        (1.0, InvalidArgument, "expected an array of 2 numbers, and found a number", None),
        ({"a": 1}, InvalidArgument, "found an object", None),
    ],
)
def test_what_is_no_target_is_named(value, error, match, row):
    with pytest.raises(error, match=match) as caught:
        log_target_rows(value, 2, LOC)
    assert (caught.value.errors[0].loc, caught.value.errors[0].row) == (LOC, row)
