"""The sockets of a client, and what it raises where there is no way to the server."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest

import pushforward
from pushforward.client.errors import ClientError, ConnectionFailed, InvalidInput
from pushforward.client.proxies import find_proxy

KINDS = [pushforward.Client, pushforward.AsyncClient]


class Port(BaseHTTPRequestHandler):
    """Answers each request with the port that it came from, which tells one connection from another."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = b'{"model": "%d", "version": 1, "log_prob": [0.0]}' % self.client_address[1]
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@contextmanager
def ports() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Port) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def printed(code: str, url: str) -> list[str]:
    """The lines of a program of its own, which may fork: it has one thread."""
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", code, url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split()


FORKED = """
import os, sys, pushforward
client = pushforward.Client(sys.argv[1])
ask = lambda: print(client.log_prob([0.0], returns=[]).model, flush=True)
ask(); ask()
for _ in range(2):
    child = os.fork()
    if child == 0:
        ask(); ask()
        client.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
ask()
client.close()
"""

FORKED_ASYNC = """
import asyncio, os, sys, pushforward
client = pushforward.AsyncClient(sys.argv[1])
async def ask():
    for _ in range(2):
        print((await client.log_prob([0.0], returns=[])).model, flush=True)
loop = asyncio.new_event_loop()
loop.run_until_complete(ask())
child = os.fork()
if child == 0:
    asyncio.run(ask())
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
loop.run_until_complete(ask())
loop.run_until_complete(client.close())
loop.close()
"""

LOOPS = """
import asyncio, sys, pushforward
client = pushforward.AsyncClient(sys.argv[1])
async def ask():
    for _ in range(2):
        print((await client.log_prob([0.0], returns=[])).model, flush=True)
async def end():
    await ask()
    await client.close()
asyncio.run(ask())
asyncio.run(end())
"""


def test_a_forked_process_has_sockets_of_its_own():
    with ports() as url:
        first, again, one, one_again, other, other_again, last = printed(FORKED, url)
    assert first == again == last
    assert one == one_again
    assert other == other_again
    assert len({first, one, other}) == 3


def test_a_forked_process_has_sockets_of_its_own_on_its_event_loop():
    with ports() as url:
        first, again, child, child_again, last, last_again = printed(FORKED_ASYNC, url)
    assert first == again == last == last_again
    assert child == child_again != first


def test_an_event_loop_has_sockets_of_its_own():
    with ports() as url:
        first, again, second, second_again = printed(LOOPS, url)
    assert first == again
    assert second == second_again != first


def test_threads_of_a_new_process_share_one_pool(monkeypatch):
    with ports() as url, pushforward.Client(url) as client:
        before = client.log_prob([0.0], returns=[]).model
        with monkeypatch.context() as child:
            child.setattr("os.getpid", lambda: -1)
            assert client.log_prob([0.0], returns=[]).model == client.log_prob([0.0], returns=[]).model != before
            client._connection._pool().close()
        assert client.log_prob([0.0], returns=[]).model == before


@pytest.mark.parametrize("transport", [httpx.HTTPTransport, httpx.AsyncHTTPTransport])
def test_a_transport_of_the_callers_is_not_shared_with_a_forked_process(monkeypatch, transport):
    kind = pushforward.Client if transport is httpx.HTTPTransport else pushforward.AsyncClient
    client = kind(transport=transport())
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(ClientError, match="another process"):
        ask(client)


def ask(client: pushforward.Client | pushforward.AsyncClient) -> None:
    """Ask for one density; close nothing."""
    answer = client.log_prob(np.zeros((1, 2)))
    if isinstance(client, pushforward.AsyncClient):
        asyncio.run(_awaited(answer))


async def _awaited(answer):
    return await answer


@pytest.fixture
def nobody() -> str:
    """An address at which nobody listens."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_client_says_so(kind):
    client = kind("http://user:secret@host", transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    if kind is pushforward.Client:
        client.close()
        client.close()
    else:
        asyncio.run(client.close())
    with pytest.raises(ClientError, match="the client of http://host has been closed"):
        ask(client)
    with pytest.raises(RuntimeError):
        ask(client)


def test_a_closed_client_is_no_server_that_is_not_ready(connect):
    client = connect(lambda _: httpx.Response(200))
    client.close()
    with pytest.raises(ClientError, match="closed"):
        client.ready()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "url", ["http://[::1", "http://", "http://host:99999", "http://host:port", None, b"http://host", "http://\x00"]
)
def test_an_address_that_is_none_is_refused(kind, url):
    with pytest.raises(InvalidInput, match="base_url"):
        kind(url)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error", [RuntimeError("Event loop is closed"), UnicodeError("label too long"), OverflowError()]
)
def test_what_httpx_lets_through_is_a_client_error(kind, error):
    def fail(request):
        raise error

    with pytest.raises(ClientError, match="the request to http://host could not be sent") as caught:
        ask(kind("http://host", transport=httpx.MockTransport(fail)))
    assert type(caught.value) is ClientError


def test_a_request_that_has_no_address_is_refused(connect):
    client = connect(lambda _: httpx.Response(200))
    with pytest.raises(InvalidInput, match="cannot be addressed"):
        client.model("m" * 100_000)


def test_a_long_context_is_no_part_of_the_address(connect):
    seen = []

    def handler(request):
        seen.append(request)
        return httpx.Response(
            200, json={"model": "m", "version": 1, "seed": 1, "offset": 0, "x": [[0]], "log_prob": [0]}
        )

    connect(handler).sample(context=np.zeros(20_000, np.float32))
    assert seen[0].method == "POST"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_a_dead_proxy_is_named(kind, variable, nobody, monkeypatch):
    monkeypatch.setenv(variable, f"http://user:secret@{nobody}")
    client = kind("http://host.example", retries=0)
    words = f"no answer from http://host.example through the proxy http://{nobody} of {variable}: "
    with pytest.raises(ConnectionFailed, match=words) as caught:
        ask(client)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_socks_without_its_extra_is_a_client_error(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(ClientError, match=r"the proxy socks5://127.0.0.1:1080 of ALL_PROXY .*install httpx\[socks\]"):
        kind("http://host")
    monkeypatch.setenv("NO_PROXY", "host")
    kind("http://host")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("address", ["ftp://127.0.0.1", "http://[::1"])
def test_a_proxy_that_is_none_is_a_client_error(kind, address, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(ClientError, match="ALL_PROXY"):
        kind("http://host")


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_that_are_not_there_are_a_client_error(kind, monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path))
    with pytest.raises(ClientError, match="https://host cannot be asked"):
        kind("https://host")


@pytest.mark.parametrize(
    ("variables", "url", "found"),
    [
        ({}, "http://host", None),
        ({"HTTP_PROXY": "proxy:1"}, "http://host", "http://proxy:1"),
        ({"HTTP_PROXY": "http://proxy:1"}, "https://host", None),
        ({"HTTPS_PROXY": "http://proxy:1", "ALL_PROXY": "http://proxy:2"}, "https://host", "http://proxy:1"),
        ({"NO_PROXY": "*"}, "http://host", None),
        ({"NO_PROXY": "other, host"}, "http://host", None),
        ({"NO_PROXY": "host"}, "http://below.host", None),
        ({"NO_PROXY": "host"}, "http://ahost", "http://proxy:2"),
        ({"NO_PROXY": ".host"}, "http://below.host", None),
        ({"NO_PROXY": ".host"}, "http://host", "http://proxy:2"),
        ({"NO_PROXY": "localhost"}, "http://below.localhost", "http://proxy:2"),
        ({"NO_PROXY": "127.0.0.1"}, "http://127.0.0.1:8000", None),
        ({"NO_PROXY": "127.0.0.1"}, "http://0.127.0.0.1", "http://proxy:2"),
        ({"NO_PROXY": "::1"}, "http://[::1]:8000", None),
        ({"NO_PROXY": "https://host"}, "http://host", "http://proxy:2"),
        ({"NO_PROXY": "all://host:81"}, "http://host:81", None),
        ({"NO_PROXY": "http://host:81"}, "http://host:82", "http://proxy:2"),
    ],
)
def test_the_proxy_is_the_one_that_httpx_would_take(variables, url, found, monkeypatch):
    if "NO_PROXY" in variables:
        monkeypatch.setenv("ALL_PROXY", "http://proxy:2")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    proxy = find_proxy(httpx.URL(url))
    assert (proxy.url if proxy else None) == found
    with httpx.Client() as client:
        pool = client._transport_for_url(httpx.URL(url))._pool
    theirs = getattr(pool, "_proxy_url", None)
    assert (theirs.host if theirs else None) == (b"proxy" if found else None)
    assert (theirs.port if theirs else None) == (httpx.URL(found).port if found else None)
