"""What a server serves changes while clients ask it: real processes, one or several workers."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.bundle.archive import write_archive
from service.bundle.store import Repository
from service.engine.loading import load_flow
from service.plan import run_now
from tests.processes import children
from tests.server import Server, environment
from tests.service.bundles import bundle, coupling, install
from tests.service.process.reloads import BODY, Clients
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the workers")


KINDS = 8
"""So many versions in a row have answers of their own; the next has those of the first of them again."""


def version(number):
    return coupling("flow", number, seed=number % KINDS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Versions 1 to 8 as archives, and what each answers to `BODY`."""
    rows = np.array(json.loads(BODY)["x"], np.float32)
    root = tmp_path_factory.mktemp("made")
    archives, answers = {}, {}
    for number in range(1, KINDS + 1):
        found = bundle(root, version(number))
        buffer = io.BytesIO()
        write_archive(Repository(root).path("flow", number), buffer)
        archives[number] = buffer.getvalue()
        densities = run_now(load_flow(found).log_prob(rows)).log_prob
        answers[number] = json.loads("[" + ",".join(str(value) for value in densities) + "]")
    return archives, answers


@pytest.fixture
def root(tmp_path):
    install(tmp_path / "repository", version(1))
    return tmp_path / "repository"


@pytest.fixture
def started(root):
    servers = []

    def start(*options, workers=1):
        servers.append(Server("--repository", root, "--workers", workers, "--log-level", "info", *options))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


def ask(server, body=BODY, path="/logprob"):
    return httpx.post(server.url + path, content=body, timeout=60).json().get("version")


def put(server, archives, number):
    return httpx.put(f"{server.url}/repository/flow/versions/{number}", content=archives[number], timeout=120)


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_reloads_under_clients_fail_none_and_mix_none(started, made, workers):
    archives, answers = made
    server = started(workers=workers)
    clients = Clients(server.port, 6, answers)
    until(lambda: clients.answers > 20)
    for number in range(2, 7):
        assert put(server, archives, number).status_code == 201
        assert ask(server) == number  # on any worker: a new connection each time
        assert ask(server) == number
        gone = httpx.delete(f"{server.url}/repository/flow/versions/{number - 1}", timeout=60)
        assert gone.status_code == 200
        after = clients.answers
        until(lambda after=after: clients.answers > after + 10)
    clients.stop()
    assert clients.faults == []
    assert {2, 6} <= clients.versions
    assert server.stop() == 0


def test_a_worker_that_is_replaced_serves_what_its_neighbour_does(started, made, root):
    server = started(workers=2)
    install(root, version(2))
    victim, other = children(server.process.pid)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(set(children(server.process.pid)) - {victim}) == 2)
    until(lambda: "2.0" in metric(server, "pushforward_workers "))
    assert {ask(server) for _ in range(30)} == {1}
    assert other in children(server.process.pid)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: ask(server) == 2)
    until(lambda: {ask(server) for _ in range(20)} == {2})
    assert server.stop() == 0


def metric(server, name):
    text = httpx.get(server.url + "/metrics", timeout=60).text
    return next((line for line in text.splitlines() if line.startswith(name)), "")


def test_a_worker_that_cannot_serve_what_its_neighbour_does_stays_away_and_says_why(started, made, root):
    server = started(workers=2)
    graph = root / "flow" / "1" / "forward.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + b"\0")
    victim, _ = children(server.process.pid)
    os.kill(victim, signal.SIGKILL)
    lines = []

    def says_why():
        lines.append(server.process.stderr.readline())
        return "cannot serve: flow version 1 cannot be served as the other workers serve it: forward.onnx" in lines[-1]

    until(says_why)
    assert {ask(server) for _ in range(20)} == {1}
    graph.write_bytes(whole)
    until(lambda: "2.0" in metric(server, "pushforward_workers "))
    assert server.stop() == 0


def test_hangup_reloads_one_process_and_ends_nothing(started, made, root):
    server = started()
    clients = Clients(server.port, 3, made[1])
    install(root, version(2))
    server.process.send_signal(signal.SIGHUP)
    until(lambda: ask(server) == 2)
    (root / "flow" / "aliases.json").write_text('{"stable": 1}')
    server.process.send_signal(signal.SIGHUP)
    until(lambda: ask(server, path="/models/flow/versions/stable/logprob") == 1)
    clients.stop()
    assert clients.faults == []
    assert server.stop() == 0


def test_hangup_replaces_all_workers_in_turn_and_refuses_no_connection(started, made, root):
    server = started(workers=2)
    before = set(children(server.process.pid))
    clients = Clients(server.port, 4, made[1])
    install(root, version(2))
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(set(children(server.process.pid)) - before) == 2 == len(children(server.process.pid)))
    assert ask(server) == 2
    clients.stop()
    assert clients.faults == []
    assert {1, 2} <= clients.versions
    assert "2.0" in metric(server, "pushforward_workers ")
    install(root, version(3))
    server.process.send_signal(signal.SIGHUP)  # and once more, with the numbers that are free now
    until(lambda: ask(server) == 3)
    until(lambda: len(children(server.process.pid)) == 2)
    assert server.stop() == 0


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_watched_folder_is_served_as_it_changes(started, made, root, workers):
    server = started("--watch", "--watch-seconds", "0.1", workers=workers)
    install(root, version(2))
    until(lambda: ask(server) == 2)
    graph = install(root.parent / "other", version(3)).path("flow", 3)
    (graph / "forward.onnx").write_bytes((graph / "forward.onnx").read_bytes()[:-1] + b"\0")
    graph.rename(root / "flow" / "3")
    listed = lambda: httpx.get(server.url + "/repository", timeout=60).json()["flows"][0]["versions"]  # noqa: E731
    until(lambda: [each["state"] for each in listed()] == ["ready", "ready", "failed"])
    assert ask(server) == 2
    Repository(root).remove("flow", 2)
    until(lambda: ask(server) == 1)
    server.process.send_signal(signal.SIGTERM)
    _, errors = server.process.communicate(timeout=60)
    assert "Traceback" not in errors
    assert errors.count("flow version 3 is not served: digest_mismatch") == 1


@pytest.mark.slow
def test_an_alias_moves_on_all_workers_at_once(started, made, root):
    install(root, version(2))
    server = started(workers=2)
    path = "/models/flow/versions/stable/logprob"
    for number in (1, 2, 1):
        url = f"{server.url}/repository/flow/aliases/stable"
        assert httpx.put(url, json={"version": number}, timeout=60).json()["kept"] is True
        assert {ask(server, path=path) for _ in range(20)} == {number}
    for worker in children(server.process.pid):
        os.kill(worker, signal.SIGKILL)
        until(lambda worker=worker: worker not in children(server.process.pid))
        until(lambda: "2.0" in metric_or_nothing(server))
    assert {ask(server, path=path) for _ in range(20)} == {1}
    assert server.stop() == 0


def metric_or_nothing(server):
    try:
        return metric(server, "pushforward_workers ")
    except httpx.HTTPError:
        return ""


def packed(number, folder):
    """A version as a tar."""
    buffer = io.BytesIO()
    write_archive(install(folder, version(number)).path("flow", number), buffer)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_hundred_reloads_under_64_clients(started, made, tmp_path, workers):
    """None fails, none is mixed, no version goes back on one connection, and memory, threads and files stay."""
    _, answers = made
    server = started(workers=workers)
    expected = {number: answers[number % KINDS or KINDS] for number in range(1, 102)}
    clients = Clients(server.port, 64, expected)
    sizes = []
    for number in range(2, 102):
        assert put(server, {number: packed(number, tmp_path / "made")}, number).status_code == 201
        assert httpx.delete(f"{server.url}/repository/flow/versions/{number - 1}", timeout=60).is_success
        if number % 20 == 0:
            sizes.append(sum(map(resident_megabytes, processes_of(server))))
    clients.stop()
    assert clients.faults == []
    assert 101 in clients.versions
    assert max(sizes[1:]) < sizes[0] + 30 * workers, sizes
    assert server.stop() == 0


def processes_of(server):
    return children(server.process.pid) or [server.process.pid]


def resident_megabytes(process):
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_whose_terminal_is_closed_ends(root, workers):
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "pushforward", "serve", "--repository", str(root), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        os.close(theirs)
        assert b"Pushforward serves flow" in process.stdout.readline()
        process.send_signal(signal.SIGHUP)  # while it is there, this is a reload
        install(root, version(2))
        os.close(ours)
        process.send_signal(signal.SIGHUP)  # which the system sends to the process of the terminal's session
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
