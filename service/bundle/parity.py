"""The error of a graph's answers against those computed in float64: one measure for exporter, `check` and canary.

Must not import onnxruntime or torch: its callers hand in arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "BATCH_MULTIPLE",
    "ROUND_TRIP_TOLERANCE",
    "TOLERANCE",
    "Answers",
    "GoldenErrors",
    "golden_errors",
    "log_det_unit",
    "relative_error",
    "relative_errors",
    "row_errors",
    "traced_golden_errors",
]

TOLERANCE = 1e-4
"""The bound on the relative error of log_prob, for the gate, for `check` and for the canary."""

ROUND_TRIP_TOLERANCE = 1e-3
"""The bound on |g(z) - x| / (1 + |x|). z comes from float64 and g runs in float32, so that both roundings count."""

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


def relative_errors(actual: npt.ArrayLike, expected: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Each value's error relative to one plus the expected size: |actual - expected| / (1 + |expected|).

    A log-density spans many orders of magnitude, so that neither the absolute nor the purely relative error is a fair
    measure of it.

    Args:
        actual: any shape.
        expected: the same shape.

    Returns:
        The same shape. Equal infinities agree. Where only one side is infinite, or either is NaN, the error is
        infinite.

    Raises:
        ValueError: the shapes differ.
    """
    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if a.shape != e.shape:
        raise ValueError(f"shapes differ: {a.shape} and {e.shape}")
    same = a == e  # equal infinities subtract to NaN
    finite = np.isfinite(a) & np.isfinite(e)
    difference = np.abs(np.where(finite, a, 0.0) - np.where(finite, e, 0.0))
    errors = difference / (1.0 + np.abs(np.where(finite, e, 0.0)))
    return np.asarray(np.where(same, 0.0, np.where(finite, errors, np.inf)), np.float64)


def relative_error(actual: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """The greatest of `relative_errors`; 0.0 for empty arrays.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> relative_error([1.0, -np.inf], [1.1, -np.inf]) < 0.05
        True
        >>> relative_error([np.nan], [1.0])
        inf
    """
    return float(np.max(relative_errors(actual, expected), initial=0.0))


def row_errors(actual: npt.ArrayLike, expected: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The greatest of `relative_errors` in each row: ``[N, ...]`` -> ``[N]``.

    Raises:
        ValueError: the shapes differ.
    """
    errors = relative_errors(actual, expected)
    return np.asarray(np.max(errors, axis=tuple(range(1, errors.ndim)), initial=0.0), np.float64)


class Answers(Protocol):
    """The three answers of a direction, by row: of a graph, or the golden ones."""

    @property
    def value(self) -> npt.NDArray[np.floating]:
        """Z or x; of a trace the event after each step, ``[N, S, D]``."""

    @property
    def log_abs_det_jacobian(self) -> npt.NDArray[np.floating]:
        """``[N]``; of a trace each step's, ``[N, S]``."""

    @property
    def log_prob(self) -> npt.NDArray[np.floating]:
        """``[N]``."""


class GoldenAnswers(Protocol):
    """Golden rows, as `service.bundle.store.Golden` holds them."""

    @property
    def x(self) -> npt.NDArray[np.float32]:
        """``[G, *event]``."""

    @property
    def z(self) -> npt.NDArray[np.float64]:
        """``[G, D]``."""

    @property
    def log_abs_det_jacobian(self) -> npt.NDArray[np.float64]:
        """``[G]``."""

    @property
    def log_prob(self) -> npt.NDArray[np.float64]:
        """``[G]``."""


@dataclass(frozen=True, slots=True, eq=False)
class GoldenErrors:
    """The errors of one quantity on the golden rows.

    Args:
        quantity: the output and its direction.
        errors: ``[G]``, relative to one plus the size of the expected value.
        tolerance: the bound on them.
    """

    quantity: str
    errors: npt.NDArray[np.float64]
    tolerance: float


def golden_errors(golden: GoldenAnswers, forward: Answers, inverse: Answers) -> list[GoldenErrors]:
    """Hold the answers of both graphs against the golden ones.

    A row outside the support has no latent to come back from: its inverse counts as right.

    Args:
        golden: the rows and their answers.
        forward: what the forward graph gives for their x.
        inverse: what the inverse graph gives for their z in float32.

    Returns:
        The errors of each quantity.
    """
    outside = ~np.isfinite(golden.log_prob)
    unit = log_det_unit(golden.log_prob, golden.z.shape[1])
    return [
        GoldenErrors("forward log_prob", row_errors(forward.log_prob, golden.log_prob), TOLERANCE),
        GoldenErrors("forward z", row_errors(forward.value, golden.z), TOLERANCE),
        GoldenErrors(
            "forward log_abs_det_jacobian",
            row_errors(forward.log_abs_det_jacobian / unit, golden.log_abs_det_jacobian / unit),
            TOLERANCE,
        ),
        GoldenErrors("inverse x", np.where(outside, 0.0, row_errors(inverse.value, golden.x)), ROUND_TRIP_TOLERANCE),
        GoldenErrors(
            "inverse log_prob",
            np.where(outside, 0.0, row_errors(inverse.log_prob, golden.log_prob)),
            ROUND_TRIP_TOLERANCE,
        ),
    ]


def traced_golden_errors(golden: GoldenAnswers, traced: Answers) -> list[GoldenErrors]:
    """Hold the last step of a trace against z, and the sum of its steps' log-determinants against the whole.

    Args:
        golden: the rows and their answers.
        traced: what the trace graph gives for their x.

    Returns:
        The errors of each quantity.
    """
    unit = log_det_unit(golden.log_prob, golden.z.shape[1])
    whole = traced.log_abs_det_jacobian.sum(axis=1, dtype=np.float64) / unit
    return [
        GoldenErrors("trace z", row_errors(traced.value[:, -1], golden.z), TOLERANCE),
        GoldenErrors("trace log_abs_det_jacobian", row_errors(whole, golden.log_abs_det_jacobian / unit), TOLERANCE),
        GoldenErrors("trace log_prob", row_errors(traced.log_prob, golden.log_prob), TOLERANCE),
    ]
