"""`text/csv` (RFC 4180): a table of numbers, with a header or without."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from string import whitespace
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from service.api.codecs.codec import Answer, Array, Columns, Form, TableArray, malformed, table_arrays
from service.api.codecs.items import BLOCK_BYTES, LONGEST_BYTES, Block, Items
from service.errors import InvalidArgument, MalformedBody, Reason
from service.exchange import UNWATCHED, Body, Watch
from service.tabular import (
    NotCsv,
    explain_text,
    parse_number,
    parse_numbers,
    read_lines,
    read_table,
    split_lines,
    write_heading,
)

__all__ = ["Csv"]

_PLAIN: Final = b"0123456789+-.eE, \t\n"
"""The bytes of a table that is JSON but for its brackets."""

_BLOCK_ROWS: Final = 1 << 10
"""Rows whose cells are read together, where lines are not JSON but for their brackets."""

_HEADING_BLOCKS: Final = 4
"""Blocks in which the first two lines are looked for, counted from the first that holds one, and one more."""

_MOST_BEFORE: Final = _HEADING_BLOCKS * BLOCK_BYTES
"""Bytes of comments, and of lines of delimiters alone, before the first line: each of them is looked at."""

_NOTHING: Final = f"{whitespace},;"

_MOST_CELLS: Final = 1 << 17
"""Of a line."""

_LINE_END: Final = re.compile(rb"\r\n|[\r\n]")
_BLANK: Final = b" \t,;\r\n"


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

    def decode(self, body: Body, main: str, watch: Watch = UNWATCHED) -> Mapping[str, Any]:
        """The table, of which only the first line has been read."""
        return {main: _Table(body, watch)}

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

    def __init__(self, body: Body, watch: Watch) -> None:
        lines = _Lines(body, watch, heading=True)
        with _told(lines):
            table = read_table(lines)
        if table is None:
            raise malformed("empty; expected a line of numbers for each row")
        self._body = body
        self._watch = watch
        self._delimiter = table.delimiter
        self._before = table.before + lines.dropped
        super().__init__(table.names, table.width, table.index)

    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> Items:
        return _Rows(self._body, self._watch, _Layout(self._delimiter, self._before, self.width), (places, loc))


class _Layout(NamedTuple):
    """How a table stands in a body.

    Args:
        delimiter: between two cells.
        before: the number of lines before the rows.
        width: the number of cells in a line.
    """

    delimiter: str
    before: int
    width: int


class _Rows(Items):
    """The rows of a table.

    Args:
        body: of the table.
        watch: asked for each block.
        layout: of the table.
        wanted: the places of the columns that are taken, and where the argument stands, for errors.
    """

    def __init__(
        self, body: Body, watch: Watch, layout: _Layout, wanted: tuple[Sequence[int], tuple[str, ...]]
    ) -> None:
        self._body = body
        self._watch = watch
        self._layout = layout
        self._places, self._loc = wanted
        self._in_order = list(self._places) == list(range(layout.width))

    def blocks(self) -> Iterator[Block]:
        """The rows of each block of lines that holds some.

        Raises:
            MalformedBody: it is not CSV, or a line has more or fewer cells than the first.
            InvalidArgument: a cell holds no number; row and column are named.
        """
        at, before = _skip_lines(self._body, self._layout.before), self._layout.before
        rows = 0
        while at < len(self._body):
            self._watch.check()
            end = _block_end(self._body, at)
            text = bytes(memoryview(self._body)[at:end])
            block: Block | None = self._plain(text)
            if block is None and b'"' in text:  # lines may end within quotes
                yield from self._checked(at, len(self._body), before, rows)
                return
            if block is None:
                for found in self._checked(at, end, before, rows):
                    rows += len(found)
                    yield found
            elif len(block):
                rows += len(block)
                yield block
            before += _count_lines(text)
            at = end

    def _plain(self, text: bytes) -> Block | None:
        """The numbers of lines that are JSON but for their brackets; None where they are not quite."""
        if text.isspace() or not text.strip(_BLANK):
            return []
        if self._layout.delimiter != "," and b"," not in text:
            text = text.replace(self._layout.delimiter.encode(), b",")
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n")
        if text.translate(None, _PLAIN):
            return None
        rows = None if b"\n\n" in text else self._json_rows(text)
        if rows is None:
            rows = self._json_rows(b"\n".join([line for line in text.split(b"\n") if line.strip(_BLANK)]))
        if rows is None:
            return None
        numbers = np.array(rows, np.float64)
        return numbers if self._in_order else numbers[:, list(self._places)]

    def _json_rows(self, text: bytes) -> list[list[float]] | None:
        """The numbers of lines of which none is blank; None where they are not JSON, or not as wide as the table."""
        try:
            rows: list[list[float]] = orjson.loads(b"".join((b"[[", text.replace(b"\n", b"],["), b"]]")))
        except orjson.JSONDecodeError:
            return None
        return rows if set(map(len, rows)) == {self._layout.width} else None

    def _checked(self, at: int, end: int, before: int, rows: int) -> Iterator[Block]:
        """The numbers of some lines that are not JSON but for their brackets.

        Args:
            at: where the lines begin in the body.
            end: where they end.
            before: the number of lines before them.
            rows: the number of rows before them.
        """
        lines = _Lines(self._body, self._watch, at, end)
        taken: list[list[str]] = []
        try:
            with _told(lines):
                for number, cells in read_lines(lines, self._layout.delimiter, before):
                    lines.begin_row()
                    if len(cells) != self._layout.width:
                        line = number + lines.dropped
                        reason = f"line {line} has {len(cells)} columns, and the first line {self._layout.width}"
                        raise malformed(f"ragged: {reason}", rows + len(taken))
                    taken.append(cells)
                    if len(taken) == _BLOCK_ROWS:
                        yield self._numbers(taken, rows)
                        rows += len(taken)
                        taken = []
        except MalformedBody:
            self._numbers(taken, rows)  # what is wrong in a row before it is told first
            raise
        if taken:
            yield self._numbers(taken, rows)

    def _numbers(self, taken: list[list[str]], rows: int) -> Block:
        """The numbers in the wanted cells of some rows.

        Args:
            taken: the cells of each row.
            rows: the number of rows before them.

        Raises:
            InvalidArgument: a cell holds none; the first is named.
        """
        places = self._places
        if self._in_order:
            wanted = list(chain.from_iterable(taken))
        else:
            wanted = [cells[place] for cells in taken for place in places]
        try:
            numbers = parse_numbers(wanted)
        except ValueError:  # cell by cell, to name the first
            return [
                [_number(cells[place], row, column, self._loc) for column, place in enumerate(places)]
                for row, cells in enumerate(taken, rows)
            ]
        return np.array(numbers, np.float64).reshape(len(taken), len(places))


class _Lines:
    """The lines of a body as text, for one who reads them once. Blocks of nothing but space are left out.

    Args:
        body: of the table.
        watch: asked for each block.
        at: where the lines begin.
        end: where they end; None for the body's end.
        heading: whether only the first few that hold something are wanted, to tell names and delimiter.

    Attributes:
        dropped: the number of lines that have been left out so far.
    """

    def __init__(self, body: Body, watch: Watch, at: int = 0, end: int | None = None, *, heading: bool = False) -> None:
        self._heading = heading
        self._body = body
        self._watch = watch
        self._at = at or (len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0)
        self._end = len(body) if end is None else end
        self._row_bytes = 0
        self._lines = self._read()
        self.dropped = 0

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def begin_row(self) -> None:
        """Note that a row has been read: what it holds is bounded."""
        self._row_bytes = 0

    def _read(self) -> Iterator[str]:
        quoted = given = False
        blocks_left, passed = _HEADING_BLOCKS, 0
        while self._at < self._end:
            self._watch.check()
            end = min(_block_end(self._body, self._at), self._end)
            text = bytes(memoryview(self._body)[self._at : end])
            if not quoted:
                self._row_bytes = 0
            if not quoted and text.isspace():
                if given and self._heading:
                    return
                self.dropped += _count_lines(text)
                self._at = end
                continue
            given = True
            if self._heading and blocks_left == 0:
                if quoted:
                    raise _too_long()
                return
            if self._heading and blocks_left == _HEADING_BLOCKS:
                if passed > _MOST_BEFORE:
                    raise malformed(f"not CSV that can be read: the first {_MOST_BEFORE} bytes hold comments alone")
                passed += len(text)
            quoted ^= text.count(b'"') % 2 == 1
            decoded = self._decoded(text)
            self._at = end
            for line in split_lines(decoded):
                self._row_bytes += len(line)
                if self._row_bytes > LONGEST_BYTES + BLOCK_BYTES:
                    raise _too_long()
                if len(line) > BLOCK_BYTES and max(map(line.count, ",;\t")) >= _MOST_CELLS:
                    raise malformed(f"not CSV that can be read: a line of more than {_MOST_CELLS} cells")
                if blocks_left == _HEADING_BLOCKS and line.strip(_NOTHING) and not line.lstrip().startswith("#"):
                    blocks_left -= 1
                yield line
            if blocks_left < _HEADING_BLOCKS:
                blocks_left -= 1

    def _decoded(self, text: bytes) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            utf16 = self._body[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            begins = " and begins as UTF-16 does" if utf16 else ""
            raise malformed(f"not CSV: byte {self._at + error.start} is not UTF-8{begins}") from error


def _block_end(body: Body, at: int) -> int:
    """The place after the last line of a block that begins at a place.

    Raises:
        MalformedBody: a line is too long.
    """
    if len(body) - at <= BLOCK_BYTES:
        return len(body)
    found = _LINE_END.search(body, at + BLOCK_BYTES, at + BLOCK_BYTES + LONGEST_BYTES)
    if found is not None:
        return found.end()
    if len(body) - at > BLOCK_BYTES + LONGEST_BYTES:
        raise _too_long()
    return len(body)


def _too_long() -> MalformedBody:
    return malformed(f"not CSV: a line, or a row of several lines, of more than {LONGEST_BYTES} bytes")


def _count_lines(text: bytes) -> int:
    """The number of line ends."""
    lines = text.count(b"\n")
    return lines if b"\r" not in text else lines + text.count(b"\r") - text.count(b"\r\n")


def _skip_lines(body: Body, count: int) -> int:
    """The place after so many lines."""
    at = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
    while count and at < len(body):
        end = _block_end(body, at)
        text = bytes(memoryview(body)[at:end])
        lines = _count_lines(text)
        if lines > count:
            for found in islice(_LINE_END.finditer(text), count - 1, count):
                return at + found.end()
        count -= lines
        at = end
    return at


@contextmanager
def _told(lines: _Lines) -> Iterator[None]:
    """Tell that a body is not CSV.

    Raises:
        MalformedBody: in the place of `NotCsv`.
    """
    try:
        yield
    except NotCsv as error:
        raise malformed(f"not CSV: {error.reason} (line {error.line + lines.dropped})") from error


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
