"""What can be known of a column before a fit is told, with a row, a value and a way out; sound ones are passed over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.column_faults import describe_faults

RANDOM = np.random.default_rng(0)
AGES = RANDOM.integers(0, 99, 5000).astype(float)


def told(values: np.ndarray) -> list[str]:
    return describe_faults(np.asarray(values, float), "column 'v'", "v", lambda row: f"line {row + 2}")


def with_marks(values: np.ndarray, mark: float, share: float = 0.02) -> np.ndarray:
    values = values.copy()
    values[10 :: round(1 / share)] = mark
    return values


@pytest.mark.parametrize("mark", [-999999.0, 999999.0, -9999.0, 999.0, 1e20, -1e30, 2147483647.0, 123456.0])
def test_a_mark_of_what_is_missing_is_told_with_its_rows_and_the_filter(mark):
    (said,) = told(with_marks(AGES, mark))
    assert said.startswith(f"column 'v' is {mark:.10g} in 100 of 5000 rows (2.0%; the first is line 12)")
    assert "(0 to 98)" in said
    assert f"--where 'v!={mark:.10g}'" in said


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("mark", [99, 9999, 999999, 999999999, 32768, 32767, 2147483648, 2147483647])
def test_a_usual_mark_is_told_where_it_is_less_far_than_others_have_to_be(mark, sign):
    values = RANDOM.normal(size=5000) * mark / 5
    (said,) = told(with_marks(values, sign * mark))
    assert said.startswith(f"column 'v' is {sign * mark:.10g} in 100 of 5000 rows")
    assert told(with_marks(values, sign * (mark - 5.5))) == []


def test_two_marks_are_told_apart_and_from_a_heavy_tail():
    values = with_marks(with_marks(RANDOM.normal(size=5000), -999999.0), -888888.0, 0.0101)
    assert [said[: said.index(" in ")] for said in told(values)] == [
        "column 'v' is -999999",
        "column 'v' is -888888",
    ]


def counts_with_a_few_of_a_million() -> np.ndarray:
    values = RANDOM.poisson(3.0, 5000).astype(float)
    values[[7, 8, 9]] = 1e6, 1.1e6, 9.9e5
    return values


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (counts_with_a_few_of_a_million(), ["it is 1.1e+06 in line 10", "log(1 + x)", "from 0 to 6"]),
        (np.exp(3 * RANDOM.normal(size=5000)), ["its logarithm"]),
        (RANDOM.standard_cauchy(5000), ["arcsinh(x)"]),
        (-np.exp(3 * RANDOM.normal(size=5000)), ["arcsinh(x)", "--where 'v>-"]),
        (np.where(RANDOM.random(5000) < 0.9, 0.0, np.exp(3 * RANDOM.normal(size=5000))), ["log(1 + x)"]),
    ],
    ids=["counts", "lognormal", "Cauchy", "negative", "mostly zero"],
)
def test_a_heavy_tail_is_told_with_its_farthest_row_and_a_transform(values, words):
    (said,) = told(values)
    assert said.startswith("column 'v' has a heavy tail: it is ")
    assert f"line {int(np.abs(values - np.median(values)).argmax()) + 2}," in said
    for word in (*words, "--where 'v", "--precision float64"):
        assert word in said


@pytest.mark.parametrize(
    "values",
    [
        1e9 + RANDOM.permutation(5000),
        1.7e9 + 86400 * RANDOM.random(5000),
        2.9e10 + 1e6 * RANDOM.normal(size=5000),
        -1e6 + RANDOM.normal(size=5000),
    ],
    ids=["numbers of rows", "a day of timestamps", "money", "negative"],
)
def test_more_digits_than_float32_keeps_are_told_with_the_step(values):
    (said,) = told(values)
    middle = np.median(values)
    assert said.startswith("column 'v' varies little beside its size")
    assert f"knows a value near {middle:.7g} to {np.spacing(np.float32(abs(middle))):.2g}" in said
    for word in ("an offset", "--precision float64", "leave the column out"):
        assert word in said


@pytest.mark.parametrize(
    "values",
    [
        AGES,
        RANDOM.normal(size=5000),
        RANDOM.exponential(size=5000),
        RANDOM.standard_t(3, 5000),
        np.exp(RANDOM.normal(size=5000)),
        1990 + RANDOM.integers(0, 35, 5000).astype(float),
        300 + 10 * RANDOM.normal(size=5000),
        (RANDOM.random(5000) < 0.01).astype(float),
        RANDOM.integers(0, 3, 5000) * 1000.0,
        np.where(RANDOM.random(5000) < 0.5, 0.0, RANDOM.random(5000)),
        RANDOM.random(30),
        np.zeros(30),
    ],
)
def test_sound_columns_are_passed_over(values):
    assert told(values) == []


@given(
    st.floats(-1e3, 1e3), st.floats(1e-2, 1e3), st.sampled_from([-1.0, 1.0]), st.integers(3, 200), st.integers(0, 2**31)
)
@settings(max_examples=40, deadline=None)
def test_a_far_value_that_repeats_is_a_mark_whatever_the_units(middle, scale, sign, count, seed):
    values = middle + scale * np.random.default_rng(seed).normal(size=2000)
    mark = middle + sign * 1e3 * scale
    values[:count] = mark
    found = told(values)
    assert len([said for said in found if "a mark of what is missing" in said]) == 1
    assert f"in {count} of 2000 rows" in found[0]
