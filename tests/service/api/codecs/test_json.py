from __future__ import annotations

import contextlib
import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.api.codecs.json import Json
from service.api.native.arrays import event_rows
from service.errors import InvalidArgument, MalformedBody, PushforwardError

floats32 = arrays.arrays(
    np.float32, arrays.array_shapes(max_dims=3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


@given(floats32)
def test_float32_comes_back_bit_for_bit(values):
    encoded = Json().encode({"x": values})
    assert np.array(json.loads(encoded)["x"], np.float32).tobytes() == values.tobytes()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_one_text_between_two_float32_comes_back_too(sign):
    value = sign * np.array([0x15AE43FD], np.uint32).view(np.float32)
    text = Json().encode({"x": value})
    assert np.float32(json.loads(text)["x"][0]) != value[0], "it is the text that rounds twice"
    rows = [Json().decode(text, "x")["x"]]
    assert event_rows(rows, (1,), ("body", "x")).tobytes() == value.tobytes()
    many = event_rows(rows * 40, (1,), ("body", "x"))
    assert many.tobytes() == 40 * value.tobytes()


@pytest.mark.parametrize("text", ["17.038531e-26", "7.038531e-265", "0.7.038531e-26"])
def test_a_longer_text_that_holds_it_is_left_alone(text):
    body = f'{{"x": "{text}"}}'.encode()
    assert Json().decode(body, "x") == {"x": text}


@given(floats32, st.integers(1, 5))
def test_pieces_make_the_same_text(values, piece):
    codec = Json()
    codec._PIECE = piece
    assert codec.encode({"x": values}) == orjson.dumps({"x": values}, option=orjson.OPT_SERIALIZE_NUMPY)


def test_the_shortest_digits_go_out():
    assert Json().encode({"x": np.float32([0.1, 1e-7, 16777216])}) == b'{"x":[0.1,1e-7,16777216.0]}'


def test_a_density_of_zero_is_null_and_out_of_support():
    answer = {"log_prob": np.float32([1.5, -np.inf])}
    assert json.loads(Json().encode(answer)) == {"log_prob": [1.5, None], "in_support": [True, False]}
    assert "in_support" not in json.loads(Json().encode({"log_prob": np.float32([1.5])}))


def test_in_support_has_the_shape_of_log_prob():
    answer = {"log_prob": np.float32([[1.5, -np.inf], [0, 0]])}
    assert json.loads(Json().encode(answer))["in_support"] == [[True, False], [True, True]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b"[1,]",
        b'{"x": nan}',
        b'{"x": [NaN}',
        b'{"x": NaN, "model": "\\\\ud800"}',
        b"\xff",
        b"[" * 5000,
        b'{"x": 1}}',
    ],
)
def test_what_is_not_json_is_malformed(body):
    with pytest.raises(MalformedBody):
        Json().decode(body, "x")


def test_a_malformed_body_says_where():
    with pytest.raises(MalformedBody, match="line 2, column 6"):
        Json().decode(b'{"x":\n [1, }', "x")


def test_a_number_beyond_float64_is_an_infinity_and_not_a_broken_body():
    assert Json().decode(b'{"x": [1e400, -1e400, 5]}', "x") == {"x": [math.inf, -math.inf, 5]}


@pytest.mark.parametrize(
    ("body", "kind"), [(b"[]", "an array"), (b"3", "a number"), (b'"a"', "a string"), (b"null", "null")]
)
def test_the_body_must_be_an_object(body, kind):
    with pytest.raises(InvalidArgument, match=f"must be a JSON object, and is {kind}"):
        Json().decode(body, "x")


@given(st.binary(max_size=40))
def test_no_bytes_break_the_decoder(body):
    with contextlib.suppress(PushforwardError):
        assert isinstance(Json().decode(body, "x"), dict)
