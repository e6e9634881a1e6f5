from __future__ import annotations

import resource

import pytest

from service.access.connections import ConnectionCaps, within_descriptors
from service.errors import TooManyConnections


def test_one_too_many_is_refused_and_there_is_room_again():
    caps = ConnectionCaps(2)
    caps.enter("10.0.0.1")
    caps.enter("10.0.0.2")
    with pytest.raises(TooManyConnections, match="2 connections"):
        caps.enter("10.0.0.3")
    for address in ("10.0.0.3", "10.0.0.1"):
        caps.leave(address)
    caps.enter("10.0.0.4")


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"),
        ("10.0.0.1", "10.0.0.1", "::ffff:10.0.0.2"),
    ],
)
def test_one_client_may_not_take_all(one, same, other):
    caps = ConnectionCaps(100, 1)
    caps.enter(one)
    with pytest.raises(TooManyConnections, match="of this client"):
        caps.enter(same)
    caps.enter(other)
    for address in (one, same, other):
        caps.leave(address)
    caps.enter(one)


def test_far_beyond_the_cap_nobody_is_told():
    caps = ConnectionCaps(1)
    for _ in range(257):
        with pytest.raises(TooManyConnections) if caps._open else pytest.MonkeyPatch.context():
            caps.enter("10.0.0.1")
    assert not caps.overrun
    with pytest.raises(TooManyConnections):
        caps.enter("10.0.0.1")
    assert caps.overrun


def test_a_cap_leaves_room_for_descriptors(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert within_descriptors(4096) == 1024 - 64 - 256
    assert within_descriptors(10) == 10
    monkeypatch.setattr(resource, "getrlimit", lambda _: (16, 16))
    assert within_descriptors(4096) == 1
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert within_descriptors(4096) == 4096
