"""Round-trip errors: the greatest abs(g(f(x)) - x), or abs(f(g(z)) - z), over the coordinates of a row.

A flow's two graphs are each other's inverse up to their precision. Where the Jacobian is large, or a numeric inverse
did not converge, they are less so, and the error says by how much. Each error costs a run of the other direction.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from service.engine.verbs.checks import check_finite
from service.errors import PushforwardError
from service.onnx.signature import Direction
from service.plan import Floats, Plan, Rows, Run

__all__ = ["RoundTripCounts", "greatest_difference", "round_trip_error"]


class RoundTripCounts(Protocol):
    """Counts of round-trip errors."""

    def observe(self, direction: Direction, errors: Floats) -> None:
        """Count the errors ``[N]`` of rows that went in this direction first; on any thread."""
        ...


def round_trip_error(
    back: Run,
    rows: Rows,
    direction: Direction,
    counts: RoundTripCounts | None,
    *,
    argument: str,
    error: type[PushforwardError],
    period: int | None = None,
) -> Plan[Floats]:
    """The errors of rows that went one way and are brought back.

    Args:
        back: the run that brings them back.
        rows: where they were, ``[N, ...]``.
        direction: in which they went first.
        counts: where the errors are counted; None for nowhere.
        argument: at fault where a row does not come back to a finite number.
        error: to raise then.
        period: as for `service.engine.verbs.checks.check_finite`.

    Returns:
        ``[N]``.

    Raises:
        PushforwardError: of the type `error`, where a row does not come back to a finite number.
    """
    outputs = yield back
    errors = greatest_difference(outputs.value, rows[0 : len(rows)])
    check_finite(errors[:, None], argument, error, period)
    if counts is not None:
        counts.observe(direction, errors)
    return errors


def greatest_difference(found: Floats, expected: Floats) -> Floats:
    """The greatest difference in each row: ``[N, ...]`` twice -> ``[N]``."""
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.abs(found - expected)
    differences: Floats = apart.reshape(len(apart), -1).max(axis=1)
    return differences
