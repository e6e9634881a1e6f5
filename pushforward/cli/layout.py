"""What rows of input look like, and where each of them stood: what every reader of `pushforward.cli.rows` gives.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import Float32Array, to_number
from pushforward.client.errors import InvalidInput

__all__ = ["Block", "ClassColumn", "Layout", "block_of"]


@dataclass(frozen=True, slots=True)
class ClassColumn:
    """A column of an input that holds classes, of which a flow takes a 1 in the place of one and 0 in all others.

    Args:
        name: of the column.
        names: of the values that it stands for, one for each class.
        classes: as text.
    """

    name: str
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def place(self, text: str) -> int | None:
        """Which class a cell holds, as text or as an equal number; None for no class that the flow knows."""
        text = text.strip()
        if text in self.classes:
            return self.classes.index(text)
        number = _number(text)
        if number is None:
            return None
        return next((at for at, each in enumerate(self.classes) if _number(each) == number), None)

    def unknown(self, text: str) -> str:
        """What to say of a cell that holds none."""
        more = f" and {len(self.classes) - 20} more" if len(self.classes) > 20 else ""
        return f"{text.strip()!r} is no class of {self.name}; there are {', '.join(self.classes[:20])}{more}"


def _number(text: str) -> float | None:
    try:
        return to_number(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Layout:
    """What a row must look like.

    Args:
        event_shape: the shape of one row, ``[D]`` or ``[H, W, C]``.
        names: one name for each of its values, in order.
        named: whether the names are the flow's own, so that a header must hold them; else they are made up, and a
            header of other names is passed over.
        classes: of values that are 0 or 1 by the class in a column: the value's name -> that column, and the class.
    """

    event_shape: tuple[int, ...]
    names: tuple[str, ...]
    named: bool
    classes: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, event_shape: Sequence[int], features: Sequence[str] = (), letter: str = "x") -> Layout:
        """The layout of a flow's rows; values without a name are called x0, x1 and so on."""
        made_up = tuple(f"{letter}{i}" for i in range(math.prod(event_shape)))
        return cls(tuple(event_shape), tuple(features) or made_up, bool(features))

    @property
    def width(self) -> int:
        """The number of values in a row."""
        return len(self.names)

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that hold the values in data: a column for each value, but one for all of its classes."""
        return tuple(dict.fromkeys(self.classes[name][0] if name in self.classes else name for name in self.names))

    def values_of(self, source: str) -> tuple[str, ...]:
        """The names of the values that one of `sources` holds."""
        held = tuple(name for name in self.names if name in self.classes and self.classes[name][0] == source)
        return held or (source,)

    @property
    def class_columns(self) -> dict[str, ClassColumn]:
        """Those of `sources` that hold classes, by name."""
        held = {column: self.values_of(column) for column, _ in self.classes.values()}
        return {c: ClassColumn(c, names, tuple(self.classes[name][1] for name in names)) for c, names in held.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some consecutive rows.

    Args:
        values: float32 ``[n, *event]``, finite.
        first: the number of the first row in the input, counted from 0.
        lines: the line of each row, counted from 1; None for a file without lines.
        context: float32 ``[n, C]``, finite, where the input holds it too; else None.
    """

    values: Float32Array
    first: int
    lines: Sequence[int] | None = None
    context: Float32Array | None = None

    def where(self, row: int) -> str:
        """Where a row of this block stands in the input, for an error."""
        return f"row {self.first + row}" if self.lines is None else f"line {self.lines[row]}"


def block_of(
    numbers: Float32Array,
    given: npt.NDArray[Any],
    first: int,
    lines: Sequence[int] | None,
    name: str,
    layout: Layout,
    beside: Layout | None = None,
    columns: Sequence[int] | None = None,
) -> Block:
    """Make a block of rows, and hold them against float32's range.

    Args:
        numbers: float32 ``[n, D]``, or ``[n, D + C]`` where the rows' context follows them.
        given: the same as they were read.
        first: the number of the first row in the input.
        lines: the line of each row; None for a file without lines.
        name: what the input is called.
        layout: of a row.
        beside: of its context; None for none.
        columns: where each value of a row stands in the input; None for in order.

    Raises:
        InvalidInput: the first value that is NaN, infinite or beyond float32 is named by line (or row) and column.
    """
    width = layout.width
    values = np.ascontiguousarray(numbers[:, :width]).reshape(-1, *layout.event_shape)
    context = None if beside is None else np.ascontiguousarray(numbers[:, width:])
    block = Block(values, first, lines, context)
    finite = np.isfinite(numbers)
    if finite.all():
        return block
    row, value = (int(i) for i in np.argwhere(~finite)[0])
    column = value if columns is None else columns[value]
    called = (*layout.names, *(() if beside is None else beside.names))[value]
    number = given[row, value]
    fault = "beyond the range of float32" if np.isfinite(number) else "not finite"
    raise InvalidInput(f"{name}, {block.where(row)}, column {column + 1} ({called}): {number} is {fault}")
