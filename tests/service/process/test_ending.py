"""The end of a server's process: every request is answered, and the process ends, whatever its threads still do."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.server import Server, environment
from tests.waiting import until

ROW = b'{"x": [[1, 2]]}'
DOORS = {"connection": b"", "application": b"Content-Encoding: identity\r\n"}
GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"

FAULTY = """
import sys, threading, time
from service.settings import read_settings
from service.process.server import serve

never = threading.Event()
{fault}
settings = read_settings(repository=sys.argv[1], default_flow="two-moons", port=0, threads=2, **{settings})
print("begins", flush=True)
serve(settings, lambda url, _: print(url, flush=True))
"""

ENGINE = """
from service.engine.runtime.graph import CpuGraph
honest = CpuGraph.__call__

def hangs(self, rows, context):
    if threading.current_thread().name.startswith("engine") and len(rows) > 500:
        never.wait()
    return honest(self, rows, context)

CpuGraph.__call__ = hangs
"""
DECODE = """
from service.api.helpers import Helpers
Helpers._timed = lambda self, function, args: never.wait()
"""
LOAD = """
from service.engine import registry
honest = registry.read_bundle

def hangs(folder):
    if folder.parent.name != "two-moons":
        print("hangs", flush=True)
        never.wait()
    return honest(folder)

registry.read_bundle = hangs
"""


class Faulty:
    """A server of one process with a fault of its own, once it answers, or begins."""

    def __init__(self, repository, fault, until_line="http", **settings):
        code = FAULTY.format(fault=fault, settings=settings)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(repository)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        line = ""
        while until_line not in line:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
        found = re.search(r":(\d+)$", line.strip())
        self.port = int(found[1]) if found else None

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=60)
        assert "Traceback" not in errors, errors
        return self.process.returncode


@pytest.fixture
def faulty(repository):
    made = []

    def start(*given, **settings):
        made.append(Faulty(repository, *given, **settings))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait()
        one.process.stdout.close()
        one.process.stderr.close()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def rest(connection):
    """All that comes until the end; a reset fails the test."""
    received = b""
    while piece := connection.recv(1 << 16):
        received += piece
    return received


def post(rows, more=b""):
    body = b'{"x": [' + b",".join([b"[1.5, 2.5]"] * rows) + b"]}"
    head = b"POST /logprob HTTP/1.1\r\nhost: x\r\n%bcontent-length: %d\r\n\r\n" % (more, len(body))
    return head + body


@pytest.mark.parametrize("fault", [ENGINE, DECODE], ids=["engine", "decode"])
def test_what_a_thread_that_hangs_was_to_answer_gets_503_and_the_process_ends(faulty, fault):
    server = faulty(fault, drain_seconds=0.5)
    with contextlib.ExitStack() as held:
        clients = [held.enter_context(connect(server.port)) for _ in range(6)]
        for client, more in zip(clients, [*DOORS.values()] * 3, strict=True):
            client.sendall(post(20_000, more))
        half = held.enter_context(connect(server.port))
        half.sendall(post(2, DOORS["application"])[:-3])  # a whole head
        probe = held.enter_context(connect(server.port))
        probe.sendall(GET)
        assert probe.recv(1 << 16).startswith(b"HTTP/1.1 200")  # all of the above has been read by now
        assert server.stop() == 0
        for client in [*clients, half]:
            answer = rest(client)
            assert answer.startswith(b"HTTP/1.1 503 "), answer[:100]
            assert b'"code":"draining"' in answer
            assert b"\r\nretry-after: 1\r\n" in answer
            assert b"\r\nconnection: close\r\n" in answer
            assert answer.count(b"HTTP/1.1") == 1


def test_a_bundle_that_hangs_does_not_keep_the_process(faulty):
    server = faulty(LOAD, drain_seconds=0.5, startup_seconds=0.1)
    assert server.stop() == 0


def test_a_signal_before_the_server_answers_ends_it(faulty):
    server = faulty(LOAD, until_line="hangs", drain_seconds=600, startup_seconds=600)
    assert server.stop() == 0


def test_an_answer_that_streams_is_broken_off_at_the_end(repository):
    server = Server("--repository", repository, "--default-flow", "two-moons", "--drain-seconds", 0.5)
    try:
        ask = b"GET /sample?n=50000000 HTTP/1.%d\r\nhost: x\r\naccept: text/csv\r\n\r\n"
        with connect(server.port) as new, connect(server.port) as old:
            for client, version in ((new, 1), (old, 0)):
                client.sendall(ask % version)
                assert client.recv(1 << 10).startswith(b"HTTP/1.1 200")
            server.process.send_signal(signal.SIGTERM)
            assert not rest(new).endswith(b"0\r\n\r\n")
            with pytest.raises(ConnectionResetError):  # to a client that knows no chunks the end would look whole
                rest(old)
        assert server.wait() == 0
    finally:
        server.kill()


@pytest.mark.parametrize("more", DOORS.values(), ids=DOORS)
def test_a_second_interrupt_ends_one_process_at_once_and_without_a_traceback(repository, more):
    server = Server("--repository", repository, "--default-flow", "two-moons", "--drain-seconds", 600)
    try:
        with connect(server.port) as client:
            client.sendall(post(1, more)[:-3])
            server.process.send_signal(signal.SIGINT)

            def draining():
                with connect(server.port) as probe:
                    probe.sendall(GET)
                    return b"connection: close" in probe.recv(1 << 16)

            until(draining)
            assert server.stop(signal.SIGINT) == 0
    finally:
        server.kill()


async def reconnect(port, lost, answered):
    """One client that asks on a connection after the other, until nobody listens."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return
        try:
            writer.write(post(1, b"connection: close\r\n"))
            answer = await reader.read()
            (answered if answer.startswith(b"HTTP/1.1 200") else lost).append(answer)
        except OSError as error:
            lost.append(error)
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("workers", "ends"),
    [(1, 1), pytest.param(1, 20, marks=pytest.mark.slow), pytest.param(2, 20, marks=pytest.mark.slow)],
)
def test_clients_that_reconnect_lose_nothing(repository, workers, ends):
    options = ("--repository", repository, "--default-flow", "two-moons", "--drain-seconds", 5)
    for _ in range(ends):
        server = Server(*options, "--workers", workers, "--threads", 1)
        lost, answered = [], []

        async def load(server=server, lost=lost, answered=answered):
            clients = asyncio.gather(*(reconnect(server.port, lost, answered) for _ in range(64)))
            while len(answered) < 200:
                await asyncio.sleep(0.01)
            server.process.send_signal(signal.SIGTERM)
            await clients

        try:
            asyncio.run(load())
            assert lost == []
            assert len(answered) > 200
            assert server.wait() == 0
        finally:
            server.kill()


def test_connections_in_the_backlog_are_accepted_and_answered(repository):
    """A server that is stopped accepts nothing; the kernel completes the handshakes of its clients all the same."""
    server = Server("--repository", repository, "--default-flow", "two-moons", "--drain-seconds", 0.4)
    try:
        with contextlib.ExitStack() as held:
            server.process.send_signal(signal.SIGSTOP)
            clients = [held.enter_context(connect(server.port)) for _ in range(64)]
            for client in clients[::2]:
                client.sendall(post(1))
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGCONT)
            for client in clients[1::2]:
                client.sendall(post(1))
            for client in clients:
                answer = rest(client)
                assert answer.startswith(b"HTTP/1.1 200"), answer
        assert server.wait() == 0
    finally:
        server.kill()


@pytest.mark.slow
def test_float_bodies_are_answered_at_the_end_too(repository):
    """What an engine's thread runs in native code while the process ends."""
    options = ("--drain-seconds", 0.5, "--threads", 2, "--max-work", 1 << 26)
    server = Server("--repository", repository, "--default-flow", "two-moons", *options)
    body = np.zeros((4_000_000, 2), np.float32)
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {body.shape}}}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    npy = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + body.tobytes()
    head = b"POST /logprob HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-npy\r\n%bcontent-length: %d\r\n\r\n"
    try:
        with connect(server.port) as direct, connect(server.port) as application:
            for client, more in ((direct, DOORS["connection"]), (application, DOORS["application"])):
                client.sendall(head % (more, len(npy)) + npy)
            assert server.stop() == 0
            for client in (direct, application):
                assert rest(client)[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 429", b"HTTP/1.1 503")
    finally:
        server.kill()
