"""Servers of several workers: real processes, killed and interrupted as an operator or a fault would."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from service.process.preflight import REUSES_PORTS
from tests.processes import children, lives, owner
from tests.server import Server, environment
from tests.service.scraped import Scraped
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which worker holds a connection")

BODY = b'{"x": [[1, 2]]}'
HEAD = b"POST /logprob HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % len(BODY)


class Several(Server):
    """A server of two workers, and connections to it."""

    def __init__(self, *options, env=None):
        self.connections = []
        super().__init__("--workers", 2, *options, env=env)

    @property
    def workers(self):
        return children(self.process.pid)

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.connections.append(connection)
        return connection

    def to_each(self):
        """A connection to each worker, by the worker's process."""
        workers, found = self.workers, {}

        def reached_all():
            connection = self.connect()
            ask(connection)  # so that it has been accepted
            found.setdefault(owner(connection.getsockname()[1], workers), connection)
            return len(found) == len(workers) == 2

        until(reached_all)
        return found

    def is_closed(self):
        try:
            self.connect()
        except OSError:
            return True
        return False

    def kill(self):
        super().kill()
        for connection in self.connections:
            connection.close()


@pytest.fixture
def started(repository):
    made = []

    def start(*options):
        made.append(Several("--repository", repository, "--default-flow", "two-moons", *options))
        return made[-1]

    yield start
    for one in made:
        workers = one.workers
        one.kill()
        until(lambda workers=workers: not any(map(lives, workers)))


def ask(connection, sent=HEAD + BODY):
    """One whole answer on a connection: status and body; nothing where the connection has ended."""
    connection.sendall(sent)
    return answer(connection)


def answer(connection):
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1 << 16) or pytest.fail("the connection has ended")
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += connection.recv(1 << 16) or pytest.fail("the connection has ended")
    return int(head.split()[1]), body


def get(path):
    return b"GET " + path.encode() + b" HTTP/1.1\r\nhost: test\r\n\r\n"


def scraped(connection):
    status, body = ask(connection, get("/metrics"))
    assert status == 200
    return Scraped(body.decode())


def test_every_worker_gives_the_same_bits_and_is_ready(started):
    server = started()
    rows = json.dumps({"x": [[0.1 * i, -0.3 * i] for i in range(50)]}).encode()
    asked = [
        b"POST /logprob HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\n\r\n" % len(rows) + rows,
        get("/sample?n=20&seed=7"),
        get("/models"),
        get("/health/ready"),
    ]
    answers = [[ask(connection, sent) for sent in asked] for connection in server.to_each().values()]
    assert len(answers) == 2
    assert answers[0] == answers[1]
    assert {status for status, _ in answers[0]} == {200}
    assert server.stop() == 0


def test_a_killed_worker_costs_its_own_connections_and_is_replaced(started):
    server = started()
    connections = server.to_each()
    victim, other = connections
    stop, codes, broken = threading.Event(), [], []

    def load(connection):
        try:
            while not stop.is_set():
                codes.append(ask(connection)[0])
        except (OSError, pytest.fail.Exception):
            broken.append(connection)

    callers = [threading.Thread(target=load, args=(connection,)) for connection in connections.values()]
    for caller in callers:
        caller.start()
    until(lambda: len(codes) > 100)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(set(server.workers) - {victim}) == 2)
    until(lambda: broken)
    after = len(codes)
    until(lambda: len(codes) > after + 100)
    stop.set()
    for caller in callers:
        caller.join()
    assert broken == [connections[victim]]  # the other went on, on the very same connection
    assert set(codes) == {200}
    (new,) = set(server.workers) - {other}
    again = server.to_each()
    assert set(again) == {other, new}
    assert ask(again[new], get("/health/ready"))[0] == 200
    server.process.send_signal(signal.SIGTERM)
    _, errors = server.process.communicate(timeout=60)
    assert "was ended by SIGKILL; another is started at once" in errors
    assert server.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_drain_what_is_in_flight(started, number):
    server = started("--drain-seconds", 20)
    connections = server.to_each()
    for connection in connections.values():
        connection.sendall(HEAD + BODY[:5])  # each worker waits for the rest
    server.process.send_signal(number)
    until(server.is_closed)
    for connection in connections.values():
        connection.sendall(BODY[5:])
        assert answer(connection)[0] == 200
    assert server.wait() == 0


def test_ctrl_c_reaches_each_worker_once(repository):
    """A terminal sends SIGINT to the whole group; a worker that took it twice would end at once."""
    command = [sys.executable, "-m", "pushforward", "serve", "--repository", repository, "--default-flow", "two-moons"]
    process = subprocess.Popen(
        [*map(str, command), "--port", "0", "--workers", "2", "--drain-seconds", "20"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        port = int(re.search(r":(\d+) ", process.stdout.readline())[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            ask(connection)
            connection.sendall(HEAD + BODY[:5])
            assert process.pid not in map(os.getpgid, children(process.pid))
            os.killpg(process.pid, signal.SIGINT)
            until(lambda: refuses(port))
            connection.sendall(BODY[5:])
            assert answer(connection)[0] == 200
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stdout.close()


def refuses(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30):
            return False
    except OSError:
        return True


def test_a_second_interrupt_ends_it_at_once(started):
    server = started("--drain-seconds", 600)
    workers = server.workers
    for connection in server.to_each().values():
        connection.sendall(HEAD + BODY[:5])
    server.process.send_signal(signal.SIGINT)
    until(server.is_closed)
    assert all(lives(worker) for worker in workers)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) == 0
    assert not any(lives(worker) for worker in workers)


def test_a_worker_that_hangs_at_the_end_is_killed(started):
    server = started("--drain-seconds", 0.1)
    workers = server.workers
    os.kill(workers[0], signal.SIGSTOP)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 1
    assert "1 of 2 workers did not end in time" in server.process.stderr.read()
    assert not any(lives(worker) for worker in workers)


STUCK = """
import signal

def hangs(*_):
    while True:
        pass

if hasattr(signal, "SIGUSR1"):
    signal.signal(signal.SIGUSR1, hangs)  # on the main thread, which is the event loop's
"""


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGSTOP, id="stopped"),
        pytest.param(signal.SIGUSR1, id="endless loop", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_hangs_is_killed_told_counted_and_replaced(repository, tmp_path, number):
    (tmp_path / "sitecustomize.py").write_text(STUCK)
    options = ("--repository", repository, "--default-flow", "two-moons", "--hang-seconds", 2)
    server = Several(*options, env=environment() | {"PYTHONPATH": str(tmp_path)})
    try:
        connections = server.to_each()
        victim, other = connections
        os.kill(victim, number)
        until(lambda: len(set(server.workers) - {victim}) == 2)
        assert not lives(victim)
        assert ask(connections[other])[0] == 200
        assert other in server.workers
        assert set(server.to_each()) == set(server.workers)
        found = scraped(connections[other])
        assert found.total("pushforward_worker_hangs_total") == 1
        assert found.total("pushforward_worker_starts_total") == 3
        server.process.send_signal(signal.SIGTERM)
        _, errors = server.process.communicate(timeout=60)
        assert re.search(r"worker \d hangs: its event loop has stood still for 2 s; it is killed", errors)
        assert "was ended by SIGKILL; another is started at once" in errors
        assert server.process.returncode == 0
    finally:
        server.kill()


def test_no_worker_outlives_its_supervisor(started):
    server = started("--drain-seconds", 1)
    workers = server.workers
    stuck = server.connect()
    stuck.sendall(HEAD + BODY[:5])  # the one that holds this has to wait, and may not wait for ever
    server.process.kill()
    until(lambda: not any(lives(worker) for worker in workers))


def test_counts_add_up_over_workers_and_outlive_them(started):
    server = started()
    route = {"method": "GET", "route": "/models", "status": 200}
    connections = server.to_each()
    for count, connection in enumerate(connections.values(), start=3):
        for _ in range(count):
            ask(connection, get("/models"))
    seen = [scraped(connection) for connection in connections.values()]
    assert [found.value("pushforward_requests_total", **route) for found in seen] == [7, 7]
    assert [found.total("pushforward_flow_state", state="ready") for found in seen] == [12, 12]
    victim, other = connections
    os.kill(victim, signal.SIGKILL)
    gauges = set()

    def replaced():
        found = scraped(connections[other])
        gauges.add((found.value("pushforward_workers"), found.total("pushforward_flow_state", state="ready")))
        assert found.value("pushforward_requests_total", **route) == 7
        return found.total("pushforward_worker_starts_total") == 3 and max(gauges) == (2.0, 12.0)

    until(replaced)
    until(lambda: scraped(connections[other]).total("pushforward_flow_state", state="ready") == 12)
    assert 6.0 in {ready for _, ready in gauges}  # what was of the dead one alone was gone
    (new,) = set(server.to_each()) - {other}
    assert new != victim
    assert server.stop() == 0


def test_a_port_in_use_is_a_clear_error(repository, started):
    server = started()
    for workers in (1, 2):
        done = serve("--repository", repository, "--port", server.port, "--workers", workers)
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1, port {server.port}" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(not REUSES_PORTS, reason="its workers share one socket")
def test_two_that_start_together_do_not_share_a_port(repository):
    with socket.socket() as free, socket.socket(socket.AF_UNIX) as name:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        name.bind(f"\0pushforward 127.0.0.1 {port}")  # as a server whose workers do not listen yet
        done = serve("--repository", repository, "--port", port, "--workers", 2)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1, port {port}: another server is starting there" in done.stderr


def serve(*options, **more):
    command = [sys.executable, "-m", "pushforward", "serve", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env=environment() | more, timeout=60, check=False)


@pytest.mark.parametrize(
    ("fault", "told"),
    [("os.abort()", "was ended by SIGABRT"), ("sys.exit(7)", "ended with status 7")],
)
def test_where_no_worker_can_start_the_server_ends_and_says_so(repository, tmp_path, fault, told):
    fake = tmp_path / "onnxruntime"
    fake.mkdir()
    (fake / "__init__.py").write_text(f"import os, sys\n{fault}\n")
    done = serve("--repository", repository, "--port", 0, "--workers", 2, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "no worker can be started: the last of 3 in a row " + told in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_where_ports_cannot_be_shared_workers_share_a_socket(repository):
    code = """
import sys
from service.settings import read_settings
from service.process.supervisor import serve
serve(read_settings(repository=sys.argv[1], port=0, workers=2), lambda url, _: print(url, flush=True), reuse=False)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(repository)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    try:
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url) as client:
            assert client.get("/health/ready").status_code == 200
            workers = children(process.pid)
            assert len(workers) == 2
            os.kill(workers[0], signal.SIGKILL)
            until(lambda: len(set(children(process.pid)) - {workers[0]}) == 2)
        with httpx.Client(base_url=url) as client:
            assert client.get("/health/ready").status_code == 200
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stdout.close()


def test_a_workers_command_line_tells_no_setting(started, repository):
    server = started()
    for worker in server.workers:
        command = Path(f"/proc/{worker}/cmdline").read_text()
        assert "service.process.worker" in command
        assert str(repository) not in command  # settings may hold secrets, and everybody reads a command line


def test_hot_requests_and_rows_add_up_too(started):
    server = started()
    connections = server.to_each()  # each by a hot request

    def counted():
        found = scraped(next(iter(connections.values())))
        rows = found.value("pushforward_rows_total", flow="two-moons", version=2, direction="forward")
        return found.value("pushforward_requests_total", method="POST", route="/logprob", status=200), rows

    requests, rows = counted()
    for connection in connections.values():
        for _ in range(5):
            ask(connection)
    assert counted() == (requests + 10, rows + 10)
