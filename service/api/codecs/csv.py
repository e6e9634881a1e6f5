"""`text/csv` (RFC 4180): a table of numbers, with a header or without."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import numpy as np
import orjson

from service.api.codecs.codec import Answer, Array, Columns, Form, TableArray, malformed, table_arrays
from service.errors import InvalidArgument, Reason
from service.exchange import Body
from service.tabular import NotCsv, explain_text, parse_number, read_table, split_lines, write_heading

__all__ = ["Csv"]

_PLAIN: Final = b"0123456789+-.eE, \t\n"
"""The bytes of a table that is JSON but for its brackets."""

_BLOCK: Final = 1 << 12
"""Rows that are read at once, so that other threads have their turn."""


class Csv:
    """Numbers as JSON writes them, -inf as `-inf`, one line a row, after a header.

    In: what a heading and a number are is the rule of `service.tabular`. Under a heading, columns are taken by name, as
    `Columns` says; the columns that are passed over may hold any text.
    """

    media_type = "text/csv"
    single = False

    @property
    def end(self) -> bytes:
        """Nothing stands after the rows."""
        return b""

    def decode(self, body: Body, main: str) -> Mapping[str, Any]:
        """The table, of which only the first line has been read."""
        return {main: _Table(body)}

    def encode(self, answer: Answer, form: Form) -> bytes:
        """The header, and a line for each row."""
        return self.start(answer, form, ())

    def start(self, answer: Answer, form: Form, lead: tuple[int, ...]) -> bytes:  # noqa: ARG002  no length stands before
        """The header and the first rows."""
        names = [column for array in table_arrays(answer, form) for column in array.columns]
        return write_heading(names).encode() + self.more(answer, form)

    def more(self, answer: Answer, form: Form) -> bytes:
        """The next rows."""
        blocks = list(map(_lines, _together(table_arrays(answer, form))))
        lines = blocks[0] if len(blocks) == 1 else map(b",".join, zip(*blocks, strict=True))
        text = b"\n".join(lines)
        return text + b"\n" if text else b""


def _together(found: list[TableArray]) -> list[Array]:
    """The columns, with neighbours of one dtype in one array."""
    blocks: list[list[Array]] = []
    for array in found:
        if blocks and blocks[-1][0].dtype == array.rows.dtype:
            blocks[-1].append(array.rows)
        else:
            blocks.append([array.rows])
    return [block[0] if len(block) == 1 else np.concatenate(block, axis=1) for block in blocks]


def _lines(rows: Array) -> list[bytes]:
    """The text of each row."""
    if len(rows) == 0:
        return []
    text = orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)
    if b"null" in text:
        infinite = rows[~np.isfinite(rows)].tolist()
        known = [b"%b" % str(value).encode() for value in infinite]
        pieces = text.split(b"null")
        text = b"".join(piece + value for piece, value in zip(pieces, [*known, b""], strict=True))
    return text[2:-2].split(b"],[")


class _Table(Columns):
    """A table of which only the first line has been read."""

    def __init__(self, body: Body) -> None:
        try:
            text = bytes(body).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            begins = " and begins as UTF-16 does" if body[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
            raise malformed(f"not CSV: byte {error.start} is not UTF-8{begins}") from error
        self._text = text
        with _told():
            table = read_table(split_lines(text))
        if table is None:
            raise malformed("empty; expected a line of numbers for each row")
        self._delimiter = table.delimiter
        self._before = table.before
        super().__init__(table.names, table.width, table.index)

    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> Any:  # noqa: ANN401
        start = sum(map(len, islice(split_lines(self._text), self._before)))
        text = self._text[start:].replace("\r\n", "\n").strip("\n")
        if self._delimiter != "," and "," not in text:
            text = text.replace(self._delimiter, ",")
        if not text.encode().translate(None, _PLAIN):
            rows = self._plain(text, places)
            if rows is not None:
                return rows
        return self._checked(places, loc)

    def _plain(self, text: str, places: Sequence[int]) -> Array | None:
        """The numbers of a table that is JSON but for its brackets; None where it is not quite."""
        lines = text.split("\n")
        blocks = []
        for at in range(0, len(lines), _BLOCK):
            try:
                rows = orjson.loads("[[" + "],[".join(lines[at : at + _BLOCK]) + "]]")
            except orjson.JSONDecodeError:
                return None
            if set(map(len, rows)) != {self.width}:
                return None
            blocks.append(np.array(rows, np.float64))
        numbers = np.concatenate(blocks)
        return numbers if list(places) == list(range(self.width)) else numbers[:, list(places)]

    def _checked(self, places: Sequence[int], loc: tuple[str, ...]) -> list[list[float]]:
        """The numbers, cell by cell, so that an error can name the cell."""
        rows: list[list[float]] = []
        for number, cells in _lines_of(self._text):
            if len(cells) != self.width:
                reason = f"line {number} has {len(cells)} columns, and the first line {self.width}"
                raise malformed(f"ragged: {reason}", len(rows))
            rows.append([_number(cells[place], len(rows), column, loc) for column, place in enumerate(places)])
        return rows


def _lines_of(text: str) -> Iterator[tuple[int, list[str]]]:
    """The lines of a body that hold a row.

    Raises:
        MalformedBody: while they are taken, where the body is not CSV.
    """
    with _told():
        table = read_table(split_lines(text))
        if table is not None:
            yield from table.rows


@contextmanager
def _told() -> Iterator[None]:
    """Tell that a body is not CSV.

    Raises:
        MalformedBody: in the place of `NotCsv`.
    """
    try:
        yield
    except NotCsv as error:
        raise malformed(f"not CSV: {error.reason} (line {error.line})") from error


def _number(cell: str, row: int, column: int, loc: tuple[str, ...]) -> float:
    """The number in a cell.

    Raises:
        InvalidArgument: it holds none; row and column are named.
    """
    try:
        return parse_number(cell)
    except ValueError:
        hint = explain_text(cell[:64])
        reason = f"expected a number, and found {cell[:64]!r}" + (f": {hint}" if hint else "")
        detail = f"{loc[-1]}, row {row}, column {column}: {reason}"
        raise InvalidArgument(detail, (Reason(loc, reason, row, column),)) from None
