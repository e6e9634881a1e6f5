"""The choice of the largest batch: measured for each direction of each flow when it is loaded.

A larger batch costs less per row until it leaves the caches, and the next run waits for the whole of it. The answers do
not depend on the choice. The same calls warm a flow up: the first one of each size allocates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

__all__ = ["Timing", "choose_chunk", "time_batches"]

BUDGET_SECONDS: Final = 0.025
"""The time after which no further size is tried: a server with four flows measures eight directions at its start."""
MOST_SECONDS: Final = 0.005
"""The longest time of a batch, where a smaller one is possible: a single row may wait for one of these."""

_CALLS: Final = 3
_HANDLING_SECONDS: Final = 2e-4
"""The time of a batch beside its computation: to take it, concatenate its rows, deliver its outputs, and wait for the
interpreter's lock each time. 50 us on an idle server, 300 on a busy one, where it matters more."""

_GOOD_SHARE: Final = 0.95
"""A batch with this share of the best rate is as good."""

_MAX_USELESS: Final = 2
"""Sizes in a row that are no better than a smaller one, after which no further size is tried."""


class Timing(NamedTuple):
    """The time of a batch.

    Args:
        rows: of the batch.
        seconds: of the quickest call.
    """

    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second, the handling included."""
        return self.rows / (self.seconds + _HANDLING_SECONDS)


def time_batches(
    prepare: Callable[[int], Callable[[], object]],
    sizes: Sequence[int],
    clock: Callable[[], float],
    budget_seconds: float = BUDGET_SECONDS,
) -> list[Timing]:
    """Time batches of growing size, for as long as a larger one may be better.

    It ends where the next size is expected to take more than `MOST_SECONDS`, where two in a row were no better than a
    smaller one, or where the budget is spent.

    Args:
        prepare: returns, for a number of rows, a function that computes a batch of them each time it is called.
        sizes: ascending.
        clock: seconds. Where the calling thread does the work, this is its own processor time, on which other
            processes of the machine have less influence.
        budget_seconds: may be exceeded by one call.

    Returns:
        A timing for each size that was run, ascending; at least one.
    """
    ends = clock() + budget_seconds
    timings: list[Timing] = []
    best, useless = 0.0, 0
    for size in sizes:
        if timings and (clock() >= ends or _extrapolate(timings, size) > MOST_SECONDS):
            break
        timing = Timing(size, _time_quickest(prepare(size), clock, ends))
        timings.append(timing)
        useless = 0 if timing.rate * _GOOD_SHARE > best else useless + 1
        best = max(best, timing.rate)
        if useless == _MAX_USELESS:
            break
    return timings


def choose_chunk(timings: Sequence[Timing]) -> Timing:
    """Choose the smallest batch with at least 95% of the best rate, of those that take at most `MOST_SECONDS`.

    Args:
        timings: at least one, ascending. Where all take longer, the first is chosen.
    """
    quick = [timing for timing in timings if timing.seconds <= MOST_SECONDS] or timings[:1]
    best = max(timing.rate for timing in quick)
    return next(timing for timing in quick if timing.rate >= _GOOD_SHARE * best)


def _extrapolate(timings: Sequence[Timing], size: int) -> float:
    """The expected time of a larger batch, on the line through the last two timings; at least that of the last."""
    last = timings[-1]
    if len(timings) == 1:
        return last.seconds
    slope = (last.seconds - timings[-2].seconds) / (last.rows - timings[-2].rows)
    return last.seconds + max(0.0, slope) * (size - last.rows)


def _time_quickest(run: Callable[[], object], clock: Callable[[], float], ends: float) -> float:
    """The least time of a few calls: the first one also allocates, and on a busy machine some wait for a processor."""
    quickest = float("inf")
    for call in range(_CALLS):
        began = clock()
        run()
        now = clock()
        quickest = min(quickest, now - began)
        if now >= ends or (call and quickest > MOST_SECONDS):
            break
    return quickest
