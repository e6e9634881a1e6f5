from __future__ import annotations

import numpy as np
import pytest

from service.api.codecs import wire
from service.api.codecs.codec import Form
from service.errors import InvalidArgument, MalformedBody, NotAcceptable, UnsupportedMediaType
from service.exchange import Exchange

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("content_type", [None, "", "application/json", "Application/JSON; charset=utf-8", FORM])
def test_json_is_read_as_such(content_type):
    exchange = Exchange(content_type=content_type, body=b' {"x": 1}')
    assert wire.decode(exchange, "x") == ({"x": 1}, "body")


@pytest.mark.parametrize(("content_type", "body"), [("text/plain", b"{}"), ("image/png", b""), (FORM, b"x=1&y=2")])
def test_other_types_are_refused_with_what_is_read(content_type, body):
    with pytest.raises(UnsupportedMediaType, match="send application/json"):
        wire.decode(Exchange(content_type=content_type, body=body), "x")


def test_a_form_that_looks_like_json_is_told_as_json():
    with pytest.raises(MalformedBody, match="not JSON"):
        wire.decode(Exchange(content_type=FORM, body=b'{"x": [1,}'), "x")


@pytest.mark.parametrize(
    "accept",
    [None, "", "*/*", "application/json", "application/*", "text/html, */*;q=0.1", "text/html, APPLICATION/JSON;q=0.5"],
)
def test_json_is_acceptable(accept):
    assert wire.accepted(Exchange(accept=accept)).media_type == "application/json"


@pytest.mark.parametrize(
    "accept",
    ["text/html", "image/png", "application/json;q=0", "application/json;q=x"],
)
def test_another_type_is_not_acceptable(accept):
    with pytest.raises(NotAcceptable, match="accept application/json"):
        wire.accepted(Exchange(accept=accept))


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("application/x-npy", "application/x-npy"),
        ("text/*", "text/csv"),
        ("application/json;q=0.5, text/csv", "text/csv"),
        ("application/json;q=0, */*", "application/x-npy"),
        ("application/vnd.apache.arrow.stream;q=0.9, application/x-ndjson", "application/x-ndjson"),
    ],
)
def test_the_type_of_the_greatest_weight_is_written(accept, chosen):
    assert wire.accepted(Exchange(accept=accept)).media_type == chosen


def test_beside_an_array_the_arguments_stand_in_the_query():
    query = (("model", "square"), ("return", "z,quantile"), ("context", "0.5,1"), ("alarm_rate", "0.1"))
    values, place = wire.decode(Exchange(content_type="text/csv", query=query, body=b"1\n"), "x")
    assert place == "query"
    assert values.pop("x").rows(["x0"], ("body", "x")).tolist() == [[1.0]]
    assert values == {"model": "square", "return": ["z", "quantile"], "context": [0.5, 1.0], "alarm_rate": "0.1"}


def test_what_the_body_holds_may_not_stand_in_the_query_too():
    with pytest.raises(InvalidArgument, match="x stands in the query"):
        wire.decode(Exchange(content_type="text/csv", query=(("x", "1"),), body=b"1\n"), "x")


def test_what_has_no_room_in_an_answer_goes_into_its_header():
    answer = {"model": "square", "version": 3, "seed": 7, "log_prob": np.zeros(2, np.float32)}
    reply = wire.encode(wire.CODECS["application/x-npy"], answer, Form("log_prob", []))
    assert reply.headers == {"Pushforward-Model": "square", "Pushforward-Version": "3", "Pushforward-Seed": "7"}
    assert wire.encode(wire.CODECS["application/json"], answer, Form("log_prob", [])).headers == {}


@pytest.mark.parametrize(
    ("content_type", "size", "long"),
    [
        *[(None, 1 << 16, False), (None, (1 << 16) + 1, True), ("application/json", (1 << 16) + 1, True)],
        *[("application/x-npy", (1 << 16) + 1, False), ("Application/X-NPY; v=1", 1 << 20, False)],
        *[("application/x-npy", (1 << 20) + 1, True), ("text/csv", (1 << 16) + 1, True)],
    ],
)
def test_which_bodies_take_long(content_type, size, long):
    assert wire.takes_long(content_type, size) is long
