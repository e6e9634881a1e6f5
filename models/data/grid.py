"""The grid of quantized values: the step that they are multiples of apart. Must not import torch."""

from __future__ import annotations

import math

import numpy as np

from models.data.readers import FloatArray

__all__ = ["grid_step", "is_on_grid", "is_whole"]

_FLOAT32_WHOLE = 2.0**24
"""From here on every float32 is a whole number, and from 2^53 on every float64."""


def is_whole(values: FloatArray) -> bool:
    """Whether values are integers, and not floats that are so large that they have no digits after the point.

    Example:
        >>> is_whole(np.array([1.0, -3.0])), is_whole(np.array([1.5e30, 2e30])), is_whole(np.array([16777217.0]))
        (True, False, True)
    """
    if not np.all(values == np.round(values)):
        return False
    large = np.abs(values).max(initial=0)
    return bool(large < _FLOAT32_WHOLE or (large < 2**53 and np.any(values != values.astype(np.float32))))


def is_on_grid(values: FloatArray, step: float) -> bool:
    """Whether all values are multiples of `step` apart, to a millionth of a step."""
    bins = (values - values.min()) / step
    return bool(np.all(np.abs(bins - np.round(bins)) < 1e-6))


def grid_step(values: FloatArray) -> float | None:
    """The greatest step that values are multiples of apart; None where they are on no grid, or are all the same.

    Example:
        >>> grid_step(np.array([0.0, 4.0, 10.0])), grid_step(np.array([0.1, 0.2, 0.4]))
        (2.0, 0.1)
    """
    gaps = np.diff(np.unique(values))
    if not gaps.size:
        return None
    if np.all(gaps == np.round(gaps)) and gaps.max() < 2**53:
        return float(math.gcd(*(int(gap) for gap in gaps)))
    step = float(np.round(gaps.min(), 12))
    return step if step > 0 and is_on_grid(values, step) else None
