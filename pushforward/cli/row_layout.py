"""The layout of a row of input, and the blocks of rows that every reader gives.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import FloatArray
from pushforward.client.errors import InvalidInput
from service.bundle.precision import DTYPES, FloatType, Precision
from service.errors import PushforwardError
from service.tabular import Header, is_number, parse_number

__all__ = ["ClassColumn", "RowBlock", "RowLayout", "locate_errors", "make_block", "rows_of_block"]

_BLOCK_VALUES: Final = 1 << 18
"""So many numbers are read, computed and written at a time."""

_CLASSES_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class ClassColumn:
    """A column of an input that holds classes. A flow takes a value for each: 1 for the row's own class, else 0.

    Args:
        name: of the column.
        names: of the values that it stands for, one for each class.
        classes: as text.
    """

    name: str
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def find_class(self, text: str) -> int | None:
        """The place of the class that a cell holds, as text or as an equal number; None for an unknown class."""
        text = text.strip()
        if text in self.classes:
            return self.classes.index(text)
        if not is_number(text):
            return None
        number = parse_number(text)
        equal = (at for at, each in enumerate(self.classes) if is_number(each) and parse_number(each) == number)
        return next(equal, None)

    def describe_unknown(self, text: str) -> str:
        """The error of a cell that holds no known class, in words."""
        count = len(self.classes)
        more = f" and {count - _CLASSES_SHOWN} more" if count > _CLASSES_SHOWN else ""
        return (
            f"{text.strip()!r} is no class of {self.name}; there are {', '.join(self.classes[:_CLASSES_SHOWN])}{more}"
        )


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The layout of a row: its shape, and the names of its values.

    Args:
        event_shape: the shape of one row, ``[D]`` or ``[H, W, C]``.
        names: one name for each of its values, in order.
        named: whether the names are the flow's own, so that a heading must hold them. Names that are not are made up:
            a heading that holds none of them is passed over.
        precision: that the values are read in.
        classes: of values that are 0 or 1 by the class in a column: the value's name -> that column, and the class.
        generic: other names of all values, that a heading may hold instead; empty for none.
        others: the names of what else the flow has columns for. A heading that holds one of them is not passed over.
    """

    event_shape: tuple[int, ...]
    names: tuple[str, ...]
    named: bool
    precision: Precision = "float32"
    classes: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    generic: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        event_shape: Sequence[int],
        features: Sequence[str] = (),
        letter: str = "x",
        precision: Precision = "float32",
    ) -> RowLayout:
        """The layout of a flow's rows.

        Args:
            event_shape: of one row.
            features: the names of its values; empty where they have none.
            letter: what values without a name are called by: x0, x1 and so on.
            precision: of the flow.
        """
        width = math.prod(event_shape)
        others = _numbered("z", width) if letter == "x" else ()
        return cls(
            tuple(event_shape), tuple(features) or _numbered(letter, width), bool(features), precision, others=others
        )

    @property
    def dtype(self) -> FloatType:
        """The dtype that the values are read in."""
        return DTYPES[self.precision]

    def of_latents(self) -> RowLayout:
        """The layout of the latents of a flow whose rows have this one."""
        others = (*self.names, *_numbered("x", self.width))
        return RowLayout((self.width,), _numbered("z", self.width), False, self.precision, others=others)

    def of_context(self, features: Sequence[str], width: int) -> RowLayout:
        """The layout of the context of a flow whose rows have this one.

        Args:
            features: the names of its columns; empty where they have none.
            width: how many there are.
        """
        made_up = _numbered("context", width)
        generic = made_up if features and not set(made_up) & set(self.names) else ()
        others = (*self.names, *_numbered("x", self.width), *_numbered("z", self.width))
        names = tuple(features) or made_up
        return RowLayout((width,), names, bool(features), self.precision, generic=generic, others=others)

    def under(self, header: Header) -> RowLayout:
        """The layout of an input under a heading: with the generic names where the heading has these alone."""
        if not self.generic or header.missing(self.generic) or not header.missing(self.sources):
            return self
        return replace(self, names=self.generic, classes={}, generic=())

    @property
    def width(self) -> int:
        """The number of values in a row."""
        return len(self.names)

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that hold the values in an input: a column for each value, but one for all of its classes."""
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
class RowBlock:
    """Some consecutive rows of an input.

    Args:
        values: ``[n, *event]``, finite, in the flow's precision.
        first: the number of the first row in the input, counted from 0.
        lines: the line of each row, counted from 1; None for a file without lines.
        context: ``[n, C]``, finite, where the input holds it too; else None.
    """

    values: FloatArray
    first: int
    lines: Sequence[int] | None = None
    context: FloatArray | None = None

    def where(self, row: int) -> str:
        """The place of a row of this block in the input, for an error."""
        return f"row {self.first + row}" if self.lines is None else f"line {self.lines[row]}"


def _numbered(letter: str, width: int) -> tuple[str, ...]:
    return tuple(f"{letter}{at}" for at in range(width))


def rows_of_block(width: int) -> int:
    """The most rows of a block, where a row has so many values."""
    return max(1, _BLOCK_VALUES // width)


def make_block(
    numbers: FloatArray,
    given: npt.NDArray[Any],
    *,
    first: int,
    lines: Sequence[int] | None,
    name: str,
    layout: RowLayout,
    context_layout: RowLayout | None = None,
    columns: Sequence[int] | None = None,
) -> RowBlock:
    """Make a block of rows whose values are finite.

    Args:
        numbers: in the flow's precision ``[n, D]``, or ``[n, D + C]`` where the rows' context follows them.
        given: the same as they were read.
        first: the number of the first row in the input.
        lines: the line of each row; None for a file without lines.
        name: of the input, for an error.
        layout: of a row.
        context_layout: of its context; None for none.
        columns: the place of each value of a row in the input; None where they stand in order.

    Raises:
        InvalidInput: the first value that is NaN, infinite or beyond the flow's precision is named by line (or row) and
            column.
    """
    width = layout.width
    values = np.ascontiguousarray(numbers[:, :width]).reshape(-1, *layout.event_shape)
    context = None if context_layout is None else np.ascontiguousarray(numbers[:, width:])
    block = RowBlock(values, first, lines, context)
    finite = np.isfinite(numbers)
    if finite.all():
        return block
    row, value = (int(i) for i in np.argwhere(~finite)[0])
    column = value if columns is None else columns[value]
    value_name = (*layout.names, *(() if context_layout is None else context_layout.names))[value]
    number = given[row, value]
    fault = f"beyond the range of {layout.dtype}" if np.isfinite(number) else "not finite"
    raise InvalidInput(f"{name}, {block.where(row)}, column {column + 1} ({value_name}): {number} is {fault}")


@contextmanager
def locate_errors(name: str, block: RowBlock) -> Iterator[None]:
    """Name the place in the input of the row that an error is about.

    Args:
        name: of the input.
        block: the rows that the code inside works on.

    Raises:
        InvalidInput: in the place of an error of the project about one of the rows.
    """
    try:
        yield
    except PushforwardError as error:
        rows = [fault for fault in error.errors if fault.row is not None]
        if not rows or rows[0].row is None:
            raise
        raise InvalidInput(f"{name}, {block.where(rows[0].row)}: {rows[0].reason}") from error
