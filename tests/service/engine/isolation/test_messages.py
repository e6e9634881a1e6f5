from __future__ import annotations

import socket
import struct

import pytest

from service.engine.isolation.messages import (
    GraphFile,
    Job,
    Reply,
    Request,
    receive_job,
    receive_reply,
    receive_request,
    send,
    send_reply,
)
from service.onnx.signature import Signature


@pytest.fixture
def ends():
    server, process = socket.socketpair()
    with server, process:
        yield server, process


def test_a_job_arrives_as_it_was_sent(ends):
    server, process = ends
    signature = Signature("trace.onnx", "float64", {"x": (2, 3), "context": (4,)}, {"values": (), "p": (6,)})
    job = Job({"forward": GraphFile(signature, 0, 17), "trace": GraphFile(signature, 17, 20)}, 1 << 40)
    send(server, job)
    assert receive_job(process) == job


@pytest.mark.parametrize("direction", ["forward", "inverse", "trace"])
def test_a_request_arrives_as_it_was_sent(ends, direction):
    server, process = ends
    send(server, Request(1 << 40, direction, 4096))
    assert receive_request(process) == (1 << 40, direction, 4096)


@pytest.mark.parametrize("reply", [Reply(), Reply(finite=True), Reply("a node \N{SNOWMAN}"), Reply("")])
def test_a_reply_arrives_as_it_was_sent(ends, reply):
    server, process = ends
    send_reply(process, reply)
    assert receive_reply(server) == reply


def test_of_a_long_error_the_beginning_is_sent(ends):
    server, process = ends
    send_reply(process, Reply("x" * 100_000))
    assert receive_reply(server).error == "x" * 4096


@pytest.mark.parametrize(
    "data", [b"", b"abc", struct.pack("=qq", 3, 0), struct.pack("=qq", 2, -1), struct.pack("=qq", 2, 1 << 40)]
)
def test_what_is_no_reply_is_the_end_of_the_process(ends, data):
    server, process = ends
    process.sendall(data)
    process.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        receive_reply(server)
