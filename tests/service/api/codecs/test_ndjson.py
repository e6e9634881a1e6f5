from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from service.api.codecs.ndjson import Ndjson
from service.errors import InvalidArgument, MalformedBody, NotAcceptable
from tests.service.api.codecs.tables import FORM, densities, finite, mutated, read_or_refused, taken

NDJSON = Ndjson()

events = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=4, max_side=4), elements=finite)


@given(events)
def test_an_answer_is_read_back_bit_for_bit(x):
    lines = NDJSON.encode({"x": x}, FORM)
    assert np.array(NDJSON.decode(lines, "x")["x"].argument("x"), np.float32).tobytes() == x.tobytes()


@given(events, st.data())
def test_each_line_is_one_row(x, data):
    log_prob = data.draw(arrays.arrays(np.float32, len(x), elements=densities))
    answer = {"model": "m", "x": x, "log_prob": log_prob, "anomaly": log_prob < 0}
    lines = [json.loads(line) for line in NDJSON.encode(answer, FORM).splitlines()]
    outside = log_prob == -np.inf
    for row, line in enumerate(lines):
        assert list(line) == ["x", "log_prob", "anomaly"] + ["in_support"] * int(outside[row])
        assert np.array(line["x"], np.float32).tobytes() == x[row].tobytes()
        assert line["log_prob"] is None if outside[row] else np.float32(line["log_prob"]) == log_prob[row]
        assert line.get("in_support", True) is not outside[row]


def test_rows_of_several_contexts_follow_each_other():
    answer = {"x": np.arange(12, dtype=np.float32).reshape(2, 3, 2), "log_prob": np.zeros((2, 3), np.float32)}
    assert [json.loads(line)["x"] for line in NDJSON.encode(answer, FORM).splitlines()][3] == [6.0, 7.0]


@given(events, st.data())
def test_pieces_make_the_same_text(x, data):
    cut = data.draw(st.integers(0, len(x)))
    pieces = NDJSON.start({"x": x[:cut]}, FORM, (len(x),)) + NDJSON.more({"x": x[cut:]}, FORM) + NDJSON.end
    assert pieces == NDJSON.encode({"x": x}, FORM)


@pytest.mark.parametrize(
    "lines",
    [
        b"[1,2]\n[3,4]",
        b"[1,2]\r\n\n [3, 4]\r\n",
        b'{"x": [1, 2]}\n{"x": [3, 4]}\n',
        b'{"x": [1, 2], "log_prob": null}\n{"x": [3, 4], "log_prob": -1}\n',
        b'{"x1": 2, "x0": 1}\n{"x0": 3, "x1": 4}\n',
        b'{"x1": 2, "label": "a", "x0": 1}\n{"x0": 3, "x1": 4, "label": "b"}\n',
        b'{"p": 1, "q": 2}\n{"q": 4, "p": 3}\n',
    ],
)
def test_many_ways_to_write_rows(lines):
    assert taken(NDJSON, lines, ["x0", "x1"]).tolist() == [[1, 2], [3, 4]]


def test_a_line_may_hold_its_context():
    lines = b'{"x": [1, 2], "context": [0]}\n{"context": [5], "x": [3, 4]}'
    table = NDJSON.decode(lines, "x")["x"]
    assert table.argument("x") == [[1, 2], [3, 4]]
    assert table.argument("context") == [[0], [5]]


@pytest.mark.parametrize(
    ("lines", "error", "told"),
    [
        (b"", MalformedBody, "empty"),
        (b" \n\n", MalformedBody, "empty"),
        (b"[1,2]\n\n[3,4", MalformedBody, r"line 3, column"),
        (b"[1,2],[3,4]", MalformedBody, "not JSON"),
        (b"[1,2]\n{}", InvalidArgument, "row 1: an object stands beside arrays"),
        (b'{"x": [1]}\n[1]', InvalidArgument, "row 1: an object stands beside arrays"),
        (b'{"x": [1]}\n{"z": [1]}', InvalidArgument, "row 1: the first line has other names; 'x'"),
    ],
)
def test_what_is_wrong_is_told(lines, error, told):
    with pytest.raises(error, match=told):
        NDJSON.decode(lines, "x")


def test_an_answer_that_is_no_table_is_not_acceptable():
    with pytest.raises(NotAcceptable, match="is no table"):
        NDJSON.encode({"steps": [{"name": "a"}], "log_prob": np.zeros(2, np.float32)}, FORM)
    with pytest.raises(NotAcceptable, match="w has other rows"):
        NDJSON.encode({"w": np.zeros(3), "log_prob": np.zeros(2, np.float32)}, FORM)


def test_no_broken_text_is_worse_than_refused():
    seeds = [b'{"x": [1, 2]}\n{"x": [3, 4]}\n', b"[1,2]\n[3,4]\n", b'{"x0": 1, "x1": 2}\n{"x0": 3, "x1": 4}']
    ends = Counter(read_or_refused(NDJSON, body, ["x0", "x1"]) for body in mutated(seeds, 3000))
    assert {"read", "malformed_body", "invalid_argument"} <= set(ends)
