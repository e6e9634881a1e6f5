"""Samples that stream, through a real server: memory that does not grow, clients that go, answers that break off."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.server import Server
from tests.service.api.media import ALL
from tests.waiting import until

EVERY = pytest.mark.parametrize("media", ALL, ids=lambda media: media.name)


@pytest.fixture(scope="module")
def server(repository):
    process = Server("--repository", repository, "--default-flow", "coupling")
    yield process
    assert process.stop() == 0


NOISE = 20_000_000
"""In bytes. Buffers that are in use at once move the peak of a busy machine by 10 MB and more. An answer that is held
whole takes more than three times as much."""


def memory(server: Server) -> int:
    """The most that the server has had in memory, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def processor_seconds(server: Server) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def received(server: Server, media, n: int) -> int:
    """The bytes of a sample, none of which is kept."""
    size = 0
    with httpx.stream(
        "GET", f"{server.url}/sample", params={"n": n, "seed": 1}, headers={"accept": media.name}, timeout=60
    ) as answer:
        assert answer.status_code == 200
        for piece in answer.iter_raw():
            size += len(piece)
    return size


@EVERY
def test_memory_does_not_grow_with_the_rows(server, media):
    received(server, media, 200_000)
    before = memory(server)
    size = received(server, media, 3_000_000)
    assert size >= 60_000_000
    assert memory(server) - before < NOISE


@pytest.mark.slow
@EVERY
def test_ten_million_rows_stream(server, media):
    received(server, media, 100_000)
    before = memory(server)
    assert received(server, media, 10**7) >= 2 * 10**8
    assert memory(server) - before < NOISE


def idle(server: Server) -> Callable[[], bool]:
    """A condition: the server has computed next to nothing since it was last asked."""
    before = float("-inf")

    def holds() -> bool:
        nonlocal before
        last, before = before, processor_seconds(server)
        return before - last <= 0.05

    return holds


def asked(server: Server, media, n: int, more: str = "") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    connection.sendall(f"GET /sample?n={n}{more} HTTP/1.1\r\nHost: x\r\nAccept: {media.name}\r\n\r\n".encode())
    return connection


@EVERY
def test_when_the_client_goes_the_server_stops(server, media):
    with asked(server, media, 10**8) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")
    until(idle(server), pause=0.3)


def test_a_client_that_does_not_read_is_waited_for_and_costs_nothing(server):
    before = memory(server)
    with asked(server, ALL[0], 10**8):
        until(idle(server), pause=0.3)
        assert memory(server) - before < 32_000_000  # of 800 MB that it asked for
        assert httpx.get(f"{server.url}/health/live").status_code == 200


def test_others_are_answered_meanwhile(server):
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=server.url) as client:
        large = pool.submit(received, server, ALL[2], 900_000)
        count = 0
        while not large.done():
            assert client.post("/logprob", content=json.dumps({"x": [[0] * 5]})).status_code == 200
            count += 1
        assert large.result() > 0
    assert count > 10


@EVERY
def test_an_answer_that_breaks_off_has_no_end(server, media):
    # Some later row of this seed lies so far out that at this temperature it is beyond float32.
    with asked(server, media, 2 * 10**6, "&model=two-moons&seed=2&temperature=5e37") as connection:
        pieces = []
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    body = b"".join(pieces)
    assert body.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"transfer-encoding: chunked" in body[:1000]
    assert not body.endswith(b"0\r\n\r\n")
    query = {"n": 2 * 10**6, "model": "two-moons", "seed": 2, "temperature": "5e37"}
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{server.url}/sample", params=query, headers={"accept": media.name}, timeout=60)


def test_what_can_be_refused_is_refused_before_anything_streams(server):
    for query, status in (({"temperature": 1e38, "n": 10**6}, 422), ({"model": "other", "n": 10**6}, 404)):
        answer = httpx.get(f"{server.url}/sample", params={"seed": 1, **query}, headers={"accept": "text/csv"})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_sample_that_streams_does_not_hold_up_the_end(repository):
    process = Server("--repository", repository, "--default-flow", "coupling", "--drain-seconds", 0.5)
    with asked(process, ALL[0], 10**8) as connection:
        connection.recv(1 << 16)
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(process.stop)
            while connection.recv(1 << 20):
                pass
            assert ended.result(30) == 0


def test_a_large_json_body_does_not_hold_up_others(server):
    x = np.random.default_rng(0).normal(size=(200_000, 5)).astype(np.float32)
    body = json.dumps({"x": x.tolist()}).encode()
    assert len(body) > 1 << 24
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=server.url) as client:
        large = pool.submit(httpx.post, f"{server.url}/logprob", content=body, timeout=60)
        count = 0
        while not large.done():
            assert client.get("/health/live").status_code == 200
            count += 1
        assert large.result().status_code == 200
    assert count > 10


def read_whole(connection: socket.socket) -> bytes:
    """All that comes to the end of the connection."""
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


@EVERY
@pytest.mark.parametrize("more", ["", "Connection: keep-alive\r\n"])
def test_an_old_client_reads_a_stream_to_the_end_of_its_connection(server, media, more):
    query = "/sample?n=200000&seed=1&model=two-moons"
    modern = httpx.get(f"{server.url}{query}", headers={"accept": media.name}, timeout=60)
    assert modern.headers["transfer-encoding"] == "chunked"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(f"GET {query} HTTP/1.0\r\n{more}Accept: {media.name}\r\n\r\n".encode())
        head, _, body = read_whole(connection).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert b"connection: close" in head
    assert body == modern.content


def test_an_old_client_sees_that_a_stream_broke_off(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        query = "n=2000000&model=two-moons&seed=2&temperature=5e37"
        connection.sendall(f"GET /sample?{query} HTTP/1.0\r\nAccept: text/csv\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            read_whole(connection)


def test_an_old_client_is_told_apart_from_a_new_one_with_the_same_fields(server):
    for version in ("1.1", "1.0"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            for n in (1, 2, 3) if version == "1.1" else (4,):
                connection.sendall(f"GET /sample?n={n}&model=two-moons HTTP/{version}\r\nHost: x\r\n\r\n".encode())
                received = connection.recv(1 << 16) if version == "1.1" else read_whole(connection)
            assert (b"connection: close" in received) == (version == "1.0")
            assert received.startswith(b"HTTP/1.1 200")
