"""The constraints of a density whose columns do not all have the same support, as a manifest writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from service.bundle.bases import ManifestPart

__all__ = ["Constraint", "check_constraints"]


class Constraint(ManifestPart):
    """A stretch of columns with a support of its own.

    Args:
        kind: "half_line"; "interval"; "simplex", whose columns are positive and sum to 1, so that the last of them
            follows from the others and the density is over these.
        first: its first column, from 0.
        columns: how many.
        low: the lower end, in the units of x, which does not belong to it; null where there is none.
        high: the upper end, likewise.
    """

    kind: Literal["half_line", "interval", "simplex"]
    first: Annotated[int, Field(ge=0, lt=1 << 20)]
    columns: Annotated[int, Field(ge=1, le=1 << 20)]
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None


def check_constraints(constraints: Sequence[Constraint], event_shape: Sequence[int]) -> None:
    """Hold constraints against an event: they are of columns that are there, and each has the ends of its kind.

    Args:
        constraints: one after the other, of columns in order.
        event_shape: of a row.

    Raises:
        ValueError: where they do not fit.
    """
    end = 0
    for constraint in constraints:
        if len(event_shape) != 1 or constraint.first < end:
            raise ValueError("constraints are of a table's columns, in order, and none is of two")
        end = constraint.first + constraint.columns
        low, high = constraint.low, constraint.high
        fits = {
            "half_line": (low is None) != (high is None),
            "interval": low is not None and high is not None and low < high,
            "simplex": low is None and high is None and constraint.columns > 1,
        }[constraint.kind]
        if not fits:
            raise ValueError(f"a constraint of the kind {constraint.kind} has other ends or columns")
    if end > math.prod(event_shape):
        raise ValueError(f"constraints reach to column {end - 1}, and an event holds {math.prod(event_shape)} values")
