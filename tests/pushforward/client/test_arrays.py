from __future__ import annotations

import doctest

import numpy as np
import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import pushforward.client.arrays
from pushforward.client.arrays import dump_numbers, read_array, restore_float32, to_floats, widen_tie
from pushforward.client.errors import InvalidInput, UnexpectedAnswer

# Every positive float32 was tried once, its shortest text (std::to_chars) read as a float64 and rounded: this one alone
# comes back as its neighbour.
BETWEEN = np.array([0x15AE43FD, 0x95AE43FD], np.uint32).view(np.float32)

finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from(BETWEEN.tolist())
tables = arrays(np.float32, array_shapes(max_dims=4, max_side=5), elements=finite32)


def bits(array):
    return np.asarray(array, np.float32).view(np.uint32).tolist()


@settings(deadline=None)
@given(tables)
def test_float32_survives_the_text_that_is_sent(array):
    read_by_anyone = np.array(orjson.loads(dump_numbers(widen_tie(array))), np.float64).astype(np.float32)
    assert bits(read_by_anyone) == bits(array)


@settings(deadline=None)
@given(tables)
def test_float32_survives_the_text_that_a_server_sends(array):
    assert bits(read_array(orjson.loads(dump_numbers(array)), "x")) == bits(array)


def test_the_one_text_between_two_float32():
    text = dump_numbers(BETWEEN)
    assert text == b"[7.038531e-26,-7.038531e-26]"
    numbers = np.array(orjson.loads(text))
    assert bits(numbers.astype(np.float32)) != bits(BETWEEN)
    assert bits(restore_float32(numbers)) == bits(BETWEEN)


@settings(deadline=None)
@given(arrays(np.float64, st.integers(1, 20), elements=st.floats(allow_nan=False)))
def test_other_float64_are_rounded_to_the_nearest(numbers):
    assume(not np.isin(np.abs(numbers), np.abs(orjson.loads(dump_numbers(BETWEEN)))).any())
    with np.errstate(over="ignore"):
        assert bits(restore_float32(numbers)) == bits(numbers.astype(np.float32))


@settings(deadline=None)
@given(arrays(st.sampled_from(["f4", "f8", "i4", "u1", "i8", "?"]), array_shapes(max_dims=3, max_side=4)))
def test_numbers_of_any_type_are_taken_or_refused(values):
    with np.errstate(over="ignore", invalid="ignore"):
        expected = values.astype(np.float32)
    if np.isfinite(expected).all():
        taken = to_floats(values, "x")
        assert taken.dtype == np.float32
        assert taken.shape == values.shape
        assert taken.flags.c_contiguous
        assert bits(taken) == bits(expected)
    else:
        with pytest.raises(InvalidInput):
            to_floats(values, "x")


@pytest.mark.parametrize(
    ("value", "row", "column", "words"),
    [
        ([[1, 2], [3, np.nan]], 1, 1, r"x\[1, 1\] = nan is not finite"),
        ([[1, 2], [-np.inf, 4]], 1, 0, "-inf is not finite"),
        ([[1, 1e39], [3, 4]], 0, 1, r"1e\+39 is beyond the range of float32"),
        (np.full((3, 2, 2, 1), [[[1], [2]], [[np.nan], [4]]]), 0, 2, r"x\[0, 1, 0, 0\]"),
        ([0.0, np.inf], 0, 1, r"x\[1\]"),
        (np.nan, 0, 0, "x = nan"),
    ],
)
def test_what_is_not_finite_is_named_by_row_and_column(value, row, column, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        to_floats(value, "x")
    assert (caught.value.errors[0].row, caught.value.errors[0].column) == (row, column)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1, 2], [3]], "ragged"),
        ([["1"]], "real numbers"),
        ([[1j]], "real numbers"),
        ([], "no rows"),
        (np.zeros((0, 3)), r"no rows: its shape is \[0, 3\]"),
        ([[None]], "real numbers"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(value, words):
    with pytest.raises(InvalidInput, match=words):
        to_floats(value, "x")


def test_the_examples():
    found = doctest.testmod(pushforward.client.arrays)
    assert found.attempted >= 3
    assert found.failed == 0


def test_many_faults_are_capped():
    with pytest.raises(InvalidInput) as caught:
        to_floats(np.full((1000, 2), np.nan), "x")
    assert len(caught.value.errors) == InvalidInput.MAX_REASONS


def test_null_is_restored_only_where_it_may_stand():
    assert read_array([1.5, None], "log_prob", null=-np.inf).tolist() == [1.5, -np.inf]
    with pytest.raises(UnexpectedAnswer, match="'x' holds a null"):
        read_array([[1.5, None]], "x")


@pytest.mark.parametrize("value", [None, "a", 1.0, ["a"], [[1], [2, 3]], [{}]])
def test_what_is_no_array_in_an_answer_is_unexpected(value):
    with pytest.raises(UnexpectedAnswer):
        read_array(value, "x")
