from __future__ import annotations

import numpy as np
import pytest

from service.api.codecs import wire
from service.api.codecs.codec import Form
from service.errors import InvalidArgument, MalformedBody, NotAcceptable, UnsupportedMediaType
from service.exchange import Exchange
from tests.service.api.codecs.tables import listed

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
    [
        "text/html",
        "image/png",
        "application/json;q=0",
        *(
            f"application/json;q={weight}"
            for weight in ("x", "", "+1", " +1", "1_0", "nan", "inf", "2", "-1", "1e0", "\u0661")
        ),
    ],
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
    assert listed(values.pop("x").rows(["x0"], ("body", "x"))) == [[1.0]]
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


TEXT = '{"x": [1, "é"]}'


@pytest.mark.parametrize("charset", ["utf-16", '"UTF-16LE"', "utf-32", "iso-8859-1", "windows-1252"])
@pytest.mark.parametrize("content_type", ["application/json", "text/csv", "application/x-ndjson", FORM])
def test_a_charset_that_is_not_read_is_named(content_type, charset):
    name = charset.strip('"').lower()
    for text in (TEXT, "1,2") if name.startswith("utf") else (TEXT,):
        exchange = Exchange(content_type=f"{content_type}; Charset={charset}", body=text.encode(name))
        with pytest.raises(UnsupportedMediaType, match=f"charset '{name}' cannot be read; send it in UTF-8"):
            wire.decode(exchange, "x")


@pytest.mark.parametrize("charset", ["utf-8", '"UTF-8"', "us-ascii", "iso-8859-1", "windows-1252", "no-such"])
def test_a_body_of_ascii_is_the_same_text_in_every_charset(charset):
    exchange = Exchange(content_type=f"application/json; q=1; charset={charset}", body=b'{"x": 1}')
    assert wire.decode(exchange, "x") == ({"x": 1}, "body")


def test_a_charset_does_not_matter_to_what_is_no_text():
    body = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(127) + b"\n\0\0\0\0"
    assert "x" in wire.decode(Exchange(content_type="application/x-npy; charset=utf-16", body=body), "x").values


@pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_body_that_is_not_utf_8_is_told_as_such(content_type, encoding):
    with pytest.raises(MalformedBody, match=r"not JSON in UTF-8.*: it begins as UTF-16 or UTF-32 does"):
        wire.decode(Exchange(content_type=content_type, body='{"x": [1]}'.encode(encoding)), "x")


def test_a_csv_that_is_not_utf_8_is_told_as_such():
    with pytest.raises(MalformedBody, match="not CSV: byte 0 is not UTF-8 and begins as UTF-16 does"):
        wire.decode(Exchange(content_type="text/csv", body="1,2".encode("utf-16")), "x")


def test_a_byte_order_mark_is_passed_over():
    assert wire.decode(Exchange(body=b'\xef\xbb\xbf{"x": [1]}'), "x").values == {"x": [1]}
    lines = wire.decode(Exchange(content_type="application/x-ndjson", body=b"\xef\xbb\xbf[1,2]\n[3,4]\n"), "x")
    assert lines.values["x"].argument("x") == [[1, 2], [3, 4]]
