"""A refusal can be read by a client that is still sending: over real sockets, with bodies that fill them."""

from __future__ import annotations

import json
import socket

import pytest

from tests.server import Server

LARGE = 12 << 20  # more than both sockets hold


@pytest.fixture(scope="module")
def server(repository):
    found = Server("--repository", repository, "--max-body-bytes", 1 << 20)
    yield found
    assert found.stop() == 0


def request(line: bytes, *fields: bytes, version: bytes = b"1.1") -> bytes:
    return b"\r\n".join((line + b" HTTP/" + version, b"Host: x", *fields, b"", b""))


LENGTH = b"Content-Length: %d" % LARGE
CHUNKED = b"Transfer-Encoding: chunked"
REFUSED = {
    "404": (request(b"POST /nowhere", LENGTH), 404, "route_not_found"),
    "404 in chunks": (request(b"POST /nowhere", CHUNKED), 404, "route_not_found"),
    "405": (request(b"PUT /logprob", LENGTH), 405, "method_not_allowed"),
    "413": (request(b"POST /logprob", LENGTH), 413, "body_too_large"),
    "413 in chunks": (request(b"POST /logprob", CHUNKED), 413, "body_too_large"),
    "415": (request(b"POST /logprob", LENGTH, b"Content-Encoding: gzip"), 415, "unsupported_media_type"),
    "431": (request(b"POST /logprob", b"X: " + bytes(1 << 15).replace(b"\0", b"x")), 431, "header_too_large"),
    "no HTTP": (b"\x16\x03\x01\r\n\r\n", 400, "malformed_body"),
}


def send_all(connection: socket.socket, head: bytes) -> None:
    """Send a head and all of its body, and read nothing meanwhile."""
    chunk = bytes(1 << 20)
    chunked = CHUNKED in head
    connection.sendall(head)
    for _ in range(LARGE // len(chunk)):
        connection.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
    if chunked:
        connection.sendall(b"0\r\n\r\n")


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str]]:
    received = b""
    while b"\r\n\r\n" not in received or not received.endswith(b"}"):
        piece = connection.recv(1 << 16)
        assert piece, received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("more", [None, b"Connection: close", b"Connection: keep-alive"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize(("head", "status", "code"), REFUSED.values(), ids=REFUSED)
def test_a_client_that_sends_all_first_reads_the_refusal(server, head, status, code, version, more):
    if more is not None:
        head = head.replace(b"Host: x\r\n", b"Host: x\r\n" + more + b"\r\n")
    head = head.replace(b"HTTP/1.1", b"HTTP/" + version)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        send_all(connection, head)
        found, problem = read_answer(connection)
        ends = version == b"1.0" or more == b"Connection: close" or code in ("header_too_large", "malformed_body")
        assert (found, problem["code"]) == (status, code)
        if ends:
            assert connection.recv(1 << 16) == b""
        else:
            connection.sendall(request(b"GET /health/live"))
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
