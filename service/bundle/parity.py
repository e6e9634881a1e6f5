"""How far a graph's answers are from the ones computed in float64: one measure for exporter, check and canary.

Must not import onnxruntime or torch: both sides hand in arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BATCH_MULTIPLE", "TOLERANCE", "log_det_unit", "relative_error"]

TOLERANCE = 1e-4
"""The bound on the relative error of log_prob, for the gate, for `check` and for the canary."""

BATCH_MULTIPLE = 4
"""A row's answer is bitwise the same in every batch of a multiple of so many rows: the server pads to it, and the
exporter's gate shows it of each graph."""


def log_det_unit(log_prob: npt.ArrayLike, width: int) -> npt.NDArray[np.float64]:
    """What log-determinants are divided by before their `relative_error`: 1 + min(|log_prob|, D).

    Large terms of both signs, as those of a logit and of a scale for each of a thousand pixels, can leave hardly
    anything, with float32's rounding of what they were: some nats a column, and a log-determinant adds up D columns.
    All that it is for is its part in log_prob, which is held to one plus its own size. Beyond D nats that size is the
    latent's distance, as of a row far outside the data, and no excuse for a log-determinant.

    Args:
        log_prob: ``[N]`` as expected, in nats; -inf outside the support, where the unit is 1.
        width: the number of columns D of the latent, at least 1.

    Returns:
        ``[N]``.

    Example:
        >>> log_det_unit([-9.0, -1e6, -np.inf], 16).tolist()
        [10.0, 17.0, 1.0]
    """
    values = np.abs(np.asarray(log_prob, np.float64))
    return 1.0 + np.minimum(np.where(np.isfinite(values), values, 0.0), width)


def relative_error(actual: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """The greatest error relative to one plus the size of what was expected.

    max |actual - expected| / (1 + |expected|); a log-density spans many orders, so that neither the absolute
    nor the purely relative error is a fair measure of it.

    Args:
        actual: any shape.
        expected: the same shape.

    Returns:
        The maximum, 0.0 for empty arrays. Equal infinities agree; where only one side is infinite, or any value
        is NaN, the error is infinite.

    Raises:
        ValueError: where the shapes differ.

    Example:
        >>> relative_error([1.0, -np.inf], [1.1, -np.inf]) < 0.05
        True
        >>> relative_error([np.nan], [1.0])
        inf
    """
    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if a.shape != e.shape:
        raise ValueError(f"shapes differ: {a.shape} and {e.shape}")
    if a.size == 0:
        return 0.0
    same = a == e  # equal infinities subtract to NaN
    finite = np.isfinite(a) & np.isfinite(e)
    if not np.all(same | finite):
        return float("inf")
    difference = np.abs(np.where(same, 0.0, a) - np.where(same, 0.0, e))
    return float(np.max(difference / (1.0 + np.abs(np.where(same, 0.0, e)))))
