"""Servers whose flows run in processes of their own: real processes, killed as a fault or an operator would."""

from __future__ import annotations

import os
import signal
import sys

import httpx
import pytest

from service.process.preflight import check_repository
from service.settings import Settings
from tests.processes import children, lives
from tests.server import Server
from tests.service.scraped import Scraped
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the processes of an engine")


@pytest.fixture
def started(repository):
    made = []

    def start(*options):
        given = ("--repository", repository, "--default-flow", "two-moons", "--isolate", "coupling,square", *options)
        made.append(Server(*given))
        return made[-1]

    yield start
    for one in made:
        one.kill()


def total(server, name, **labels):
    return Scraped(httpx.get(f"{server.url}/metrics").text).total(name, **labels)


def log_prob(server):
    return httpx.post(f"{server.url}/models/square/logprob", json={"x": [[0.5]]}, timeout=60)


def test_a_lost_engine_is_replaced_and_none_outlives_the_server(started):
    server = started("--isolate-processes", 1)
    before = log_prob(server).content
    (first, second) = engines = children(server.process.pid)
    for pid in engines:
        os.kill(pid, signal.SIGSEGV)
    until(lambda: total(server, "pushforward_engine_restarts_total", cause="crash") == 2)
    assert log_prob(server).content == before
    until(lambda: total(server, "pushforward_engine_processes") == 2)
    replaced = children(server.process.pid)
    assert len(replaced) == 2
    assert not {first, second} & set(replaced)
    assert server.stop(signal.SIGINT) == 0
    until(lambda: not any(map(lives, replaced)))


@pytest.mark.slow
def test_each_worker_has_engines_of_its_own_which_end_with_it(started):
    server = started("--isolate-processes", 1, "--workers", 2)
    workers = children(server.process.pid)
    engines = {worker: children(worker) for worker in workers}
    assert [len(each) for each in engines.values()] == [2, 2]
    assert total(server, "pushforward_engine_processes") == 4
    os.kill(workers[0], signal.SIGKILL)
    until(lambda: not any(map(lives, engines[workers[0]])))
    assert log_prob(server).status_code == 200
    until(lambda: total(server, "pushforward_engine_processes") == 4)
    left = [engine for worker in children(server.process.pid) for engine in children(worker)]
    assert server.stop() == 0
    until(lambda: not any(map(lives, left)))


def test_workers_quarantine_a_flow_together(started):
    server = started("--isolate", "square", "--isolate-processes", 1, "--workers", 2)
    worker = children(server.process.pid)[0]
    for count in (1, 2, 3):
        until(lambda: total(server, "pushforward_engine_processes") == 2)
        os.kill(children(worker)[0], signal.SIGSEGV)
        until(lambda count=count: total(server, "pushforward_engine_restarts_total") == count)
    until(lambda: total(server, "pushforward_flow_state", state="quarantined") == 2)
    assert total(server, "pushforward_flow_state", flow="square", state="ready") == 0
    for _ in range(8):  # each a connection of its own, to either worker
        (flow,) = [each for each in httpx.get(f"{server.url}/health/ready").json()["flows"] if each["name"] == "square"]
        assert flow["state"] == "quarantined"
        assert log_prob(server).json()["code"] == "not_ready"
    assert httpx.post(f"{server.url}/logprob", json={"x": [[0.5, 0.25]]}).status_code == 200
    os.kill(children(server.process.pid)[1], signal.SIGKILL)  # its successor serves what its neighbour does
    until(lambda: total(server, "pushforward_flow_state", state="ready") == 2 * ready(server))
    assert total(server, "pushforward_flow_state", state="quarantined") == 2
    loaded = httpx.post(f"{server.url}/repository/square/versions/1/load", timeout=60)
    assert loaded.status_code == 200
    for _ in range(8):
        assert log_prob(server).status_code == 200
    assert total(server, "pushforward_engine_processes") == 2
    engines = [engine for worker in children(server.process.pid) for engine in children(worker)]
    assert httpx.post(f"{server.url}/repository/square/versions/1/unload", timeout=60).status_code == 200
    until(lambda: not any(map(lives, engines)))
    assert server.stop() == 0


def ready(server):
    """The versions that are ready."""
    return sum(each["state"] == "ready" for each in httpx.get(f"{server.url}/models").json()["models"])


def test_a_flow_that_is_not_there_is_a_warning(repository, caplog):
    check_repository(Settings(repository=repository, default_flow="two-moons", isolate="square,absent"))
    (record,) = caplog.records
    assert "the flow 'absent', to run in processes of its own, is not in the repository. Set" in record.getMessage()
