from __future__ import annotations

import pytest

from service.access.keys import KeyRing, make_key
from service.api.key_use import KeyUse
from service.engine.metrics.metrics import Metrics
from service.engine.metrics.shared_counters import SharedCounters, shared_file
from service.errors import BudgetSpent

KEY = make_key("alice", ["infer"], requests_per_minute=10, rows_per_minute=100)


class Worker:
    """One of two workers, whose clock stands still."""

    def __init__(self, file, number):
        self.ring = KeyRing([KEY.stored], clock=lambda: 0.0)
        self.caller = self.ring.callers[0]
        self.metrics = Metrics(SharedCounters(2, file.fileno()), number)
        self.use = KeyUse(self.ring, self.metrics)
        self.use.exchange(0.0)


@pytest.fixture
def workers():
    with shared_file(2) as file:
        yield Worker(file, 0), Worker(file, 1), file


def used(worker):
    cells = worker.metrics.counters.read().cells
    return [cells.get((f"pushforward_key_{what}", "alice"), [0.0])[0] for what in ("requests", "rows")]


def test_workers_take_off_what_the_others_have_let_through(workers):
    one, two, _ = workers
    for _ in range(6):
        one.caller.take_request()
    one.caller.take_rows(70)
    for each in (one, two):
        each.use.exchange(0.0)
    assert used(two) == [6.0, 70.0]
    with pytest.raises(BudgetSpent):
        two.caller.take_rows(31)
    two.caller.take_rows(30)
    for _ in range(4):
        two.caller.take_request()
    with pytest.raises(BudgetSpent):
        two.caller.take_request()
    two.use.exchange(0.0)
    one.use.exchange(0.0)
    with pytest.raises(BudgetSpent):
        one.caller.take_request()


def test_a_worker_that_is_replaced_counts_on_and_is_not_charged_for_its_forerunner(workers):
    one, two, file = workers
    one.caller.take_rows(90)
    one.use.exchange(0.0)
    two.use.exchange(0.0)
    again = Worker(file, 0)
    again.caller.take_rows(100)  # a new process has a bucket of its own
    again.use.exchange(0.0)
    assert used(two) == [0.0, 190.0]


def test_a_key_that_goes_and_comes_back_is_not_counted_twice(workers):
    one, _, _ = workers
    one.caller.take_request()
    one.use.exchange(0.0)
    one.ring.replace([])
    one.use.exchange(0.0)
    one.ring.replace([KEY.stored])
    one.use.exchange(0.0)
    assert used(one)[0] == 1.0
