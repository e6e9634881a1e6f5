"""How long a connection may keep the server waiting, on a clock that the test moves; and once with a real server."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.guard import Waits
from service.http.connection import BoundedHttpToolsProtocol
from tests.server import Server
from tests.service.transport import Transport

WAITS = Waits(header_seconds=10, body_seconds=60, keep_alive_seconds=75)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


async def reads(scope, receive, send):
    """An application that reads the body whole, then answers, once it is let."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


async def hangs(scope, receive, send):
    await asyncio.Event().wait()


class Connection:
    """A protocol over a transport that goes nowhere, with the time since it was made."""

    def __init__(self, app):
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.loop.time = lambda: self.began
        config = uvicorn.Config(app, ws="none", log_config=None, access_log=False)
        config.load()
        self.protocol = BoundedHttpToolsProtocol(config, ServerState(), {"waits": WAITS})
        self.transport = Transport()
        self.protocol.connection_made(self.transport)

    async def receive(self, data):
        self.protocol.data_received(data)
        for _ in range(5):
            await asyncio.sleep(0)

    def after(self, seconds):
        """Look at the connection so long after whatever it waits for began."""
        self.protocol.sweep(self.began + seconds)
        return self.transport.closed


def connected(test):
    """Run a test on a connection; the loop's clock stands still."""

    def run(app=reads):
        async def main():
            connection = Connection(app)
            try:
                await test(connection)
            finally:
                for task in connection.protocol.tasks:
                    task.cancel()

        asyncio.run(main())

    return run


def refusal(connection):
    head, _, body = connection.transport.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    return json.loads(body)


def test_a_header_that_drips_is_cut_off_whatever_comes_meanwhile():
    @connected
    async def run(connection):
        for byte in GET[:-1]:
            await connection.receive(bytes([byte]))
        assert not connection.after(10)
        assert connection.after(10.1)
        assert refusal(connection)["code"] == "slow_request"
        assert "header did not come in whole within 10 seconds" in refusal(connection)["detail"]

    run()


def test_a_body_that_drips_is_cut_off():
    @connected
    async def run(connection):
        await connection.receive(POST + b"12")
        assert not connection.after(60)
        assert connection.after(60.1)
        assert "body did not come in whole within 60 seconds" in refusal(connection)["detail"]

    run()


def test_an_idle_connection_is_closed_without_a_word():
    @connected
    async def run(connection):
        await connection.receive(GET)
        assert connection.transport.written.startswith(b"HTTP/1.1 200")
        written = connection.transport.written
        assert not connection.after(75)
        assert connection.after(75.1)
        assert connection.transport.written == written

    run()


def test_a_connection_on_which_nothing_ever_comes_is_closed():
    @connected
    async def run(connection):
        assert not connection.after(75)
        assert connection.after(75.1)

    run()


def test_an_answer_that_takes_long_is_waited_for():
    @connected
    async def run(connection):
        await connection.receive(GET)
        assert not connection.after(1e6)

    run(hangs)


def test_each_request_has_its_own_time():
    @connected
    async def run(connection):
        await connection.receive(GET + b"GET / HTTP")
        connection.began += 8
        await connection.receive(b"/1.1\r\n\r\nGET /")
        assert not connection.after(9)
        assert connection.after(10.1)

    run()


def test_a_client_that_does_not_read_is_cut_off():
    @connected
    async def run(connection):
        await connection.receive(GET)
        connection.protocol.pause_writing()
        assert not connection.after(60)
        connection.protocol.resume_writing()
        assert not connection.after(60.1)
        connection.protocol.pause_writing()
        assert connection.after(60.1)
        assert connection.transport.aborted

    run()


@pytest.fixture(scope="module")
def hasty(repository):
    server = Server("--repository", repository, "--header-seconds", 0.3, "--body-seconds", 0.3)
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost", 408),
        (POST.replace(b"/", b"/interpolate", 1) + b"12", 408),
        (POST.replace(b"/", b"/logprob", 1) + b"12", 408),
        (POST + b"12", 404),  # told at once; and the rest of its body is not waited for either
    ],
)
def test_a_real_server_cuts_off_what_drips(hasty, sent, answered):
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=20) as slow:
        slow.sendall(sent)
        received = b""
        while piece := slow.recv(1 << 16):
            received += piece
    assert received.startswith(f"HTTP/1.1 {answered} ".encode())
