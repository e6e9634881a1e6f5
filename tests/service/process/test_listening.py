"""The end of listening, on an event loop that accepts one connection a turn, and takes its time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time

import pytest

from service.process.listening import accept_the_last, refuse_handshakes


@pytest.fixture
def listener():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen(128)
        found.setblocking(False)
        yield found


def connected(listener, held):
    return held.enter_context(socket.create_connection(listener.getsockname(), timeout=30))


def accepted_at_the_end(listener, count, *, shared):
    """How many of so many connections that wait are accepted."""
    accepted = []

    async def main(held):
        def accept():
            time.sleep(0.01)  # what a turn takes on a busy machine
            accepted.append(held.enter_context(listener.accept()[0]))

        asyncio.get_running_loop().add_reader(listener, accept)
        await accept_the_last([listener], time.monotonic() + 60, shared=shared)
        asyncio.get_running_loop().remove_reader(listener)

    with contextlib.ExitStack() as held:
        for _ in range(count):
            connected(listener, held)
        asyncio.run(main(held))
        return len(accepted)


def test_all_that_wait_are_accepted_however_long_it_takes(listener):
    assert accepted_at_the_end(listener, 64, shared=False) == 64


def test_a_socket_that_others_share_is_left_to_them_after_a_while(listener):
    assert 0 < accepted_at_the_end(listener, 64, shared=True) < 64


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such filter")
def test_a_filter_drops_new_handshakes_and_nothing_else(listener):
    with contextlib.ExitStack() as held:
        before = connected(listener, held)
        assert refuse_handshakes(listener)
        peer = held.enter_context(listener.accept()[0])
        before.sendall(b"asked")
        assert peer.recv(5) == b"asked"
        with socket.socket() as late:
            late.setblocking(False)
            late.connect_ex(listener.getsockname())
            assert late.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x02"  # TCP_SYN_SENT
        with pytest.raises(BlockingIOError):
            listener.accept()
