"""A batcher on a virtual clock, under random arrivals, sizes, deadlines, cancellations, failing and slow runs.

Every run is a function of its seed: `Simulation(seed).play()` replays one. Run by itself, this module plays many:

    python -m tests.service.engine.batching.simulation 100000
"""

from __future__ import annotations

import heapq
import random
import sys
from multiprocessing import Pool

import numpy as np

from service.engine.batching.batcher import Batcher
from service.engine.batching.queues import Limits, Queue, QueuedRun
from service.errors import ClientGone, DeadlineExceeded, Draining, EngineFailed, QueueFull
from service.plan import Outputs, Run

__all__ = ["Simulation", "play", "ran", "rows"]


def rows(request, size):
    """Rows that say whose they are: request * 1024 + index, exact in float32."""
    return (request * 1024 + np.arange(size, dtype=np.float32))[:, None]


class Lazy:
    """Rows that are computed when they are wanted, alone or with others."""

    def __init__(self, request, size):
        self.request, self.size = request, size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return rows(self.request, self.size)[index]

    @staticmethod
    def computed(parts):
        return np.concatenate([part[start:stop] for part, start, stop in parts])


def ran(batch):
    """What a run of a batch gives."""
    values = batch.rows()
    return Outputs(values * 2, values[:, 0] + 0.5, -values[:, 0])


def right(request, size, result):
    """Whether a result is that of a request's own rows, in their order."""
    given = rows(request, size)
    return (
        isinstance(result, Outputs)
        and (result.value == given * 2).all()
        and (result.log_abs_det_jacobian == given[:, 0] + 0.5).all()
        and (result.log_prob == -given[:, 0]).all()
    )


class Ask:
    """One request of a simulation, and what has become of it."""

    def __init__(self, number, size, queue, deadline):
        self.number, self.size, self.queue, self.deadline = number, size, queue, deadline
        self.taken: QueuedRun | None = None
        self.arrived = 0.0
        self.cancelled = False
        self.answers = []
        self.started = 0  # rows that have been handed out
        self.passed = False  # whether a batch was taken while it waited


class Simulation:
    """One world: its queues, its engines and its requests follow from the seed."""

    def __init__(self, seed):
        self.random = draw = random.Random(seed)
        self.engines = draw.randint(1, 3)
        self.batcher = Batcher(self.engines)
        self.queues: list[Queue] = [
            self.batcher.open_queue(Limits(chunk_rows=draw.randint(1, 12), max_queued_rows=draw.randint(1, 80)))
            for _ in range(draw.randint(1, 3))
        ]
        share = draw.choice([0, 0, 0.1, 0.5])
        self.asks = [self.ask(number) for number in range(draw.randint(1, 16))]
        self.poison = {ask.number for ask in self.asks if draw.random() < share}
        self.slow = draw.choice([0, 0, 0.2])
        self.clock = 0.0
        self.order = 0
        self.running = 0
        self.events: list[tuple[float, int, str, object]] = []
        self.aborted = False
        self.failed: set[QueuedRun] = set()
        self.passed: dict[Queue, QueuedRun | None] = {}  # the oldest long request, where the last chunk was not its own
        self.waited: dict[tuple[Queue, bool], int] = {}  # turns of others since a backlog with work had one

    def ask(self, number):
        draw = self.random
        size = draw.choice([1, 1, 2, 5, draw.randint(1, 60)])
        deadline = draw.choice([float("inf"), float("inf"), draw.uniform(0, 15)])
        return Ask(number, size, draw.choice(self.queues), deadline)

    def at(self, time, kind, what=None):
        self.order += 1
        heapq.heappush(self.events, (time, self.order, kind, what))

    def play(self):
        draw = self.random
        for ask in self.asks:
            arrival = draw.expovariate(1) * 5
            self.at(arrival, "arrives", ask)
            if draw.random() < 0.1:
                self.at(arrival + draw.expovariate(1) * 2, "cancels", ask)
        if draw.random() < 0.1:
            self.at(draw.uniform(0, 10), "aborts")
        for tick in range(draw.choice([0, 0, 40])):
            self.at(tick * 0.5, "expires")
        while self.events:
            self.clock, _, kind, what = heapq.heappop(self.events)
            getattr(self, kind)(what)
            self.deliver()
            self.start()
            self.deliver()
            self.check()
        self.check_end()

    def arrives(self, ask):
        ask.arrived = self.clock
        waiting = ask.queue.waiting_rows
        lazily = self.random.random() < 0.5
        given = Lazy(ask.number, ask.size) if lazily else rows(ask.number, ask.size)
        try:
            ask.taken = self.batcher.submit(ask.queue, Run(None, given), ask.answers.append, self.clock, ask.deadline)
        except QueueFull:
            full = waiting >= ask.queue.limits.max_queued_rows
            assert full or ask.deadline < float("inf"), "only a deadline makes a queue too long that is not full"
        except DeadlineExceeded:
            assert ask.deadline <= self.clock
        except Draining:
            assert self.aborted
        else:
            assert not self.aborted
            assert waiting < ask.queue.limits.max_queued_rows
            assert ask.deadline > self.clock

    def cancels(self, ask):
        ask.cancelled = True
        if ask.taken is not None:
            ask.taken.abandoned = True

    def aborts(self, _):
        self.aborted = True
        self.batcher.abort(Draining("over"))

    def expires(self, _):
        self.batcher.expire(self.clock)
        for ask in self.asks:
            if ask.taken is not None and ask.deadline <= self.clock:
                assert ask.taken.answered, "nobody waits past the deadline"

    def start(self):
        while self.running < self.engines:
            had = {
                (queue, backlog.long): waiting
                for queue in self.queues
                for backlog in (queue.short, queue.long)
                if (waiting := [r for r in backlog.runs if not r.abandoned and r.deadline > self.clock])
            }
            alone = self.random.choice([None, None, self.random.choice(self.queues)])
            batch = self.batcher.take(self.clock, alone)
            for ask in self.asks:
                if batch is not None and ask.taken is not None and not ask.taken.answered:
                    ask.passed = ask.passed or ask.arrived < self.clock
            if batch is None:
                if alone is None:
                    assert not had, "an engine is idle while there is work"
                    return
                continue
            if alone is not None:
                others = had.keys() - {(alone, False)}
                assert all(long for _, long in others), "a batch was taken past other short ones that waited"
            self.check_taken(batch, had, ahead=alone is not None)
            self.running += 1
            seconds = self.random.uniform(0.01, 1) * (20 if self.random.random() < self.slow else 1)
            self.at(self.clock + seconds, "returns", (batch, seconds))

    def check_taken(self, batch, had, *, ahead):
        assert 1 <= batch.size <= batch.queue.limits.chunk_rows
        owners = [self.asks[piece.run.rows[0:1].astype(int)[0, 0] // 1024] for piece in batch.slices]
        long = owners[0].size > batch.queue.limits.chunk_rows
        again = any(start < ask.started for ask, (_, start, _) in zip(owners, batch.slices, strict=True))
        for ask, (run, start, stop) in zip(owners, batch.slices, strict=True):
            assert ask.queue is batch.queue, "rows of two flows in one batch"
            assert run.deadline > self.clock, "expired work was run"
            assert not ask.cancelled, "abandoned work was run"
            assert not ask.answers
            if again:
                assert run in self.failed, "rows were handed out twice"
            else:
                assert start == ask.started, "rows were left out"
            ask.started = max(ask.started, stop)
        if again:
            return
        if long:
            mine, waiting = batch.slices[0].run, had[batch.queue, True]
            oldest = waiting[0]
            if mine is not oldest:
                left = min(r.size - r.dispatched for r in waiting if r is not mine)
                assert mine.size - batch.slices[0].start <= left, "neither the oldest nor the one with the least left"
                assert self.passed.get(batch.queue) is not oldest, "the oldest has not every second chunk"
            self.passed[batch.queue] = None if mine is oldest else oldest
        else:
            order = [ask.arrived for ask in owners]
            assert order == sorted(order), "not in the order they came"
        if ahead:  # on a thread of its own: nobody loses a turn
            self.waited.pop((batch.queue, long), None)
            return
        # Every other backlog with work waits for one turn of each backlog at most.
        self.waited = {backlog: turns + 1 for backlog, turns in self.waited.items() if backlog in had}
        for backlog in had:
            self.waited.setdefault(backlog, 0)
        self.waited.pop((batch.queue, long), None)
        assert all(turns <= 2 * len(self.queues) for turns in self.waited.values()), "a backlog was starved"

    def returns(self, what):
        batch, seconds = what
        self.running -= 1
        batch.queue.record(batch.size, seconds)
        owners = {int(value) // 1024 for value in batch.rows()[:, 0]}
        if owners & self.poison:
            self.failed |= {piece.run for piece in batch.slices}
            self.batcher.fail(batch, EngineFailed("as told"))
        else:
            self.batcher.finish(batch, ran(batch))

    def deliver(self):
        for done, result in self.batcher.collect():
            done(result)

    def check(self):
        assert self.running <= self.engines
        for ask in self.asks:
            assert len(ask.answers) <= 1, "answered twice"
        for queue in self.queues:
            largest = max((ask.size for ask in self.asks), default=0)
            # Halves of failed batches wait again, at most a chunk for each engine.
            again = self.engines * queue.limits.chunk_rows
            assert 0 <= queue.waiting_rows < queue.limits.max_queued_rows + largest + again
            for backlog in (queue.short, queue.long):
                assert backlog.rows == sum(r.size - r.dispatched for r in backlog.runs)
                assert backlog.in_rotation == bool(backlog.runs)
                assert self.batcher._rotation.count(backlog) == int(backlog.in_rotation)

    def check_end(self):
        assert self.running == 0
        assert self.batcher.idle, "something is left over"
        assert all(queue.waiting_rows == 0 for queue in self.queues)
        for ask in self.asks:
            assert len(ask.answers) == (ask.taken is not None), "a request was not answered"
            for result in ask.answers:
                self.check_answer(ask, result)

    def check_answer(self, ask, result):
        if isinstance(result, Draining):
            assert self.aborted
        elif isinstance(result, ClientGone):
            assert ask.cancelled
        elif isinstance(result, DeadlineExceeded):
            assert ask.deadline < float("inf")
            assert ask.started or not ask.passed, "the queue was too full for it"
        elif isinstance(result, QueueFull):
            assert ask.deadline < float("inf")
            assert not ask.started, "refused, and its rows were run"
        elif ask.number in self.poison:
            assert isinstance(result, EngineFailed), "only the culprit's own error"
        else:
            assert right(ask.number, ask.size, result), "not its own rows"


def play(seeds):
    """Play every seed; the error of one that fails says how to replay it."""
    for seed in seeds:
        try:
            Simulation(seed).play()
        except Exception as error:
            raise AssertionError(f"seed {seed}: replay it with Simulation({seed}).play()") from error
    return len(seeds)


if __name__ == "__main__":
    count = int(sys.argv[1])
    blocks = [range(start, min(start + 500, count)) for start in range(0, count, 500)]
    with Pool() as pool:
        for done, _ in enumerate(pool.imap_unordered(play, blocks), 1):
            sys.stderr.write(f"\r{done} of {len(blocks)} blocks of 500 seeds")
    sys.stderr.write("\nno seed failed\n")
