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
from service.tabular import Header, NotCsv, TextTable, explain_text, is_number, parse_number, read_table

__all__ = ["read_csv_blocks", "read_csv_width"]


def read_csv_blocks(
    stream: IO[bytes],
    *,
    name: str,
    layout: RowLayout,
    block_rows: int,
    delimiter: str | None,
    context_layout: RowLayout | None = None,
) -> Generator[RowBlock, None, None]:
    """Read blocks of rows. Under a heading, columns are taken as `open_rows` says.

    Args:
        stream: UTF-8 text, with a byte order mark or without.
        name: of the input, for an error.
        layout: of a row.
        block_rows: at most so many rows in a block.
        delimiter: what stands between cells; None for what the first lines show.
        context_layout: of a row's context, where each line holds it too; else None.

    Raises:
        InvalidInput: while the blocks are taken; line and column are named.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    line = first = 0
    rows: list[list[float]] = []
    lines: list[int] = []
    try:
        found = read_table(text, delimiter)
        if found is None:
            raise InvalidInput(f"{name} holds no rows")
        table = _CsvTable(found, name, layout, context_layout)
        for line, cells in found.rows:
            rows.append(table.read_numbers(cells, line))
            lines.append(line)
            if len(rows) == block_rows:
                yield table.to_block(rows, lines, first)
                first, rows, lines = first + len(rows), [], []
    except NotCsv as error:
        raise _not_csv(name, error) from error
    except UnicodeDecodeError as error:
        raise _not_text(name, line) from error
    finally:
        text.detach()
    if rows:
        yield table.to_block(rows, lines, first)
    elif first == 0:
        raise InvalidInput(f"{name} holds no rows")


def read_csv_width(stream: IO[bytes], *, name: str, delimiter: str | None) -> int | None:
    """The number of columns of a CSV input, an index left out; None where it is empty.

    Args:
        stream: UTF-8 text, with a byte order mark or without.
        name: of the input, for an error.
        delimiter: what stands between cells; None for what the first lines show.

    Raises:
        InvalidInput: its first lines are not CSV.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        found = read_table(text, delimiter)
    except NotCsv as error:
        raise _not_csv(name, error) from error
    except UnicodeDecodeError as error:
        raise _not_text(name, 0) from error
    finally:
        text.detach()
    return None if found is None else len(found.in_order)


def _not_csv(name: str, error: NotCsv) -> InvalidInput:
    return InvalidInput(f"{name}, line {error.line}: not CSV: {error.reason}")


def _not_text(name: str, line: int) -> InvalidInput:
    return InvalidInput(f"{name}, after line {line}: not UTF-8 text; rows are read from CSV or .npy")


class _CsvTable:
    """The columns of one CSV input. Its first line fixes them; every other line must have as many.

    Args:
        table: of which the first line has been read.
        name: of the input, for an error.
        layout: of a row.
        context_layout: of a row's context, where each line holds it too; else None.

    Raises:
        InvalidInput: the columns of a row, or of its context, are not there.
    """

    def __init__(self, table: TextTable, name: str, layout: RowLayout, context_layout: RowLayout | None) -> None:
        header = Header(table.names or ())
        self._name = name
        self._layout = layout = layout.under(header)
        self._context_layout = context_layout = None if context_layout is None else context_layout.under(header)
        self._value_names = (*layout.names, *(() if context_layout is None else context_layout.names))
        self._in_order = table.in_order
        self._class_columns: dict[int, ClassColumn] = {}  # by the column's place in the line
        self._width = table.width
        # The first line may be meant as a heading: then it is its number that keeps it from being one.
        self._hint = "; a header would hold no number" if table.mixed else ""
        self._columns = self._in_order if table.names is None else self._find_columns(header)
        self._require_width()

    def _find_columns(self, header: Header) -> list[int]:
        """The column of each value by its name; made-up names need not be there, and then columns stand in order."""
        layout, context_layout = self._layout, self._context_layout
        self._require_own_columns(layout, context_layout)
        missing = _missing_columns(header, layout)
        missing_context = [] if context_layout is None else _missing_columns(header, context_layout)
        if missing and not _may_stand_in_order(header, layout):
            raise InvalidInput(f"{self._name}: the header has no column {_listed(header, missing, layout.others)}")
        if missing_context and (not missing or not _may_stand_in_order(header, context_layout)):
            raise InvalidInput(
                f"{self._name}: the header has no column {_listed(header, missing_context, ())} for the context; "
                "--context gives it apart, and --context-columns says how the input calls it"
            )
        if missing and (missing_context or context_layout is None):
            return self._in_order
        of_context = [] if context_layout is None else self._locate(header, context_layout)
        if not missing:
            return self._locate(header, layout) + of_context
        others = [place for place in self._in_order if place not in of_context]
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
        chosen = [cells[place] for place in self._columns]
        if self._class_columns:
            chosen = self._with_classes(chosen, cells, line)
        try:
            return [parse_number(cell) for cell in chosen]
        except ValueError:
            value = next(at for at, cell in enumerate(chosen) if not is_number(cell))
            where = f"{self._name}, line {line}, column {self._columns[value] + 1} ({self._value_names[value]})"
            cell = chosen[value]
            shown = repr(cell[:40]) if cell.strip() else "an empty cell"
            known = explain_text(cell[:40])
            hint = f"; {known}" if known else self._hint
            raise InvalidInput(f"{where}: {shown} is not a number{hint}") from None

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
        """Refuse more or fewer columns than a row has values."""
        context_width = 0 if self._context_layout is None else self._context_layout.width
        if len(self._columns) != self._layout.width + context_width:
            more = f", and {context_width} of context after them or in --context" if context_width else ""
            index = " beside the index" if len(self._in_order) < self._width else ""
            raise InvalidInput(
                f"{self._name}: the first line has {len(self._columns)} columns{index}, and a row of this flow has "
                f"{self._layout.width}{more}{self._hint}"
            )


def _missing_columns(header: Header, layout: RowLayout) -> list[str]:
    """The columns that the header does not name; of values of classes, the column of classes."""
    absent = (layout.classes.get(name, (name,))[0] for name in header.missing(layout.names))
    return header.missing(dict.fromkeys(absent))


def _may_stand_in_order(header: Header, layout: RowLayout | None) -> bool:
    """Whether columns may be taken as they stand, for the names are made up, and the header says nothing of them."""
    return layout is not None and header.may_stand_in_order(layout.sources, named=layout.named, others=layout.others)


def _listed(header: Header, missing: Sequence[str], others: Sequence[str]) -> str:
    """The columns that are missing, and what may be meant for them."""
    apart = ", ".join(map(repr, header.in_other_case(missing)[:10]))
    hint = f" (in {apart} upper and lower case differ)" if apart else ""
    if not apart and (found := header.alike(others)):
        hint = f" ({', '.join(map(repr, found[:10]))} are other columns of the flow)"
    return f"{', '.join(map(repr, missing[:10]))}{hint}"
