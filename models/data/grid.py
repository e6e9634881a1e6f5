"""The grid of quantized values: the step that they are multiples of apart. Must not import torch."""

from __future__ import annotations

import math

import numpy as np

from models.data.readers import FloatArray

__all__ = ["grid_step", "is_on_grid"]


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
