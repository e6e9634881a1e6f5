"""Flows in processes of their own, behind the application: what a crash or a hang costs, and what is told of it."""

from __future__ import annotations

import functools
import os
import signal
import sys

import pytest

from service.engine.isolation.engine import IsolatedEngine
from tests.processes import children, lives
from tests.service.bundles import affine, install, square, traced
from tests.service.engine.isolation.faulty_child import CRASH, FAIL, HANG, MODULE
from tests.service.scraped import Scraped
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the processes of an engine")


@pytest.fixture
def isolated(serving, tmp_path, monkeypatch):
    monkeypatch.setattr("service.engine.flow_graphs.IsolatedEngine", functools.partial(IsolatedEngine, module=MODULE))
    install(tmp_path, traced(affine("two-moons")), affine("two-moons", 2), square())

    def make(**changes):
        options = {"isolate": "two-moons", "isolate_processes": 1, "threads": 1, **changes}
        return serving(tmp_path, **options)

    return make


def log_prob(client, *values, path="/logprob", **headers):
    return client.post(path, json={"x": [[value, 0.25] for value in values]}, headers=headers)


def scraped(client):
    return Scraped(client.get("/metrics").text)


REQUESTS = [
    ("/logprob", {"x": [[0.5, 0.25]]}),
    ("/logprob", {"x": [[0.01 * at, 0.25] for at in range(300)], "return": ["z"]}),
    ("/sample", {"n": 50, "seed": 3}),
    ("/models/two-moons/versions/1/trace", {"x": [[0.5, 0.25], [1.0, 2.0]]}),
    ("/interpolate", {"points": [[0.5, 0.25], [1.0, 2.0]]}),
]


def test_answers_have_the_same_bytes_as_from_the_server_itself(isolated):
    apart, here = isolated(isolate="all"), isolated(isolate="none")
    for path, body in REQUESTS:
        found, expected = apart.post(path, json=body), here.post(path, json=body)
        assert (found.status_code, found.content) == (200, expected.content)
    assert scraped(apart).total("pushforward_engine_processes") == 3
    assert scraped(here).total("pushforward_engine_processes") == 0
    assert apart.get("/health/ready").content == here.get("/health/ready").content


def test_a_crash_costs_its_request_and_three_a_version(isolated, caplog):
    client = isolated()
    before = log_prob(client, 0.5).content
    for count in (1, 2, 3):
        assert log_prob(client, 0.5).content == before
        lost = log_prob(client, CRASH)
        assert (lost.status_code, lost.json()["code"]) == (503, "engine_lost")
        assert lost.headers["retry-after"] == "1"
        assert client.post("/models/square/logprob", json={"x": [[1]]}).status_code == 200
        until(lambda count=count: restarts(client) == count)
    until(lambda: states(client)["two-moons", 2] == "quarantined")
    assert states(client) == {("two-moons", 1): "ready", ("two-moons", 2): "quarantined", ("square", 1): "ready"}
    assert log_prob(client, 0.5).json()["version"] == 1
    refused = log_prob(client, 0.5, path="/models/two-moons/versions/2/logprob")
    assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
    assert "crashed or hung 3 times within a minute" in refused.json()["detail"]
    ready = client.get("/health/ready")
    assert ready.status_code == 200
    assert {(f["name"], f["version"]): f["state"] for f in ready.json()["flows"]} == states(client)
    found = scraped(client)
    labels = {"flow": "two-moons", "version": 2}
    assert found.value("pushforward_flow_state", **labels, state="quarantined") == 1
    assert found.value("pushforward_flow_state", **labels, state="ready") == 0
    assert found.value("pushforward_engine_processes", **labels) == 0


def test_a_quarantined_version_is_told_of_and_loaded_anew(isolated, caplog):
    client = isolated()
    path = "/models/two-moons/versions/2/logprob"
    for count in (1, 2, 3):
        assert log_prob(client, CRASH, path=path).status_code == 503
        until(lambda count=count: restarts(client) == count)
    until(lambda: states(client)["two-moons", 2] == "quarantined")
    listed = repository(client)
    assert listed["two-moons", 2]["state"] == "quarantined"
    assert listed["two-moons", 2]["error"]["code"] == "engine_lost"
    assert listed["two-moons", 1] == {**listed["two-moons", 1], "state": "ready", "error": None}
    index = client.post("/v2/repository/index").json()
    assert ("two-moons", "2", "UNAVAILABLE") in {(each["name"], each["version"], each["state"]) for each in index}
    named = client.request("PUT", "/repository/two-moons/aliases/stable", json={"version": 2})
    assert (named.status_code, named.json()["code"]) == (503, "not_ready")
    assert "is quarantined" in named.json()["detail"]
    assert client.post("/repository/square/versions/1/load").status_code == 200
    assert states(client)["two-moons", 2] == "quarantined"
    assert client.post("/repository/two-moons/versions/2/load").status_code == 200
    assert states(client)["two-moons", 2] == "ready"
    assert log_prob(client, 0.5, path=path).status_code == 200
    assert log_prob(client, CRASH, path=path).status_code == 503
    until(lambda: restarts(client) == 4)
    assert log_prob(client, 0.5, path=path).status_code == 200


def test_an_unloaded_flow_leaves_no_process(isolated):
    before = set(children(os.getpid()))
    client = isolated(isolate="all")
    started = set(children(os.getpid())) - before
    assert len(started) == 3
    assert client.post("/repository/two-moons/versions/2/unload").status_code == 200
    until(lambda: scraped(client).value("pushforward_engine_processes", flow="two-moons", version=2) == 0)
    until(lambda: sum(map(lives, started)) == 2)
    assert repository(client)["two-moons", 2]["state"] == "unloaded"
    assert scraped(client).total("pushforward_engine_processes") == 2
    assert log_prob(client, 0.5).json()["version"] == 1


def repository(client):
    flows = client.get("/repository").json()["flows"]
    return {(flow["name"], each["version"]): each for flow in flows for each in flow["versions"]}


def restarts(client):
    return scraped(client).total("pushforward_engine_restarts_total", flow="two-moons", version=2)


def states(client):
    return {(m["name"], m["version"]): m["state"] for m in client.get("/models").json()["models"]}


def test_without_a_version_of_its_default_flow_the_server_is_not_ready(isolated, caplog):
    client = isolated()
    for version in (1, 2):
        for _ in range(3):
            path = f"/models/two-moons/versions/{version}/logprob"
            assert log_prob(client, CRASH, path=path).status_code == 503
        until(lambda version=version: states(client)["two-moons", version] == "quarantined")
    document = client.get("/health/ready").json()
    assert "the default flow 'two-moons' is not served" in document["detail"]
    assert ["engine_lost: the engine" in reason["reason"] for reason in document["errors"]] == [True, True]


def test_a_hang_holds_up_no_other_flow(isolated):
    client = isolated(engine_hang_seconds=60.0)
    late = log_prob(client, HANG, **{"Pushforward-Timeout-Ms": "300"})
    assert late.status_code == 504
    assert client.post("/models/square/logprob", json={"x": [[1]]}).status_code == 200
    assert log_prob(client, 0.5, path="/models/two-moons/versions/1/logprob").status_code == 200
    assert client.get("/health/live").status_code == 200


def test_a_hang_ends_with_its_limit(isolated, caplog):
    client = isolated(engine_hang_seconds=1.0)
    lost = log_prob(client, HANG)
    assert (lost.status_code, lost.json()["code"]) == (503, "engine_lost")
    assert log_prob(client, 0.5).status_code == 200
    assert scraped(client).total("pushforward_engine_restarts_total", cause="hang") == 1


def test_an_error_of_the_engine_costs_the_row_at_fault(isolated, caplog):
    client = isolated()
    failed = log_prob(client, FAIL)
    assert (failed.status_code, failed.json()["code"]) == (500, "engine_failed")
    assert "/a/path" not in failed.text
    assert restarts(client) == 0


def test_a_device_that_is_required_takes_no_flow_apart(isolated, caplog):
    entries = {
        (m["name"], m["version"]): m
        for m in isolated(device="cuda", device_required=True).get("/models").json()["models"]
    }
    assert "cuda:0 is required, and a flow in processes of its own runs on the CPU" in str(entries["two-moons", 1])


def test_the_end_of_the_application_leaves_no_process(isolated):
    before = set(children(os.getpid()))
    client = isolated(isolate="all")
    mine = set(children(os.getpid())) - before
    assert len(mine) == 3
    client.run(client._lifespan.__aexit__(None, None, None))
    assert not any(map(lives, mine))
    client._lifespan = client.app.router.lifespan_context(client.app)  # the fixture ends it a second time
    client.run(client._lifespan.__aenter__())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_is_lost_while_it_is_idle_costs_no_request(isolated, number, caplog):
    before = set(children(os.getpid()))
    client = isolated()
    answer = log_prob(client, 0.5).content
    for pid in set(children(os.getpid())) - before:
        os.kill(pid, number)
    assert log_prob(client, 0.5).content == answer
    until(lambda: scraped(client).total("pushforward_engine_restarts_total") == 2)
