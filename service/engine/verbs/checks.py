"""Checks of what leaves the engine: finite numbers, but for a log_prob of -inf."""

from __future__ import annotations

import numpy as np

from service.errors import OutOfSupport, PushforwardError, Reason
from service.plan import Floats, Outputs

__all__ = ["check_finite", "check_inside", "check_outputs"]


def check_outputs(
    outputs: Outputs, argument: str, error: type[PushforwardError], period: int | None = None, each: int = 1
) -> None:
    """Let no NaN and no infinity into an answer, but for a log_prob of -inf.

    Args:
        outputs: of a run.
        argument: the one that its rows come from.
        error: the type to raise.
        period: the number of rows of the argument, where all of them went in several times, round after round.
        each: how often a row of the argument went in, where it did so before the next one.

    Raises:
        PushforwardError: of the type `error`, naming each row that is at fault, up to a number.
    """
    if outputs.finite:
        return
    value, ladj, log_prob = outputs.arrays
    if value.size:
        check_finite(value.reshape(len(value), -1), argument, error, period, each)
    check_finite(
        np.where(np.isneginf(log_prob), log_prob.dtype.type(0), log_prob)[:, None], argument, error, period, each
    )
    check_finite(ladj.reshape(len(ladj), -1), argument, error, period, each)


def check_finite(
    values: Floats, argument: str, error: type[PushforwardError], period: int | None = None, each: int = 1
) -> None:
    """Let no NaN and no infinity pass.

    Args:
        values: ``[N, columns]``.
        argument: as for `check_outputs`.
        error: as for `check_outputs`.
        period: as for `check_outputs`.
        each: as for `check_outputs`.

    Raises:
        PushforwardError: as `check_outputs`.
    """
    if np.isfinite(values).all():
        return
    rows = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if period is not None:
        rows = np.unique(rows % period)
    if each > 1:
        rows = np.unique(rows // each)
    reason = f"the flow's answer for this row is beyond the range of {values.dtype}"
    raise error(
        f"row {rows[0]}: {reason}",
        tuple(Reason((argument,), reason, int(row)) for row in rows[: PushforwardError.MAX_REASONS]),
    )


def check_inside(log_prob: Floats, argument: str) -> None:
    """Let no row ``[N]`` pass where the density is zero; each such row is named, up to a number.

    Raises:
        OutOfSupport: x has no latent there, or z no data.
    """
    outside = np.flatnonzero(np.isneginf(log_prob))
    if outside.size:
        other = "data" if argument == "z" else "latent"
        raise OutOfSupport(
            f"{argument}, row {outside[0]} lies where the density is zero, so that it has no {other}",
            tuple(
                Reason((argument,), "the density is zero here", int(row))
                for row in outside[: PushforwardError.MAX_REASONS]
            ),
        )
