"""The numbers of a call, most of them in the precision of its flow: rows, contexts, directions and targets.

Imports neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import (
    FLOAT32,
    FLOAT64,
    BeyondFloat32,
    FloatArray,
    FloatType,
    to_context,
    to_float64,
    to_floats,
    to_rows,
)
from pushforward.client.errors import InvalidInput
from pushforward.client.sampling import ContextNoise

__all__ = ["Direction", "as_given", "as_levels", "check_log_target", "format_direction", "given_numbers", "read_rows"]

Direction: TypeAlias = str | npt.ArrayLike
"""A direction by name, one in latent space ``[D]``, or two rows of data ``[2, *event]``, from one to the other."""


def format_direction(direction: Direction, dtype: FloatType = FLOAT32) -> Any:  # noqa: ANN401  as JSON has it
    """A direction as ``POST /edit`` takes it, its numbers in a flow's precision.

    Raises:
        InvalidInput: it is of another shape, or a number is not finite.
    """
    if isinstance(direction, str):
        return direction
    values = to_floats(direction, "direction", dtype)
    if values.ndim == 1:
        return values.tolist()
    if values.ndim == 0 or len(values) != 2:
        raise InvalidInput(f"direction must be one vector or two rows, and has the shape {list(values.shape)}")
    return {"from": values[0].tolist(), "to": values[1].tolist()}


def as_given(context: npt.ArrayLike) -> FloatArray:
    """A context before the precision of its flow is known: checked as float32, and kept in float64.

    Raises:
        InvalidInput: as `to_context`, but for a number beyond float32, which a flow of float64 takes.
    """
    with suppress(BeyondFloat32):
        to_context(context)
    return to_context(context, FLOAT64)


def as_levels(values: npt.ArrayLike, name: str) -> list[float]:
    """Levels of quantiles, or shares of intervals, as they are sent: a number is a list of one.

    Args:
        values: numbers in a row, or one number.
        name: of the argument, for errors.

    Raises:
        InvalidInput: they are no numbers in a row, or one is NaN.
    """
    numbers = np.atleast_1d(to_float64(values, name))
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise InvalidInput(f"{name} must be finite numbers in a row")
    levels: list[float] = numbers.tolist()
    return levels


def read_rows(rows: Mapping[str, Any], dtype: FloatType) -> dict[str, FloatArray]:
    """The arguments that hold rows and are given, in a flow's precision.

    Raises:
        InvalidInput: an array holds NaN, text or nothing.
    """
    return {
        name: to_context(values, dtype) if name == "context" else to_rows(values, name, dtype)
        for name, values in rows.items()
        if values is not None
    }


def given_numbers(n: int | None, seed: int | None, noise: ContextNoise) -> dict[str, Any]:
    """The arguments that name rows to draw, where they are given."""
    given: dict[str, Any] = {name: value for name, value in (("n", n), ("seed", seed)) if value is not None}
    return given if noise == "independent" else given | {"noise": noise}


def check_log_target(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Log-densities of a target that can be sent; -inf goes as null.

    Raises:
        InvalidInput: a number is NaN or plus infinity; its row is named.
    """
    numbers = to_float64(values, "log_target")
    bad = np.flatnonzero(~(numbers < np.inf))
    if bad.size:
        raise InvalidInput(f"log_target, row {bad[0]}: {numbers.ravel()[bad[0]]} is neither finite nor minus infinity")
    return numbers
