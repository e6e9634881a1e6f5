"""What may leave the engine: numbers."""

from __future__ import annotations

import numpy as np

from service.engine.plan import Float32, Outputs
from service.errors import PushforwardError, Reason

__all__ = ["check_finite", "check_outputs"]


def check_outputs(outputs: Outputs, argument: str, error: type[PushforwardError], period: int | None = None) -> None:
    """Let no NaN and no infinity into an answer, but for a log_prob of -inf.

    Args:
        outputs: of a run.
        argument: which argument its rows come from.
        error: what to raise.
        period: the number of rows of the argument, where each went in several times, one round after the other.
    """
    if outputs.finite:
        return
    value, ladj, log_prob = outputs.arrays
    if value.size:
        check_finite(value.reshape(len(value), -1), argument, error, period)
    check_finite(np.where(np.isneginf(log_prob), np.float32(0), log_prob)[:, None], argument, error, period)
    check_finite(ladj[:, None], argument, error, period)


def check_finite(values: Float32, argument: str, error: type[PushforwardError], period: int | None = None) -> None:
    """Let no NaN and no infinity pass in ``[N, columns]``; each row that holds one is named, as in `check_outputs`."""
    if np.isfinite(values).all():
        return
    rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if period is not None:
        rows = np.unique(rows % period)
    reason = "the flow's answer for this row is beyond the range of float32"
    raise error(
        f"row {rows[0]}: {reason}",
        tuple(Reason((argument,), reason, int(row)) for row in rows[: PushforwardError.MAX_REASONS]),
    )
