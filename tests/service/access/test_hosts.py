from __future__ import annotations

import pytest

from service.access.hosts import AllowedHosts, split_authority


@pytest.mark.parametrize(
    "field",
    ["localhost", "x", "pushforward:8000", "LOCALHOST:8000", "localhost.", "127.0.0.1", "127.0.0.1:8000", "10.1.2.3:80",
     "[::1]", "[::1]:8000", "[fe80::1%25eth0]:80", "flows.example.org", "FLOWS.example.org.:443", "a.b.wild.org"],
)  # fmt: skip
def test_these_pass(field):
    assert AllowedHosts(["flows.example.org", "*.wild.org"]).allow(field)


@pytest.mark.parametrize(
    "field",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8000", "wild.org",
     "evilwild.org",
     "flows.example.org.evil", "user@localhost", "localhost/x", "localhost, evil", "[::1", "[::1].evil", "2130706433",
     "0x7f.1", "127.1", "0x7f", "evil%2eexample", "localhost:abc", "localhost:", " ", "::1", ".", "", ".:80"],
)  # fmt: skip
def test_these_do_not(field):
    assert AllowedHosts(["flows.example.org", "*.wild.org"]).allow(field) == (field == "localhost:")


def test_every_name_can_be_let_in():
    assert AllowedHosts(["*"]).allow("evil.example")


def test_an_authority_is_split():
    assert split_authority("Example.ORG.:80") == ("example.org", 80)
    assert split_authority("[::1]:80") == ("::1", 80)
    assert split_authority("a b") is None
