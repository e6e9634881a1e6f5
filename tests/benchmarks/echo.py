"""A small HTTP server in this process that answers as a test tells it to, honestly or not."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Call:
    """One request that came in.

    Args:
        body: of the request; empty where the answer was due before it was read.
        connection: number of its connection, from 0.
        number: of the request on it, from 0.
        socket: to answer on.
        over: is set when the server ends.
    """

    body: bytes
    connection: int
    number: int
    socket: socket.socket
    over: threading.Event

    def answer(self, body: bytes, status: int = 200, *headers: str, length: int | None = None) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
        self.socket.sendall("\r\n".join(lines).encode() + body)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        raise Closed


class Closed(Exception):
    """The connection is to be closed now."""


def due(body: bytes) -> bytes:
    """What an honest server answers to a body."""
    return b"answer to " + body


@dataclass
class Echo:
    behave: Callable[[Call], None]
    listener: socket.socket
    reads_bodies: bool
    over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)
    bodies: list[list[bytes]] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.bodies.append([])
            thread = threading.Thread(target=self.serve, args=(connection, len(self.bodies) - 1))
            self.threads.append(thread)
            thread.start()

    def serve(self, connection: socket.socket, index: int) -> None:
        with connection:
            connection.settimeout(0.05)
            data = b""
            try:
                while True:
                    data, body = self.read(connection, data)
                    self.bodies[index].append(body)
                    self.behave(Call(body, index, len(self.bodies[index]) - 1, connection, self.over))
            except (Closed, OSError):
                return

    def read(self, connection: socket.socket, data: bytes) -> tuple[bytes, bytes]:
        while b"\r\n\r\n" not in data:
            data += self.more(connection)
        head, data = data.split(b"\r\n\r\n", 1)
        size = next((int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")), 0)
        if not self.reads_bodies:
            return data, b""
        pieces, held = [data], len(data)
        while held < size:
            pieces.append(self.more(connection))
            held += len(pieces[-1])
        data = b"".join(pieces)
        return data[size:], data[:size]

    def more(self, connection: socket.socket) -> bytes:
        while not self.over.is_set():
            try:
                data = connection.recv(1 << 20)
            except TimeoutError:
                continue
            if not data:
                raise Closed
            return data
        raise Closed


@contextmanager
def echo(behave: Callable[[Call], None], *, reads_bodies: bool = True) -> Iterator[Echo]:
    """Serve on a port of the system's choice until the block ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        server = Echo(behave, listener, reads_bodies)
        thread = threading.Thread(target=server.accept)
        thread.start()
        try:
            yield server
        finally:
            server.over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in server.threads:
                each.join()
