"""Rows of CSV, in blocks. `pushforward.rows` opens the input; what is wrong is said with its line and column.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Generator
from typing import IO

import numpy as np

from pushforward.arrays import exact_float32
from pushforward.errors import InvalidInput
from pushforward.layout import Block, Layout, require_finite

__all__ = ["csv_blocks", "to_number"]


def csv_blocks(
    stream: IO[bytes], name: str, layout: Layout, block_rows: int, delimiter: str
) -> Generator[Block, None, None]:
    """Read blocks of rows; where the first line is a header, columns are taken as `pushforward.rows.open_rows` says.

    Args:
        stream: UTF-8 text, with a byte order mark or without.
        name: what to call it in an error.
        layout: what a row must look like.
        block_rows: at most so many rows in a block.
        delimiter: what stands between cells.

    Raises:
        InvalidInput: while the blocks are taken, naming line and column.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    table = _Table(name, layout)
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
    block = Block(exact_float32(numbers).reshape(-1, *table.layout.event_shape), first, lines)
    require_finite(block, numbers, table.name, table.layout, table.columns)
    return block


class _Table:
    """The columns of one CSV input: learned from its first line, held against every other."""

    def __init__(self, name: str, layout: Layout) -> None:
        self.name = name
        self.layout = layout
        self.columns: list[int] | None = None
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
        header = [cell.strip() for cell in cells]
        missing = [column for column in self.layout.names if column not in header]
        if not missing:
            self.columns = [self._position(header, column) for column in self.layout.names]
        elif self.layout.named:
            raise InvalidInput(f"{self.name}: the header has no column {', '.join(map(repr, missing[:10]))}")
        else:
            self._require_width()
        return True

    def numbers(self, cells: list[str], line: int) -> list[float]:
        """The numbers of one line, in the flow's order."""
        if len(cells) != self._width:
            found = f"{len(cells)} columns, where the first line has {self._width}"
            raise InvalidInput(f"{self.name}, line {line}: {found}")
        chosen = cells if self.columns is None else [cells[i] for i in self.columns]
        try:
            return [to_number(cell) for cell in chosen]
        except ValueError:
            at = next(i for i, cell in enumerate(chosen) if not _is_number(cell))
            raise InvalidInput(f"{self.place(line, at)}: {_shown(chosen[at])} is not a number{self._doubt}") from None

    def place(self, line: int, value: int) -> str:
        """Where the value-th value of a row stands."""
        column = value if self.columns is None else self.columns[value]
        return f"{self.name}, line {line}, column {column + 1} ({self.layout.names[value]})"

    def _position(self, header: list[str], column: str) -> int:
        if header.count(column) > 1:
            raise InvalidInput(f"{self.name}: the header has the column {column!r} more than once")
        return header.index(column)

    def _require_width(self) -> None:
        if self._width != self.layout.width:
            raise InvalidInput(
                f"{self.name}: the first line has {self._width} columns, and a row of this flow has "
                f"{self.layout.width}{self._doubt}"
            )


def to_number(text: str) -> float:
    """Read a number, spaces round it or not. The underscores that Python reads over (``1_000``) are no part of one.

    Raises:
        ValueError: where it is none.
    """
    if "_" in text:
        raise ValueError(text)
    return float(text)


def _is_number(cell: str) -> bool:
    try:
        to_number(cell)
    except ValueError:
        return False
    return True


def _shown(cell: str) -> str:
    return "an empty cell" if not cell.strip() else repr(cell[:40])
