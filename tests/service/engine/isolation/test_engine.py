from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.engine.isolation.engine import IsolatedEngine
from service.engine.isolation.options import Isolation
from service.engine.isolation.process import EngineProcess, RunFailed
from service.engine.isolation.quarantine import MAX_ENDS, WINDOW_SECONDS
from service.engine.runtime.graph import CpuGraph
from service.errors import BundleError, EngineLost
from tests.processes import children, lives
from tests.service.bundles import affine, bundle, coupling, image, in_float64, traced
from tests.service.engine.isolation import dying_child, faulty_child
from tests.service.engine.isolation.faulty_child import CRASH, FAIL, FILL, HANG
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the processes of an engine")


class Counts:
    """What an engine counts."""

    def __init__(self, others=None):
        self.restarts, self.processes, self.quarantines, self.others = [], 0, 0, others

    def count_quarantine(self):
        self.quarantines += 1

    def read_others(self):
        return self.others

    def count_restart(self, cause):
        self.restarts.append(cause)

    def set_processes(self, count):
        self.processes = count


@pytest.fixture
def opened():
    made = []

    def start(content, counts=None, module=faulty_child.MODULE, quarantined=None, clock=lambda: 0.0, **options):
        isolation = Isolation(None, **{"processes": 1, "hang_seconds": 60.0, **options})
        made.append(
            IsolatedEngine(content, isolation, 300, counts or Counts(), quarantined, clock=clock, module=module)
        )
        return made[-1]

    yield start
    for engine in made:
        engine.close()


@pytest.fixture
def content(tmp_path):
    return bundle(tmp_path, coupling(width=3))


def rows(*first, count=1):
    made = np.zeros((max(count, len(first)), 3), np.float32)
    made[: len(first), 0] = first
    return made


def bits(outputs):
    return [array.tobytes() for array in outputs.arrays]


@pytest.mark.parametrize(
    "made",
    [
        lambda: traced(affine(event_shape=(3,), context_width=2)),
        image,
        lambda: in_float64(coupling(width=5), "wide"),
    ],
)
def test_a_row_has_the_same_bits_as_in_the_server_itself(tmp_path, opened, made):
    parts = made()
    manifest = parts.manifest
    content = bundle(tmp_path, parts)
    engine = opened(content)
    generator = np.random.default_rng(0)
    for direction in ("forward", "inverse", *(["trace"] if manifest.trace else [])):
        shape = [manifest.latent_width] if direction == "inverse" else manifest.event_shape
        apart, here = engine.graph(direction), CpuGraph(content, direction)
        assert apart.width == here.width
        for count in (1, 2, 4, 5, 64, 300):
            x = generator.uniform(0.01, 0.9, size=(count, *shape)).astype(manifest.dtype)
            context = generator.normal(size=(count, manifest.context_width)).astype(manifest.dtype)
            given = context if manifest.context_width else None
            found, expected = apart(x, given), here(x, given)
            assert bits(found) == bits(expected)
            assert [array.shape for array in found.arrays] == [array.shape for array in expected.arrays]
            assert found.finite == expected.finite


@pytest.mark.parametrize(("row", "cause"), [(CRASH, "crash"), (HANG, "hang")])
def test_a_batch_that_loses_its_engine_is_told_so_and_the_next_one_is_served(content, opened, caplog, row, cause):
    counts = Counts()
    engine = opened(content, counts, hang_seconds=1.0)
    graph = engine.graph("forward")
    before, first = bits(graph(rows(0.5), None)), engine.pids
    with pytest.raises(EngineLost, match="another engine takes its place"):
        graph(rows(row), None)
    assert bits(graph(rows(0.5), None)) == before
    assert counts.restarts == [cause]
    assert engine.pids != first
    assert not lives(first[0])
    assert "an engine of coupling version 1" in caplog.text


def test_a_process_that_is_lost_is_replaced_though_nobody_asks(content, opened):
    counts = Counts()
    engine = opened(content, counts)
    first = engine.pids
    os.kill(first[0], signal.SIGSEGV)
    until(lambda: engine.pids and engine.pids != first)
    assert counts.restarts == ["crash"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_batch_that_had_not_begun_is_not_lost(content, opened, number):
    engine = opened(content, hang_seconds=1.0)
    os.kill(engine.pids[0], number)
    assert len(engine.graph("forward")(rows(0.5), None).log_prob) == 1


def test_a_batch_in_another_process_goes_on(content, opened):
    engine = opened(content, processes=2)
    until(lambda: len(engine.pids) == 2)
    graph = engine.graph("forward")
    lost = []

    def hang():
        with pytest.raises(EngineLost):
            graph(rows(HANG), None)
        lost.append(True)

    thread = threading.Thread(target=hang)
    busy = until_one_is_busy(engine, thread.start)
    assert len(graph(rows(0.5), None).log_prob) == 1
    assert lost == []
    os.kill(busy, signal.SIGKILL)
    thread.join(60)
    assert lost == [True]


def until_one_is_busy(engine, start):
    """Start something, wait until a process has begun with its batch, and give the number of that process."""
    trials = {process: process._number for process in engine._ready}
    busy = []
    start()

    def begun():
        busy[:] = [each for each in engine._ready if each._batch.begun > trials[each]]
        return busy

    until(begun)
    return busy[0].pid


def test_an_error_of_onnx_runtime_costs_no_process(content, opened):
    counts = Counts()
    engine = opened(content, counts)
    first = engine.pids
    with pytest.raises(RunFailed, match="RuntimeError: at node 7"):
        engine.graph("forward")(rows(FAIL), None)
    assert len(engine.graph("forward")(rows(0.5), None).log_prob) == 1
    assert (engine.pids, counts.restarts) == (first, [])


def test_memory_is_bounded(content, opened):
    engine = opened(content, memory_bytes=1 << 30)
    with pytest.raises(RunFailed, match="MemoryError"):
        engine.graph("forward")(rows(FILL), None)
    assert len(engine.graph("forward")(rows(0.5), None).log_prob) == 1


def test_three_crashes_in_a_minute_are_quarantined(content, opened):
    told, counts = [], Counts()
    engine = opened(content, counts, quarantined=told.append)
    graph = engine.graph("inverse")
    for _ in range(MAX_ENDS):
        with pytest.raises(EngineLost, match="crashed in a batch"):
            graph(rows(CRASH), None)
    until(lambda: told)
    with pytest.raises(EngineLost, match="3 times within a minute"):
        graph(rows(0.5), None)
    assert "3 times within a minute" in told[0].detail
    assert counts.restarts == ["crash"] * MAX_ENDS
    until(lambda: counts.processes == 0)
    assert engine.pids == []


def test_crashes_that_are_further_apart_are_not(content, opened):
    times = iter(range(0, 100_000, int(WINDOW_SECONDS)))
    told = []
    engine = opened(content, quarantined=told.append, clock=lambda: float(next(times)))
    for _ in range(MAX_ENDS + 1):
        with pytest.raises(EngineLost, match="crashed in a batch"):
            engine.graph("inverse")(rows(CRASH), None)
    assert len(engine.graph("inverse")(rows(0.5), None).log_prob) == 1
    assert told == []


@pytest.mark.parametrize("ends", [MAX_ENDS, 2 * MAX_ENDS])
def test_what_other_workers_meet_counts_as_well(content, opened, ends):
    told, counts = [], Counts(others=50)
    engine = opened(content, counts, quarantined=told.append)
    assert len(engine.graph("inverse")(rows(0.5), None).log_prob) == 1, "what was before does not count"
    counts.others += ends
    until(lambda: told)
    assert (counts.quarantines, counts.restarts) == (1, [])
    with pytest.raises(EngineLost, match="3 times within a minute"):
        engine.graph("inverse")(rows(0.5), None)


def test_where_the_machine_starts_no_process_it_is_tried_again(content, opened, monkeypatch, caplog):
    made, failures = EngineProcess.__init__, iter([OSError(11, "too many processes")] * 2)

    def start(process, files):
        if error := next(failures, None):
            raise error
        made(process, files)

    counts = Counts()
    engine = opened(content, counts)
    monkeypatch.setattr("service.engine.isolation.engine._FIRST_DELAY", 0.01)
    monkeypatch.setattr(EngineProcess, "__init__", start)
    os.kill(engine.pids[0], signal.SIGKILL)
    assert len(engine.graph("inverse")(rows(0.5), None).log_prob) == 1
    assert caplog.text.count("too many processes") == 2
    assert counts.restarts == ["crash"]


def test_where_the_machine_starts_no_process_at_all_the_flow_is_not_served(content, opened, monkeypatch):
    def start(process, files):
        raise OSError(11, "too many processes")

    monkeypatch.setattr(EngineProcess, "__init__", start)
    with pytest.raises(EngineLost, match="no process can be started for the engine of this flow: too many processes"):
        opened(content)


def test_callers_get_their_own_answers_whatever_becomes_of_others(content, opened):
    times = iter(range(0, 100_000, int(WINDOW_SECONDS)))
    engine = opened(content, processes=2, clock=lambda: float(next(times)))
    graph, here = engine.graph("forward"), CpuGraph(content, "forward")

    def ask(caller):
        generator = np.random.default_rng(caller)
        for at in range(60):
            given = generator.normal(size=(1 + at % 7, 3)).astype(np.float32)
            if at == 15 * caller:
                given[0, 0] = (CRASH, FAIL, CRASH)[caller]
                with pytest.raises(RunFailed if caller == 1 else EngineLost):
                    graph(given, None)
            else:
                assert bits(graph(given, None)) == bits(here(given, None))
        return True

    with ThreadPoolExecutor(3) as callers:
        assert list(callers.map(ask, range(3))) == [True] * 3


def test_a_graph_that_onnx_runtime_refuses_is_refused(content, opened):
    broken = dataclasses.replace(content, graphs={**content.graphs, "inverse.onnx": b"\x08\x09nonsense"})
    before = children(os.getpid())
    with pytest.raises(BundleError, match=r"^ONNX Runtime cannot load inverse\.onnx$"):
        opened(broken)
    assert children(os.getpid()) == before


def test_an_engine_that_crashes_while_it_loads_is_refused(content, opened):
    with pytest.raises(BundleError, match="crashes while it loads the graphs"):
        opened(content, module=dying_child.MODULE)


def test_an_engine_that_is_not_ready_in_time_is_refused(content, opened):
    with pytest.raises(BundleError, match="hangs while it loads the graphs"):
        opened(content, start_seconds=1e-3)


def test_signals_of_a_terminal_and_of_a_service_manager_are_left_to_the_server(content, opened):
    counts = Counts()
    engine = opened(content, counts)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(engine.pids[0], number)
    assert len(engine.graph("forward")(rows(0.5), None).log_prob) == 1
    assert os.getsid(engine.pids[0]) != os.getsid(0)
    assert counts.restarts == []


def test_a_closed_engine_leaves_no_process_and_no_thread(content, opened):
    threads = threading.active_count()
    engine = opened(content, processes=2)
    until(lambda: len(engine.pids) == 2)
    pids = engine.pids
    engine.close()
    assert not any(map(lives, pids))
    assert threading.active_count() == threads
    with pytest.raises(EngineLost, match="is closed"):
        engine.graph("forward")(rows(0.5), None)


OWNER = """
import sys, threading
from pathlib import Path
import numpy as np
from service.bundle.store import read_bundle
from service.engine.isolation.engine import IsolatedEngine
from service.engine.isolation.options import Isolation
from tests.service.engine.isolation.faulty_child import HANG, MODULE
from tests.service.engine.isolation.test_engine import Counts, rows, until_one_is_busy

engine = IsolatedEngine(read_bundle(Path(sys.argv[1])), Isolation(None, processes=1), 300, Counts(), module=MODULE)
thread = threading.Thread(target=engine.graph("forward"), args=(rows(HANG), None))
print(until_one_is_busy(engine, thread.start), flush=True)
thread.join()
"""


def test_a_process_that_hangs_does_not_outlive_a_server_that_is_killed(tmp_path):
    bundle(tmp_path, coupling(width=3))
    owner = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path / "coupling" / "1"], stdout=subprocess.PIPE)
    with owner:
        pid = int(owner.stdout.readline())
        assert lives(pid)
        owner.kill()
    until(lambda: not lives(pid))


def test_the_socket_of_a_process_that_ended_is_not_closed_under_a_batch(content, opened):
    # The thread of the batch would read from whatever descriptor takes its number: the socket of the next process.
    engine = opened(content)
    process = engine._ready[0]
    with process._using:
        closing = threading.Thread(target=process.close)
        closing.start()
        until(lambda: not lives(process.pid))
        closing.join(0.1)
        assert process._control.fileno() != -1
    closing.join(60)
    assert process._control.fileno() == -1


def test_what_a_process_answers_is_taken_for_numbers_only(content, opened):
    engine = opened(content)
    os.kill(engine.pids[0], signal.SIGSTOP)
    process = engine._ready[0]
    process._batch.begin(1 << 40)  # it may write into the shared memory what it likes
    os.kill(engine.pids[0], signal.SIGCONT)
    assert len(engine.graph("forward")(rows(0.5), None).log_prob) == 1
