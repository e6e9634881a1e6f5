from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from service import app
from service.api import operations
from service.app import create_app
from service.engine import registry
from service.engine.batching.workers import Workers
from service.engine.registry import Registry
from service.engine.runtime import graph as runtime
from service.engine.runtime.devices import CudaOptions
from tests.service.conftest import settings_for
from tests.waiting import until


def test_an_unforeseen_failure_is_told_without_a_word_of_it(serving, monkeypatch):
    def fails(*_):
        raise RuntimeError("secret of /a/path")

    client = serving()
    monkeypatch.setattr(operations.Operations, "models", fails)
    answer = client.get("/models")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "internal_error"
    assert "secret" not in answer.text


def test_a_failing_run_costs_its_own_request(serving, monkeypatch, caplog):
    client = serving()
    honest = runtime.CpuGraph.__call__

    def fails(self, rows, context):
        if (rows == 666).any():
            raise RuntimeError("secret of /a/path")
        return honest(self, rows, context)

    monkeypatch.setattr(runtime.CpuGraph, "__call__", fails)
    bad = client.post("/logprob", json={"x": [[666, 1]]})
    assert (bad.status_code, bad.json()["code"]) == (500, "engine_failed")
    assert "secret" not in bad.text
    assert client.post("/logprob", json={"x": [[1, 1]]}).status_code == 200


def test_a_full_queue_is_429_and_says_when_to_come_again(serving, monkeypatch):
    client = serving(threads=1, max_queued_rows=2)
    client.leave_to_threads()
    honest = runtime.CpuGraph.__call__
    started, gate = threading.Event(), threading.Event()

    def held(self, rows, context):
        started.set()
        gate.wait(30)
        return honest(self, rows, context)

    monkeypatch.setattr(runtime.CpuGraph, "__call__", held)
    answers = []

    def ask():
        answers.append(client.post("/logprob", json={"x": [[1, 2], [2, 1]]}))

    callers = [threading.Thread(target=ask) for _ in range(2)]
    callers[0].start()
    assert started.wait(30)  # the first runs, the second waits, the third is one too many
    callers[1].start()
    queue = client.app.state.registry.find().forward.queue
    while queue.waiting_rows < 2:
        pass
    refused = client.post("/logprob", json={"x": [[1, 2]]})
    gate.set()
    for caller in callers:
        caller.join()
    assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert [answer.status_code for answer in answers] == [200, 200]


def test_a_server_that_waits_no_longer_says_that_flows_are_loading(serving, monkeypatch):
    gate = threading.Event()
    honest = registry.read_bundle

    def slow(folder):
        gate.wait(30)
        return honest(folder)

    monkeypatch.setattr(registry, "read_bundle", slow)
    client = serving(startup_seconds=0)
    until(client.app.state.registry.entries)
    assert client.get("/health/live").status_code == 200
    for answer in (client.get("/health/ready"), client.post("/logprob", json={"x": [[1, 2]]})):
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.headers["retry-after"]
    assert {model["state"] for model in client.get("/models").json()["models"]} == {"loading"}
    gate.set()
    until(lambda: client.app.state.registry.loaded)
    assert client.get("/health/ready").status_code == 200


def test_the_server_imports_no_torch():
    code = (
        "import sys, service.process.server, pushforward.commands.serve;"
        "print([m for m in ('torch', 'models', 'zuko', 'onnx', 'sklearn', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("workers", "threads", "each"), [(1, 0, 6), (2, 0, 3), (4, 0, 1), (12, 0, 1), (4, 5, 5)])
def test_workers_share_the_quota_unless_threads_are_said(repository, monkeypatch, workers, threads, each):
    monkeypatch.setattr(app, "usable_cpus", lambda: 6)
    made = []
    monkeypatch.setattr(app, "Workers", lambda threads: made.append(threads) or Workers(threads))
    create_app(settings_for(repository, workers=workers, threads=threads))
    assert made == [each]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("cpu", None),
        ("cuda", CudaOptions(0, 1 << 30, tf32=True, required=True)),
        ("cuda:2", CudaOptions(2, 1 << 30, tf32=True, required=True)),
    ],
)
def test_flows_run_where_the_settings_say(repository, monkeypatch, device, expected):
    made = []
    monkeypatch.setattr(
        app, "Registry", lambda *given, **named: made.append(named["device"]) or Registry(*given, **named)
    )
    create_app(
        settings_for(repository, device=device, device_memory_bytes=1 << 30, device_tf32=True, device_required=True)
    )
    assert [None if found is None else found.gpu.options for found in made] == [expected]


def test_a_browsers_preflight_is_told_what_is_the_case(serving):
    asked = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    answer = serving().request("OPTIONS", "/logprob", headers=asked)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "access-control-allow-origin" not in answer.headers
    for words in ("OPTIONS is not possible here", "a page of https://page.example may call", "no CORS", "one origin"):
        assert words in answer.json()["detail"]
    plain = serving().request("OPTIONS", "/logprob")
    assert (plain.status_code, plain.json()["detail"]) == (405, "OPTIONS is not possible here; POST would be")
