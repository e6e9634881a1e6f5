from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.api.native import arrays as arrays_module
from service.api.native.arrays import context_rows, event_rows
from service.errors import InvalidArgument, MalformedBody, NotFinite, PushforwardError, WrongShape

LOC = ("body", "x")
EVENTS = [(1,), (2,), (5,), (2, 3, 1), (4, 4)]
finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("event", EVENTS)
@settings(deadline=None)
@given(data=st.data())
def test_rows_of_every_accepted_shape_come_back_bit_for_bit(event, data):
    count = data.draw(st.integers(1, 4))
    rows = data.draw(arrays.arrays(np.float32, (count, *event), elements=finite32))
    width = math.prod(event)
    for shape in {(count, *event), (count, width)}:
        assert event_rows(rows.reshape(shape).tolist(), event, LOC).tobytes() == rows.tobytes()
        assert event_rows(rows.reshape(shape), event, LOC).shape == rows.shape
    for shape in {event, (width,)}:
        single = event_rows(rows[0].reshape(shape).tolist(), event, LOC)
        assert single.shape == (1, *event)
        assert single.tobytes() == rows[0].tobytes()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=20,
)


@settings(deadline=None)
@given(json_values, st.sampled_from(EVENTS))
def test_whatever_json_holds_is_read_or_refused_and_never_breaks(value, event):
    rows, refusal = read(value, event)
    if refusal is not None:
        assert refusal.errors[0].loc == LOC
    else:
        assert rows.dtype == np.float32
        assert rows.shape[1:] == event
        assert np.isfinite(rows).all()


@settings(deadline=None)
@given(data=st.data())
def test_blocks_read_what_the_whole_would(data):
    value = data.draw(json_values | st.lists(st.lists(st.integers(0, 3) | st.booleans(), min_size=1, max_size=2)))
    event = data.draw(st.sampled_from(EVENTS))
    whole, refusal = read(value, event)
    with mock.patch.object(arrays_module, "_BLOCK", data.draw(st.integers(1, 3))):
        in_blocks, refusal_in_blocks = read(value, event)
    if refusal is None:
        assert refusal_in_blocks is None
        assert in_blocks.tobytes() == whole.tobytes()
    else:
        assert refusal_in_blocks.errors == refusal.errors
        assert type(refusal_in_blocks) is type(refusal)


def test_a_fault_far_down_is_named_by_its_own_row():
    rows = [[1.0, 2.0] for _ in range(5000)]
    for fault, error, row, column in (([1.0], MalformedBody, 4097, None), ([1.0, "2"], InvalidArgument, 4097, 1)):
        with pytest.raises(error) as caught:
            event_rows([*rows[:4097], fault, *rows[4098:]], (2,), LOC)
        assert (caught.value.errors[0].row, caught.value.errors[0].column) == (row, column)


def read(value, event):
    try:
        return event_rows(value, event, LOC), None
    except PushforwardError as error:
        return None, error


@pytest.mark.parametrize(
    ("value", "message", "row"),
    [
        ([[1, 2], [3]], "the rows are ragged: x, row 1: row has length 1, and the first one has 2", 1),
        ([[1, 2], [3, 4], []], "x, row 2: row has length 0, and the first one has 2", 2),
        ([[0, 1], 3], "the rows are ragged: x, row 1: row is a number, and the first one is an array", 1),
        ([[0, 1], [2, 3], 4, [5]], "x, row 2: row is a number, and the first one is an array", 2),
        ([1, [2]], "x, row 0, column 1: its item [1] is an array, and the first one is a number", 0),
        ([[0, 1], [1, [2]]], "x, row 1, column 1: its item [1] is an array, and the first one is a number", 1),
        ([[[0], [1]], [[2], 3]], "x, row 1: its item [1] is a number, and the first one is an array", 1),
    ],
)
def test_ragged_rows_are_malformed_and_named(value, message, row):
    with pytest.raises(MalformedBody) as caught:
        event_rows(value, (2,), LOC)
    assert message in caught.value.detail
    assert caught.value.errors[0].row == row


IMAGE = [[[1], [2], [3]], [[4], [5], [6]]]
NO_IMAGES = [
    ([[[1], [2], [3]], [[4], [5]]], "its item [1] has length 2, and the first one has 3"),
    ([[[1], [2], [3]], [[4], [5], []]], "its item [1][2] has length 0, and the first one has 1"),
    ([[[1], [2], [3]], 4], "its item [1] is a number, and the first one is an array"),
    ([[[1], [2], [3]], [[4], [5], 6]], "its item [1][2] is a number, and the first one is an array"),
]


@pytest.mark.parametrize(("image", "reason"), NO_IMAGES)
def test_raggedness_inside_an_image_names_the_row_of_the_image(image, reason):
    for value, row in ((image, 0), ([IMAGE, IMAGE, image], 2)):
        with pytest.raises(MalformedBody) as caught:
            event_rows(value, (2, 3, 1), LOC)
        assert caught.value.detail == f"the rows are ragged: x, row {row}: {reason}"
        assert (caught.value.errors[0].row, caught.value.errors[0].column) == (row, None)


def test_a_line_far_down_in_a_single_image_is_named_by_its_own_number():
    image = [[[0.0]] for _ in range(3000)]
    image[2500] = [[0.0], [1.0]]
    with pytest.raises(MalformedBody, match=r"x, row 0: its item \[2500\] has length 2"):
        event_rows(image, (3000, 1, 1), LOC)
    image[2500] = [["a"]]
    with pytest.raises(InvalidArgument, match="x, row 0, column 2500: expected a number, and found a string"):
        event_rows(image, (3000, 1, 1), LOC)


@pytest.mark.parametrize(
    ("value", "message", "row", "column"),
    [
        ([[1, 2], [3, "4"]], "x, row 1, column 1: expected a number, and found a string", 1, 1),
        ([[1, 2], [True, 4]], "x, row 1, column 0: expected a number, and found a boolean", 1, 0),
        ([[None, 2]], "x, row 0, column 0: expected a number, and found null", 0, 0),
        ([1, {}], "x, row 0, column 1: expected a number, and found an object", 0, 1),
        ([[1, 2], None], "x, row 1: expected an array, and found null", 1, None),
        ([[1, None], None], "x, row 0, column 1: expected a number, and found null", 0, 1),
        ([[1, 2], [3, None], None, "a"], "x, row 1, column 1: expected a number, and found null", 1, 1),
        ([None, [1, 2]], "x, row 0, column 0: expected a number, and found null", 0, 0),
        ([[[1], "a"]], "x, row 0: expected an array as its item [1], and found a string", 0, None),
        ([[[1], [2], ["a"]]], "found a string", 0, 2),
        ("1,2", "x: expected an array of numbers, and found a string", None, None),
        (3, "found a number", None, None),
        (None, "found null", None, None),
    ],
)
def test_what_is_no_number_is_named(value, message, row, column):
    with pytest.raises(InvalidArgument) as caught:
        event_rows(value, (2,), LOC)
    assert message in caught.value.detail
    assert (caught.value.errors[0].row, caught.value.errors[0].column) == (row, column)


@pytest.mark.parametrize(
    ("value", "event", "message"),
    [
        ([[1, 2, 3]], (2,), r"expected shape [N, 2] or [2], and found [1, 3]"),
        ([1, 2, 3], (2,), "found [3]"),
        ([[[1, 2]]], (2,), "found [1, 1, 2]"),
        ([], (2,), "found [0]"),
        ([[]], (2,), "found [1, 0]"),
        ([[1, 2, 3, 4, 5]], (2, 3, 1), "expected shape [N, 2, 3, 1] or [2, 3, 1] or [N, 6], and found [1, 5]"),
        ([0.5, 0.25], (1,), "expected shape [N, 1] or [1], and found [2]"),
        (np.zeros((0, 2)), (2,), "expected at least one row, and found none"),
    ],
)
def test_another_shape_is_told_with_what_was_expected(value, event, message):
    with pytest.raises(WrongShape) as caught:
        event_rows(value, event, LOC)
    assert message in caught.value.detail


def test_numbers_beyond_float32_are_named_row_by_row():
    with pytest.raises(NotFinite) as caught:
        event_rows([[1, 1e39], [2, 3], [float("-inf"), 1e308]], (2,), LOC)
    assert caught.value.detail == "x, row 0, column 1: 1e+39 is beyond the range of float32"
    assert [(r.row, r.column) for r in caught.value.errors] == [(0, 1), (2, 0), (2, 1)]
    assert caught.value.errors[1].reason == "-inf is not finite"


def test_a_bad_number_in_an_image_is_named_by_its_place_in_the_flat_event():
    image = np.zeros((2, 2, 3, 1))
    image[1, 1, 0, 0] = np.nan
    with pytest.raises(NotFinite) as caught:
        event_rows(image.tolist(), (2, 3, 1), LOC)
    assert (caught.value.errors[0].row, caught.value.errors[0].column) == (1, 3)


def test_context_keeps_its_axes():
    assert context_rows([1, 2], 2, LOC).shape == (2,)
    assert context_rows([[1, 2]], 2, LOC).shape == (1, 2)


@pytest.mark.parametrize(
    ("value", "width", "error"),
    [
        ([1, 2], 0, WrongShape),
        ([1, 2, 3], 2, WrongShape),
        ([[[1, 2]]], 2, WrongShape),
        ([], 2, WrongShape),
        ([[1, 2], [3]], 2, MalformedBody),
        (["1", 2], 2, InvalidArgument),
        ([math.inf, 2], 2, NotFinite),
    ],
)
def test_a_wrong_context_is_refused(value, width, error):
    with pytest.raises(error):
        context_rows(value, width, ("body", "context"))


cells = st.floats(width=32) | st.floats() | st.integers(-(2**130), 2**130) | st.sampled_from([True, None, "1", [1.0]])


def outcome(value, width):
    try:
        rows = event_rows(value, (width,), LOC)
    except PushforwardError as error:
        return type(error), error.detail, error.errors
    return rows.shape, rows.dtype, rows.tobytes()


@given(st.lists(st.lists(cells, min_size=2, max_size=3), max_size=4))
def test_a_few_rows_are_packed_to_the_bits_and_errors_that_many_have(value):
    quick = outcome(value, 2)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arrays_module, "_FEW", 0)
        assert outcome(value, 2) == quick


def test_a_context_of_no_axes_is_of_the_wrong_shape():
    with pytest.raises(WrongShape, match=r"expected shape \[N, 2\] or \[2\], and found \[\]"):
        context_rows(np.array(1.0), 2, ("body", "context"))
