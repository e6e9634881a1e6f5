"""Requests -> batches of rows: a pure state machine. Knows no ONNX, no HTTP, no thread, no lock and no clock.

Rows are the unit, and there is no waiting window: whoever is idle takes what is there at once, and what arrives
while a batch runs is the next batch. Whoever drives the machine (`service.engine.batching.workers`, or a simulator)
calls `take`, runs the batch, and hands the outputs to `finish` or the error to `fail`; `collect` gives the answers
that have fallen due, for the driver to deliver outside its lock. Each request is answered exactly once: with its own
rows in their order, with the error of its own rows, or with the reason why they did not run.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import numpy as np

from service.engine.batching.queues import Answer, Batch, Limits, Line, Part, Queue, Request
from service.errors import ClientGone, DeadlineExceeded, Draining, PushforwardError, QueueFull
from service.plan import Done, Outputs, Run

__all__ = ["Batcher"]

_MARGIN: Final = 0.8
"""A request is taken where its answer is expected within this share of the time that it has: estimates err."""


def _left(request: Request) -> int:
    """Rows that have not been handed out."""
    return request.size - request.given


def _room(piece: Outputs, request: Request) -> Outputs:
    """Arrays for all rows of a request, of the shapes and dtypes of a piece; none for values that it does not want."""
    value, ladj, log_prob = (np.empty((request.size, *array.shape[1:]), array.dtype) for array in piece.arrays)
    return Outputs(value if request.value else value[:, :0], ladj, log_prob, piece.finite)


class Batcher:
    """The queues of one engine.

    Requests of at most `chunk_rows` rows are packed into batches in the order they came. Longer ones are cut, one
    chunk a batch; every second chunk is the oldest one's, the others are those of the one with the least left. Of two
    alike, one is then read or written while the other runs, where in turns both would end at once; and a million rows
    hold up no ten thousand. The short and the long ones of every queue take turns with each other, so that they hold
    up no single one either, and a busy flow no other.

    Args:
        engines: how many batches run at the same time.
    """

    def __init__(self, engines: int = 1) -> None:
        self._engines = engines
        self._queues: list[Queue] = []
        self._turns: deque[Line] = deque()
        self._again: deque[Batch] = deque()
        self._in_hand: dict[Batch, None] = {}
        self._due: list[Answer] = []
        self._taken_at = -math.inf
        self._closed = False

    @property
    def has_work(self) -> bool:
        """Whether something waits."""
        return bool(self._again or self._turns)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, nothing runs and no answer is due."""
        return not (self.has_work or self._in_hand or self._due)

    def open(self, limits: Limits) -> Queue:
        """A queue of its own for one lane."""
        queue = Queue(limits)
        self._queues.append(queue)
        return queue

    def submit(self, queue: Queue, run: Run, done: Done, now: float, deadline: float = math.inf) -> Request:
        """Take a request, as `Lane.submit` says.

        Args:
            queue: of this batcher.
            run: what it wishes for.
            done: gets the answer.
            now: in seconds, on the clock of `deadline`.
            deadline: see there.
        """
        request = Request(run, done, now, deadline)
        size = request.size
        if size < 1 or (run.context is not None and len(run.context) != size):
            raise ValueError("a run needs at least one row, and one row of context for each")
        if run.bounded:
            self.admit(queue, size, now, deadline)
        elif self._closed:
            raise Draining("the server is shutting down and takes no new work")
        line = queue.short if size <= queue.limits.chunk_rows else queue.long
        line.requests.append(request)
        line.rows += size
        queue.waiting_rows += size
        if not line.in_turn:
            line.in_turn = True
            self._turns.append(line)
        return request

    def admit(self, queue: Queue, size: int, now: float, deadline: float) -> None:
        """Hold what waits against the bounds, before a request of `size` rows.

        Raises:
            QueueFull: too many rows wait, or the answer is not to be expected by the deadline.
            DeadlineExceeded: it has passed.
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
        rides_at_once = queue.waiting_rows + size <= queue.limits.chunk_rows and len(self._turns) < 2
        if not self._again and (rides_at_once or not self._turns):
            return
        expected = self.expected_seconds(queue, size)
        if expected > _MARGIN * left:
            raise QueueFull(
                f"an answer is expected after {expected:.3g} seconds, and the deadline is in {left:.3g}",
                retry_seconds=expected - _MARGIN * left,
            )

    def expected_seconds(self, queue: Queue, size: int) -> float:
        """How long a request of `size` rows would take to be answered, if it came now.

        Each of its line's batches up to its own last one waits for one batch of every other line that has work, and
        all are shared among the engines:

            seconds = (running + batches * (own + sum over other lines of one batch)) / engines
        """
        chunk = queue.limits.chunk_rows
        if size <= chunk:
            line, ahead = queue.short, queue.short.rows + size
        else:
            line = queue.long
            ahead = size + sum(min(size, other.size - other.given) for other in line.requests)
        running = sum(batch.queue.usual_seconds(batch.size) for batch in self._in_hand)
        others = sum(other.queue.typical_seconds(other) for other in self._turns if other is not line)
        turns = -(-ahead // chunk)
        own = queue.usual_seconds(min(ahead, chunk))
        return (running + turns * (own + others)) / self._engines

    def take(self, now: float, queue: Queue | None = None) -> Batch | None:
        """The next batch to run, or None where there is none.

        What has been abandoned, or would not be back by its deadline, is dropped here instead of being run.

        Args:
            now: in seconds, on the clock of the deadlines.
            queue: take from this one's short requests only, and only if nothing but long ones waits beside them: the
                engines have enough to do with those.
        """
        if queue is not None:
            return self._ahead(now, queue.short)
        while self._again or self._turns:
            batch = self._retried(now) if self._again else self._turn(now)
            if batch.parts:
                return self._handed_out(batch, now)
        return None

    def _handed_out(self, batch: Batch, now: float) -> Batch:
        self._in_hand[batch] = None
        self._taken_at = now
        return batch

    def _ahead(self, now: float, line: Line) -> Batch | None:
        """A batch of a line out of its turn, past the long ones."""
        if self._again or any(other is not line and not other.long for other in self._turns):
            return None
        while line.in_turn:
            self._turns.remove(line)
            batch = self._batch_of(line, now)
            if batch.parts:
                return self._handed_out(batch, now)
        return None

    def _retried(self, now: float) -> Batch:
        """A half of a batch that failed, without what has been answered or has run out of time."""
        batch = self._again.popleft()
        batch.queue.waiting_rows -= batch.size
        for request, _, _ in batch.parts:
            if not request.answered and (request.abandoned or request.deadline <= now):
                self._give_up(batch.queue, request, now)
        return Batch(batch.queue, [part for part in batch.parts if not part.request.answered])

    def _turn(self, now: float) -> Batch:
        return self._batch_of(self._turns.popleft(), now)

    def _batch_of(self, line: Line, now: float) -> Batch:
        """The next batch of a line that has been taken out of the turns; it comes last in them, if it has more."""
        parts = self._chunk(line, now) if line.long else self._packed(line, now)
        line.in_turn = bool(line.requests)
        if line.in_turn:
            self._turns.append(line)
        return Batch(line.queue, parts)

    def _packed(self, line: Line, now: float) -> list[Part]:
        parts: list[Part] = []
        gone: list[Request] = []
        late: list[Request] = []
        requests = line.requests
        room = line.queue.limits.chunk_rows
        back = now + line.queue.longest_seconds(line)
        rows = 0
        while requests and requests[0].size <= room:
            request = requests.popleft()
            rows += request.size
            if request.abandoned or request.deadline <= now:
                gone.append(request)
            elif request.deadline <= back:
                late.append(request)
            else:
                room -= request.size
                parts.append(Part(request, 0, request.size))
        line.rows -= rows
        line.queue.waiting_rows -= rows
        if late and not parts:  # how long a batch takes is an estimate, and only runs mend one that is wrong
            newest = late.pop()
            parts.append(Part(newest, 0, newest.size))
        for request in (*gone, *late):
            self._give_up(line.queue, request, now)
        for request in (*gone, *late, *[part.request for part in parts]):
            request.given = request.size
        return parts

    def _chunk(self, line: Line, now: float) -> list[Part]:
        requests = line.requests
        while requests:
            request = requests[0] if line.oldest_next else min(requests, key=_left)
            if request.abandoned or request.deadline <= now:
                self._give_up(line.queue, request, now)
                requests.remove(request)
                self._forget_rest(line, request)
                continue
            start = request.given
            request.given = min(start + line.queue.limits.chunk_rows, request.size)
            line.rows -= request.given - start
            line.queue.waiting_rows -= request.given - start
            if request.given == request.size:
                requests.remove(request)
            line.oldest_next = not line.oldest_next
            return [Part(request, start, request.given)]
        return []

    def finish(self, batch: Batch, outputs: Outputs) -> None:
        """Hand in what a batch gave.

        Args:
            batch: from `take`.
            outputs: its rows, in its order.
        """
        if batch not in self._in_hand:  # answered by `abort` while it ran
            return
        del self._in_hand[batch]
        at = 0
        for request, start, stop in batch.parts:
            size = stop - start
            piece = outputs.part(at, at + size)
            at += size
            if request.answered:
                continue
            if size == request.size:
                self._answer(request, piece)
                continue
            request.returned += size
            whole = request.outputs
            if whole is None:
                request.outputs = whole = _room(piece, request)
            elif whole.finite and not piece.finite:
                request.outputs = whole = whole._replace(finite=False)
            for array, part in zip(whole.arrays, piece.arrays, strict=True):
                if array.size:
                    array[start:stop] = part
            if not request.value and not piece.finite:
                # The values are not kept: a row in which they are not finite is told by its log-determinant.
                lost = ~np.isfinite(piece.value.reshape(size, -1)).all(axis=1)
                whole.log_abs_det_jacobian[start:stop][lost] = np.nan
            if request.returned == request.size:
                self._answer(request, whole)

    def fail(self, batch: Batch, error: PushforwardError) -> None:
        """Hand in that a batch failed: halves of it run again, until the request at fault is alone with the error.

        Args:
            batch: from `take`.
            error: what its only request gets; its neighbours run again without it.
        """
        if batch not in self._in_hand:
            return
        del self._in_hand[batch]
        parts = [part for part in batch.parts if not part.request.answered]
        if len(batch.parts) > 1:  # the one at fault may have been answered meanwhile, and have left one behind
            middle = len(parts) // 2
            for half in (parts[:middle], parts[middle:]):
                if half:
                    self._again.append(Batch(batch.queue, half))
                    batch.queue.waiting_rows += self._again[-1].size
            return
        for part in parts:
            self._answer(part.request, error)
            self._withdraw(batch.queue.long, part.request)

    def expire(self, now: float) -> None:
        """Answer whatever has passed its deadline or has been abandoned, also what runs and does not come back."""
        for queue in self._queues:
            for line in (queue.short, queue.long):
                for request in [r for r in line.requests if r.abandoned or r.deadline <= now]:
                    self._give_up(queue, request, now)
                    self._withdraw(line, request)
        for batch in (*self._again, *self._in_hand):
            for request, _, _ in batch.parts:
                if not request.answered and (request.abandoned or request.deadline <= now):
                    self._give_up(batch.queue, request, now)

    def _withdraw(self, line: Line, request: Request) -> None:
        """Take a request's rows that have not been handed out from where they wait."""
        if request.given == request.size:
            return
        line.requests.remove(request)
        self._forget_rest(line, request)
        if not line.requests:
            line.in_turn = False
            self._turns.remove(line)

    def _forget_rest(self, line: Line, request: Request) -> None:
        rest = request.size - request.given
        request.given = request.size
        line.rows -= rest
        line.queue.waiting_rows -= rest

    def _give_up(self, queue: Queue, request: Request, now: float) -> None:
        """Answer a request whose rows do not run any more.

        None of its rows ran, and the queue moved on while it waited: then there was too much before it, whatever was
        expected when it came, and it is refused as it would have been then.
        """
        if request.abandoned:
            self._answer(request, ClientGone("the client closed its connection before its rows ran"))
        elif request.given or (request.deadline <= now and self._taken_at <= request.arrived):
            self._answer(request, DeadlineExceeded("the deadline passed before this request was answered"))
        else:
            detail = "too much was waiting before this request for an answer by its deadline; none of its rows were run"
            self._answer(request, QueueFull(detail, retry_seconds=self.expected_seconds(queue, request.size)))

    def _answer(self, request: Request, result: Outputs | Exception) -> None:
        request.answered = True
        self._due.append(Answer(request.done, result))

    def collect(self) -> list[Answer]:
        """The answers that have fallen due since the last time."""
        due, self._due = self._due, []
        return due

    def close(self) -> None:
        """Take nothing more; what was taken still runs."""
        self._closed = True

    def abort(self, error: Exception) -> None:
        """Take nothing more, and give up what was taken: what still runs is passed over when it comes back.

        Args:
            error: the answer to every request that has none.
        """
        self._closed = True
        requests = [request for line in self._turns for request in line.requests]
        requests += [part.request for batch in (*self._again, *self._in_hand) for part in batch.parts]
        for request in dict.fromkeys(requests):
            if not request.answered:
                self._answer(request, error)
        for queue in self._queues:
            for line in (queue.short, queue.long):
                line.requests.clear()
                line.rows, line.in_turn = 0, False
            queue.waiting_rows = 0
        self._turns.clear()
        self._again.clear()
        self._in_hand.clear()
