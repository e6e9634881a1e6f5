"""The queue of one lane: runs that wait, the batches they are cut into, and the measured time of a batch.

Knows no thread, no lock and no clock.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from service.plan import Done, Floats, Outputs, Run

__all__ = ["Backlog", "Batch", "Limits", "Queue", "QueuedRun", "RunOutcome", "RunSlice"]

_SMALL_ROWS: Final = 16
"""Batches of up to this many rows take about the same time: that of the call."""

_NEWEST_WEIGHT: Final = 1 / 32
"""The weight of the newest batch in the mean time of its size. On a busy machine one batch in ten takes three times as
long as the others."""

_UPPER_DEVIATIONS: Final = 2.0
"""Few batches take longer than the mean plus this many mean deviations."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one queue.

    Args:
        chunk_rows: the most rows of a batch; a longer run is cut. 0 where it is yet to be measured, which no queue
            accepts (`service.engine.loading.load_flow`).
        max_queued_rows: while this many rows wait in a queue, it takes no further run. A run that is taken may exceed
            it by its own rows, which the work budget bounds.
    """

    chunk_rows: int = 1024
    max_queued_rows: int = 1 << 20


class RunOutcome(NamedTuple):
    """The outcome of a run that is ready for delivery: call `done` with `result`.

    Args:
        done: the callback of the run.
        result: its outputs, or its error.
    """

    done: Done
    result: Outputs | Exception


class QueuedRun:
    """A run in a queue: its rows that are dispatched, the outputs that are back, and whether it has been answered.

    Args:
        run: the rows and their context.
        done: takes the outcome.
        arrived: the time of arrival, in seconds of the driver's clock.
        deadline: on the same clock.
    """

    __slots__ = (
        "abandoned",
        "answered",
        "arrived",
        "context",
        "counted",
        "deadline",
        "dispatched",
        "done",
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
        self.dispatched = 0
        self.returned = 0
        self.outputs: Outputs | None = None
        self.answered = False
        self.abandoned = False


class RunSlice(NamedTuple):
    """The rows start to stop of one run, within a batch."""

    run: QueuedRun
    start: int
    stop: int


class Batch:
    """Rows of one or more runs of a queue that are computed together.

    Args:
        queue: of all its runs.
        slices: the rows, in the order of the batch.
    """

    __slots__ = ("queue", "size", "slices")

    def __init__(self, queue: Queue, slices: Sequence[RunSlice]) -> None:
        self.queue = queue
        self.slices = slices
        self.size = sum([piece.stop - piece.start for piece in slices])

    @property
    def counted(self) -> bool:
        """Whether its log_prob is counted. All its runs agree: one that is not counted is long and shares no batch."""
        return self.slices[0].run.counted

    def rows(self) -> Floats:
        """The rows, ``[size, ...]``. This may compute them: call it outside any lock."""
        return _concatenate([(piece.run.rows, piece.start, piece.stop) for piece in self.slices])

    def context(self) -> Floats | None:
        """The context of the rows, ``[size, C]``, or None."""
        pieces = [(p.run.context, p.start, p.stop) for p in self.slices if p.run.context is not None]
        return _concatenate(pieces) if pieces else None


def _concatenate(pieces: Sequence[tuple[Any, int, int]]) -> Floats:
    """Slices of rows, one after the other. Rows of one type that can be computed together are."""
    if len(pieces) == 1:
        rows, start, stop = pieces[0]
        single: Floats = rows[start:stop]
        return single
    by_type: dict[type, list[int]] = {}
    for index, (rows, _, _) in enumerate(pieces):
        by_type.setdefault(type(rows), []).append(index)
    if len(by_type) == 1:
        return _concatenate_type(next(iter(by_type)), pieces)
    whole: Floats | None = None
    starts = np.cumsum([0, *(stop - start for _, start, stop in pieces)])
    for kind, members in by_type.items():
        values = _concatenate_type(kind, [pieces[i] for i in members])
        if whole is None:
            whole = np.empty((starts[-1], *values.shape[1:]), values.dtype)
        whole[np.concatenate([np.arange(starts[i], starts[i + 1]) for i in members])] = values
    if whole is None:
        raise ValueError("a batch has at least one slice")
    return whole


def _concatenate_type(kind: type, pieces: Sequence[tuple[Any, int, int]]) -> Floats:
    computed = getattr(kind, "computed", None)
    if computed is None:
        return np.concatenate([rows[start:stop] for rows, start, stop in pieces])
    together: Floats = computed(pieces)
    return together


class Backlog:
    """The short runs or the long runs of one queue, in order of arrival.

    Args:
        queue: of these runs.
        long: whether its runs are longer than a batch.

    Attributes:
        runs: the runs with rows that are not dispatched.
        rows: the number of those rows.
        in_rotation: whether the backlog waits for a turn.
        oldest_next: of long runs, whether the next chunk is of the oldest run, or of the one with the fewest rows left.
    """

    __slots__ = ("in_rotation", "long", "oldest_next", "queue", "rows", "runs")

    def __init__(self, queue: Queue, *, long: bool) -> None:
        self.queue = queue
        self.long = long
        self.runs: deque[QueuedRun] = deque()
        self.rows = 0
        self.in_rotation = False
        self.oldest_next = True


class Queue:
    """The runs of one lane, and the time that its batches take. Made by `Batcher.open_queue`.

    Args:
        limits: the bounds.

    Attributes:
        waiting_rows: the number of rows that are not dispatched.
        short: the runs that fit into a batch.
        long: the other runs.
    """

    __slots__ = (
        "_deviation",
        "_mean_seconds",
        "_mean_sizes",
        "_quickest",
        "_size_classes",
        "limits",
        "long",
        "short",
        "waiting_rows",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waiting_rows = 0
        self.short = Backlog(self, long=False)
        self.long = Backlog(self, long=True)
        self._size_classes: list[int] = []
        self._mean_sizes: list[float] = []
        self._mean_seconds: list[float] = []
        self._deviation = 0.0
        self._quickest = math.inf

    def record(self, rows: int, seconds: float, busy_seconds: float = 0.0) -> None:
        """Record the time of a batch.

        Args:
            rows: of the batch.
            seconds: of its computation.
            busy_seconds: the time for which it kept its engine from the next batch, where that is longer.
        """
        rows = max(rows, _SMALL_ROWS)
        kept = max(seconds, busy_seconds)
        # A row of a small batch costs many times what one of a large batch does: a mean is over batches of one size,
        # to within a factor of two.
        size_class = rows.bit_length()
        at = bisect_left(self._size_classes, size_class)
        if at == len(self._size_classes) or self._size_classes[at] != size_class:
            self._size_classes.insert(at, size_class)
            self._mean_sizes.insert(at, rows)
            self._mean_seconds.insert(at, kept)
        mean = self._mean_seconds[at]
        if mean > 0:  # a coarse clock may see no time pass
            self._deviation += (abs(kept / mean - 1) - self._deviation) * _NEWEST_WEIGHT
        self._mean_sizes[at] += (rows - self._mean_sizes[at]) * _NEWEST_WEIGHT
        self._mean_seconds[at] += (kept - mean) * _NEWEST_WEIGHT
        # On a busy machine most batches also wait for a processor, which says nothing of the flow. The quickest recent
        # batch is the measure here; it is forgotten by a tenth with each batch.
        self._quickest = min(1.1 * self._quickest, seconds / rows)

    def mean_seconds(self, rows: int) -> float:
        """The mean time for which a batch keeps an engine; 0 before the first batch.

        It lies on the line between the next smaller and the next larger size that were recorded. Beyond them a row
        costs what it costs at the last size.

        Args:
            rows: of the batch.
        """
        sizes, seconds = self._mean_sizes, self._mean_seconds
        rows = max(rows, _SMALL_ROWS)
        at = bisect_left(sizes, rows)
        if at in (0, len(sizes)):
            end = min(at, len(sizes) - 1)
            return rows * seconds[end] / sizes[end] if sizes else 0.0
        share = (rows - sizes[at - 1]) / (sizes[at] - sizes[at - 1])
        return seconds[at - 1] + share * (seconds[at] - seconds[at - 1])

    def least_seconds(self, rows: int) -> float:
        """The time of the computation itself of a batch; infinite before the first batch.

        Args:
            rows: of the batch.
        """
        return max(rows, _SMALL_ROWS) * self._quickest

    def turn_seconds(self, backlog: Backlog) -> float:
        """The mean time of the next turn of one of its backlogs."""
        return self.mean_seconds(min(backlog.rows, self.limits.chunk_rows))

    def upper_turn_seconds(self, backlog: Backlog) -> float:
        """The time that the next turn of one of its backlogs exceeds rarely."""
        return self.turn_seconds(backlog) * (1 + _UPPER_DEVIATIONS * self._deviation)
