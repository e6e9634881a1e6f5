from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.engine.metrics import shared_counters
from service.engine.metrics.shared_counters import REGION_BYTES, SharedCounters, shared_file

COUNT = ("requests", "/logprob")
GAUGE = ("ready", "two-moons")


def test_regions_add_up():
    counters = SharedCounters(3)
    for number, much in enumerate((1, 10, 100)):
        cells = counters.claim_region(number).cells("counter", COUNT, 2)
        cells[0] += much
        cells[1] += 0.5
    assert counters.read().cells == {COUNT: [111.0, 1.5]}
    assert counters.read().live == [0, 1, 2]


def test_the_same_name_is_the_same_cells():
    region = SharedCounters().claim_region(0)
    region.cells("counter", COUNT)[0] += 1
    assert region.cells("counter", COUNT)[0] == 1


def test_who_takes_a_dead_ones_place_counts_on_and_starts_its_gauges_anew():
    counters = SharedCounters(2)
    for number in range(2):
        region = counters.claim_region(number)
        region.cells("counter", COUNT)[0] += 5
        region.cells("gauge", GAUGE)[0] = 1
    counters.release(0)
    totals = counters.read()
    assert totals.cells == {COUNT: [10.0], GAUGE: [1.0]}  # its counts stay, its gauge is gone
    assert totals.live == [1]
    region = counters.claim_region(0)
    assert counters.read().cells == {COUNT: [10.0], GAUGE: [1.0]}
    region.cells("counter", COUNT)[0] += 1
    region.cells("gauge", GAUGE)[0] = 1
    assert counters.read().cells == {COUNT: [11.0], GAUGE: [2.0]}
    assert counters.read().live == [0, 1]


@pytest.mark.parametrize("memfd", [True, False])
def test_a_killed_process_leaves_what_it_counted(monkeypatch, memfd):
    if not memfd:
        monkeypatch.delattr(os, "memfd_create")
    elif not hasattr(os, "memfd_create"):
        pytest.skip("this system has no memfd_create")
    script = f"""
import os, signal
from service.engine.metrics.shared_counters import SharedCounters
cells = SharedCounters(2, int(os.environ["FILE"])).claim_region(1).cells("counter", {COUNT!r})
for _ in range(1000):
    cells[0] += 1
os.kill(os.getpid(), signal.SIGKILL)
"""
    with shared_file(2) as file:
        counters = SharedCounters(2, file.fileno())
        started = counters.read().started
        environment = os.environ | {"FILE": str(file.fileno())}
        done = subprocess.run([sys.executable, "-c", script], env=environment, pass_fds=(file.fileno(),), check=False)
        assert done.returncode < 0
        assert counters.read().cells == {COUNT: [1000.0]}
        assert counters.read().started == started > 0


def test_a_name_may_hold_anything():
    region = SharedCounters().claim_region(0)
    names = [("a", ""), ("a",), ("a", "ü", '"', "\n" * 9), ("a", "b" * 1000)]
    for at, name in enumerate(names):
        region.cells("counter", name)[0] = at + 1
    counters = SharedCounters()
    counters.claim_region(0).cells("counter", names[2])[0] = 7
    assert counters.read().cells == {names[2]: [7.0]}


def test_where_there_is_no_room_it_says_so_once_and_goes_on(monkeypatch, caplog):
    monkeypatch.setattr(shared_counters, "REGION_BYTES", 256)
    counters = SharedCounters()
    region = counters.claim_region(0)
    for number in range(20):
        region.cells("counter", ("requests", str(number)))[0] += 1
    assert 0 < len(counters.read().cells) < 20
    assert caplog.text.count("there is no room for more metrics") == 1


def test_a_region_is_large_and_costs_nothing_until_it_is_used():
    with shared_file(8) as file:
        SharedCounters(8, file.fileno()).claim_region(3)
        status = os.fstat(file.fileno())
        assert status.st_size == 8 * REGION_BYTES
        assert status.st_blocks * 512 < REGION_BYTES / 100
