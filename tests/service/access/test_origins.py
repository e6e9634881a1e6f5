from __future__ import annotations

import pytest

from service.access.origins import Origins, is_preflight

HOST = {"host": "localhost:8000"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "FOO"])
@pytest.mark.parametrize(
    ("fields", "foreign"),
    [
        ({}, False),
        ({"origin": "http://localhost:8000"}, False),
        ({"origin": "HTTP://LOCALHOST:8000"}, False),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "anything"}, True),
        ({"origin": "http://localhost:3000"}, True),
        ({"origin": "http://localhost"}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"origin": "file://"}, True),
        ({"origin": "http://evil.example"}, True),
        ({"origin": "http://evil.example", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "cross-site"}, True),
        ({"origin": "http://localhost:8000, http://evil.example"}, True),
    ],
)
def test_a_foreign_page_may_not_do_more_than_read(method, fields, foreign):
    assert Origins().is_foreign(method, HOST | fields) == foreign
    assert not Origins(["*"]).is_foreign(method, HOST | fields) or "origin" not in fields


def test_the_usual_port_need_not_stand_there():
    assert not Origins().is_foreign("POST", {"host": "example.org", "origin": "https://example.org"})
    assert not Origins().is_foreign("POST", {"host": "example.org:443", "origin": "https://example.org"})
    assert Origins().is_foreign("POST", {"host": "example.org:443", "origin": "http://example.org"})


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_whoever_reads_may_come_from_anywhere(method):
    assert not Origins().is_foreign(method, HOST | {"origin": "http://evil.example", "sec-fetch-site": "cross-site"})


def test_a_named_origin_may_do_what_the_servers_own_may():
    origins = Origins(["https://example.org/"])
    fields = HOST | {"origin": "https://example.org", "sec-fetch-site": "cross-site"}
    assert not origins.is_foreign("POST", fields)
    assert origins.answer_fields("https://example.org")["Access-Control-Allow-Origin"] == "https://example.org"
    assert origins.answer_fields("https://evil.example") == {"Vary": "Origin"}
    assert origins.answer_fields(None) == {"Vary": "Origin"}
    assert Origins().answer_fields("https://example.org") == {}


def test_a_preflight_is_known_by_its_fields():
    fields = {"origin": "https://example.org", "access-control-request-method": "POST"}
    assert is_preflight("OPTIONS", fields)
    assert not is_preflight("POST", fields)
    assert not is_preflight("OPTIONS", {"origin": "https://example.org"})
