"""The reader of large bodies, held against the one of small ones: the same arguments, or a refusal."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.api.codecs import large_json
from service.api.codecs.codec import MOST_COLUMNS
from service.api.codecs.items import Items
from service.api.codecs.json import Json, json_value
from service.api.codecs.large_json import Parsers, read_object
from service.api.native.arrays import event_rows
from service.errors import ClientGone, DeadlineExceeded, InvalidArgument, MalformedBody, PushforwardError
from service.exchange import UNWATCHED, Watch
from tests.service.api.codecs.tables import listed


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(large_json, "BLOCK_BYTES", 12)
    monkeypatch.setattr(large_json, "LONGEST_BYTES", 40)
    monkeypatch.setattr(large_json, "_SCANNED", 16)
    monkeypatch.setattr(large_json, "_SHORT_BYTES", 24)


PARSERS = Parsers()


def read(body):
    """The arguments, with items as lists."""
    return {name: listed(value) for name, value in read_object(body, UNWATCHED, PARSERS).items()}


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


def exact(value):
    """A value as a text, with each number as float64."""
    match value:
        case list():
            return [exact(item) for item in value]
        case dict():
            return {name: exact(item) for name, item in value.items()}
        case bool() | str() | None:
            return value
    return float(value).hex()


@given(bodies())
@example(b'{"x":[],[NaN,NaN,NaN,NaN]],"x":null}')
def test_it_reads_what_the_other_reads_or_refuses(body):
    try:
        arguments = read(body)
    except PushforwardError:
        return
    if b"\\u" not in body:  # beside which the other refuses NaN, wherever it stands
        assert exact(arguments) == exact(json_value(body))


@given(bodies())
def test_what_the_other_reads_is_read(body):
    try:
        expected = json_value(body)
    except PushforwardError:
        return
    if isinstance(expected, dict):
        with contextlib.suppress(InvalidArgument):  # an item is too long
            assert exact(read(body)) == exact(expected)


@given(bodies())
def test_both_end_alike(body):
    def end(codec):
        try:
            arguments = codec.decode(body, "x")
            rows = event_rows(arguments.get("x"), (2,), ("body", "x")).tobytes()
            return rows, {name: exact(listed(value)) for name, value in arguments.items() if name != "x"}
        except PushforwardError as error:
            return error

    large, small = Json(), Json()
    large._LARGE, small._LARGE = 0, 1 << 60
    ends = end(large), end(small)
    if not all(isinstance(each, PushforwardError) for each in ends):
        apart = b"\\u" in body  # beside which the other refuses NaN, wherever it stands
        assert ends[0] == ends[1] or apart or "an item of more than" in str(ends[0])
    elif ends[0].code == ends[1].code and ends[0].code in ("not_finite", "invalid_argument"):
        assert ends[0].errors == ends[1].errors or "an item of more than" in str(ends[0])


@pytest.mark.parametrize("shape", [(50, 3), (9, 2, 3, 1), (200, 1), (1, 80), (2, 60), (90,)])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",\n  ", ": ")])
def test_numbers_are_read_as_arrays(shape, separators):
    x = np.random.default_rng(0).normal(size=shape)
    body = json.dumps({"model": "a", "version": 2, "x": x.tolist(), "return": ["z"]}, separators=separators).encode()
    for each in (body, bytearray(body)):
        arguments = read_object(each, UNWATCHED, PARSERS)
        assert list(arguments) == ["model", "version", "x", "return"]
        blocks = list(arguments["x"].blocks())
        assert len(blocks) > 1 or shape[0] == 1
        assert all(isinstance(block, np.ndarray) for block in blocks)
        assert np.concatenate(blocks).tobytes() == x.tobytes()


def test_a_second_array_is_read_too():
    x, context = np.arange(60.0).reshape(30, 2), np.arange(90.0).reshape(30, 3)
    arguments = read(json.dumps({"x": x.tolist(), "context": context.tolist()}).encode())
    assert (np.array(arguments["x"]) == x).all()
    assert (np.array(arguments["context"]) == context).all()


def test_objects_are_read_with_what_stands_in_their_texts(monkeypatch):
    monkeypatch.setattr(large_json, "LONGEST_BYTES", 400)
    rows = [{"a": at, 'b"}],[{': "],\\" * at, "c": "\\" * (at % 4)} for at in range(40)]
    assert read(json.dumps({"x": rows, "y": 1}).encode()) == {"x": rows, "y": 1}


ROWS = "[1,2]," * 20


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (f'{{"x": [{ROWS}]}}', "trailing comma"),
        (f'{{"x": [{ROWS}[1,2]]}} ]', r"unexpected character \(line 1, column 136\)"),
        (f'{{"x": [{ROWS}[1,2]],[[1,2]]}}', "column 13[0-9]"),
        (f'{{"x": [{ROWS}[1,2]}}', "unexpected end of data"),
        (f'{{"x":\n [{ROWS}\n[1,tru]]}}', r"\(line 3, column 4\)"),
        (f'{{"x": [{ROWS}[1,2]] "y": 1}}', "unexpected character"),
        (f'{{"x": [{ROWS}[1,2]], y: 1}}', "unexpected character"),
        (f'{{"x": [{ROWS}[1,2]],}}', "unexpected character"),
        (f'{{"x" [{ROWS}[1,2]]}}', "unexpected character"),
        (f'{{"x": [{ROWS}[1,2]', "unexpected end of data"),
        ('{"x', "unexpected end of data"),
        ("", "empty"),
        (" \n", "empty"),
        ("\x00{", "UTF-16"),
        (f'{{"x": {"[" * 70}1{"]" * 70}}}', "nested too deep"),
        (f'{{"x": [{{"a": {"[" * 70}1{"]" * 70}}}]}}', "nested too deep"),
        ('{"a":' * 70 + "1" + "}" * 70, "unexpected character"),
        ("{" + ",".join(f'"{at}":1' for at in range(MOST_COLUMNS + 1)) + "}", "more than 32768 names"),
        (f'{{"x": "{"a" * 70_000}"}}', "a text of more than 65536 bytes"),
    ],
)
def test_what_is_not_json_is_told(body, told):
    with pytest.raises(MalformedBody, match=told):
        read(body.encode())


def test_reading_ends_at_the_first_item_that_cannot_be():
    body = f'{{"x": [{ROWS}[1,"a"],{"[1,2]," * 1000}[1,2]]}}'.encode()
    blocks = read_object(body, UNWATCHED, PARSERS)["x"].blocks
    counted = []

    class Counted(Items):
        def blocks(self):
            for block in blocks():
                counted.append(len(block))
                yield block

    with pytest.raises(InvalidArgument, match="x, row 20, column 1: expected a number, and found a string"):
        event_rows(Counted(), (2,), ("body", "x"))
    assert sum(counted) < 30


def test_a_body_that_nobody_waits_for_is_read_no_further():
    body = f'{{"x": [{ROWS}[1,2]], "y": [{{}},{ROWS}[1,2]]}}'.encode()
    watch = Watch()
    x = read_object(body, watch, PARSERS)["x"].blocks()
    next(x)
    watch.abandoned = True
    with pytest.raises(ClientGone):
        next(x)
    for late in (watch, Watch(1.0, lambda: 2.0)):
        with pytest.raises((ClientGone, DeadlineExceeded)):
            read_object(body, late, PARSERS)


def test_its_parser_is_used_again_after_a_failure():
    parsers = Parsers()
    for _ in range(3):
        assert parsers.numbers(b"[1,tru]", 0, 7) is None
        assert parsers.numbers(b"[1,2],[3,4]", 0, 11).shape == (2, 2)
    assert parsers._free.qsize() == 1


@pytest.mark.parametrize("at", [0, 20, 39])
def test_the_text_between_two_float32_is_rounded_to_its_own(at):
    x = np.ones((40, 2), np.float32)
    x[at] = 7.038530691851209e-26, -7.038530691851209e-26
    text = orjson.dumps({"x": x}, option=orjson.OPT_SERIALIZE_NUMPY)
    assert b"7.038531e-26,-7.038531e-26" in text
    items = read_object(text, UNWATCHED, PARSERS)["x"]
    assert event_rows(items, (2,), ("body", "x")).tobytes() == x.tobytes()
