from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from service.engine.batching.batcher import Batcher
from service.engine.batching.queues import Limits
from service.errors import ClientGone, DeadlineExceeded, Draining, EngineFailed, EngineLost, QueueFull
from service.plan import Run
from tests.service.engine.batching.simulation import Lazy, play, ran, right, rows


class Box:
    """Collects the answers of a batcher with one queue, or two."""

    def __init__(self, limits=None):
        self.batcher = Batcher()
        self.queue = self.batcher.open_queue(limits or Limits(chunk_rows=8, max_queued_rows=100))
        self.other = self.batcher.open_queue(Limits(chunk_rows=8, max_queued_rows=100))
        self.answers = {}

    def submit(self, request, size, queue=None, *, now=0.0, **named):
        def done(result):
            assert request not in self.answers
            self.answers[request] = result

        run = Run(None, rows(request, size), bounded=named.pop("bounded", True))
        return self.batcher.submit(queue or self.queue, run, done, now, **named)

    def take(self, now=0.0):
        batch = self.batcher.take(now)
        self.deliver()
        return batch

    def deliver(self):
        for done, result in self.batcher.collect():
            done(result)

    def finish(self, batch):
        self.batcher.finish(batch, ran(batch))
        self.deliver()

    def run(self):
        batch = self.take()
        self.finish(batch)
        return batch


def test_what_waits_runs_together_in_the_order_it_came():
    box = Box()
    for request, size in ((1, 3), (2, 1), (3, 4), (4, 1)):
        box.submit(request, size)
    assert box.run().size == 8
    assert list(box.answers) == [1, 2, 3]
    assert box.run().size == 1
    assert box.take() is None
    assert all(right(r, s, box.answers[r]) for r, s in ((1, 3), (2, 1), (3, 4), (4, 1)))
    assert box.batcher.idle


def test_an_answer_that_was_not_collected_keeps_it_from_being_idle():
    box = Box()
    box.submit(1, 1)
    batch = box.take()
    box.batcher.finish(batch, ran(batch))
    assert not box.batcher.idle
    box.deliver()
    assert box.batcher.idle


def test_a_clock_that_sees_no_time_pass_is_no_error():
    queue = Box().queue
    for _ in range(2):
        queue.record(16, 0.0)
    assert queue.mean_seconds(16) == 0.0


def test_an_idle_engine_starts_with_a_single_row():
    box = Box()
    box.submit(1, 1)
    assert box.run().size == 1


def test_a_long_request_is_cut_and_put_together_whatever_the_order():
    box = Box()
    box.submit(1, 20)
    batches = [box.take() for _ in range(3)]
    assert [b.size for b in batches] == [8, 8, 4]
    for batch in (batches[2], batches[0], batches[1]):
        assert not box.answers
        box.finish(batch)
    assert right(1, 20, box.answers[1])


def test_small_requests_take_turns_with_a_long_one():
    box = Box(Limits(chunk_rows=8, max_queued_rows=1000))
    box.submit(1, 80)
    box.submit(2, 80)
    owners = []
    for request in range(3, 9):
        box.submit(request, 1)
        owners.append(box.run().slices[0].run.size)
        owners.append(box.run().slices[0].run.size)
    assert owners == [80, 1] * 6


def test_of_two_alike_the_older_one_ends_first():
    box = Box()
    for request in (1, 2):
        box.submit(request, 24)
    while 1 not in box.answers:
        box.run()
    assert 2 not in box.answers
    assert box.queue.long.rows == 24


def test_every_second_chunk_goes_to_the_one_with_the_least_left():
    box = Box(Limits(chunk_rows=8, max_queued_rows=1000))
    for request, size in ((1, 400), (2, 80), (3, 16)):
        box.submit(request, size)
    assert [box.run().slices[0].run.size for _ in range(8)] == [400, 16, 400, 16, 400, 80, 400, 80]


def test_while_the_bound_is_reached_nothing_is_taken_but_a_canary():
    box = Box(Limits(chunk_rows=8, max_queued_rows=10))
    box.submit(1, 6)
    box.submit(2, 6)
    with pytest.raises(QueueFull, match="12 rows are waiting already; the bound is 10"):
        box.submit(3, 1)
    box.submit(4, 1, bounded=False)
    box.run()
    box.submit(3, 1)
    while box.batcher.has_work:
        box.run()
    assert sorted(box.answers) == [1, 2, 3, 4]


def test_a_request_over_the_bound_is_taken_by_an_empty_queue():
    box = Box(Limits(chunk_rows=8, max_queued_rows=10))
    box.submit(1, 50)
    assert box.queue.waiting_rows == 50


def test_only_the_culprit_gets_the_error():
    box = Box()
    for request in range(1, 9):
        box.submit(request, 1)
    runs = drive(box, poison={5})
    assert isinstance(box.answers[5], EngineFailed)
    assert all(right(r, 1, box.answers[r]) for r in range(1, 9) if r != 5)
    assert runs <= 7  # a half at a time, not one by one
    assert box.batcher.idle
    assert box.queue.waiting_rows == 0


def test_who_is_left_of_a_failed_batch_is_not_taken_for_the_culprit():
    box = Box()
    box.submit(1, 1)
    box.submit(2, 1, deadline=1.0)
    batch = box.take()
    box.batcher.expire(1.0)
    box.batcher.fail(batch, EngineFailed("of the second one"))
    box.run()
    assert right(1, 1, box.answers[1])


@pytest.mark.parametrize("sizes", [(1, 2, 3), (1,), (40,)])
def test_a_lost_engine_costs_its_whole_batch_and_no_second_one(sizes):
    box = Box()
    for request, size in enumerate(sizes, 1):
        box.submit(request, size)
    lost = EngineLost("as told")
    box.batcher.fail(box.take(), lost)
    box.deliver()
    assert box.answers == dict.fromkeys(range(1, len(sizes) + 1), lost)
    assert box.take() is None
    assert box.batcher.idle
    assert box.queue.waiting_rows == 0


def test_a_long_culprit_drops_its_other_chunks():
    box = Box()
    box.submit(1, 40)
    box.submit(2, 16)
    assert drive(box, poison={1}) == 1 + 2
    assert isinstance(box.answers[1], EngineFailed)
    assert right(2, 16, box.answers[2])
    assert box.batcher.idle
    assert box.queue.waiting_rows == 0


def drive(box, poison):
    count = 0
    while (batch := box.take()) is not None:
        count += 1
        owners = {int(value) // 1024 for value in batch.rows()[:, 0]}
        if owners & poison:
            box.batcher.fail(batch, EngineFailed("as told"))
            box.deliver()
        else:
            box.finish(batch)
    return count


def test_closed_it_takes_nothing_and_runs_the_rest():
    box = Box()
    box.submit(1, 20)
    box.batcher.close()
    for bounded in (True, False):
        with pytest.raises(Draining):
            box.submit(2, 1, bounded=bounded)
    drive(box, set())
    assert right(1, 20, box.answers[1])


def test_abort_answers_everything_and_passes_over_what_comes_back():
    box = Box()
    for request, size in ((1, 20), (2, 1), (3, 1)):
        box.submit(request, size)
    running = [box.take(), box.take()]
    box.batcher.abort(Draining("over"))
    box.deliver()
    assert all(isinstance(box.answers[r], Draining) for r in (1, 2, 3))
    for batch in running:
        box.batcher.finish(batch, ran(batch))
        box.batcher.fail(batch, EngineFailed("late"))
        assert box.batcher.collect() == []
    assert box.batcher.idle


@pytest.mark.parametrize(("size", "context"), [(0, None), (2, 3)])
def test_a_request_that_makes_no_sense_is_refused_at_once(size, context):
    box = Box()
    run = Run(None, rows(1, size), None if context is None else rows(1, context))
    with pytest.raises(ValueError, match="at least one row"):
        box.batcher.submit(box.queue, run, print, 0.0)


def test_context_rides_along():
    box = Box()
    for request, size in ((1, 3), (2, 2)):
        box.batcher.submit(box.queue, Run(None, rows(request, size), rows(request + 6, size)), print, 0.0)
    batch = box.take()
    assert (batch.context() == np.concatenate([rows(7, 3), rows(8, 2)])).all()


def test_rows_of_any_kind_ride_together_each_in_its_place():
    box = Box()
    given = [Lazy(1, 2), rows(2, 1), Lazy(3, 1), rows(4, 3)]
    for each in given:
        box.batcher.submit(box.queue, Run(None, each), print, 0.0)
    assert (box.take().rows() == np.concatenate([each[0 : len(each)] for each in given])).all()


def test_values_that_nobody_wants_are_not_gathered():
    box, answers = Box(), []
    for wanted in (True, False):
        box.batcher.submit(box.queue, Run(None, rows(1, 20), value=wanted), answers.append, 0.0)
    drive(box, set())
    box.deliver()
    whole, lean = answers
    assert right(1, 20, whole)
    assert lean.value.shape == (20, 0)
    assert (lean.log_prob == whole.log_prob).all()


def test_a_busy_flow_takes_turns_with_another():
    box = Box()
    for request in range(1, 7):
        box.submit(request, 8)
    box.submit(7, 1, box.other)
    assert [box.run().queue for _ in range(3)] == [box.queue, box.other, box.queue]


def test_what_has_passed_its_deadline_is_dropped_and_not_run():
    box = Box()
    for request, deadline in ((1, 1.0), (2, math.inf), (3, 2.5)):
        box.submit(request, 2, deadline=deadline)
    box.submit(4, 20, deadline=2.0)
    batch = box.take(now=2.0)
    assert [len(piece.run.rows) for piece in batch.slices] == [2, 2]
    assert isinstance(box.answers[1], DeadlineExceeded)
    assert box.take(now=2.0) is None
    assert isinstance(box.answers[4], QueueFull), "it had been its turn later"
    box.finish(batch)
    assert right(2, 2, box.answers[2])
    assert right(3, 2, box.answers[3])
    assert box.batcher.idle


def test_what_nobody_waits_for_is_dropped_between_two_chunks():
    box = Box()
    taken = box.submit(1, 20)
    box.run()
    taken.abandoned = True
    assert box.take() is None
    assert isinstance(box.answers[1], ClientGone)
    assert box.queue.waiting_rows == 0


def test_nobody_waits_past_the_deadline_for_an_engine_that_does_not_come_back():
    box = Box()
    for request, size in ((1, 3), (2, 20)):
        box.submit(request, size, deadline=5.0)
    running = box.take()
    box.batcher.expire(4.9)
    box.deliver()
    assert not box.answers
    box.batcher.expire(5.0)
    box.deliver()
    assert all(isinstance(box.answers[request], DeadlineExceeded) for request in (1, 2))
    assert box.take() is None
    box.finish(running)  # late, and passed over
    assert box.batcher.idle


def test_what_the_queue_was_too_full_for_is_refused_and_what_no_engine_came_for_is_late():
    box = Box()
    box.submit(1, 3)
    box.take()
    box.submit(3, 3, box.other)
    box.submit(2, 20, deadline=5.0)
    box.take(now=1.0)
    box.submit(4, 3, now=2.0, deadline=5.0)
    box.batcher.expire(5.0)
    box.deliver()
    assert isinstance(box.answers[2], QueueFull), "a batch was begun while it waited"
    assert isinstance(box.answers[4], DeadlineExceeded), "none was"


@pytest.mark.parametrize(("waited", "expected"), [(0.9, QueueFull), (1.1, DeadlineExceeded)])
def test_who_waits_for_a_batch_that_was_just_begun_is_refused_and_for_one_that_hangs_is_late(waited, expected):
    box = Box()
    box.submit(1, 3)
    box.take(now=10.0)
    box.submit(2, 3, now=10.0, deadline=10.0 + waited)
    box.batcher.expire(10.0 + waited)
    box.deliver()
    assert isinstance(box.answers[2], expected)


def test_what_is_half_run_has_passed_its_deadline():
    box = Box()
    box.submit(1, 20, deadline=5.0)
    box.run()
    box.batcher.expire(5.0)
    box.deliver()
    assert isinstance(box.answers[1], DeadlineExceeded)


def test_a_request_past_its_deadline_is_not_taken():
    with pytest.raises(DeadlineExceeded):
        Box().submit(1, 1, now=3.0, deadline=3.0)


def timed(seconds_per_row):
    box = Box(Limits(chunk_rows=100, max_queued_rows=10_000))
    box.queue.record(100, 100 * seconds_per_row)
    return box


def test_what_cannot_be_answered_in_time_is_refused_and_told_when_to_come_again():
    box = timed(0.01)
    for request in range(5):
        box.submit(request, 100)  # a second each
    assert box.batcher.expected_seconds(box.queue, 100) == pytest.approx(6.0)
    with pytest.raises(QueueFull, match="expected after 6 seconds, and the deadline is in 7") as refused:
        box.submit(9, 100, deadline=7.0)
    assert refused.value.retry_seconds == pytest.approx(6.0 - 0.8 * 7.0)
    box.submit(9, 100, deadline=8.0)


def test_what_just_fills_the_next_batch_is_taken_whatever_a_batch_takes():
    box = timed(1.0)
    box.submit(1, 60)
    box.submit(2, 40, deadline=1.0)
    with pytest.raises(QueueFull, match="is expected"):
        box.submit(3, 1, deadline=1.0)


def test_what_has_others_before_it_must_be_expected_in_time():
    box = timed(1.0)
    box.submit(1, 1)
    box.submit(2, 1, box.other)
    with pytest.raises(QueueFull, match="is expected"):
        box.submit(3, 1, deadline=1.0)


def test_what_has_halves_of_a_failed_batch_before_it_must_be_expected_in_time():
    box = timed(1.0)
    box.submit(1, 1)
    box.submit(2, 1)
    box.batcher.fail(box.take(), EngineFailed("of one of them"))
    with pytest.raises(QueueFull, match="is expected"):
        box.submit(3, 1, deadline=1.0)
    assert box.batcher.take(0.0, box.queue) is None
    box.submit(4, 1)
    assert box.batcher.take(0.0, box.queue) is None, "the halves come first"


def test_what_is_expected_just_within_its_share_of_the_time_is_taken():
    box = timed(0.02)
    box.submit(1, 100)
    assert box.batcher.expected_seconds(box.queue, 100) == 4.0
    with pytest.raises(QueueFull):
        box.submit(2, 100, deadline=4.99)
    box.submit(2, 100, deadline=5.0)


def test_what_runs_is_waited_for():
    box = timed(0.01)
    box.submit(1, 100)
    box.take()
    assert box.batcher.expected_seconds(box.queue, 100) == pytest.approx(2.0)


def test_what_would_be_back_at_its_very_deadline_is_late():
    box = timed(0.0625)
    box.submit(1, 8, deadline=1.0)
    box.submit(2, 8)
    assert box.queue.upper_turn_seconds(box.queue.short) == 1.0
    assert [piece.run.size for piece in box.take().slices] == [8]
    assert isinstance(box.answers[1], QueueFull)


def test_a_short_one_is_over_at_its_very_deadline():
    box = Box()
    box.submit(1, 1, deadline=2.0)
    assert box.take(now=2.0) is None
    assert isinstance(box.answers[1], DeadlineExceeded)


def test_a_half_of_a_failed_batch_is_over_at_its_very_deadline():
    box = Box()
    box.submit(1, 1)
    box.submit(2, 1, deadline=1.0)
    box.batcher.fail(box.take(), EngineFailed("of one of them"))
    assert [piece.run.deadline for piece in box.take(now=1.0).slices] == [math.inf]
    assert box.take(now=1.0) is None
    assert isinstance(box.answers[2], DeadlineExceeded)


@pytest.mark.parametrize("finite", list(itertools.product([True, False], repeat=3)))
def test_a_long_one_is_finite_where_each_of_its_chunks_is(finite):
    box = Box()
    box.submit(1, 24)
    for each in finite:
        batch = box.take()
        box.batcher.finish(batch, ran(batch)._replace(finite=each))
    box.deliver()
    assert box.answers[1].finite is all(finite)


def test_a_single_row_does_not_wait_for_all_of_a_million():
    box = timed(0.01)
    box.submit(1, 9_000)
    assert box.batcher.expected_seconds(box.queue, 1) == pytest.approx(1.0 + 0.16)
    box.submit(2, 1, deadline=2.0)
    assert box.batcher.expected_seconds(box.queue, 200) == pytest.approx(4 * 1.0 + 4 * 0.16)


def test_two_engines_are_through_in_half_the_time():
    box = timed(0.01)
    box.submit(1, 100)
    alone = box.batcher.expected_seconds(box.queue, 100)
    box.batcher._engines = 2
    assert box.batcher.expected_seconds(box.queue, 100) == pytest.approx(alone / 2)


def test_what_would_not_be_back_in_time_is_refused_without_a_run():
    box = timed(0.01)
    for request, deadline in ((1, 10.0), (2, 11.0), (3, math.inf)):
        box.submit(request, 20, deadline=deadline)
    batch = box.take(now=9.5)  # 0.6 seconds for its 60 rows
    assert isinstance(box.answers[1], QueueFull)
    assert [piece.run.deadline for piece in batch.slices] == [11.0, math.inf]


def test_an_engine_that_has_nothing_else_to_run_tries():
    box = timed(0.01)
    for request in (1, 2, 3):
        box.submit(request, 20, deadline=10.0)
    batch = box.take(now=9.5)
    assert sorted(box.answers) == [1, 2]
    assert all(isinstance(answer, QueueFull) for answer in box.answers.values())
    box.finish(batch)
    assert right(3, 20, box.answers[3])


def test_batches_that_take_now_this_and_now_that_long_are_not_expected_to_the_moment():
    queue = timed(0.01).queue
    queue.short.rows = 100
    assert queue.upper_turn_seconds(queue.short) == pytest.approx(1.0)
    for _ in range(100):
        queue.record(100, 0.5)
        queue.record(100, 1.5)
    assert queue.mean_seconds(100) == pytest.approx(1.0, rel=0.05)
    assert queue.upper_turn_seconds(queue.short) == pytest.approx(2.0, rel=0.05)


def test_a_batch_is_timed_by_the_quickest_of_late_and_by_the_usual():
    box = Box()
    assert box.queue.least_seconds(1) == math.inf
    assert box.queue.mean_seconds(1) == 0
    box.queue.record(1, 0.016)
    assert box.queue.least_seconds(32) == pytest.approx(0.032)
    box.queue.record(1, 0.16)
    assert box.queue.least_seconds(16) == pytest.approx(0.016 * 1.1), "one slow batch says nothing"
    assert box.queue.mean_seconds(16) == pytest.approx(0.016 + (0.16 - 0.016) / 32)


def test_a_batch_is_timed_by_those_of_about_its_size():
    queue = Box().queue
    for size, seconds in ((16, 0.1), (112, 0.2), (1000, 1.0)):
        queue.record(size, seconds)
    assert [queue.mean_seconds(size) for size in (1, 16, 64, 112, 1000)] == pytest.approx([0.1, 0.1, 0.15, 0.2, 1.0])
    assert queue.mean_seconds(2000) == pytest.approx(2.0)
    for _ in range(1000):
        queue.record(16, 10.0)
    assert queue.mean_seconds(1000) == pytest.approx(1.0), "small ones say nothing of it"


def test_a_size_is_the_mean_of_the_batches_that_were_timed_under_it():
    queue = Box().queue
    queue.record(16, 16.0)
    for _ in range(1000):
        queue.record(31, 31.0)
    assert queue.mean_seconds(31) == pytest.approx(31.0)


def test_a_batch_keeps_its_engine_for_longer_than_its_run():
    queue = Box().queue
    queue.record(16, 0.1, 0.3)
    assert queue.mean_seconds(16) == pytest.approx(0.3)
    assert queue.least_seconds(16) == pytest.approx(0.1)


def test_whoever_runs_short_ones_himself_need_not_wait_for_the_long_ones_turn():
    box = Box()
    box.submit(1, 20)
    box.submit(2, 20, box.other)
    box.submit(3, 3)
    box.submit(4, 6)
    for request, size in ((3, 3), (4, 6)):
        batch = box.batcher.take(0.0, box.queue)
        assert [piece.run.size for piece in batch.slices] == [size]
        box.finish(batch)
        assert request in box.answers
    assert box.batcher.take(0.0, box.queue) is None
    assert [box.run().queue for _ in range(4)] == [box.queue, box.other, box.queue, box.other]


def test_only_the_short_ones_of_a_queue_alone_are_given_to_whoever_asks_for_them():
    box = Box()
    box.submit(1, 1)
    assert box.batcher.take(0.0, box.other) is None
    box.submit(2, 1, box.other)
    assert box.batcher.take(0.0, box.queue) is None
    box.run()
    assert box.batcher.take(0.0, box.other).size == 1


@pytest.mark.parametrize("block", range(4))
def test_simulated_every_request_is_answered_once_with_its_own_rows(block):
    assert play(range(block * 1000, (block + 1) * 1000)) == 1000


@pytest.mark.slow
@pytest.mark.parametrize("block", range(100))
def test_simulated_at_length(block):
    assert play(range(block * 1000, (block + 1) * 1000)) == 1000
