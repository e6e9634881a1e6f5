"""The axes of a chart: the numbers that they show, and the place of a number on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Axis", "spanning"]

Float64 = npt.NDArray[np.float64]


class Axis(NamedTuple):
    """One axis, from low to high.

    Args:
        name: what stands beside it.
        low: its lower end.
        high: its upper end, above low.
    """

    name: str
    low: float
    high: float

    def share(self, values: npt.ArrayLike) -> Float64:
        """The places of values on the axis: 0 at its lower end, 1 at its upper."""
        share: Float64 = (np.asarray(values, np.float64) - self.low) / (self.high - self.low)
        return share

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """At most so many round numbers on the axis, and their texts.

        Example:
            >>> Axis("x", -1.2, 2.1).ticks(5)
            [(-1.0, '-1'), (0.0, '0'), (1.0, '1'), (2.0, '2')]
        """
        least = (self.high - self.low) / (most + 0.5)
        power = 10.0 ** math.floor(math.log10(least))
        step = next(power * times for times in (1, 2, 5, 10, 20) if power * times >= least)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        values = [at * step for at in range(first, last + 1)]
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        long = max(abs(self.low), abs(self.high)) >= 1e5 or digits > 4
        return [(value, f"{value:.3g}" if long else f"{value:.{digits}f}") for value in values]


def spanning(name: str, values: npt.ArrayLike, more: Sequence[float] = (), margin: float = 0.04) -> Axis:
    """The axis that shows all of these values, with a margin.

    Args:
        name: of the axis.
        values: finite; at least one, here or in `more`.
        more: further values.
        margin: on both sides, as a share of the whole.
    """
    every = np.concatenate([np.asarray(values, np.float64).reshape(-1), np.asarray(more, np.float64)])
    low, high = float(every.min()), float(every.max())
    space = (high - low) * margin
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        space = 0.05 * max(abs(low), abs(high)) or 0.5
    return Axis(name, low - space, high + space)
