"""The reader of large bodies, held against the one of small ones: the same arguments, or none."""

from __future__ import annotations

import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.codecs import large_json
from service.api.codecs.json import Json
from service.api.codecs.large_json import LargeJson
from service.api.native.arrays import event_rows
from service.errors import PushforwardError


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(large_json, "_PIECE", 12)


READER = LargeJson()

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["-0", "-0.0", "1e-400", "1E5", "0.1e+1", "9007199254740993", "18446744073709551615", "5e-324"]),
)
odd = st.sampled_from(
    [
        "NaN",
        "Infinity",
        "1e400",
        "01",
        "1.",
        "+1",
        ".5",
        "true",
        "null",
        '"1"',
        "[1]",
        "[]",
        "{}",
        '"["',
        '"]"',
        '"\\u005b"',
    ]
)
gaps = st.sampled_from(["", "", "", " ", "\n", "\t", "\r\n ", "\u00a0"])
lists = st.lists(numbers, min_size=2, max_size=2)


def joined(items, gap):
    return "[" + gap + f"{gap},{gap}".join(items) + gap + "]"


@st.composite
def matrices(draw):
    """The text of nested arrays, most often rectangular."""
    gap, depth = draw(gaps), draw(st.integers(1, 3))
    shape = draw(st.lists(st.integers(1, 4), min_size=depth, max_size=depth))

    def nested(axes):
        if not axes:
            return draw(numbers if draw(st.integers(0, 40)) else odd)
        length = axes[0] if draw(st.integers(0, 30)) else draw(st.integers(0, 4))
        return joined([nested(axes[1:]) for _ in range(length)], gap)

    return nested(shape)


names = st.sampled_from(['"x"', '"z"', '"context"', '"log_target"', '"return"', '"m[del"', '"\\u0078"'])
values = (
    matrices()
    | matrices()
    | st.sampled_from(['"two-moons"', "1", '["z"]', "null", "[]", "0.5", '{"x": [[1]]}', '"]["'])
)


@st.composite
def bodies(draw):
    pairs = draw(st.lists(st.tuples(names, values), min_size=1, max_size=4))
    text = draw(gaps) + "{" + ",".join(f"{name}:{draw(gaps)}{value}" for name, value in pairs) + "}" + draw(gaps)
    if draw(st.integers(0, 8)) == 0:
        at = draw(st.integers(0, len(text) - 1))
        text = text[:at] + draw(st.sampled_from(["", "[", "]", ",", "{", "\x00", '"'])) + text[at + 1 :]
    return text.encode()


@given(bodies())
def test_it_reads_what_the_other_reads_or_nothing(body):
    arguments = READER.read(body)
    if arguments is None:
        return
    expected = orjson.loads(body)
    assert list(arguments) == list(expected)
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            assert value.dtype == np.float64
            assert value.tobytes() == np.array(expected[name], np.float64).tobytes()
        else:
            assert repr(value) == repr(expected[name])


@given(bodies())
def test_both_end_alike(body):
    def end(codec):
        try:
            return event_rows(codec.decode(body, "x").get("x"), (2,), ("body", "x")).tobytes()
        except PushforwardError as error:
            return type(error), error.detail, error.errors

    large, small = Json(), Json()
    large._LARGE, small._LARGE = 0, 1 << 60
    assert end(large) == end(small)


@pytest.mark.parametrize("shape", [(50, 3), (9, 2, 3, 1), (200, 1)])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",\n  ", ": ")])
def test_plain_bodies_are_read_here(shape, separators):
    x = np.random.default_rng(0).normal(size=shape)
    body = json.dumps({"model": "a", "version": 2, "x": x.tolist(), "return": ["z"]}, separators=separators).encode()
    arguments = READER.read(body)
    assert list(arguments) == ["model", "version", "x", "return"]
    assert arguments["x"].tobytes() == x.tobytes()
    assert READER.read(bytearray(body))["x"].tobytes() == arguments["x"].tobytes()


def test_a_second_array_is_read_too():
    x, context = np.arange(60.0).reshape(30, 2), np.arange(90.0).reshape(30, 3)
    arguments = READER.read(json.dumps({"x": x.tolist(), "context": context.tolist()}).encode())
    assert (arguments["x"] == x).all()
    assert (arguments["context"] == context).all()


ROWS = "[1,2]," * 20


@pytest.mark.parametrize(
    "body",
    [
        f'{{"x": [{ROWS}[1,[2]]]}}',
        f'{{"x": [{ROWS}[1,2],3]}}',
        f'{{"x": [{ROWS}[1,2,3]]}}',
        f'{{"x": [[1,[2]],{ROWS}[1,2]]}}',
        f'{{"x": [{ROWS}[1,2]], "x": [[1,2]]}}',
        f'{{"x": [{ROWS}[1,true]]}}',
        f'{{"x": [[1,2],[[2],1],{ROWS}[1,2]]}}',
        f'{{"x": [{ROWS}[1,2,3],{ROWS}[1,2]]}}',
        f'{{"model": "a", "x": [{ROWS}[1,2]], "model": "b"}}',
        f'{{"x": [{ROWS}[1,2]], "more": {{"a": 1, "a": 2}}}}',
        f'{{"x": [{ROWS}[1,2]]}} ]',
        f'{{"x": [{ROWS}[1,18446744073709551616]]}}',
        f'\ufeff{{"x": [{ROWS}[1,2]]}}',
        f"[{ROWS}[1,2]]",
        f'{{"x": [{ROWS}[1,2]], "\\u0061": "["}}',
        f'{{"x": [{ROWS}[1,2]],[[1,2]]}}',
        f'{{"x": [{ROWS}]}}',
    ],
)
def test_whatever_is_not_plain_is_left_to_the_other(body):
    assert READER.read(body.encode()) is None


def test_its_parser_is_used_again_after_a_failure():
    good = f'{{"x": [{ROWS}[1,2]]}}'.encode()
    for _ in range(3):
        assert READER.read(good.replace(b"[1,2]]}", b"[1,tru]]}")) is None
        assert READER.read(good)["x"].shape == (21, 2)
    assert READER._parsers.qsize() <= 2


@pytest.mark.parametrize("at", [0, 20, 39])
def test_the_text_between_two_float32_is_rounded_to_its_own(at):
    x = np.ones((40, 2), np.float32)
    x[at] = 7.038530691851209e-26, -7.038530691851209e-26
    text = orjson.dumps({"x": x}, option=orjson.OPT_SERIALIZE_NUMPY)
    assert b"7.038531e-26,-7.038531e-26" in text
    assert event_rows(READER.read(text)["x"], (2,), ("body", "x")).tobytes() == x.tobytes()
