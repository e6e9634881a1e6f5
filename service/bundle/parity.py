"""The error of a graph's answers against those computed in float64: one measure for exporter, `check` and canary.

Must not import onnxruntime or torch: its callers hand in arrays.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BATCH_MULTIPLE", "TOLERANCE", "log_det_unit", "relative_error"]

TOLERANCE = 1e-4
"""The bound on the relative error of log_prob, for the gate, for `check` and for the canary."""

BATCH_MULTIPLE = 4
"""A row's answer is bitwise the same in every batch whose size is a multiple of this. The server pads batches to it,
and the exporter's gate proves it for each graph."""


def log_det_unit(log_prob: npt.ArrayLike, width: int) -> npt.NDArray[np.float64]:
    """The unit of log-determinants, by which they are divided before their `relative_error`: 1 + min(|log_prob|, D).

    Large terms of both signs can cancel, such as those of a logit and of a scale for each of a thousand pixels. The
    rounding errors of the terms stay: up to some nats a column, and a log-determinant adds up D columns. A
    log-determinant only matters as a part of log_prob, whose error is relative to one plus its own size. Beyond D nats
    that size is the distance of the latent, as for a row far outside the data, and excuses no error of a
    log-determinant.

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
    """The greatest error relative to one plus the expected size: max |actual - expected| / (1 + |expected|).

    A log-density spans many orders of magnitude, so that neither the absolute nor the purely relative error is a fair
    measure of it.

    Args:
        actual: any shape.
        expected: the same shape.

    Returns:
        The maximum; 0.0 for empty arrays. Equal infinities agree. Where only one side is infinite, or any value is NaN,
        the error is infinite.

    Raises:
        ValueError: the shapes differ.

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
