"""How many rows a batch should have at most: measured, for each direction of each flow, when it is loaded.

A larger batch costs less a row, until it leaves the caches; and whoever comes next waits for the whole of it. The
answers are the same whatever is chosen. The same calls warm a flow up: the first one of each size allocates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

__all__ = ["Timing", "best_chunk", "time_batches"]

BUDGET_SECONDS: Final = 0.025
"""After so long no further size is tried: a server with four flows has eight directions to measure at its start."""
MOST_SECONDS: Final = 0.005
"""The longest that a batch may take, where a smaller one is to be had: a single row may wait for one of these."""

_CALLS: Final = 3
_HANDLING_SECONDS: Final = 2e-4
"""What a batch costs beside its run: taking it, joining its rows, handing them out, and to wait each time for the
interpreter's lock. 50 us on an idle server, 300 on a busy one, where it matters more."""

_ENOUGH: Final = 0.95
_MOST_IN_VAIN: Final = 2


class Timing(NamedTuple):
    """How long a batch takes.

    Args:
        rows: of the batch.
        seconds: of the quickest call.
    """

    rows: int
    seconds: float

    @property
    def rate(self) -> float:
        """Rows a second, with the handling counted in."""
        return self.rows / (self.seconds + _HANDLING_SECONDS)


def time_batches(
    prepare: Callable[[int], Callable[[], object]],
    sizes: Sequence[int],
    clock: Callable[[], float],
    budget_seconds: float = BUDGET_SECONDS,
) -> list[Timing]:
    """Run batches of growing size, for as long as it may show something.

    It ends where the next size is expected to take more than `MOST_SECONDS`, where two in turn were no better than a
    smaller one, or where the budget is spent.

    Args:
        prepare: gives for a number of rows what runs a batch of them, over and over.
        sizes: ascending.
        clock: seconds; where the calling thread does the work, those of its own on a processor, so that what else
            runs on the machine matters less.
        budget_seconds: may be overrun by one call.

    Returns:
        A timing for each size that was run, ascending; at least one.
    """
    ends = clock() + budget_seconds
    timings: list[Timing] = []
    best, in_vain = 0.0, 0
    for size in sizes:
        if timings and (clock() >= ends or _expected(timings, size) > MOST_SECONDS):
            break
        timing = Timing(size, _quickest(prepare(size), clock, ends))
        timings.append(timing)
        in_vain = 0 if timing.rate * _ENOUGH > best else in_vain + 1
        best = max(best, timing.rate)
        if in_vain == _MOST_IN_VAIN:
            break
    return timings


def best_chunk(timings: Sequence[Timing]) -> Timing:
    """The smallest batch with at least 95% of the best rate, of those that take at most `MOST_SECONDS`.

    Args:
        timings: at least one, ascending. Where all take longer, it is the first.
    """
    quick = [timing for timing in timings if timing.seconds <= MOST_SECONDS] or timings[:1]
    best = max(timing.rate for timing in quick)
    return next(timing for timing in quick if timing.rate >= _ENOUGH * best)


def _expected(timings: Sequence[Timing], size: int) -> float:
    """How long a batch of a further size takes, along the line through the last two; at least as long as the last."""
    last = timings[-1]
    if len(timings) == 1:
        return last.seconds
    slope = (last.seconds - timings[-2].seconds) / (last.rows - timings[-2].rows)
    return last.seconds + max(0.0, slope) * (size - last.rows)


def _quickest(run: Callable[[], object], clock: Callable[[], float], ends: float) -> float:
    """The least of a few calls: the first one also allocates, and on a busy machine some wait for a processor."""
    quickest = float("inf")
    for call in range(_CALLS):
        began = clock()
        run()
        now = clock()
        quickest = min(quickest, now - began)
        if now >= ends or (call and quickest > MOST_SECONDS):
            break
    return quickest
