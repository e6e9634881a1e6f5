"""The context of a conditional flow on the command line: in an option, in a file of its own, or beside the rows.

Imports neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from pushforward.cli.row_input import open_rows
from pushforward.cli.row_layout import ClassColumn, RowBlock, RowLayout
from pushforward.client.arrays import FloatArray, to_floats
from pushforward.client.errors import InvalidInput
from service.bundle.precision import DTYPES
from service.tabular import parse_number

__all__ = ["ContextInput", "choose_context", "context_options", "make_context_layout", "read_context"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def make_context_layout(rows: RowLayout, width: int, features: Sequence[Mapping[str, Any]]) -> RowLayout | None:
    """The layout of a row of a flow's context.

    Args:
        rows: the layout of the flow's rows.
        width: the number of columns of context.
        features: as a manifest describes them, `context_features`; empty where they have no names.
        precision: of the flow.

    Returns:
        None for a flow without a context.
    """
    if not width:
        return None
    layout = rows.of_context([feature["name"] for feature in features], width)
    classes = {f["name"]: (f["column"], f["category"]) for f in features if f.get("column") is not None}
    return replace(layout, classes=classes)


def context_options(command: _Command) -> _Command:
    """Add --context and --context-columns."""
    command = click.option(
        "--context-columns",
        metavar="COLUMN,...",
        help="The columns of the input that hold the context, if they have other names than the flow's.",
    )(command)
    return click.option(
        "--context",
        help="The context of all rows: numbers with commas, or NAME=VALUE,...; or @FILE, with a line for each row. "
        "Default: the columns of the context in the input.",
    )(command)


@dataclass(frozen=True, slots=True, eq=False)
class ContextInput:
    """The context of the rows of an input.

    Args:
        rows: ``[C]`` for all rows, or ``[N, C]``; None where the input itself holds it, or there is none.
        layout: of the columns of the input that hold it; None for no columns.
    """

    rows: FloatArray | None
    layout: RowLayout | None

    def for_block(self, block: RowBlock, name: str) -> FloatArray | None:
        """The context of a block of an input.

        Args:
            block: of rows.
            name: of the input, for an error.

        Returns:
            ``[C]`` or ``[n, C]``; None for a flow without.

        Raises:
            InvalidInput: there are fewer rows of context.
        """
        if self.rows is None or self.rows.ndim == 1:
            return block.context if self.rows is None else self.rows
        end = block.first + len(block.values)
        if end > len(self.rows):
            raise InvalidInput(f"context has {len(self.rows)} rows, and {name} has at least {end}")
        return self.rows[block.first : end]

    def require_used(self, count: int, name: str) -> None:
        """Refuse more rows of context than the input has rows.

        Args:
            count: the rows of the input.
            name: of the input, for the error.

        Raises:
            InvalidInput: there are more.
        """
        if self.rows is not None and self.rows.ndim > 1 and len(self.rows) > count:
            raise InvalidInput(f"context has {len(self.rows)} rows, and {name} has {count}")


def choose_context(value: str | None, columns: str | None, layout: RowLayout | None) -> ContextInput:
    """Take the context from --context, or from the columns that --context-columns or the flow itself names.

    Args:
        value: of --context; None where it is not given.
        columns: of --context-columns; None where it is not given.
        layout: of the flow's context.

    Raises:
        InvalidInput: both are given, or one that does not fit the flow.
    """
    if value is not None and columns is not None:
        raise InvalidInput("--context gives the context, and --context-columns says where the input has it: give one")
    if value is not None:
        return ContextInput(read_context(value, layout), None)
    if columns is None:
        return ContextInput(None, layout)
    if layout is None:
        raise InvalidInput("--context-columns is given, and this flow takes no context")
    return ContextInput(None, _rename_columns(layout, [name.strip() for name in columns.split(",")]))


def read_context(value: str | None, layout: RowLayout | None) -> FloatArray | None:
    """Read --context: ``0.5,1`` or ``dose=0.5,kind=red``, for all rows; or ``@FILE``, a row for each.

    Args:
        value: of the option.
        layout: of the flow's context.

    Returns:
        ``[C]`` or ``[N, C]``; None where there is none.

    Raises:
        InvalidInput: the value is none of these, or of another width than the flow's context.
    """
    if value is None:
        return None
    if value.startswith("@"):
        if layout is None:
            raise InvalidInput("--context is given, and this flow takes none")
        with open_rows(value[1:], layout) as rows:
            return rows.read_whole().values
    cells = value.split(",")
    if layout is not None and layout.named and any("=" in cell for cell in cells):
        return to_floats(_read_assignments(cells, layout), "--context", layout.dtype)
    try:
        numbers = [parse_number(cell) for cell in cells]
    except ValueError as error:
        what = "numbers with commas between them, NAME=VALUE,... for a flow that names its context, or @FILE"
        raise InvalidInput(f"--context must be {what}, not {value!r}") from error
    width = 0 if layout is None else layout.width
    if len(numbers) != width:
        named = f": {', '.join(layout.names[:20])}" if layout is not None and layout.named else ""
        raise InvalidInput(f"--context has {len(numbers)} numbers, and this flow takes {width}{named}")
    return to_floats(numbers, "--context", DTYPES["float32"] if layout is None else layout.dtype)


def _read_assignments(cells: Sequence[str], layout: RowLayout) -> list[float]:
    """The numbers of NAME=VALUE, in the flow's order. Each column, or column of classes, is given once."""
    columns = layout.class_columns
    found: dict[str, float] = {}
    for cell in cells:
        name, sign, text = (part.strip() for part in cell.rpartition("="))
        if sign and name in columns:
            given = _read_class(columns[name], text)
        elif sign and name in layout.names:
            given = {name: _read_number(name, text)}
        else:
            there = ", ".join(layout.sources)
            raise InvalidInput(f"--context: expected NAME=VALUE with a NAME of {there}, and found {cell.strip()!r}")
        if found.keys() & given.keys():
            raise InvalidInput(f"--context gives {name} twice")
        found |= given
    missing = [name for name in layout.sources if not set(layout.values_of(name)) <= found.keys()]
    if missing:
        raise InvalidInput(f"--context does not give {', '.join(missing)}")
    return [found[name] for name in layout.names]


def _read_class(column: ClassColumn, text: str) -> dict[str, float]:
    place = column.find_class(text)
    if place is None:
        raise InvalidInput(f"--context: {column.describe_unknown(text)}")
    return {name: float(at == place) for at, name in enumerate(column.names)}


def _read_number(name: str, text: str) -> float:
    try:
        return parse_number(text)
    except ValueError:
        raise InvalidInput(f"--context: {name} must be a number, not {text!r}") from None


def _rename_columns(layout: RowLayout, columns: Sequence[str]) -> RowLayout:
    """The layout of an input that has other names for the context's columns; a column of classes counts once.

    Raises:
        InvalidInput: there are more or fewer names than columns, or one is there twice.
    """
    sources = layout.sources
    if len(columns) != len(sources):
        raise InvalidInput(
            f"--context-columns names {len(columns)} columns, and the flow's context has {len(sources)}: "
            f"{', '.join(sources)}"
        )
    if len(set(columns)) < len(columns):
        raise InvalidInput(f"--context-columns names a column twice: {', '.join(columns)}")
    renamed = dict(zip(sources, columns, strict=True))
    names, classes = [], {}
    for name in layout.names:
        column, category = layout.classes.get(name, (name, None))
        names.append(renamed[column] if category is None else f"{renamed[column]}={category}")
        if category is not None:
            classes[names[-1]] = (renamed[column], category)
    return replace(layout, names=tuple(names), named=True, classes=classes)
