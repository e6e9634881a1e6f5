"""The faults of a column that can be known before a fit: marks of missing values, heavy tails, too many digits.

Each is told with a row, a value and what to do. None is refused: a flow may be fitted all the same, and be right where
the rows are many. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from models.data.readers import FloatArray

__all__ = ["describe_faults"]

_MARKED_SHARE: Final = 0.001
"""A mark stands in at least that share of the rows, and in at least `_MARKED_ROWS` of them."""
_MARKED_ROWS: Final = 3
_MARK_DISTANCE: Final = 10.0
"""How many times the width of the rest's central 90% a mark lies from the rest's median, where it is no usual mark."""
_USUAL: Final = frozenset(
    sign * mark
    for sign in (1, -1)
    for mark in (99, 999, 9999, 99999, 999999, 9999999, 99999999, 999999999, 2**15, 2**15 - 1, 2**31, 2**31 - 1)
)
_MOST_MARKS: Final = 4
_DISTINCT: Final = 10
"""A column of fewer values besides is one of classes, in which no value lies far from the others."""
_TAIL: Final = 100.0
"""How many times its spread the farthest value of a column lies from its median, where its tail is heavy."""
_STEP: Final = 3e-5
"""Half a step of float32, as a share of a column's spread, at which it moves a steep log_prob by more than 1e-4."""


def describe_faults(values: FloatArray, label: str, key: str, place: Callable[[int], str]) -> list[str]:
    """Look at one column.

    Args:
        values: ``[N]``, finite.
        label: what to call it in a sentence.
        key: its name, as `--where` and `--drop` take it.
        place: a row's number -> where it is in the file, in words.

    Returns:
        A sentence for each fault, without a final full stop.
    """
    said = []
    kept = np.ones(len(values), np.bool_)
    for mark in _find_marks(values):
        rows = np.flatnonzero(values == mark)
        kept &= values != mark
        others = values[kept]
        said.append(
            f"{label} is {mark:.10g} in {rows.size} of {len(values)} rows ({rows.size / len(values):.1%}; the first is "
            f"{place(int(rows[0]))}), far from all others ({others.min():.10g} to {others.max():.10g}): it looks like "
            f"a mark of what is missing. Leave out such rows (--where '{key}!={mark:.10g}'), or the column"
        )
    rest = np.where(kept, values, np.nan)
    said += _describe_tail(rest, label, key, place) + _describe_digits(values[kept], label)
    return said


def _find_marks(values: FloatArray) -> list[float]:
    """The values that repeat far outside the others, from outside to inside."""
    found: list[float] = []
    rest = values
    while len(found) < _MOST_MARKS:
        mark = next((end for end in (rest.min(), rest.max()) if _is_mark(rest, end)), None)
        if mark is None:
            break
        found.append(float(mark))
        rest = rest[rest != mark]
    return found


def _is_mark(values: FloatArray, end: float) -> bool:
    at = values == end
    others = values[~at]
    if np.count_nonzero(at) < max(_MARKED_ROWS, _MARKED_SHARE * len(values)) or others.size < _DISTINCT:
        return False
    if np.unique(others).size < _DISTINCT:
        return False
    low, middle, high = np.quantile(others, (0.05, 0.5, 0.95))
    distance = 1.0 if end in _USUAL else _MARK_DISTANCE
    return bool(high > low and abs(end - middle) > distance * (high - low))


def _spread(values: FloatArray) -> float:
    """The width of the central half; where one value fills that, the median distance of the others from it."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    if high > low:
        return float(high - low)
    besides = np.abs(values[values != middle] - middle)
    return float(np.median(besides)) if besides.size else 0.0


def _describe_tail(values: FloatArray, label: str, key: str, place: Callable[[int], str]) -> list[str]:
    """Say where a few values lie so far out that all others look like one; NaN is passed over."""
    known = values[~np.isnan(values)]
    spread, middle = _spread(known), float(np.median(known))
    distances = np.abs(values - middle)
    row = int(np.nanargmax(distances))
    if not spread > 0 or distances[row] <= _TAIL * spread:
        return []
    if known.min() > 0:
        transform = "its logarithm"
    elif known.min() >= 0:
        transform = "log(1 + x)"
    else:
        transform = "arcsinh(x), a logarithm of both signs"
    least, low, high, greatest = np.quantile(known, (0.01, 0.05, 0.95, 0.99))
    limit = f"{key}>{least:.3g}" if values[row] < middle else f"{key}<{greatest:.3g}"
    said = (
        f"{label} has a heavy tail: it is {values[row]:.6g} in {place(row)}, {distances[row] / spread:.2g} times its "
        f"spread from its median, and nine of ten values lie from {low:.6g} to {high:.6g}. A fit sees these as nearly "
        f"one value, and float32 may be too coarse for them. Fit {transform} in its place, leave the far rows out "
        f"(--where '{limit}' keeps 99%), or compute in double (--precision float64)"
    )
    return [said]


def _describe_digits(values: FloatArray, label: str) -> list[str]:
    """Say where a column has more digits than float32 keeps."""
    spread, middle = _spread(values), float(np.median(values))
    step = float(np.spacing(np.float32(abs(middle))))
    if not step / 2 > _STEP * spread > 0:
        return []
    said = (
        f"{label} varies little beside its size: float32 keeps 7 digits in all and knows a value near {middle:.7g} to "
        f"{step:.2g}, while the column's spread is {spread:.3g}. Take an offset away first, such as {middle:.3g}, "
        "compute in double (--precision float64), or leave the column out if it numbers or dates its rows"
    )
    return [said]
