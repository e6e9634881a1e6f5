"""The generator notices every way in which an answer can be wrong or missing, and counts time from the arrival."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from benchmarks import load
from benchmarks.load import Generator, NoCompiler, Phase, PlannedRequest
from benchmarks.serving import Request
from tests.benchmarks.echo import Call, due, echo

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return load.build_generator(tmp_path_factory.mktemp("load"))


def plan(connections: int, each: int = 1) -> list[list[PlannedRequest]]:
    bodies = [[f"{i}:{j}".encode() for j in range(each)] for i in range(connections)]
    return [[(Request("POST", "/echo", body), due(body)) for body in own] for own in bodies]


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def honest(call: Call) -> None:
    call.answer(due(call.body))


def on_second(misbehave):
    """Honest, but for the second request of each connection."""

    def behave(call: Call) -> None:
        (misbehave if call.number == 1 else honest)(call)

    return behave


def counts(phase: Phase) -> dict[str, int]:
    names = ("wrong", "resets", "early", "hangs", "malformed", "unreached", "unadvised", "given_up", "unsent", "late")
    return {name: getattr(phase, name) for name in names if getattr(phase, name)}


def test_an_honest_server_has_nothing_against_it(generator: Generator):
    with echo(honest) as server:
        phase = generator.closed(server.port, plan(8, each=3), 0.3, threads=2)
        assert counts(phase) == {}
        assert phase.refused == {}
        assert phase.ok == phase.arrivals == sum(len(bodies) for bodies in server.bodies)
        assert phase.ok > 80
        assert len(server.bodies) == 8
        for bodies in server.bodies:  # each connection sent its own list, over and over, in order
            first = bodies[0].split(b":")[0]
            assert bodies == [first + b":%d" % (j % 3) for j in range(len(bodies))]
        assert len({bodies[0] for bodies in server.bodies}) == 8


def test_chunked_answers_are_read_across_any_cut(generator: Generator):
    def behave(call: Call) -> None:
        body = due(call.body)
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        pieces = [body[:5], body[5:]]
        text = head + b"".join(b"%x;note=1\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\nTrailer: 1\r\n\r\n"
        if call.number == 1:
            for at in range(len(text)):
                call.socket.sendall(text[at : at + 1])
        else:
            call.socket.sendall(text)

    with echo(behave) as server:
        phase = generator.closed(server.port, plan(2), 0.3)
    assert counts(phase) == {}
    assert phase.ok == phase.arrivals > 4


@pytest.mark.parametrize(
    ("misbehave", "found"),
    [
        (lambda call: call.answer(b"another to " + call.body), {"wrong": 1}),
        (lambda call: call.answer(due(call.body)[:-1]), {"wrong": 1}),
        (lambda call: call.answer(due(call.body) + b"."), {"wrong": 1}),
        (lambda call: call.answer(b""), {"wrong": 1}),
        (lambda call: call.close(), {"early": 1}),
        (lambda call: (call.answer(b"answ", length=20), call.close()), {"early": 1}),
        (lambda call: call.reset(), {"resets": 1}),
        (lambda call: (call.over.wait(), call.close()), {"hangs": 1}),
        (lambda call: call.socket.sendall(b"this is no HTTP answer at all\r\n\r\n"), {"malformed": 1}),
        (lambda call: call.socket.sendall(b"HTTP/1.1 200 OK\r\n\r\nunto the end"), {"malformed": 1}),
        (lambda call: call.answer(due(call.body) + b"and more", length=len(due(call.body))), {"malformed": 1}),
        (lambda call: call.answer(2 * due(call.body), length=len(due(call.body))), {"malformed": 1}),
        (lambda call: call.socket.sendall(2 * whole(due(call.body))), {"malformed": 1}),
        (lambda call: call.answer(b"", 429), {"unadvised": 1}),
        (lambda call: call.answer(b"", 503), {"unadvised": 1}),
    ],
    ids=[
        "another's body",
        "a body too short",
        "a body too long",
        "an empty body",
        "closed without an answer",
        "closed in the middle",
        "reset",
        "no answer",
        "no HTTP",
        "no length",
        "more bytes than the answer",
        "the body twice",
        "the answer twice",
        "429 without Retry-After",
        "503 without Retry-After",
    ],
)
def test_one_fault_is_counted_once_and_the_run_goes_on(generator: Generator, misbehave, found: dict[str, int]):
    with echo(lambda call: misbehave(call) if (call.connection, call.number) == (0, 1) else honest(call)) as server:
        phase = generator.closed(server.port, plan(1), 0.8, limit=0.3)
    assert counts(phase) == found
    assert phase.ok > 10


def test_two_answers_swapped_between_connections_are_both_wrong(generator: Generator):
    meeting = threading.Barrier(2)
    bodies: dict[int, bytes] = {}

    def swap(call: Call) -> None:
        bodies[call.connection] = call.body
        meeting.wait(5)
        call.answer(due(bodies[1 - call.connection]))

    with echo(on_second(swap)) as server:
        phase = generator.closed(server.port, plan(2), 0.3)
    assert counts(phase) == {"wrong": 2}


def test_two_answers_swapped_on_one_connection_are_both_wrong(generator: Generator):
    def swap(call: Call) -> None:
        call.answer(due({b"0:0": b"0:1", b"0:1": b"0:0"}[call.body]) if call.number < 2 else due(call.body))

    with echo(swap) as server:
        phase = generator.closed(server.port, plan(1, each=2), 0.3)
    assert counts(phase) == {"wrong": 2}


def test_refusals_are_counted_by_status(generator: Generator):
    def behave(call: Call) -> None:
        if call.number % 2:
            call.answer(b"{}", 429, "Retry-After: 1")
        else:
            honest(call)

    with echo(behave) as server:
        phase = generator.closed(server.port, plan(2), 0.2)
    assert counts(phase) == {}
    assert phase.ok + phase.refused["429"] == phase.arrivals
    assert abs(phase.ok - phase.refused["429"]) <= 2


def test_a_connection_that_is_closed_after_its_answer_is_opened_again(generator: Generator):
    def behave(call: Call) -> None:
        call.answer(due(call.body), 200, "Connection: close")
        call.close()

    with echo(behave) as server:
        phase = generator.closed(server.port, plan(2), 0.3)
        assert len(server.bodies) >= phase.ok
    assert counts(phase) == {}
    assert phase.ok == phase.closings > 4


def test_nobody_listens(generator: Generator):
    with echo(honest) as server:
        port = server.port
    phase = generator.closed(port, plan(2), 0.2)
    assert set(counts(phase)) == {"unreached"}
    assert phase.arrivals == phase.ok == 0


def test_a_large_request_arrives_whole(generator: Generator):
    body = bytes(range(256)) * (1 << 15)
    with echo(honest) as server:
        phase = generator.closed(server.port, [[(Request("POST", "/echo", body), due(body))]], 0.3)
        assert counts(phase) == {}
        assert phase.ok > 0
        assert all(came == body for came in server.bodies[0])


def test_a_large_request_that_is_refused_before_it_is_read(generator: Generator):
    body = b"x" * (8 << 20)
    request = Request("POST", "/echo", body)
    with echo(lambda call: call.answer(b"{}", 413, "Connection: close"), reads_bodies=False) as server:
        phase = generator.closed(server.port, [[(request, due(body))]], 0.2)
    assert phase.refused.get("413", 0) >= 1
    assert phase.ok == 0


def test_any_body_will_do_where_none_is_due(generator: Generator):
    with echo(honest) as server:
        phase = generator.closed(server.port, [[(Request("POST", "/echo", b"1"), None)]], 0.1)
    assert phase.ok == phase.arrivals > 0


def test_arrivals_are_a_poisson_process_of_the_rate_and_the_seed(generator: Generator):
    with echo(honest) as server:

        def arrivals(seed: int) -> int:
            (phase,) = generator.open(server.port, plan(8), [(1.0, 400)], seed=seed, threads=2)
            assert counts(phase).keys() <= {"unsent"}  # what a busy machine had not sent when time was over
            assert phase.ok + phase.unsent == phase.arrivals
            return phase.arrivals

        found = [arrivals(seed) for seed in (1, 1, 2, 3)]
    assert found[0] == found[1]
    assert len(set(found)) > 1
    assert all(abs(n - 400) < 6 * 20 for n in found)


def test_time_in_the_client_s_queue_counts(generator: Generator):
    def slow(call: Call) -> None:
        call.over.wait(0.02)
        honest(call)

    with echo(slow) as server:  # it can do 50 a second, and is offered 200
        (phase,) = generator.open(server.port, plan(1), [(1.0, 200)], seed=1)
    arrival, send = phase.from_arrival["p90"], phase.from_send["p90"]
    assert arrival is not None
    assert send is not None
    assert arrival > 0.4
    assert send < arrival / 3
    assert phase.unsent > 80
    assert phase.ok + phase.unsent == phase.arrivals


def test_what_waits_too_long_is_given_up_and_what_comes_after_the_deadline_is_late(generator: Generator):
    def slow(call: Call) -> None:
        call.over.wait(0.15)
        honest(call)

    with echo(slow) as server:
        (phase,) = generator.open(server.port, plan(1), [(1.0, 40)], seed=1, deadline=0.1, patience=0.02)
    assert phase.late == phase.ok > 2
    assert phase.goodput == 0
    assert phase.given_up > 20
    assert phase.from_arrival["max"] is not None
    assert phase.from_arrival["max"] < 0.5
    assert phase.ok + phase.given_up + phase.unsent == phase.arrivals


def test_requests_belong_to_the_phase_of_their_arrival(generator: Generator):
    with echo(honest) as server:
        phases = generator.open(server.port, plan(8), [(0.3, 100), (0.3, 400), (0.3, 0), (0.3, 100)], seed=3)
    assert [phase.rate for phase in phases] == [100, 400, 0, 100]
    arrivals = [phase.arrivals for phase in phases]
    assert arrivals[2] == 0
    assert 5 < arrivals[0] < arrivals[1] / 2
    assert 5 < arrivals[3] < arrivals[1] / 2
    assert [phase.ok for phase in phases] == arrivals


def test_a_plan_that_is_cut_is_told(generator: Generator, tmp_path: Path):
    path = tmp_path / "plan"
    load.write_plan(path, 1, plan(2))
    whole = path.read_bytes()
    for size in (4, 12, 40, len(whole) - 1):
        path.write_bytes(whole[:size])
        command = [generator.binary, "--port", "1", "--closed", "0.1", path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "plan" in done.stderr


def test_without_a_compiler_there_is_a_clear_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCompiler, match=r"no C compiler .* apt-get install"):
        load.build_generator(tmp_path)


def test_a_compiler_that_cannot_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho no epoll here >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(NoCompiler, match="no epoll here"):
        load.build_generator(tmp_path)
