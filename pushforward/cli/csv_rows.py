"""Rows of CSV, in blocks. `pushforward.cli.rows` opens the input; what is wrong is said with its line and column.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Generator
from typing import IO

import numpy as np

from pushforward.cli.layout import Block, ClassColumn, Layout, block_of
from pushforward.client.arrays import exact_float32, to_number
from pushforward.client.errors import InvalidInput

__all__ = ["csv_blocks"]


def csv_blocks(
    stream: IO[bytes], name: str, layout: Layout, block_rows: int, delimiter: str, beside: Layout | None = None
) -> Generator[Block, None, None]:
    """Read blocks of rows; where the first line is a header, columns are taken as `open_rows` says.

    Args:
        stream: UTF-8 text, with a byte order mark or without.
        name: what to call it in an error.
        layout: what a row must look like.
        block_rows: at most so many rows in a block.
        delimiter: what stands between cells.
        beside: what a row of context must look like, which stands in each line too; None for none.

    Raises:
        InvalidInput: while the blocks are taken, naming line and column.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    table = _Table(name, layout, beside)
    first = 0
    rows: list[list[float]] = []
    lines: list[int] = []
    try:
        for cells in reader:
            if not any(cell and not cell.isspace() for cell in cells):
                continue
            if table.is_header(cells):
                continue
            rows.append(table.numbers(cells, reader.line_num))
            lines.append(reader.line_num)
            if len(rows) == block_rows:
                yield _block(rows, lines, first, table)
                first, rows, lines = first + len(rows), [], []
    except csv.Error as error:
        raise InvalidInput(f"{name}, line {reader.line_num}: not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name}, after line {reader.line_num}: not UTF-8 text") from error
    finally:
        text.detach()
    if rows:
        yield _block(rows, lines, first, table)
    elif first == 0:
        raise InvalidInput(f"{name} holds no rows")


def _block(rows: list[list[float]], lines: list[int], first: int, table: _Table) -> Block:
    numbers = np.array(rows, dtype=np.float64)
    return block_of(
        exact_float32(numbers), numbers, first, lines, table.name, table.layout, table.beside, table.columns
    )


class _Table:
    """The columns of one CSV input: learned from its first line, held against every other."""

    def __init__(self, name: str, layout: Layout, beside: Layout | None) -> None:
        self.name = name
        self.layout = layout
        self.beside = beside
        self.names = (*layout.names, *(() if beside is None else beside.names))
        self.columns: list[int] | None = None
        self._classes: dict[int, ClassColumn] = {}  # by the column's place in the line
        self._width: int | None = None
        self._doubt = ""

    def is_header(self, cells: list[str]) -> bool:
        """Learn from the first line; say whether it is a header. With one number in it, it is a row."""
        if self._width is not None:
            return False
        self._width = len(cells)
        texts = [cell for cell in cells if not _is_number(cell)]
        if len(texts) < len(cells):
            self._doubt = "; a header would hold no number" if texts else ""
            self._require_width()
            return False
        self._learn([cell.strip() for cell in cells])
        return True

    def _learn(self, header: list[str]) -> None:
        """Find the columns by their names; in the place of names that are made up, they may stand in order."""
        missing = _missing(header, self.layout)
        absent = [] if self.beside is None else _missing(header, self.beside)
        if missing and self.layout.named:
            raise InvalidInput(f"{self.name}: the header has no column {', '.join(map(repr, missing[:10]))}")
        if absent and (not missing or (self.beside is not None and self.beside.named)):
            raise InvalidInput(
                f"{self.name}: the header has no column {', '.join(map(repr, absent[:10]))} for the context; "
                "--context gives it apart, and --context-columns says how the input calls it"
            )
        if missing and (absent or self.beside is None):
            self._require_width()
            return
        given = [] if self.beside is None else self._located(header, self.beside)
        if missing:
            rest = [at for at in range(len(header)) if at not in given]
            if len(rest) != self.layout.width:
                raise InvalidInput(
                    f"{self.name}: {len(rest)} columns stand beside those of the context, and a row of this flow has "
                    f"{self.layout.width}"
                )
        else:
            rest = self._located(header, self.layout)
        self.columns = rest + given

    def _located(self, header: list[str], layout: Layout) -> list[int]:
        """Where each value stands; one that has no column of its own, in its column of classes."""
        found = []
        for name in layout.names:
            if name in header:
                found.append(self._position(header, name))
                continue
            column = layout.classes[name][0]
            found.append(self._position(header, column))
            self._classes[found[-1]] = layout.class_columns[column]
        return found

    def numbers(self, cells: list[str], line: int) -> list[float]:
        """The numbers of one line, in the flow's order."""
        if len(cells) != self._width:
            found = f"{len(cells)} columns, where the first line has {self._width}"
            raise InvalidInput(f"{self.name}, line {line}: {found}")
        chosen = cells if self.columns is None else [cells[i] for i in self.columns]
        if self._classes:
            chosen = self._with_classes(chosen, cells, line)
        try:
            return [to_number(cell) for cell in chosen]
        except ValueError:
            at = next(i for i, cell in enumerate(chosen) if not _is_number(cell))
            raise InvalidInput(f"{self.place(line, at)}: {_shown(chosen[at])} is not a number{self._doubt}") from None

    def _with_classes(self, chosen: list[str], cells: list[str], line: int) -> list[str]:
        """A line's values with a 1 in the place of its class, and 0 in those of all others."""
        of_class: dict[str, str] = {}
        for position, column in self._classes.items():
            place = column.place(cells[position])
            if place is None:
                where = f"{self.name}, line {line}, column {position + 1}"
                raise InvalidInput(f"{where}: {column.unknown(cells[position])}")
            of_class |= {name: "1" if at == place else "0" for at, name in enumerate(column.names)}
        return [of_class.get(name, cell) for name, cell in zip(self.names, chosen, strict=True)]

    def place(self, line: int, value: int) -> str:
        """Where the value-th value of a row stands."""
        column = value if self.columns is None else self.columns[value]
        return f"{self.name}, line {line}, column {column + 1} ({self.names[value]})"

    def _position(self, header: list[str], column: str) -> int:
        if header.count(column) > 1:
            raise InvalidInput(f"{self.name}: the header has the column {column!r} more than once")
        return header.index(column)

    def _require_width(self) -> None:
        width = self.layout.width + (0 if self.beside is None else self.beside.width)
        if self._width != width:
            more = "" if self.beside is None else f", and {self.beside.width} of context after them or in --context"
            raise InvalidInput(
                f"{self.name}: the first line has {self._width} columns, and a row of this flow has "
                f"{self.layout.width}{more}{self._doubt}"
            )


def _missing(header: list[str], layout: Layout) -> list[str]:
    """The columns that the header does not name; of values of classes, the column of classes."""
    absent = (layout.classes.get(name, (name,))[0] for name in layout.names if name not in header)
    return [column for column in dict.fromkeys(absent) if column not in header]


def _is_number(cell: str) -> bool:
    try:
        to_number(cell)
    except ValueError:
        return False
    return True


def _shown(cell: str) -> str:
    return "an empty cell" if not cell.strip() else repr(cell[:40])
