"""`text/csv` (RFC 4180): a table of numbers, with a header or without."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from service.api.codecs.codec import Answer, Array, Columns, Form, TableArray, malformed, table_arrays
from service.api.codecs.float32_tie import tied
from service.errors import InvalidArgument, Reason
from service.exchange import Body

__all__ = ["Csv"]

_PLAIN: Final = b"0123456789+-.eE, \t\n"
"""What a table holds that is JSON but for its brackets."""

_BLOCK: Final = 1 << 12
"""Rows that are read at once, so that other threads have their turn."""


class Csv:
    """Numbers as JSON writes them, -inf as `-inf`, one line a row, after a header.

    In: with a header (a first line without any number) columns are taken by name, as `Columns` says; text that is no
    number may stand in columns that are passed over.
    """

    media_type = "text/csv"
    single = False

    @property
    def end(self) -> bytes:
        """Nothing stands after the rows."""
        return b""

    def decode(self, body: Body, main: str) -> Mapping[str, Any]:
        """The table, of which only the header has been read."""
        return {main: _Table(body)}

    def encode(self, answer: Answer, form: Form) -> bytes:
        """The header, and a line for each row."""
        return self.start(answer, form, ())

    def start(self, answer: Answer, form: Form, lead: tuple[int, ...]) -> bytes:  # noqa: ARG002  no length stands before
        """The header and the first rows."""
        header = io.StringIO()
        names = [column for array in table_arrays(answer, form) for column in array.columns]
        csv.writer(header, lineterminator="\n").writerow(names)
        return header.getvalue().encode() + self.more(answer, form)

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
    """A table whose header has been read."""

    def __init__(self, body: Body) -> None:
        try:
            text = bytes(tied(body)).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise malformed(f"not CSV: byte {error.start} is not UTF-8") from error
        self._text = text.replace("\r\n", "\n").strip("\n")
        first = _cells(self._text.partition("\n")[0], 1)
        if not any(cell.strip() for cell in first):
            raise malformed("empty; a line of numbers a row is expected")
        numbers = sum(_number(cell) is not None for cell in first)
        super().__init__(None if numbers else tuple(cell.strip() for cell in first), len(first))

    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> Any:  # noqa: ANN401
        text = self._text if self.names is None else self._text.partition("\n")[2]
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
        lines = csv.reader(io.StringIO(self._text, newline=""), strict=True)
        try:
            if self.names is not None:
                next(lines)
            for cells in lines:
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != self.width:
                    reason = f"line {lines.line_num} has {len(cells)} columns, and the first line {self.width}"
                    raise malformed(f"ragged: {reason}", len(rows))
                rows.append([self._cell(cells[place], len(rows), column, loc) for column, place in enumerate(places)])
        except csv.Error as error:
            raise malformed(f"not CSV: {error} (line {lines.line_num})") from error
        return rows

    def _cell(self, cell: str, row: int, column: int, loc: tuple[str, ...]) -> float:
        number = _number(cell)
        if number is None:
            reason = f"expected a number, and found {cell[:64]!r}"
            raise InvalidArgument(
                f"{loc[-1]}, row {row}, column {column}: {reason}", (Reason(loc, reason, row, column),)
            )
        return number


def _cells(line: str, number: int) -> list[str]:
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise malformed(f"not CSV: {error} (line {number})") from error


def _number(text: str) -> float | None:
    """A cell's number; the underscores that Python reads over are no part of one."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
