from __future__ import annotations

import pytest

from service.engine.batching.chunk_size import BUDGET_SECONDS, MOST_SECONDS, Timing, choose_chunk, time_batches

SIZES = (4, 16, 64, 256, 512, 1024, 2048, 4096)


class Engine:
    """Takes the seconds that a function of the rows says, the first time of each size ten times as many."""

    def __init__(self, seconds, slow_first=10.0):
        self.seconds, self.slow_first = seconds, slow_first
        self.now = 0.0
        self.ran = []

    def prepare(self, rows):
        def run():
            first = rows not in self.ran
            self.ran.append(rows)
            self.now += self.seconds(rows) * (self.slow_first if first else 1.0)

        return run

    def time(self, budget=1.0):
        return time_batches(self.prepare, SIZES, lambda: self.now, budget)


def test_each_size_is_timed_warm():
    engine = Engine(lambda rows: 1e-5 + 1e-7 * rows)
    assert [(t.rows, pytest.approx(t.seconds)) for t in engine.time()] == [(n, 1e-5 + 1e-7 * n) for n in SIZES]


def test_a_batch_that_leaves_the_caches_is_not_chosen():
    # 1,000,000 rows a second up to 1,024 rows, then 600,000
    timings = Engine(lambda rows: 5e-5 + rows / (1e6 if rows <= 1024 else 6e5)).time()
    assert choose_chunk(timings).rows == 1024


def test_of_sizes_that_are_as_good_the_smallest_is_chosen():
    timings = [Timing(256, 256e-6), Timing(512, 400e-6), Timing(1024, 980e-6), Timing(2048, 2100e-6)]
    assert choose_chunk(timings).rows == 512


def test_no_batch_is_chosen_that_holds_up_the_next_for_long():
    timings = Engine(lambda rows: 2e-3 + 5e-6 * rows, 1.0).time()
    assert choose_chunk(timings).rows == 512
    assert choose_chunk(timings).seconds <= MOST_SECONDS


def test_a_flow_that_is_slow_is_not_tried_in_large_batches():
    engine = Engine(lambda rows: 1e-3 * rows)
    assert choose_chunk(engine.time()).rows == 4
    assert set(engine.ran) == {4, 16}
    assert choose_chunk([Timing(4, 1.0), Timing(16, 2.0)]).rows == 4


def test_trying_ends_with_the_budget():
    engine = Engine(lambda rows: 2e-3, 1.0)
    timings = engine.time(BUDGET_SECONDS)
    assert engine.now == pytest.approx(BUDGET_SECONDS, abs=2.1e-3)
    assert [t.rows for t in timings] == list(SIZES)[: len(timings)]


def test_a_first_call_beyond_the_budget_still_gives_a_timing():
    engine = Engine(lambda rows: 9.0, 1.0)
    assert engine.time(BUDGET_SECONDS) == [Timing(4, 9.0)]
    assert engine.ran == [4]


def test_trying_ends_where_more_rows_no_longer_help():
    engine = Engine(lambda rows: 1e-6 * rows, 1.0)
    timings = engine.time()
    assert timings[-1].rows == 4096
    assert choose_chunk(timings).rows == 2048


def test_no_further_size_is_tried_once_the_budget_is_spent():
    engine = Engine(lambda rows: 2.0**-10, 1.0)
    assert [t.rows for t in engine.time(3 * 2.0**-10)] == [4]


def test_two_sizes_that_are_hardly_better_are_enough():
    rates = {rows: 1e4 * 1.01**step for step, rows in enumerate((4, 8, 12, 16, 20))}
    engine = Engine(lambda rows: rows / rates[rows] - 2e-4, 1.0)
    timings = time_batches(engine.prepare, tuple(rates), lambda: engine.now, 1.0)
    assert [t.rows for t in timings] == [4, 8, 12]


def test_a_slow_first_call_is_followed_by_another():
    assert Engine(lambda rows: 1e-3).time()[0].seconds == pytest.approx(1e-3)


def test_a_batch_may_take_just_as_long_as_it_may():
    assert choose_chunk([Timing(4, 1e-3), Timing(512, MOST_SECONDS)]).rows == 512


def test_one_call_that_waited_for_a_processor_does_not_matter():
    calls = iter([9e-4, 1e-4, 5e-4])
    now = [0.0]

    def run():
        now[0] += next(calls)

    assert time_batches(lambda _: run, (64,), lambda: now[0], 1.0) == [Timing(64, pytest.approx(1e-4))]
