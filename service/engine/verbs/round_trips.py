"""Round trips: the greatest abs(g(f(x)) - x), or abs(f(g(z)) - z), over the coordinates of a row.

A flow's two graphs are each other's inverse up to float32; where the Jacobian is large, or a numeric inverse did not
converge, they are less so, and this says by how much. Each such error costs a run of the other direction.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from service.engine.verbs.checks import check_finite
from service.errors import PushforwardError
from service.onnx.signature import Direction
from service.plan import Float32, Plan, Rows, Run

__all__ = ["RoundTrips", "came_back", "greatest"]


class RoundTrips(Protocol):
    """Where errors are counted."""

    def observe(self, direction: Direction, errors: Float32) -> None:
        """Count the errors ``[N]`` of rows that went in this direction first; on any thread."""
        ...


def came_back(
    run: Run,
    rows: Rows,
    direction: Direction,
    counted: RoundTrips | None,
    argument: str,
    error: type[PushforwardError],
    period: int | None = None,
) -> Plan[Float32]:
    """Bring rows back, and say how far from where they were that ends.

    Args:
        run: the way back of where they went.
        rows: where they were, ``[N, ...]``.
        direction: in which they went first.
        counted: where the errors are counted; None for nowhere.
        argument: at fault where a row does not come back to a float32.
        error: to raise then.
        period: as for `service.engine.verbs.checks.check_finite`.

    Returns:
        float32 ``[N]``.
    """
    outputs = yield run
    errors = greatest(outputs.value, rows[0 : len(rows)])
    check_finite(errors[:, None], argument, error, period)
    if counted is not None:
        counted.observe(direction, errors)
    return errors


def greatest(found: Float32, expected: Float32) -> Float32:
    """The greatest difference in each row: ``[N, ...]`` twice -> float32 ``[N]``."""
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.abs(found - expected)
    errors: Float32 = apart.reshape(len(apart), -1).max(axis=1)
    return errors
