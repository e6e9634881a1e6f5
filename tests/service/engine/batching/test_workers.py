from __future__ import annotations

import gc
import itertools
import os
import sys
import threading
import time
import weakref
from concurrent.futures import Future

import numpy as np
import pytest

from service.bundle.calibration import calibrate
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Submission, Workers
from service.engine.metrics.metrics import ENGINE_SECONDS, LOG_PROB, QUEUE_SECONDS, Metrics
from service.engine.verbs.scores import HeldOut
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
        self.entered = threading.Semaphore(0)
        self.sizes = []

    def __call__(self, rows, context):
        self.entered.release()
        assert self.gate.wait(30)
        self.sizes.append(len(rows))
        if (rows == -1).any():
            raise self.error
        return Outputs(rows * 2, rows[:, 0], rows[:, 0])


class Waits(threading.Condition):
    """The condition of workers, which tells when a thread begins to wait."""

    def __init__(self):
        super().__init__()
        self.begun = threading.Semaphore(0)

    def wait(self, timeout=None):
        self.begun.release()  # whoever takes the lock next finds it among those that wait
        return super().wait(timeout)


def waiting(threads, clock=time.monotonic):
    """Workers of which each thread has started, and waits to be woken."""
    workers = Workers(threads, clock)
    workers._wake = Waits()
    with workers._wake:
        for _ in range(threads):
            workers._start_thread()
    assert all(workers._wake.begun.acquire(timeout=30) for _ in range(threads))
    return workers


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


def test_a_second_batch_wakes_a_second_thread():
    workers, both = waiting(2), threading.Barrier(2)

    class Both(Doubles):
        def __call__(self, rows, context):
            both.wait(10)
            return super().__call__(rows, context)

    lane = workers.lane(Both(), Limits(chunk_rows=1))
    result = ask(lane, 1, 2).result(30)  # one submission of two batches, which run at the same time or never
    assert isinstance(result, Outputs)
    assert result.value[:, 0].tolist() == [2, 4]
    workers.close(10)


def test_a_submission_wakes_a_thread():
    workers = waiting(1)
    assert ask(workers.lane(Doubles(), Limits()), 3).result(10).value[0, 0] == 6
    workers.close(10)


def test_a_task_wakes_a_thread_and_so_does_what_waits_behind_it():
    workers, both, done = waiting(3), threading.Barrier(2), threading.Semaphore(0)

    def task():
        both.wait(10)
        done.release()

    with workers._wake:
        workers._tasks.extend([task, task])  # as two that are submitted before a thread wakes
        workers._wake.notify()
    assert all(done.acquire(timeout=20) for _ in range(2))
    workers.submit_task(done.release)
    assert done.acquire(timeout=10)
    assert len(workers._started) == 3
    workers.close(10)


def test_what_is_not_run_inline_wakes_a_thread():
    workers = waiting(1)
    lane = workers.lane(Doubles(), Limits())
    answered = Future()
    lane.run_inline([Submission(Run(lane, np.ones((1, 1), np.float32)), answered.set_result)], -1.0)
    assert answered.result(10).value[0, 0] == 2
    workers.close(10)


def test_halves_of_a_batch_that_failed_inline_are_run_by_a_thread(caplog):
    workers = waiting(1)
    lane = workers.lane(Doubles(), Limits())
    lane.queue.record(16, 1e-6)
    answers = [Future(), Future()]
    rows = [np.full((1, 1), value, np.float32) for value in (-1, 3)]
    lane.run_inline([Submission(Run(lane, r), a.set_result) for r, a in zip(rows, answers, strict=True)], 1.0)
    assert isinstance(answers[0].result(10), EngineFailed)
    assert answers[1].result(10).value[0, 0] == 6
    workers.close(10)


def test_threads_that_wait_for_a_task_end_with_it():
    workers, begun, gate = waiting(3), threading.Semaphore(0), threading.Event()

    def task():
        begun.release()
        assert gate.wait(30)

    workers.submit_task(task)
    assert begun.acquire(timeout=30)
    workers.close(0)
    assert all(workers._wake.begun.acquire(timeout=30) for _ in range(2))  # closed, and the task not yet over
    gate.set()
    for thread in workers._started:
        thread.join(10)
    assert not any(thread.is_alive() for thread in workers._started)


def test_what_arrives_while_a_batch_runs_is_the_next_batch():
    workers, runner = Workers(1), Doubles()
    lane = workers.lane(runner, Limits(chunk_rows=16))
    runner.gate.clear()
    first = ask(lane, 1)
    assert runner.entered.acquire(timeout=30)
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
    for row_seconds, here in ((2.0**-20, True), (2.0**-12, True), (2.0**-11, False)):
        lane = workers.lane(Named(), Limits())
        lane.queue.record(16, 16 * row_seconds)
        answered = Future()
        lane.run_inline([Submission(Run(lane, np.zeros((1, 1), np.float32)), answered.set_result)], 2.0**-8)
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
    # Of the first batch from when the thread took it, of the second from the end of the first.
    assert lane.queue.mean_seconds(16) == pytest.approx(3.0)


def test_what_passes_while_a_thread_waits_is_of_no_batch():
    now = [0.0]
    workers = waiting(1, lambda: now[0])
    lane = workers.lane(Doubles(), Limits())
    for _ in range(2):
        ask(lane, 1).result(30)
        assert workers._wake.begun.acquire(timeout=30)
        now[0] += 100.0
    workers.close(10)
    assert lane.queue.mean_seconds(16) == 0.0


def test_what_passes_in_a_task_is_of_no_batch():
    now = [0.0]

    def task():
        now[0] += 100.0

    workers = waiting(2, lambda: now[0])
    lanes, runners = [], [Doubles(), Doubles()]
    for runner in runners:  # one thread is held up until the end, the other until it has more to do
        runner.gate.clear()
        lanes.append(workers.lane(runner, Limits()))
        lanes[-1].submit(Run(lanes[-1], np.ones((1, 1), np.float32)), lambda _: None)
        assert runner.entered.acquire(timeout=30)
    workers.submit_task(task)
    second = ask(lanes[1], 2)
    runners[1].gate.set()
    assert second.result(30).value[0, 0] == 4
    assert now == [100.0]
    runners[0].gate.set()
    workers.close(10)
    assert lanes[1].queue.mean_seconds(16) == 0.0


def test_a_batch_is_counted_with_its_times_and_where_it_counts_with_its_log_prob():
    now, metrics = [0.0], Metrics()

    class Slow(Doubles):
        def __call__(self, rows, context):
            now[0] += 1.0
            return super().__call__(rows, context)

    workers = Workers(1, lambda: now[0])
    held_out = HeldOut(calibrate(np.arange(10.0)))
    lane = workers.lane(Slow(), Limits(), metrics.lane("two-moons", 1, "forward", held_out))
    for counted in (True, False):
        answered = Future()
        lane.submit(Run(lane, np.ones((2, 1), np.float32), counted=counted), answered.set_result)
        answered.result(30)
    workers.close(10)
    cells = metrics.counters.read().cells
    found = [cells[metric.name, "two-moons", "1", "forward"] for metric in (LOG_PROB, QUEUE_SECONDS, ENGINE_SECONDS)]
    assert [sum(each[:-1]) for each in found] == [2, 2, 2]  # rows of one batch; two batches
    assert [each[-1] for each in found[1:]] == [0.0, 2.0]


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
    assert runner.entered.acquire(timeout=30)
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
    lane.run_inline([Submission(Run(lane, np.ones((1, 1), np.float32)), answered.set_result)], 1e9)
    answered.add_done_callback(lambda _: here.append(threading.current_thread()))
    assert answered.result(30).value[0, 0] == 2
    workers.close(10)


def test_what_is_refused_here_is_answered():
    workers = Workers(1)
    lane = workers.lane(Doubles(), Limits())
    workers.close(1)
    refused = []
    asked = [Submission(Run(lane, np.zeros((1, 1), np.float32)), refused.append)]
    assert lane.run_inline(asked, 1.0) == [None]
    assert [type(error) for error in refused] == [Draining]


def test_an_errand_is_done_by_one_thread_while_another_is_left_to_the_lanes(workers):
    lane = workers.lane(Doubles(), Limits())
    begun, gate, done = threading.Semaphore(0), threading.Event(), threading.Semaphore(0)

    def errand():
        begun.release()
        assert gate.wait(30)
        done.release()

    for _ in range(3):
        workers.submit_task(errand)
    assert begun.acquire(timeout=30)
    assert ask(lane, 3).result(30).value[0, 0] == 6
    assert not begun.acquire(blocking=False), "both threads are on errands"
    gate.set()
    assert all(done.acquire(timeout=30) for _ in range(3))


def test_a_single_thread_is_never_sent():
    workers, done = Workers(1), []
    lane = workers.lane(Doubles(), Limits())
    workers.submit_task(lambda: done.append(1))
    assert ask(lane, 3).result(30).value[0, 0] == 6
    workers.close(10)
    assert not done


def test_errands_that_were_taken_are_done_before_the_end():
    workers, done = Workers(2), []
    for number in range(20):
        workers.submit_task(lambda number=number: done.append(number))
    workers.close(30)
    assert done == list(range(20))
    assert not any(thread.is_alive() for thread in workers._started)


def test_a_batch_that_overruns_moves_its_lane_off_the_calling_thread(caplog):
    """Only what the thread itself computed counts, and not what it waited for a processor."""
    here = []

    class Named(Doubles):
        def __call__(self, rows, context):
            here.append(threading.current_thread() is threading.main_thread())
            return super().__call__(rows, context)

    for step, stays in ((20, True), (21, False)):
        here.clear()
        ticks = itertools.count(step=step)
        workers = Workers(1, thread_clock=lambda ticks=ticks: float(next(ticks)))
        lane = workers.lane(Named(), Limits())
        lane.queue.record(16, 1e-6)
        for _ in range(2):
            answered = Future()
            lane.run_inline([Submission(Run(lane, np.ones((1, 1), np.float32)), answered.set_result)], 1.0)
            answered.result(30)
        assert here == [True, stays]
        assert lane.inline is stays
        workers.close(10)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no longer computed there" in caplog.text


def test_lanes_apart_are_held_up_by_no_other_and_hold_up_none():
    now = [0.0]
    workers = Workers(1, lambda: now[0])
    apart = workers.apart(1, lambda: None)
    stuck, runner, first = held(apart)
    assert ask(workers.lane(Doubles(), Limits()), 1).result(30).value[0, 0] == 2
    answered = Future()
    stuck.submit(Run(stuck, np.zeros((1, 1), np.float32)), answered.set_result, deadline=5.0)
    now[0] = 5.0
    workers.expire()
    assert isinstance(answered.result(0), DeadlineExceeded)
    runner.gate.set()
    assert first.result(30).value[0, 0] == 2
    workers.close(10)
    with pytest.raises(Draining):
        ask(stuck, 1)


def test_workers_that_stop_take_nothing_and_run_the_rest():
    workers = Workers(1)
    apart = workers.apart(1, lambda: None)
    lanes = [held(workers), held(apart)]
    workers.stop()
    for lane, runner, first in lanes:
        with pytest.raises(Draining):
            ask(lane, 1)
        runner.gate.set()
        assert first.result(30).value[0, 0] == 2
    workers.close(10)


def test_workers_apart_that_are_closed_are_forgotten():
    workers, ended = Workers(1), []
    apart = workers.apart(1, lambda: ended.append(1))
    assert ask(apart.lane(Doubles(), Limits()), 1).result(30).value[0, 0] == 2
    apart.close(10)
    apart.close(10)
    assert ended == [1]
    kept = weakref.ref(apart)
    del apart
    gc.collect()
    assert kept() is None
    workers.close(10)


def test_workers_apart_end_with_the_last_run_of_their_last_lane():
    workers, ended = Workers(1), []
    apart = workers.apart(1, lambda: ended.append(1))
    workers.expire()
    lane, runner, first = held(apart)
    idle = apart.lane(Doubles(), Limits())
    for each in (lane, idle):
        apart.release(each)
    workers.expire()
    assert (apart.closed_lanes, ended) == (1, [])
    runner.gate.set()
    first.result(30)

    def expired():
        workers.expire()
        return ended

    until(expired)
    until(lambda: workers.closed_lanes == 2)
    workers.close(10)
    assert ended == [1]


def test_workers_apart_end_with_those_they_are_apart_from():
    workers, ended = Workers(1), []
    workers.apart(1, lambda: ended.append(1))
    workers.close(10)
    assert ended == [1]
    with pytest.raises(Draining):
        workers.apart(1, lambda: None)
