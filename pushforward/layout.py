"""What rows of input look like, and where each of them stood: what every reader of `pushforward.rows` gives.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pushforward.arrays import Float32Array
from pushforward.errors import InvalidInput

__all__ = ["Block", "Layout", "require_finite"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a row must look like.

    Args:
        event_shape: the shape of one row, ``[D]`` or ``[H, W, C]``.
        names: one name for each of its values, in order.
        named: whether the names are the flow's own, so that a header must hold them; else they are made up, and a
            header of other names is passed over.
    """

    event_shape: tuple[int, ...]
    names: tuple[str, ...]
    named: bool

    @classmethod
    def of(cls, event_shape: Sequence[int], features: Sequence[str] = (), letter: str = "x") -> Layout:
        """The layout of a flow's rows; values without a name are called x0, x1 and so on."""
        made_up = tuple(f"{letter}{i}" for i in range(math.prod(event_shape)))
        return cls(tuple(event_shape), tuple(features) or made_up, bool(features))

    @property
    def width(self) -> int:
        """The number of values in a row."""
        return len(self.names)


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some consecutive rows.

    Args:
        values: float32 ``[n, *event]``, finite.
        first: the number of the first row in the input, counted from 0.
        lines: the line of each row, counted from 1; None for a file without lines.
    """

    values: Float32Array
    first: int
    lines: Sequence[int] | None = None

    def where(self, row: int) -> str:
        """Where a row of this block stands in the input, for an error."""
        return f"row {self.first + row}" if self.lines is None else f"line {self.lines[row]}"


def require_finite(
    block: Block, given: npt.NDArray[Any], name: str, layout: Layout, columns: list[int] | None = None
) -> None:
    """Hold a block's values against float32's range.

    Args:
        block: the rows, as float32.
        given: the same rows as they were read, ``[n, D]``.
        name: what the input is called.
        layout: the names of its columns.
        columns: where each value of a row stands in the input; None for in order.

    Raises:
        InvalidInput: the first value that is NaN, infinite or beyond float32 is named by line (or row) and column.
    """
    finite = np.isfinite(block.values).reshape(len(block.values), -1)
    if finite.all():
        return
    row, value = (int(i) for i in np.argwhere(~finite)[0])
    column = value if columns is None else columns[value]
    number = given[row, value]
    fault = "beyond the range of float32" if np.isfinite(number) else "not finite"
    raise InvalidInput(f"{name}, {block.where(row)}, column {column + 1} ({layout.names[value]}): {number} is {fault}")
