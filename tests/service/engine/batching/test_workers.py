from __future__ import annotations

import itertools
import os
import sys
import threading
from concurrent.futures import Future

import numpy as np
import pytest

from service.engine.batching.queues import Limits
from service.engine.batching.workers import Asked, Workers
from service.errors import ClientGone, DeadlineExceeded, Draining, EngineFailed, NotFinite
from service.plan import Outputs, Run
from tests.waiting import until


class Doubles:
    """A runner that doubles; a row of -1 makes it fail, and it may be held up."""

    width = 1

    def __init__(self, error=None):
        self.error = error or ValueError("as told")
        self.gate = threading.Event()
        self.gate.set()
        self.sizes = []

    def __call__(self, rows, context):
        assert self.gate.wait(30)
        self.sizes.append(len(rows))
        if (rows == -1).any():
            raise self.error
        return Outputs(rows * 2, rows[:, 0], rows[:, 0])


@pytest.fixture
def workers():
    made = Workers(2)
    yield made
    made.close(10)


def ask(lane, *values):
    answer = Future()
    lane.submit(Run(lane, np.array(values, np.float32)[:, None]), answer.set_result)
    return answer


def test_many_callers_each_get_their_own_rows(workers):
    lanes = [workers.lane(Doubles(), Limits(chunk_rows=16)) for _ in range(3)]
    wrong = []

    def call(caller):
        generator = np.random.default_rng(caller)
        for _ in range(60):
            values = generator.normal(size=generator.integers(1, 50)).astype(np.float32)
            result = ask(lanes[caller % 3], *values).result(30)
            if not (result.value[:, 0] == values * 2).all():
                wrong.append(caller)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_arrives_while_a_batch_runs_is_the_next_batch():
    workers, runner = Workers(1), Doubles()
    lane = workers.lane(runner, Limits(chunk_rows=16))
    runner.gate.clear()
    first = ask(lane, 1)
    until(lambda: workers._batcher._in_hand)
    rest = [ask(lane, value) for value in range(5)]
    runner.gate.set()
    assert [answer.result(30).value[0, 0] for answer in (first, *rest)] == [2, 0, 2, 4, 6, 8]
    assert runner.sizes == [1, 5]
    workers.close(10)


@pytest.mark.parametrize(("error", "expected"), [(ValueError("a/path"), EngineFailed), (NotFinite("row 3"), NotFinite)])
def test_a_failing_row_costs_its_own_request_and_no_thread(workers, error, expected, caplog):
    lane = workers.lane(Doubles(error), Limits(chunk_rows=16))
    answers = [ask(lane, 1), ask(lane, -1), ask(lane, 3)]
    results = [answer.result(30) for answer in answers]
    assert isinstance(results[1], expected)
    assert "path" not in results[1].detail
    assert results[0].value[0, 0] == 2
    assert results[2].value[0, 0] == 6
    assert ask(lane, 4).result(30).value[0, 0] == 8


def test_rows_that_cannot_be_computed_fail_alone(workers, caplog):
    class Broken:
        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise OSError("no such noise")

    answer = Future()
    lane = workers.lane(Doubles(), Limits())
    lane.submit(Run(lane, Broken()), answer.set_result)
    assert isinstance(answer.result(30), EngineFailed)
    assert ask(lane, 4).result(30).value[0, 0] == 8


def test_an_answer_that_nobody_takes_ends_no_thread(workers, caplog):
    def gone(_):
        raise RuntimeError("the loop is closed")

    lane = workers.lane(Doubles(), Limits())
    for _ in range(4):
        lane.submit(Run(lane, np.ones((1, 1), np.float32)), gone)
    assert ask(lane, 4).result(30).value[0, 0] == 8


def test_close_lets_what_was_taken_finish():
    workers, runner = Workers(1), Doubles()
    lane = workers.lane(runner, Limits(chunk_rows=2))
    answers = [ask(lane, 1, 2, 3, 4, 5), ask(lane, 6)]
    workers.close(30)
    assert answers[0].result(0).value[:, 0].tolist() == [2, 4, 6, 8, 10]
    assert answers[1].result(0).value[0, 0] == 12
    with pytest.raises(Draining):
        ask(lane, 1)


def test_close_answers_what_it_cannot_wait_for():
    workers, runner = Workers(1), Doubles()
    lane = workers.lane(runner, Limits())
    runner.gate.clear()
    answers = [ask(lane, 1), ask(lane, 2)]
    workers.close(0)
    assert all(isinstance(answer.result(0), Draining) for answer in answers)
    runner.gate.set()
    workers.close(10)


def test_a_batch_that_takes_long_is_not_run_where_it_came_from():
    names = []

    class Named:
        width = 1

        def __call__(self, rows, context):
            names.append(threading.current_thread().name)
            return Outputs(rows, rows[:, 0], rows[:, 0])

    workers = Workers(1)
    for row_seconds, here in ((1e-6, True), (1.0, False)):
        lane = workers.lane(Named(), Limits())
        lane.queue.note(16, 16 * row_seconds)
        answered = Future()
        lane.run_here([Asked(Run(lane, np.zeros((1, 1), np.float32)), answered.set_result)], 5e-4)
        assert isinstance(answered.result(10), Outputs)
        assert (names[-1] == threading.current_thread().name) is here
    workers.close(10)


def test_what_passes_between_two_batches_is_of_the_second():
    ticks = itertools.count()
    workers = Workers(1, lambda: float(next(ticks)))  # a run takes one look at the clock, and so one second
    lane, runner, first = held(workers)
    second = ask(lane, 2)
    runner.gate.set()
    assert (first.result(30).value, second.result(30).value) == (2, 4)
    workers.close(10)
    assert lane.queue.least_seconds(16) == pytest.approx(1.0)
    assert lane.queue.usual_seconds(16) > 1.0


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_an_engine_steps_back_behind_whoever_asks(workers):
    seen = []

    class Seen(Doubles):
        def __call__(self, rows, context):
            seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().__call__(rows, context)

    ask(workers.lane(Seen(), Limits()), 1).result(30)
    assert seen == [min(19, os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) + 5)]


def held(workers):
    """A lane whose one thread is held up by a first request."""
    runner = Doubles()
    lane = workers.lane(runner, Limits(chunk_rows=16))
    runner.gate.clear()
    first = ask(lane, 1)
    until(lambda: workers._batcher._in_hand)
    return lane, runner, first


def test_what_waits_past_its_deadline_is_answered_though_no_engine_comes_back():
    now = [0.0]
    workers = Workers(1, lambda: now[0])
    lane, runner, first = held(workers)
    answered = Future()
    lane.submit(Run(lane, np.zeros((1, 1), np.float32)), answered.set_result, deadline=5.0)
    workers.expire()
    assert not answered.done()
    now[0] = 5.0
    workers.expire()
    assert isinstance(answered.result(0), DeadlineExceeded)
    runner.gate.set()
    assert first.result(30).value[0, 0] == 2
    workers.close(10)
    assert runner.sizes == [1], "what expired was not run"


def test_what_is_abandoned_is_not_run():
    workers = Workers(1)
    lane, runner, first = held(workers)
    answered = Future()
    lane.submit(Run(lane, np.zeros((1, 1), np.float32)), answered.set_result).abandoned = True
    runner.gate.set()
    assert isinstance(answered.result(30), ClientGone)
    assert first.result(30).value[0, 0] == 2
    workers.close(10)
    assert runner.sizes == [1]


def test_the_first_batch_of_a_lane_is_left_to_the_threads():
    workers = Workers(1)
    lane = workers.lane(Doubles(), Limits())
    answered, here = Future(), []
    lane.run_here([Asked(Run(lane, np.ones((1, 1), np.float32)), answered.set_result)], 1e9)
    answered.add_done_callback(lambda _: here.append(threading.current_thread()))
    assert answered.result(30).value[0, 0] == 2
    workers.close(10)


def test_what_is_refused_here_is_answered():
    workers = Workers(1)
    lane = workers.lane(Doubles(), Limits())
    workers.close(1)
    refused = []
    asked = [Asked(Run(lane, np.zeros((1, 1), np.float32)), refused.append)]
    assert lane.run_here(asked, 1.0) == [None]
    assert [type(error) for error in refused] == [Draining]


def test_an_errand_is_done_by_one_thread_while_another_is_left_to_the_lanes(workers):
    lane = workers.lane(Doubles(), Limits())
    begun, gate, done = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)

    def errand():
        begun.release()
        assert gate.wait(30)
        done.release()

    for _ in range(3):
        workers.send(errand)
    assert begun.acquire(timeout=30)
    assert ask(lane, 3).result(30).value[0, 0] == 6
    assert not begun.acquire(blocking=False), "both threads are on errands"
    gate.set()
    assert all(done.acquire(timeout=30) for _ in range(3))


def test_a_single_thread_is_never_sent():
    workers, done = Workers(1), []
    lane = workers.lane(Doubles(), Limits())
    workers.send(lambda: done.append(1))
    assert ask(lane, 3).result(30).value[0, 0] == 6
    workers.close(10)
    assert not done


def test_errands_that_were_taken_are_done_before_the_end():
    workers, done = Workers(2), []
    for number in range(20):
        workers.send(lambda number=number: done.append(number))
    workers.close(30)
    assert done == list(range(20))
    assert not any(thread.is_alive() for thread in workers._started)
