"""The threads that run batches: one set for all lanes, so that ten flows do not make ten times the threads.

Holds the one lock of the engine; the queues themselves (`service.engine.batching.batcher`) have none.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple, Protocol

from service.engine.batching.batcher import Batcher
from service.engine.batching.queues import Answer, Batch, Limits, Queue, Request
from service.engine.metrics.metrics import UNSEEN, LaneMetrics
from service.errors import Draining, EngineFailed, PushforwardError
from service.plan import Done, Float32, Outputs, Run

__all__ = ["Asked", "QueuedLane", "Runner", "Workers"]

_NICE: Final = 5
"""How far the engine's threads stand back behind the event loop's, as `nice` counts. The loop needs little, but soon:
on two busy cores it would wait for milliseconds until a batch is over, at each request."""

_log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """What `QueuedLane.submit` takes, for several at once.

    Args:
        run: what to run.
        done: gets the answer, or the error of a request that is not taken.
        deadline: in seconds, on the workers' clock.
    """

    run: Run
    done: Done
    deadline: float = math.inf


class Runner(Protocol):
    """What computes a batch; called by several threads at once."""

    @property
    def width(self) -> int:
        """The number of values in one row."""
        ...

    def __call__(self, rows: Float32, context: Float32 | None) -> Outputs:
        """The outputs of `rows` ``[N, ...]`` and `context` ``[N, C]``, row for row."""
        ...


class QueuedLane:
    """A runner behind a queue: the `Lane` that serving uses. Made by `Workers.lane`."""

    def __init__(
        self, runner: Runner, queue: Queue, workers: Workers, metrics: LaneMetrics | None, *, here: bool
    ) -> None:
        self.here = here
        self.runner = runner
        self.metrics = metrics
        self.queue = queue
        self.width = runner.width
        self._workers = workers

    def submit(self, run: Run, done: Done, deadline: float = math.inf) -> Request:
        """Take rows, as `service.plan.Lane.submit` says."""
        return self._workers.submit(self, Asked(run, done, deadline))

    def admit(self, deadline: float) -> None:
        """Look for room, as `service.plan.Lane.admit` says."""
        self._workers.admit(self, deadline)

    def run_here(self, asked: Sequence[Asked], most_seconds: float) -> list[Request | None]:
        """Take several requests, as `Workers.run_here` says."""
        return self._workers.run_here(self, asked, most_seconds)


class Workers:
    """Threads that take turns over the lanes that have work. They start with the first request.

    Between batches they run errands: what has to be computed for a request beside its rows. As many threads as
    processors then do all of the work; one more, that takes a processor and the interpreter from them, costs far more
    than its own time. One thread is always left to the lanes.

    Args:
        threads: how many; `service.engine.runtime.cpu.usable_cpus` says what the container grants.
        clock: seconds, for deadlines and for the expected length of a batch.
    """

    def __init__(self, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.threads = threads
        self.clock = clock
        self._wake = threading.Condition()
        self._batcher = Batcher(threads)
        self._lanes: dict[Queue, QueuedLane] = {}
        self._started: list[threading.Thread] = []
        self._errands: deque[Callable[[], None]] = deque()
        self._on_errands = 0
        self._closed = False

    def lane(
        self, runner: Runner, limits: Limits, metrics: LaneMetrics | None = None, *, here: bool = True
    ) -> QueuedLane:
        """Open a lane that these threads serve.

        Args:
            runner: runs its batches.
            limits: of its queue.
            metrics: where its batches are counted; None for nowhere.
            here: whether whoever brings rows may run them, as `run_here` has it: not on a device with one thread, which
                would be waited for.
        """
        with self._wake:
            queue = self._batcher.open(limits)
            lane = self._lanes[queue] = QueuedLane(runner, queue, self, metrics, here=here)
        return lane

    def submit(self, lane: QueuedLane, asked: Asked) -> Request:
        """Queue rows of a lane, and wake a thread."""
        with self._wake:
            request = self._take(lane, asked)
            self._wake.notify()
        return request

    def admit(self, lane: QueuedLane, deadline: float) -> None:
        """Look whether a single row of a lane would be taken now."""
        with self._wake:
            self._batcher.admit(lane.queue, 1, self.clock(), deadline)

    def run_here(self, lane: QueuedLane, asked: Sequence[Asked], most_seconds: float) -> list[Request | None]:
        """Queue requests of a lane, and run them at once on the calling thread where that is quick.

        A thread that is woken for a few rows costs more than the rows. Where nothing but long requests waits before
        them and their batch is expected to take at most `most_seconds`, it is therefore run where the rows came from,
        and does not wait until a thread is through with a chunk of a long one; anything else is left to the threads.

        Args:
            lane: whose rows.
            asked: the requests. One that is not taken gets its error through `done`.
            most_seconds: how long the caller can do without its thread.

        Returns:
            Each as it was taken; None where it was not.
        """
        taken: list[Request | None] = []
        refused: list[Answer] = []
        batch: Batch | None = None
        with self._wake:
            for one in asked:
                try:
                    taken.append(self._take(lane, one))
                except PushforwardError as error:
                    taken.append(None)
                    refused.append(Answer(one.done, error))
            if lane.here and lane.queue.least_seconds(lane.queue.short.rows) <= most_seconds:
                batch = self._batcher.take(self.clock(), lane.queue)
            if self._batcher.has_work:
                self._wake.notify()
            due = self._batcher.collect()
        _deliver(refused)
        _deliver(due)
        if batch is not None:
            self._run(batch, self.clock())
        return taken

    def _take(self, lane: QueuedLane, asked: Asked) -> Request:
        request = self._batcher.submit(lane.queue, asked.run, asked.done, self.clock(), asked.deadline)
        if len(self._started) < self.threads:
            self._start()
        return request

    def send(self, errand: Callable[[], None]) -> None:
        """Have something called on one of the threads, before any further batch of its own.

        Args:
            errand: must not raise. With a single thread, or while the threads do not come back, it is never called.
        """
        with self._wake:
            self._errands.append(errand)
            if len(self._started) < self.threads:
                self._start()
            self._wake.notify()

    def expire(self) -> None:
        """Answer what has passed its deadline; to be called every now and then, for engines that do not come back."""
        with self._wake:
            self._batcher.expire(self.clock())
            due = self._batcher.collect()
        _deliver(due)

    def close(self, timeout: float | None = None) -> None:
        """Let what was taken run, then stop.

        Args:
            timeout: seconds to wait; whatever is not answered by then is answered with `Draining`. None waits
                for all of it.
        """
        with self._wake:
            self._closed = True
            self._batcher.close()
            self._wake.notify_all()
        end = None if timeout is None else time.monotonic() + timeout
        for thread in self._started:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        with self._wake:
            self._batcher.abort(Draining("the server has shut down"))
            due = self._batcher.collect()
        _deliver(due)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"engine-{len(self._started)}", daemon=True)
        self._started.append(thread)
        thread.start()

    def _work(self) -> None:
        _step_back()
        busy_since: float | None = None
        while True:
            with self._wake:
                now = self.clock()
                errand = self._errand()
                batch = self._batcher.take(now) if errand is None else None
                due = self._batcher.collect()
                if errand is None and batch is None and not due:
                    if self._closed and not self._on_errands:
                        self._wake.notify_all()
                        return
                    self._wake.wait()
                    busy_since = None
                    continue
                if self._batcher.has_work or self._errands:
                    self._wake.notify()
            _deliver(due)
            if errand is not None:
                errand()
                busy_since = None
                with self._wake:
                    self._on_errands -= 1
            elif batch is not None:
                busy_since = self._run(batch, now if busy_since is None else busy_since)

    def _errand(self) -> Callable[[], None] | None:
        """The next errand, where a thread is left to the lanes meanwhile."""
        if not self._errands or self._on_errands >= self.threads - 1:
            return None
        self._on_errands += 1
        return self._errands.popleft()

    def _run(self, batch: Batch, busy_since: float) -> float:
        """Run a batch, and hand in what it gave.

        Args:
            batch: as it was taken.
            busy_since: when the thread began with it: where it had one before, at the end of that one's run.

        Returns:
            When its run ended.
        """
        began = self.clock()
        lane = self._lanes[batch.queue]
        outputs = _outputs(lane.runner, batch)
        ended = self.clock()
        seconds = ended - began
        metrics = lane.metrics
        levels = UNSEEN
        if metrics is not None and batch.counted and isinstance(outputs, Outputs):
            levels = metrics.weigh(outputs)
        with self._wake:
            batch.queue.note(batch.size, seconds, ended - busy_since)
            if metrics is not None:
                metrics.batch(batch.size, began - batch.parts[0].request.arrived, seconds, levels)
            if isinstance(outputs, Outputs):
                self._batcher.finish(batch, outputs)
            else:
                self._batcher.fail(batch, outputs)
                self._wake.notify()
            due = self._batcher.collect()
        _deliver(due)
        return ended


def _step_back() -> None:
    """Let other threads go before this one. Only Linux has priorities of single threads; to do without is no harm."""
    if sys.platform == "linux":
        with suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + _NICE)


def _outputs(runner: Runner, batch: Batch) -> Outputs | PushforwardError:
    """Run a batch; an error becomes the answer of whoever is at fault, never the end of a thread."""
    try:
        return runner(batch.rows(), batch.context())
    except PushforwardError as error:
        return error
    except Exception:
        _log.exception("a batch of %d rows of %d requests failed", batch.size, len(batch.parts))
        return EngineFailed("the flow could not be run on these rows")


def _deliver(answers: list[Answer]) -> None:
    for done, result in answers:
        try:
            done(result)
        except Exception:
            _log.exception("an answer could not be delivered")
