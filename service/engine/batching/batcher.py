"""The batcher: a pure state machine from queued runs to batches. Knows no ONNX, no HTTP, no thread, no lock, no clock.

Rows are the unit, and there is no waiting window: an idle engine takes the waiting rows at once, and the rows that
arrive while a batch is computed are the next batch. A driver (`service.engine.batching.workers`, or a simulator) calls
`take`, computes the batch, and passes the outputs to `finish` or the error to `fail`. `collect` returns the outcomes
that the driver delivers outside its lock. Each run is answered exactly once: with its own rows in their order, with the
error of its own rows, or with the reason why they were not computed.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import numpy as np

from service.engine.batching.queues import Backlog, Batch, Limits, Queue, QueuedRun, RunOutcome, RunSlice
from service.errors import ClientGone, DeadlineExceeded, Draining, EngineLost, PushforwardError, QueueFull
from service.plan import Done, Outputs, Run

__all__ = ["Batcher"]

_HANG_SECONDS: Final = 1.0
"""An engine that began a batch within this time does not hang, also where the batch takes longer than a deadline."""

_MARGIN: Final = 0.8
"""The share of the time until its deadline within which a run must be expected to end: estimates err."""


def _remaining_rows(run: QueuedRun) -> int:
    """The number of rows that are not dispatched."""
    return run.size - run.dispatched


def _allocate(piece: Outputs, run: QueuedRun) -> Outputs:
    """Arrays for all rows of a run, of the dtypes and row shapes of a piece; empty ones for values it does not want."""
    value, ladj, log_prob = (np.empty((run.size, *array.shape[1:]), array.dtype) for array in piece.arrays)
    return Outputs(value if run.value else value[:, :0], ladj, log_prob, piece.finite)


class Batcher:
    """The queues of one set of engines.

    Runs of at most `chunk_rows` rows are short: they are packed into batches in order of arrival. Longer ones are cut,
    one chunk a batch. Every second chunk is of the oldest long run, and the others are of the run with the fewest rows
    left. Of two equal runs one is then decoded or encoded while the other is computed, where with strict turns both
    would end at the same time. A million rows do not delay ten thousand for long. The short and the long backlogs of
    all queues take turns, so that a long run does not delay a single row for long, nor a busy flow another.

    Args:
        engines: the number of batches that are computed at the same time.
    """

    def __init__(self, engines: int = 1) -> None:
        self._engines = engines
        self._queues: list[Queue] = []
        self._rotation: deque[Backlog] = deque()
        self._retries: deque[Batch] = deque()
        self._running: dict[Batch, None] = {}
        self._outcomes: list[RunOutcome] = []
        self._last_taken = -math.inf
        self._closed = False

    @property
    def has_work(self) -> bool:
        """Whether rows wait."""
        return bool(self._retries or self._rotation)

    @property
    def idle(self) -> bool:
        """Whether no rows wait, no batch is computed and no outcome is to be collected."""
        return not (self.has_work or self._running or self._outcomes)

    def open_queue(self, limits: Limits) -> Queue:
        """Open a queue for one lane."""
        queue = Queue(limits)
        self._queues.append(queue)
        return queue

    def close_queue(self, queue: Queue) -> bool:
        """Close a queue that no one submits to any more, once it has no rows.

        Args:
            queue: of this batcher.

        Returns:
            Whether it is closed. If not, rows wait or are computed: try again later.
        """
        waits = queue.waiting_rows or queue.short.in_rotation or queue.long.in_rotation
        if waits or any(batch.queue is queue for batch in (*self._running, *self._retries)):
            return False
        self._queues.remove(queue)
        return True

    def submit(self, queue: Queue, run: Run, done: Done, now: float, deadline: float = math.inf) -> QueuedRun:
        """Take a run, as `service.plan.Lane.submit` does.

        Args:
            queue: of this batcher.
            run: the rows and their context.
            done: takes the outcome.
            now: in seconds, on the clock of `deadline`.
            deadline: in seconds.

        Returns:
            The run in the queue.

        Raises:
            ValueError: the run has no rows, or another number of rows of context.
            QueueFull: as `admit`.
            DeadlineExceeded: as `admit`.
            Draining: the batcher is closed.
        """
        queued = QueuedRun(run, done, arrived=now, deadline=deadline)
        size = queued.size
        if size < 1 or (run.context is not None and len(run.context) != size):
            raise ValueError("a run needs at least one row, and one row of context for each")
        if run.bounded:
            self.admit(queue, size=size, now=now, deadline=deadline)
        elif self._closed:
            raise Draining("the server is shutting down and takes no new work")
        backlog = queue.short if size <= queue.limits.chunk_rows else queue.long
        backlog.runs.append(queued)
        backlog.rows += size
        queue.waiting_rows += size
        if not backlog.in_rotation:
            backlog.in_rotation = True
            self._rotation.append(backlog)
        return queued

    def admit(self, queue: Queue, size: int, now: float, deadline: float) -> None:
        """Check that a run would be taken now.

        Args:
            queue: of this batcher.
            size: the number of rows of the run.
            now: in seconds, on the clock of `deadline`.
            deadline: in seconds.

        Raises:
            QueueFull: too many rows wait, or the run is not expected to end by its deadline.
            DeadlineExceeded: the deadline has passed.
            Draining: the batcher is closed.
        """
        if self._closed:
            raise Draining("the server is shutting down and takes no new work")
        left = deadline - now
        if left <= 0:
            raise DeadlineExceeded("the deadline passed before this request could be taken")
        if queue.waiting_rows >= queue.limits.max_queued_rows:
            raise QueueFull(
                f"{queue.waiting_rows} rows are waiting already; the bound is {queue.limits.max_queued_rows}",
                retry_seconds=self.expected_seconds(queue, size),
            )
        in_next_batch = queue.waiting_rows + size <= queue.limits.chunk_rows and len(self._rotation) < 2
        if not self._retries and (in_next_batch or not self._rotation):
            return
        expected = self.expected_seconds(queue, size)
        if expected > _MARGIN * left:
            raise QueueFull(
                f"an answer is expected after {expected:.3g} seconds, and the deadline is in {left:.3g}",
                retry_seconds=expected - _MARGIN * left,
            )

    def expected_seconds(self, queue: Queue, size: int) -> float:
        """The expected time until a run would end, if it came now.

        Each batch of its backlog up to its own last one waits for one batch of every other backlog in the rotation, and
        the engines share all of them:

            seconds = (running + batches * (own + sum over other backlogs of one batch)) / engines

        Args:
            queue: of this batcher.
            size: the number of rows of the run.
        """
        chunk = queue.limits.chunk_rows
        if size <= chunk:
            backlog, ahead = queue.short, queue.short.rows + size
        else:
            backlog = queue.long
            ahead = size + sum(min(size, _remaining_rows(other)) for other in backlog.runs)
        running = sum(batch.queue.mean_seconds(batch.size) for batch in self._running)
        others = sum(other.queue.turn_seconds(other) for other in self._rotation if other is not backlog)
        batches = -(-ahead // chunk)
        own = queue.mean_seconds(min(ahead, chunk))
        return (running + batches * (own + others)) / self._engines

    def take(self, now: float, queue: Queue | None = None) -> Batch | None:
        """Take the next batch to compute. Runs that are abandoned, or would not end by their deadline, are dropped.

        Args:
            now: in seconds, on the clock of the deadlines.
            queue: take the short runs of this queue alone, and only if no other short runs and no retries wait: those
                keep the engines busy. None takes from any backlog in turn.

        Returns:
            The batch; None where there is none.
        """
        if queue is not None:
            return self._take_short(queue.short, now)
        while self._retries or self._rotation:
            batch = self._next_retry(now) if self._retries else self._next_batch(self._rotation.popleft(), now)
            if batch.slices:
                return self._dispatch(batch, now)
        return None

    def _dispatch(self, batch: Batch, now: float) -> Batch:
        self._running[batch] = None
        self._last_taken = now
        return batch

    def _take_short(self, backlog: Backlog, now: float) -> Batch | None:
        """Take a batch of short runs out of turn, past the long ones."""
        if self._retries or any(other is not backlog and not other.long for other in self._rotation):
            return None
        while backlog.in_rotation:
            self._rotation.remove(backlog)
            batch = self._next_batch(backlog, now)
            if batch.slices:
                return self._dispatch(batch, now)
        return None

    def _next_retry(self, now: float) -> Batch:
        """A half of a failed batch, without the runs that have been answered, are abandoned or have expired."""
        batch = self._retries.popleft()
        batch.queue.waiting_rows -= batch.size
        for run, _, _ in batch.slices:
            if not run.answered and (run.abandoned or run.deadline <= now):
                self._drop(batch.queue, run, now)
        return Batch(batch.queue, [piece for piece in batch.slices if not piece.run.answered])

    def _next_batch(self, backlog: Backlog, now: float) -> Batch:
        """The next batch of a backlog that has left the rotation. The backlog goes to the end if it has more rows."""
        slices = self._next_chunk(backlog, now) if backlog.long else self._pack(backlog, now)
        backlog.in_rotation = bool(backlog.runs)
        if backlog.in_rotation:
            self._rotation.append(backlog)
        return Batch(backlog.queue, slices)

    def _pack(self, backlog: Backlog, now: float) -> list[RunSlice]:
        """The next short runs that fit into a batch together, whole."""
        slices: list[RunSlice] = []
        gone: list[QueuedRun] = []
        late: list[QueuedRun] = []
        runs = backlog.runs
        room = backlog.queue.limits.chunk_rows
        end = now + backlog.queue.upper_turn_seconds(backlog)
        rows = 0
        while runs and runs[0].size <= room:
            run = runs.popleft()
            rows += run.size
            if run.abandoned or run.deadline <= now:
                gone.append(run)
            elif run.deadline <= end:
                late.append(run)
            else:
                room -= run.size
                slices.append(RunSlice(run, 0, run.size))
        backlog.rows -= rows
        backlog.queue.waiting_rows -= rows
        if late and not slices:  # the end is an estimate, and only further batches can correct one that is wrong
            newest = late.pop()
            slices.append(RunSlice(newest, 0, newest.size))
        for run in (*gone, *late):
            self._drop(backlog.queue, run, now)
        for run in (*gone, *late, *[piece.run for piece in slices]):
            run.dispatched = run.size
        return slices

    def _next_chunk(self, backlog: Backlog, now: float) -> list[RunSlice]:
        """The next chunk of the long run whose turn it is."""
        runs = backlog.runs
        while runs:
            run = runs[0] if backlog.oldest_next else min(runs, key=_remaining_rows)
            if run.abandoned or run.deadline <= now:
                self._drop(backlog.queue, run, now)
                runs.remove(run)
                self._cancel_rest(backlog, run)
                continue
            start = run.dispatched
            run.dispatched = min(start + backlog.queue.limits.chunk_rows, run.size)
            backlog.rows -= run.dispatched - start
            backlog.queue.waiting_rows -= run.dispatched - start
            if run.dispatched == run.size:
                runs.remove(run)
            backlog.oldest_next = not backlog.oldest_next
            return [RunSlice(run, start, run.dispatched)]
        return []

    def finish(self, batch: Batch, outputs: Outputs) -> None:
        """Pass in the outputs of a batch.

        Args:
            batch: from `take`.
            outputs: of its rows, in its order.
        """
        if batch not in self._running:  # `abort` answered its runs while it was computed
            return
        del self._running[batch]
        at = 0
        for run, start, stop in batch.slices:
            size = stop - start
            piece = outputs.part(at, at + size)
            at += size
            if run.answered:
                continue
            if size == run.size:
                self._answer(run, piece)
                continue
            run.returned += size
            whole = run.outputs
            if whole is None:
                run.outputs = whole = _allocate(piece, run)
            elif whole.finite and not piece.finite:
                run.outputs = whole = whole._replace(finite=False)
            for array, values in zip(whole.arrays, piece.arrays, strict=True):
                if array.size:
                    array[start:stop] = values
            if not run.value and not piece.finite:
                # The values are not kept: a NaN log-determinant marks a row whose values are not finite.
                lost = ~np.isfinite(piece.value.reshape(size, -1)).all(axis=1)
                whole.log_abs_det_jacobian[start:stop][lost] = np.nan
            if run.returned == run.size:
                self._answer(run, whole)

    def fail(self, batch: Batch, error: PushforwardError) -> None:
        """Pass in the error of a batch. Its halves are computed again, until the run at fault is alone with the error.

        Where the engine was lost, each half could cost another engine: all runs are then answered with the error.

        Args:
            batch: from `take`.
            error: the answer to its only run. Where it has several, they are retried without it.
        """
        if batch not in self._running:
            return
        del self._running[batch]
        slices = [piece for piece in batch.slices if not piece.run.answered]
        # The run at fault may have been answered meanwhile, so that one other is left.
        if len(batch.slices) > 1 and not isinstance(error, EngineLost):
            middle = len(slices) // 2
            for half in (slices[:middle], slices[middle:]):
                if half:
                    self._retries.append(Batch(batch.queue, half))
                    batch.queue.waiting_rows += self._retries[-1].size
            return
        for piece in slices:
            self._answer(piece.run, error)
            self._withdraw(batch.queue.long, piece.run)

    def expire(self, now: float) -> None:
        """Answer every run that has passed its deadline or is abandoned, also those of batches that are computed.

        Args:
            now: in seconds, on the clock of the deadlines.
        """
        for queue in self._queues:
            for backlog in (queue.short, queue.long):
                for run in [r for r in backlog.runs if r.abandoned or r.deadline <= now]:
                    self._drop(queue, run, now)
                    self._withdraw(backlog, run)
        for batch in (*self._retries, *self._running):
            for run, _, _ in batch.slices:
                if not run.answered and (run.abandoned or run.deadline <= now):
                    self._drop(batch.queue, run, now)

    def _withdraw(self, backlog: Backlog, run: QueuedRun) -> None:
        """Remove the rows of a run that are not dispatched from its backlog."""
        if run.dispatched == run.size:
            return
        backlog.runs.remove(run)
        self._cancel_rest(backlog, run)
        if not backlog.runs:
            backlog.in_rotation = False
            self._rotation.remove(backlog)

    def _cancel_rest(self, backlog: Backlog, run: QueuedRun) -> None:
        rest = _remaining_rows(run)
        run.dispatched = run.size
        backlog.rows -= rest
        backlog.queue.waiting_rows -= rest

    def _drop(self, queue: Queue, run: QueuedRun, now: float) -> None:
        """Answer a run whose remaining rows are not computed.

        Where none of its rows were computed although batches were taken while it waited, or shortly before, too many
        rows were before it. It is then refused as a full queue refuses it, whatever was expected when it came.
        """
        if run.abandoned:
            self._answer(run, ClientGone("the client closed its connection before its rows ran"))
        elif run.dispatched or (run.deadline <= now and self._last_taken <= min(run.arrived, now - _HANG_SECONDS)):
            self._answer(run, DeadlineExceeded("the deadline passed before this request was answered"))
        else:
            detail = "too much was waiting before this request for an answer by its deadline; none of its rows were run"
            self._answer(run, QueueFull(detail, retry_seconds=self.expected_seconds(queue, run.size)))

    def _answer(self, run: QueuedRun, result: Outputs | Exception) -> None:
        run.answered = True
        self._outcomes.append(RunOutcome(run.done, result))

    def collect(self) -> list[RunOutcome]:
        """The outcomes since the last call."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def close(self) -> None:
        """Take no further runs; those that were taken are still computed."""
        self._closed = True

    def abort(self, error: Exception) -> None:
        """Take no further runs, and answer those that were taken. What is still computed is ignored when it ends.

        Args:
            error: the answer to every run that has none.
        """
        self._closed = True
        runs = [run for backlog in self._rotation for run in backlog.runs]
        runs += [piece.run for batch in (*self._retries, *self._running) for piece in batch.slices]
        for run in dict.fromkeys(runs):
            if not run.answered:
                self._answer(run, error)
        for queue in self._queues:
            for backlog in (queue.short, queue.long):
                backlog.runs.clear()
                backlog.rows, backlog.in_rotation = 0, False
            queue.waiting_rows = 0
        self._rotation.clear()
        self._retries.clear()
        self._running.clear()
