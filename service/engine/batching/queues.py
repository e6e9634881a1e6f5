"""What the batcher moves about: requests, the queues they wait in, and the batches they are run in."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from service.plan import Done, Float32, Outputs, Run

__all__ = ["Answer", "Batch", "Limits", "Line", "Part", "Queue", "Request"]

_FEW: Final = 16
"""Up to so many rows a batch takes about the same time: that of the call."""

_WEIGHT: Final = 1 / 32
"""Of the newest batch, in the mean time of those of its size: on a busy machine one in ten takes thrice as long."""

_DEVIATIONS: Final = 2.0
"""So many mean deviations over the mean lie few batches."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine may hold and run at once.

    Args:
        chunk_rows: the most rows of a batch; a longer request is cut. 0 where it is yet to be measured, which no queue
            takes (`service.engine.registry.load_flow`).
        max_queued_rows: while so many rows wait in one queue, it takes no further request. A request that is taken
            may go over it by its own rows, which the work budget bounds.
    """

    chunk_rows: int = 1024
    max_queued_rows: int = 1 << 20


class Answer(NamedTuple):
    """An answer that is due: call `done` with `result`."""

    done: Done
    result: Outputs | Exception


class Request:
    """One request on its way: what is handed out, what is back, and whether it has been answered.

    Args:
        run: what it wishes for.
        done: gets the answer.
        arrived: when, in seconds of the driver's clock.
        deadline: on the same clock.
    """

    __slots__ = (
        "abandoned",
        "answered",
        "arrived",
        "context",
        "counted",
        "deadline",
        "done",
        "given",
        "outputs",
        "returned",
        "rows",
        "size",
        "value",
    )

    def __init__(self, run: Run, done: Done, arrived: float, deadline: float) -> None:
        self.rows = run.rows
        self.context = run.context
        self.value = run.value
        self.counted = run.counted
        self.done = done
        self.arrived = arrived
        self.deadline = deadline
        self.size = len(run.rows)
        self.given = 0
        self.returned = 0
        self.outputs: Outputs | None = None
        self.answered = False
        self.abandoned = False


class Part(NamedTuple):
    """The rows start to stop of one request, within a batch."""

    request: Request
    start: int
    stop: int


class Batch:
    """Rows of one or more requests of a queue that run together.

    Args:
        queue: whose.
        parts: whose rows, in the batch's order.
    """

    __slots__ = ("parts", "queue", "size")

    def __init__(self, queue: Queue, parts: Sequence[Part]) -> None:
        self.queue = queue
        self.parts = parts
        self.size = sum([part.stop - part.start for part in parts])

    @property
    def counted(self) -> bool:
        """Whether its log_prob counts: as its first request says. What does not count is long, and shares no batch."""
        return self.parts[0].request.counted

    def rows(self) -> Float32:
        """The rows, ``[size, ...]``. May compute them: call it outside any lock."""
        return _joined([(part.request.rows, part.start, part.stop) for part in self.parts])

    def context(self) -> Float32 | None:
        """Their context ``[size, C]``, or None."""
        pieces = [(p.request.context, p.start, p.stop) for p in self.parts if p.request.context is not None]
        return _joined(pieces) if pieces else None


def _joined(pieces: Sequence[tuple[Any, int, int]]) -> Float32:
    """Slices of rows, one after the other; those that can be computed together are."""
    if len(pieces) == 1:
        rows, start, stop = pieces[0]
        single: Float32 = rows[start:stop]
        return single
    kinds: dict[type, list[int]] = {}
    for index, (rows, _, _) in enumerate(pieces):
        kinds.setdefault(type(rows), []).append(index)
    if len(kinds) == 1:
        return _together(next(iter(kinds)), pieces)
    whole: Float32 | None = None
    starts = np.cumsum([0, *(stop - start for _, start, stop in pieces)])
    for kind, members in kinds.items():
        values = _together(kind, [pieces[i] for i in members])
        if whole is None:
            whole = np.empty((starts[-1], *values.shape[1:]), values.dtype)
        whole[np.concatenate([np.arange(starts[i], starts[i + 1]) for i in members])] = values
    if whole is None:
        raise ValueError("a batch has at least one part")
    return whole


def _together(kind: type, pieces: Sequence[tuple[Any, int, int]]) -> Float32:
    computed = getattr(kind, "computed", None)
    if computed is None:
        return np.concatenate([rows[start:stop] for rows, start, stop in pieces])
    together: Float32 = computed(pieces)
    return together


class Line:
    """Requests of one queue that wait in the order they came: the short ones, or the long ones.

    Of the long ones, `oldest_next` says which of two has the next chunk: the oldest, or the one with the least left.
    """

    __slots__ = ("in_turn", "long", "oldest_next", "queue", "requests", "rows")

    def __init__(self, queue: Queue, *, long: bool) -> None:
        self.queue = queue
        self.long = long
        self.requests: deque[Request] = deque()
        self.rows = 0
        self.in_turn = False
        self.oldest_next = True


class Queue:
    """The requests of one lane, and how long its rows take. Made by `Batcher.open`.

    Args:
        limits: the bounds.
    """

    __slots__ = ("_deviation", "_kinds", "_quickest", "_seconds", "_sizes", "limits", "long", "short", "waiting_rows")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting_rows = 0
        self.short = Line(self, long=False)
        self.long = Line(self, long=True)
        self._kinds: list[int] = []
        self._sizes: list[float] = []
        self._seconds: list[float] = []
        self._deviation = 0.0
        self._quickest = math.inf

    def note(self, rows: int, seconds: float, busy_seconds: float = 0.0) -> None:
        """Remember how long a batch took.

        Args:
            rows: of it.
            seconds: of its run.
            busy_seconds: how long it kept its engine from the next batch, where that is known to be longer.
        """
        rows = max(rows, _FEW)
        kept = max(seconds, busy_seconds)
        # A row costs a small batch many times what it costs a large one: only batches of about one size have a mean.
        kind = rows.bit_length()
        at = bisect_left(self._kinds, kind)
        if at == len(self._kinds) or self._kinds[at] != kind:
            self._kinds.insert(at, kind)
            self._sizes.insert(at, rows)
            self._seconds.insert(at, kept)
        mean = self._seconds[at]
        if mean > 0:  # a coarse clock may see no time pass
            self._deviation += (abs(kept / mean - 1) - self._deviation) * _WEIGHT
        self._sizes[at] += (rows - self._sizes[at]) * _WEIGHT
        self._seconds[at] += (kept - mean) * _WEIGHT
        # On a busy machine most batches also wait for a processor, which says nothing of the flow: here the quickest
        # of late counts, forgotten by a tenth each batch.
        self._quickest = min(1.1 * self._quickest, seconds / rows)

    def usual_seconds(self, rows: int) -> float:
        """How long a batch of so many rows keeps an engine as things are; 0 before the first.

        On the line between the next smaller and the next larger size that have been seen; beyond them at the rate of
        the last.
        """
        sizes, seconds = self._sizes, self._seconds
        rows = max(rows, _FEW)
        at = bisect_left(sizes, rows)
        if at in (0, len(sizes)):
            end = min(at, len(sizes) - 1)
            return rows * seconds[end] / sizes[end] if sizes else 0.0
        share = (rows - sizes[at - 1]) / (sizes[at] - sizes[at - 1])
        return seconds[at - 1] + share * (seconds[at] - seconds[at - 1])

    def least_seconds(self, rows: int) -> float:
        """How long the computation itself of a batch of so many rows takes; infinite before the first."""
        return max(rows, _FEW) * self._quickest

    def typical_seconds(self, line: Line) -> float:
        """How long a turn of one of its lines takes."""
        return self.usual_seconds(min(line.rows, self.limits.chunk_rows))

    def longest_seconds(self, line: Line) -> float:
        """How long a turn of one of its lines takes, but for a few."""
        return self.typical_seconds(line) * (1 + _DEVIATIONS * self._deviation)
