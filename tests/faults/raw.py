"""Raw HTTP/1.1 over a socket: bytes out, the status that came back or what came instead of it."""

from __future__ import annotations

import re
import socket
import time
from contextlib import closing, suppress

__all__ = ["Result", "post", "probe", "read_answer", "send", "status_of"]

Result = int | str
"""A status; or, where none came, what did: "reset", "closed", "timeout", "refused"."""


def post(path: str, body: bytes, media_type: str = "application/json", **headers: str) -> bytes:
    """The bytes of a POST."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\n"
    return (head + f"Content-Length: {len(body)}\r\n{more}\r\n").encode() + body


def send(port: int, data: bytes, seconds: float = 60.0) -> tuple[Result, bytes]:
    """Send bytes on a connection of their own, and give the status and all bytes of the first answer."""
    try:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=seconds)) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused early: the answer may be there
                connection.sendall(data)
            return read_answer(connection)
    except ConnectionResetError:
        return "reset", b""
    except ConnectionRefusedError:
        return "refused", b""
    except TimeoutError:
        return "timeout", b""


def status_of(answer: bytes) -> Result:
    """The status of an answer; "closed" where there is none."""
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(found[1]) if found else "closed"


def probe(port: int, path: str = "/health/live", seconds: float = 30.0) -> tuple[Result, float]:
    """The status of a GET, and the seconds that it took."""
    start = time.monotonic()
    status, _ = send(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(), seconds)
    return status, time.monotonic() - start


def read_answer(connection: socket.socket) -> tuple[Result, bytes]:
    """The status and the bytes of the answer that comes next: up to its length, or to the end of the connection."""
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return status_of(data), data
        piece = connection.recv(1 << 16)
        if not piece:
            return status_of(data), data
        data += piece
