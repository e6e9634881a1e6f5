"""The messages between a server and a process of an engine, over a socket: the job, requests, and replies.

A reply holds numbers and at most a text: what a process sends is never unpickled, and never run.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from service.onnx.signature import Direction, Signature

__all__ = [
    "GraphFile",
    "Job",
    "Reply",
    "Request",
    "receive_job",
    "receive_reply",
    "receive_request",
    "send",
    "send_reply",
]

_DIRECTIONS: Final[tuple[Direction, ...]] = ("forward", "inverse", "trace")
_LENGTH: Final = struct.Struct("=q")
_REQUEST: Final = struct.Struct("=qqq")
_REPLY: Final = struct.Struct("=qq")
_MAX_TEXT: Final = 4096
_DONE, _DONE_FINITE, _FAILED = range(3)


class GraphFile(NamedTuple):
    """One graph of the flow.

    Args:
        signature: of its inputs and outputs.
        start: the place of its first byte in the file that is shared.
        stop: the place behind its last.
    """

    signature: Signature
    start: int
    stop: int


class Job(NamedTuple):
    """The job of a process: the flow that it runs.

    Args:
        graphs: direction -> graph.
        memory_bytes: the most memory that it may allocate; 0 for no bound.
    """

    graphs: Mapping[Direction, GraphFile]
    memory_bytes: int

    def encode(self) -> bytes:
        """Its message."""
        graphs = {
            direction: (
                each.signature.file,
                each.signature.precision,
                each.signature.inputs,
                each.signature.outputs,
                each.start,
                each.stop,
            )
            for direction, each in self.graphs.items()
        }
        text = json.dumps({"graphs": graphs, "memory_bytes": self.memory_bytes}).encode()
        return _LENGTH.pack(len(text)) + text


class Request(NamedTuple):
    """A batch to run: its rows lie in the shared memory.

    Args:
        number: counts the batches of the process, from 1.
        direction: of the graph.
        rows: the number of rows.
    """

    number: int
    direction: Direction
    rows: int

    def encode(self) -> bytes:
        """Its message."""
        return _REQUEST.pack(self.number, _DIRECTIONS.index(self.direction), self.rows)


class Reply(NamedTuple):
    """The answer to a job or to a request.

    Args:
        error: the failure, as a text for the log; None where there was none.
        finite: whether all outputs are known to be finite.
    """

    error: str | None = None
    finite: bool = False


def send(peer: socket.socket, message: Job | Request) -> None:
    """Send a job, or a request."""
    peer.sendall(message.encode())


def receive_job(peer: socket.socket) -> Job:
    """Receive the job.

    Raises:
        EOFError: the server has ended.
    """
    document: dict[str, Any] = json.loads(_receive(peer, _LENGTH.unpack(_receive(peer, _LENGTH.size))[0]))
    graphs: dict[Direction, GraphFile] = {}
    for direction in _DIRECTIONS:
        if direction in document["graphs"]:
            file, precision, inputs, outputs, start, stop = document["graphs"][direction]
            signature = Signature(file, precision, inputs=_shapes(inputs), outputs=_shapes(outputs))
            graphs[direction] = GraphFile(signature, start, stop)
    return Job(graphs, document["memory_bytes"])


def _shapes(tensors: dict[str, list[int]]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in tensors.items()}


def receive_request(peer: socket.socket) -> Request:
    """Receive the next request.

    Raises:
        EOFError: the server has ended.
    """
    number, direction, rows = _REQUEST.unpack(_receive(peer, _REQUEST.size))
    return Request(number, _DIRECTIONS[direction], rows)


def send_reply(peer: socket.socket, reply: Reply) -> None:
    """Send the answer to a job or to a request. Of a long text only the beginning is sent."""
    if reply.error is None:
        peer.sendall(_REPLY.pack(_DONE_FINITE if reply.finite else _DONE, 0))
    else:
        text = reply.error.encode(errors="replace")[:_MAX_TEXT]
        peer.sendall(_REPLY.pack(_FAILED, len(text)) + text)


def receive_reply(peer: socket.socket) -> Reply:
    """Receive the answer to a job or to a request.

    Raises:
        EOFError: the process has ended, or what it sent is no reply.
        TimeoutError: it does not answer within the time that is set on the socket.
    """
    kind, length = _REPLY.unpack(_receive(peer, _REPLY.size))
    if kind in (_DONE, _DONE_FINITE):
        return Reply(finite=kind == _DONE_FINITE)
    if kind != _FAILED or not 0 <= length <= _MAX_TEXT:
        raise EOFError
    return Reply(_receive(peer, length).decode(errors="replace"))


def _receive(peer: socket.socket, size: int) -> bytes:
    data = peer.recv(size)
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data
