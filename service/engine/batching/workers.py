"""The engine's threads: one set for all lanes, so that ten flows do not make ten times the threads.

This module holds the one lock of the engine. The batcher and its queues (`service.engine.batching.batcher`) have none.
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
from service.engine.batching.queues import Batch, Limits, Queue, QueuedRun, RunOutcome
from service.engine.metrics.metrics import NO_COUNTS, LaneMetrics
from service.errors import Draining, EngineFailed, PushforwardError
from service.plan import Done, Floats, Outputs, Run

__all__ = ["QueuedLane", "Runner", "Submission", "Workers"]

_NICE: Final = 5
"""The niceness of the engine's threads above that of the event loop's thread. The loop needs little time, but needs it
soon: on two busy cores it would wait for milliseconds at each request, until a batch is over."""

_OVERRUN: Final = 20
"""How many times its expected longest time a batch may compute on the calling thread. It is counted in the thread's own
processor time, so that a busy machine does not pass for a slow flow."""

_log = logging.getLogger(__name__)


class Submission(NamedTuple):
    """A run to submit, one of several.

    Args:
        run: the rows and their context.
        done: takes the outcome, also the error of a run that is refused.
        deadline: in seconds, on the workers' clock.
    """

    run: Run
    done: Done
    deadline: float = math.inf


class Runner(Protocol):
    """One direction of a flow that computes batches, called by several threads at once."""

    @property
    def width(self) -> int:
        """The number of values in one row."""
        ...

    def __call__(self, rows: Floats, context: Floats | None) -> Outputs:
        """The outputs of `rows` ``[N, ...]`` and `context` ``[N, C]``, row for row."""
        ...


class QueuedLane:
    """A runner behind a queue: the `Lane` that serving uses. Made by `Workers.lane`."""

    def __init__(
        self, runner: Runner, queue: Queue, workers: Workers, metrics: LaneMetrics | None, *, inline: bool
    ) -> None:
        self.inline = inline
        self.runner = runner
        self.metrics = metrics
        self.queue = queue
        self.width = runner.width
        self._workers = workers

    def submit(self, run: Run, done: Done, deadline: float = math.inf) -> QueuedRun:
        """Queue a run, as `service.plan.Lane.submit` does.

        Args:
            run: the rows and their context.
            done: takes the outcome.
            deadline: in seconds, on the workers' clock.
        """
        return self._workers.submit(self, Submission(run, done, deadline))

    def admit(self, deadline: float) -> None:
        """Check for room, as `service.plan.Lane.admit` does."""
        self._workers.admit(self, deadline)

    def run_inline(self, submissions: Sequence[Submission], max_seconds: float) -> list[QueuedRun | None]:
        """Queue several runs, and compute them on the calling thread where that is quick: `Workers.run_inline`."""
        return self._workers.run_inline(self, submissions, max_seconds)

    def leave_caller(self, max_seconds: float) -> None:
        """Compute on the engine's threads alone from now on: some rows cost far more than the others.

        Args:
            max_seconds: the time that the batch was expected to take at most.
        """
        self.inline = False
        _log.warning(
            "a batch took more than %g times the %g ms that it may keep the event loop for: its flow's batches are no "
            "longer computed there",
            _OVERRUN,
            1000 * max_seconds,
        )


class Workers:
    """Threads that take turns over the lanes that have work. They start with the first run.

    Between batches they do tasks: other computations for a request, such as decoding its body. As many threads as
    processors then do all of the work. One thread more would take a processor and the interpreter from them, and cost
    far more than its own time. One thread is always left to the lanes.

    Args:
        threads: the number of threads; `service.engine.runtime.cpu.usable_cpus` is what the container grants.
        clock: seconds, for deadlines and for the expected time of a batch.
        nice: the niceness of the threads above that of the event loop's thread.
        thread_clock: seconds that the calling thread has computed.
        lock: of other workers, whose lanes count in the same cells; None for a lock of their own.
    """

    def __init__(
        self,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
        nice: int = _NICE,
        thread_clock: Callable[[], float] = time.thread_time,
        lock: threading.RLock | None = None,
    ) -> None:
        self.threads = threads
        self.clock = clock
        self._nice = nice
        self._thread_clock = thread_clock
        self._lock = lock or threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._batcher = Batcher(threads)
        self._lanes: dict[Queue, QueuedLane] = {}
        self._leaving: deque[QueuedLane] = deque()
        self.closed_lanes = 0
        """The number of lanes that were released and are gone."""
        self._started: list[threading.Thread] = []
        self._tasks: deque[Callable[[], None]] = deque()
        self._running_tasks = 0
        self._closed = False
        self._apart: set[Workers] = set()
        self._on_closed: Callable[[], None] | None = None

    def apart(self, threads: int, free: Callable[[], None]) -> Workers:
        """Further threads, for lanes whose runners wait for another process. One that hangs holds up no other lane.

        They expire and close with these. Before that, they close once the last of their lanes was released and is gone.

        Args:
            threads: their number.
            free: ends that process. It is called once, when they have closed, and may take its time.

        Raises:
            Draining: these are closed.
        """
        # Its threads compute nothing, and the process has a niceness of its own.
        made = Workers(threads, self.clock, nice=0, lock=self._lock)

        def forget() -> None:
            with self._wake:
                self._apart.discard(made)
                self.closed_lanes += made.closed_lanes
            free()

        made._on_closed = forget
        with self._wake:
            if self._closed:
                raise Draining("the server is shutting down")
            self._apart.add(made)
        return made

    def lane(
        self, runner: Runner, limits: Limits, metrics: LaneMetrics | None = None, *, inline: bool = True
    ) -> QueuedLane:
        """Open a lane that these threads serve.

        Args:
            runner: computes its batches.
            limits: of its queue.
            metrics: counts its batches; None to count nothing.
            inline: whether the thread that brings rows may compute them, as in `run_inline`. Not for a device with one
                thread of its own, which the caller would wait for.
        """
        with self._wake:
            queue = self._batcher.open_queue(limits)
            lane = self._lanes[queue] = QueuedLane(runner, queue, workers=self, metrics=metrics, inline=inline)
        return lane

    def release(self, lane: QueuedLane) -> None:
        """Let go of a lane that no one submits to any more, and of what it computes with, once its runs have ended.

        `expire` does it. This only takes a note and may be called by any thread at any moment: the garbage collector's
        choice, where it calls this.

        Args:
            lane: of these workers.
        """
        self._leaving.append(lane)

    def submit(self, lane: QueuedLane, submission: Submission) -> QueuedRun:
        """Queue a run of a lane, and wake a thread.

        Args:
            lane: of these workers.
            submission: the run, its callback and its deadline.

        Returns:
            The run in the queue.

        Raises:
            QueueFull: as `service.plan.Lane.submit`.
            DeadlineExceeded: as `service.plan.Lane.submit`.
            Draining: as `service.plan.Lane.submit`.
        """
        with self._wake:
            run = self._enqueue(lane, submission)
            self._wake.notify()
        return run

    def admit(self, lane: QueuedLane, deadline: float) -> None:
        """Check that a single row of a lane would be taken now.

        Args:
            lane: of these workers.
            deadline: in seconds, on the workers' clock.

        Raises:
            QueueFull: as `service.plan.Lane.admit`.
            DeadlineExceeded: as `service.plan.Lane.admit`.
            Draining: as `service.plan.Lane.admit`.
        """
        with self._wake:
            self._batcher.admit(lane.queue, size=1, now=self.clock(), deadline=deadline)

    def run_inline(
        self, lane: QueuedLane, submissions: Sequence[Submission], max_seconds: float
    ) -> list[QueuedRun | None]:
        """Queue several runs of a lane, and compute them on the calling thread where that is quick.

        To wake a thread for a few rows costs more than the rows. Where only long runs wait before them and their batch
        is expected to take at most `max_seconds`, it is therefore computed on the calling thread, and does not wait for
        the end of a chunk of a long run. Anything else is left to the threads.

        Args:
            lane: of these workers.
            submissions: the runs. One that is refused gets its error through `done`.
            max_seconds: the time for which the caller can do without its thread.

        Returns:
            Each run in the queue; None where it was refused.
        """
        taken: list[QueuedRun | None] = []
        refused: list[RunOutcome] = []
        batch: Batch | None = None
        with self._wake:
            for submission in submissions:
                try:
                    taken.append(self._enqueue(lane, submission))
                except PushforwardError as error:
                    taken.append(None)
                    refused.append(RunOutcome(submission.done, error))
            if lane.inline and lane.queue.least_seconds(lane.queue.short.rows) <= max_seconds:
                batch = self._batcher.take(self.clock(), lane.queue)
            if self._batcher.has_work:
                self._wake.notify()
            outcomes = self._batcher.collect()
        _deliver(refused)
        _deliver(outcomes)
        if batch is not None:
            began = self._thread_clock()
            self._run(batch, self.clock())
            if self._thread_clock() - began > _OVERRUN * max_seconds:
                lane.leave_caller(max_seconds)
        return taken

    def _enqueue(self, lane: QueuedLane, submission: Submission) -> QueuedRun:
        run = self._batcher.submit(
            lane.queue, submission.run, submission.done, now=self.clock(), deadline=submission.deadline
        )
        if len(self._started) < self.threads:
            self._start_thread()
        return run

    def submit_task(self, task: Callable[[], None]) -> None:
        """Call a task on one of the threads, before any further batch of that thread.

        Args:
            task: must not raise. With a single thread, or while the threads do not come back, it is never called.
        """
        with self._wake:
            self._tasks.append(task)
            if len(self._started) < self.threads:
                self._start_thread()
            self._wake.notify()

    def expire(self) -> None:
        """Answer the runs that have passed their deadline: to be called regularly, as an engine may not come back."""
        with self._wake:
            self._batcher.expire(self.clock())
            outcomes = self._batcher.collect()
            gone = self._close_lanes()
            apart = list(self._apart)
            unused = bool(gone) and not self._lanes and self._on_closed is not None
        _deliver(outcomes)
        del gone  # outside of the lock: this may end sessions
        for workers in apart:
            workers.expire()
        if unused:  # on a thread: the end of a process may take longer than the caller can wait
            threading.Thread(target=self.close, args=(0,), name="end of an engine", daemon=True).start()

    def _close_lanes(self) -> list[QueuedLane]:
        """The lanes that were released and have no runs left: they are known no more."""
        gone: list[QueuedLane] = []
        for _ in range(len(self._leaving)):
            lane = self._leaving.popleft()
            if self._batcher.close_queue(lane.queue):
                del self._lanes[lane.queue]
                gone.append(lane)
                self.closed_lanes += 1
            else:
                self._leaving.append(lane)
        return gone

    def stop(self) -> None:
        """Take no further runs."""
        with self._wake:
            self._closed = True
            self._batcher.close()
            self._wake.notify_all()
            apart = list(self._apart)
        for workers in apart:
            workers.stop()

    def close(self, timeout: float | None = None) -> None:
        """Let the runs that were taken end, then stop.

        Args:
            timeout: seconds to wait. A run that is not answered by then is answered with `Draining`. None waits for all
                runs.
        """
        end = None if timeout is None else time.monotonic() + timeout
        self.stop()
        for thread in self._started:
            thread.join(None if end is None else max(0.0, end - time.monotonic()))
        for workers in list(self._apart):
            workers.close(None if end is None else max(0.0, end - time.monotonic()))
        with self._wake:
            self._batcher.abort(Draining("the server has shut down"))
            outcomes = self._batcher.collect()
            on_closed, self._on_closed = self._on_closed, None
        _deliver(outcomes)
        if on_closed is not None:
            on_closed()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"engine-{len(self._started)}", daemon=True)
        self._started.append(thread)
        thread.start()

    def _work(self) -> None:
        """Do tasks and compute batches until the workers are closed."""
        _lower_priority(self._nice)
        busy_since: float | None = None
        while True:
            with self._wake:
                now = self.clock()
                task = self._next_task()
                batch = self._batcher.take(now) if task is None else None
                outcomes = self._batcher.collect()
                if task is None and batch is None and not outcomes:
                    if self._closed and not self._running_tasks:
                        self._wake.notify_all()
                        return
                    self._wake.wait()
                    busy_since = None
                    continue
                if self._batcher.has_work or self._tasks:
                    self._wake.notify()
            _deliver(outcomes)
            if task is not None:
                task()
                busy_since = None
                with self._wake:
                    self._running_tasks -= 1
            elif batch is not None:
                busy_since = self._run(batch, now if busy_since is None else busy_since)

    def _next_task(self) -> Callable[[], None] | None:
        """The next task, where a thread is left to the lanes meanwhile."""
        if not self._tasks or self._running_tasks >= self.threads - 1:
            return None
        self._running_tasks += 1
        return self._tasks.popleft()

    def _run(self, batch: Batch, busy_since: float) -> float:
        """Compute a batch, and pass its outputs or its error to the batcher.

        Args:
            batch: as it was taken.
            busy_since: the time at which the thread began with it: the end of the computation of its previous batch,
                where there was one.

        Returns:
            The time at which its computation ended.
        """
        began = self.clock()
        lane = self._lanes[batch.queue]
        outputs = _compute(lane.runner, batch)
        ended = self.clock()
        seconds = ended - began
        metrics = lane.metrics
        log_prob = NO_COUNTS
        if metrics is not None and batch.counted and isinstance(outputs, Outputs):
            log_prob = metrics.bucket_log_prob(outputs)
        with self._wake:
            batch.queue.record(batch.size, seconds, busy_seconds=ended - busy_since)
            if metrics is not None:
                metrics.count_batch(
                    batch.size, waited=began - batch.slices[0].run.arrived, ran=seconds, log_prob=log_prob
                )
            if isinstance(outputs, Outputs):
                self._batcher.finish(batch, outputs)
            else:
                self._batcher.fail(batch, outputs)
                self._wake.notify()
            outcomes = self._batcher.collect()
        _deliver(outcomes)
        return ended


def _lower_priority(nice: int) -> None:
    """Lower the priority of the calling thread. Only Linux has priorities of threads; elsewhere nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + nice)


def _compute(runner: Runner, batch: Batch) -> Outputs | PushforwardError:
    """Compute a batch. An error is returned as the answer to the run at fault, and never ends a thread."""
    try:
        return runner(batch.rows(), batch.context())
    except PushforwardError as error:
        return error
    except Exception:
        _log.exception("a batch of %d rows of %d requests failed", batch.size, len(batch.slices))
        return EngineFailed("the flow could not be run on these rows")


def _deliver(outcomes: list[RunOutcome]) -> None:
    for done, result in outcomes:
        try:
            done(result)
        except Exception:
            _log.exception("an answer could not be delivered")
