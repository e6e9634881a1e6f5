"""Deadlines, refusals by expected time, and clients that go: through the application and through a real server."""

from __future__ import annotations

import json
import socket
import threading
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from service.engine.runtime import graph as runtime
from tests.server import Server
from tests.service.scraped import Scraped
from tests.waiting import steady, until


@pytest.fixture
def held(monkeypatch):
    """Every run of a flow waits for the gate."""
    honest = runtime.CpuGraph.__call__
    gate, started = threading.Event(), threading.Event()

    def run(self, *given, **named):
        started.set()
        assert gate.wait(60)
        return honest(self, *given, **named)

    def hold(client):
        client.leave_to_threads()
        monkeypatch.setattr(runtime.CpuGraph, "__call__", run)

    yield SimpleNamespace(hold=hold, gate=gate, started=started)
    gate.set()


def expect_to_be_slow(queue):
    """A second a row or more, as far as the server knows."""
    for size in (1, queue.limits.chunk_rows):
        queue.record(size, 1e5)


def timeout(milliseconds):
    return {"Pushforward-Timeout-Ms": str(milliseconds)}


def test_an_engine_that_does_not_come_back_is_504_for_whoever_waits(serving, held):
    client = serving(threads=1)
    held.hold(client)
    answer = client.post("/logprob", json={"x": [[1, 2]]}, headers=timeout(200))
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


def test_the_setting_holds_where_the_client_says_nothing(serving, held):
    client = serving(threads=1, timeout_seconds=0.1)
    held.hold(client)
    assert client.post("/logprob", json={"x": [[1, 2]]}).status_code == 504


def test_what_cannot_be_answered_in_time_is_429_at_once(serving, held):
    client = serving(threads=1)
    queue = client.app.state.registry.find().forward.queue
    expect_to_be_slow(queue)
    held.hold(client)
    answers = []
    caller = threading.Thread(target=lambda: answers.append(client.post("/logprob", json={"x": [[1, 2]] * 20000})))
    caller.start()
    assert held.started.wait(30)
    until(lambda: queue.waiting_rows)
    refused = client.post("/logprob", json={"x": [[1, 2]] * 20000}, headers=timeout(5000))
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) > 5
    held.gate.set()
    caller.join()
    assert [answer.status_code for answer in answers] == [200], "an idle engine tries"


def test_what_is_refused_is_not_even_read(serving, held):
    client = serving(threads=1)
    queue = client.app.state.registry.find().forward.queue
    expect_to_be_slow(queue)
    held.hold(client)
    caller = threading.Thread(target=lambda: client.post("/logprob", json={"x": [[1, 2]] * 20000}))
    caller.start()
    until(lambda: queue.waiting_rows)
    broken = b"[" * 5000
    assert client.post("/logprob", content=broken, headers=timeout(5000)).status_code == 429
    assert client.post("/logprob", content=broken[:100], headers=timeout(5000)).status_code == 400
    other = b'{"model": "square", "x": [[' + b"1, " * 5000
    assert client.post("/logprob", content=other, headers=timeout(5000)).status_code == 400
    npy = timeout(5000) | {"Content-Type": "application/x-npy"}
    assert client.post("/logprob", content=other, headers=npy).status_code == 429, "no array names a model"
    assert client.post("/logprob?model=square", content=other, headers=npy).status_code == 400
    held.gate.set()
    caller.join()


@pytest.mark.parametrize("told", ["0", "abc", "1e3", "3600001"])
def test_a_timeout_that_is_none_is_told(serving, told):
    answer = serving().post("/logprob", json={"x": [[1, 2]]}, headers=timeout(told))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_argument")
    assert answer.json()["errors"][0]["loc"] == ["header", "Pushforward-Timeout-Ms"]


@pytest.fixture(scope="module")
def server(repository):
    # In batches so small 4 million rows take twenty seconds: time enough, on a busy machine, to see some of them run,
    # to go, and to be missed.
    options = ("--threads", 1, "--chunk-rows", 16, "--default-flow", "two-moons", "--max-work", 1 << 26)
    process = Server("--repository", repository, *options)
    yield process
    assert process.stop() == 0


def rows_run(server):
    found = Scraped(httpx.get(f"{server.url}/metrics").text)
    return found.total("pushforward_rows_total", flow="two-moons", direction="forward")


@pytest.mark.parametrize("more", ["", "Content-Encoding: identity\r\n"], ids=["connection", "application"])
def test_what_a_client_that_has_gone_asked_for_is_dropped(server, more):
    count = 4_000_000
    body = np.zeros((count, 2), np.float32)
    npy = b"\x93NUMPY\x01\x00" + _header(body)
    head = f"POST /logprob HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\nAccept: */*\r\n{more}"
    before = rows_run(server)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(f"{head}Content-Length: {len(npy) + body.nbytes}\r\n\r\n".encode() + npy + body.tobytes())
        until(lambda: rows_run(server) != before)
    until(steady(lambda: rows_run(server)))  # what ran when it went still comes back
    assert rows_run(server) - before < count


def _header(array):
    text = json.dumps({"descr": "<f4", "fortran_order": False, "shape": list(array.shape)})
    text = text.replace("[", "(").replace("]", ")").replace("false", "False").replace('"', "'")
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return len(text).to_bytes(2, "little") + text.encode()
