"""The rows of CSV, in blocks. `pushforward.cli.row_input` opens the input. An error names its line and column.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from typing import IO

import numpy as np

from pushforward.cli.row_layout import ClassColumn, RowBlock, RowLayout, make_block
from pushforward.client.arrays import restore_float32
from pushforward.client.errors import InvalidInput
from service.tabular import Header, NotCsv, is_number, parse_number, read_heading, read_lines

__all__ = ["read_csv_blocks"]


def read_csv_blocks(
    stream: IO[bytes],
    *,
    name: str,
    layout: RowLayout,
    block_rows: int,
    delimiter: str,
    context_layout: RowLayout | None = None,
) -> Generator[RowBlock, None, None]:
    """Read blocks of rows. Under a heading, columns are taken as `open_rows` says.

    Args:
        stream: UTF-8 text, with a byte order mark or without.
        name: of the input, for an error.
        layout: of a row.
        block_rows: at most so many rows in a block.
        delimiter: what stands between cells.
        context_layout: of a row's context, where each line holds it too; else None.

    Raises:
        InvalidInput: while the blocks are taken; line and column are named.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    table: _CsvTable | None = None
    line = first = 0
    rows: list[list[float]] = []
    lines: list[int] = []
    try:
        for line, cells in read_lines(text, delimiter):
            if table is None:
                table = _CsvTable(cells, name, layout, context_layout)
                if table.has_heading:
                    continue
            rows.append(table.read_numbers(cells, line))
            lines.append(line)
            if len(rows) == block_rows:
                yield table.to_block(rows, lines, first)
                first, rows, lines = first + len(rows), [], []
    except NotCsv as error:
        raise InvalidInput(f"{name}, line {error.line}: not CSV: {error.reason}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name}, after line {line}: not UTF-8 text") from error
    finally:
        text.detach()
    if rows and table is not None:
        yield table.to_block(rows, lines, first)
    elif first == 0:
        raise InvalidInput(f"{name} holds no rows")


class _CsvTable:
    """The columns of one CSV input. Its first line fixes them; every other line must have as many.

    Args:
        cells: of the first line that holds something.
        name: of the input, for an error.
        layout: of a row.
        context_layout: of a row's context, where each line holds it too; else None.

    Raises:
        InvalidInput: the columns of a row, or of its context, are not there.
    """

    def __init__(self, cells: Sequence[str], name: str, layout: RowLayout, context_layout: RowLayout | None) -> None:
        self._name = name
        self._layout = layout
        self._context_layout = context_layout
        self._value_names = (*layout.names, *(() if context_layout is None else context_layout.names))
        self._columns: list[int] | None = None
        self._class_columns: dict[int, ClassColumn] = {}  # by the column's place in the line
        self._width = len(cells)
        self._hint = ""
        heading = read_heading(cells)
        self.has_heading = heading is not None
        if heading is None:
            # The first line may be meant as a heading: then it is its number that keeps it from being one.
            self._hint = "" if all(map(is_number, cells)) else "; a header would hold no number"
            self._require_width()
        else:
            self._columns = self._find_columns(heading)

    def _find_columns(self, heading: list[str]) -> list[int] | None:
        """The column of each value by its name; made-up names need not be there, and then columns stand in order.

        Returns:
            None where all columns stand in order.
        """
        header = Header(heading)
        layout, context_layout = self._layout, self._context_layout
        self._require_own_columns(layout, context_layout)
        missing = _missing_columns(header, layout)
        missing_context = [] if context_layout is None else _missing_columns(header, context_layout)
        if missing and not _may_stand_in_order(header, layout):
            raise InvalidInput(f"{self._name}: the header has no column {_listed(header, missing)}")
        if missing_context and (not missing or not _may_stand_in_order(header, context_layout)):
            raise InvalidInput(
                f"{self._name}: the header has no column {_listed(header, missing_context)} for the context; "
                "--context gives it apart, and --context-columns says how the input calls it"
            )
        if missing and (missing_context or context_layout is None):
            self._require_width()
            return None
        of_context = [] if context_layout is None else self._locate(header, context_layout)
        if not missing:
            return self._locate(header, layout) + of_context
        others = [place for place in range(self._width) if place not in of_context]
        if len(others) != layout.width:
            raise InvalidInput(
                f"{self._name}: {len(others)} columns stand beside those of the context, and a row of this flow has "
                f"{layout.width}"
            )
        return others + of_context

    def _require_own_columns(self, layout: RowLayout, context_layout: RowLayout | None) -> None:
        """Refuse a column that is to be two columns of the row, or one of the row and one of its context."""
        repeated = Header(layout.names).repeated(layout.names)
        if repeated:
            raise InvalidInput(f"{self._name}: the flow calls two columns {repeated[0]!r}; give rows without a header")
        sources = () if context_layout is None else (*context_layout.names, *context_layout.sources)
        both = next((name for name in sources if name in layout.names), None)
        if both is not None:
            raise InvalidInput(
                f"{self._name}: the column {both!r} is one of the row, and cannot be one of its context; "
                "--context gives that apart, and --context-columns says how the input calls it"
            )

    def _locate(self, header: Header, layout: RowLayout) -> list[int]:
        """The column of each value. A value without a column of its own is in its column of classes."""
        columns = []
        for value in layout.names:
            column = value if value in header else layout.classes[value][0]
            if header.repeated([column]):
                raise InvalidInput(f"{self._name}: the header has the column {column!r} more than once")
            columns.append(header.place(column))
            if value not in header:
                self._class_columns[columns[-1]] = layout.class_columns[column]
        return columns

    def read_numbers(self, cells: Sequence[str], line: int) -> list[float]:
        """The values of one line, in the flow's order.

        Raises:
            InvalidInput: the line has another number of columns, or a cell holds no number or an unknown class.
        """
        if len(cells) != self._width:
            found = f"{len(cells)} columns, where the first line has {self._width}"
            raise InvalidInput(f"{self._name}, line {line}: {found}")
        chosen = cells if self._columns is None else [cells[place] for place in self._columns]
        if self._class_columns:
            chosen = self._with_classes(chosen, cells, line)
        try:
            return [parse_number(cell) for cell in chosen]
        except ValueError:
            value = next(at for at, cell in enumerate(chosen) if not is_number(cell))
            column = value if self._columns is None else self._columns[value]
            where = f"{self._name}, line {line}, column {column + 1} ({self._value_names[value]})"
            cell = chosen[value]
            shown = repr(cell[:40]) if cell.strip() else "an empty cell"
            raise InvalidInput(f"{where}: {shown} is not a number{self._hint}") from None

    def _with_classes(self, chosen: Sequence[str], cells: Sequence[str], line: int) -> list[str]:
        """A line's values, with a 1 in the place of its class and 0 in those of all others."""
        of_class: dict[str, str] = {}
        for place, column in self._class_columns.items():
            found = column.find_class(cells[place])
            if found is None:
                where = f"{self._name}, line {line}, column {place + 1}"
                raise InvalidInput(f"{where}: {column.describe_unknown(cells[place])}")
            of_class |= {name: "1" if at == found else "0" for at, name in enumerate(column.names)}
        return [of_class.get(name, cell) for name, cell in zip(self._value_names, chosen, strict=True)]

    def to_block(self, rows: list[list[float]], lines: list[int], first: int) -> RowBlock:
        """A block of the rows of some lines.

        Args:
            rows: from `read_numbers`.
            lines: the line of each.
            first: the number of the first row in the input.

        Raises:
            InvalidInput: a value is not a finite number of the flow's precision.
        """
        numbers = np.array(rows, dtype=np.float64)
        return make_block(
            restore_float32(numbers) if self._layout.precision == "float32" else numbers,
            numbers,
            first=first,
            lines=lines,
            name=self._name,
            layout=self._layout,
            context_layout=self._context_layout,
            columns=self._columns,
        )

    def _require_width(self) -> None:
        context_width = 0 if self._context_layout is None else self._context_layout.width
        if self._width != self._layout.width + context_width:
            more = f", and {context_width} of context after them or in --context" if context_width else ""
            raise InvalidInput(
                f"{self._name}: the first line has {self._width} columns, and a row of this flow has "
                f"{self._layout.width}{more}{self._hint}"
            )


def _missing_columns(header: Header, layout: RowLayout) -> list[str]:
    """The columns that the header does not name; of values of classes, the column of classes."""
    absent = (layout.classes.get(name, (name,))[0] for name in header.missing(layout.names))
    return header.missing(dict.fromkeys(absent))


def _may_stand_in_order(header: Header, layout: RowLayout | None) -> bool:
    """Whether columns may be taken as they stand, for the names are made up, and the header says nothing of them."""
    return layout is not None and header.may_stand_in_order(layout.sources, named=layout.named)


def _listed(header: Header, missing: Sequence[str]) -> str:
    """The columns that are missing, and what may be meant for them."""
    apart = ", ".join(map(repr, header.in_other_case(missing)[:10]))
    hint = f" (in {apart} upper and lower case differ)" if apart else ""
    return f"{', '.join(map(repr, missing[:10]))}{hint}"
