"""Arrow's IPC stream format, read: bytes to columns of numbers, and of everything else the reason why it is none.

https://arrow.apache.org/docs/format/Columnar.html. Metadata is flatbuffers, read with their own library, which checks
each access against the bytes that there are; what it finds is held against the length of the body before an array is
made of it. docs/decisions/0005 says why no Arrow library reads a stranger's bytes here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
from flatbuffers.number_types import Int16Flags, Int32Flags, Int64Flags, Uint8Flags
from flatbuffers.table import Table

from service.api.codecs.codec import MOST_COLUMNS, Array, malformed
from service.errors import PushforwardError
from service.exchange import UNWATCHED, Body, Watch
from service.tabular import pandas_index

__all__ = ["Column", "Stream", "read_stream"]

_CONTINUES: Final = 0xFFFFFFFF
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3

_INTEGER, _FLOAT, _FIXED_LIST = 2, 3, 16
_TYPES: Final = {
    1: ("null", 0), 2: ("integer", 2), 3: ("float", 2), 4: ("binary", 3), 5: ("text", 3), 6: ("boolean", 2),
    7: ("decimal", 2), 8: ("date", 2), 9: ("time", 2), 10: ("timestamp", 2), 11: ("interval", 2), 12: ("list", 2),
    13: ("struct", 1), 15: ("fixed-size binary", 2), 16: ("fixed-size list", 1), 17: ("map", 2), 18: ("duration", 2),
    19: ("binary", 3), 20: ("text", 3), 21: ("list", 2), 22: ("run-end encoded", 0), 23: ("binary view", 2),
    24: ("text view", 2), 25: ("list view", 3), 26: ("list view", 3),
}  # fmt: skip
"""Type -> what to call it, and the number of its buffers. Views have further ones; a union may not be passed over."""
_VIEWS: Final = frozenset({23, 24})

_DEEPEST: Final = 32
_LEAST_FIELD_BYTES: Final = 32
_MOST_BATCHES: Final = 1 << 14
_FEW_BATCHES: Final = 1 << 10
_LEAST_BATCH_BYTES: Final = 1 << 10
"""Each field and each batch takes some microseconds, however few bytes it has; fields may even share theirs. A field
has more bytes than this where it does not. More than a few batches must have as many bytes on average."""

_MOST_PAIRS: Final = 64
_LONGEST_VALUE: Final = 1 << 20
"""Of metadata beside the fields: pairs that are looked at, and bytes of the one that is read."""


class Column(NamedTuple):
    """One column.

    Args:
        name: as the schema has it.
        width: of a fixed-size list of numbers; else 0.
        values: its numbers, one array a record batch; ``[rows]``, or ``[rows, width]`` for a fixed-size list.
        reason: why it holds no numbers; None where it does.
    """

    name: str
    width: int
    values: list[Array]
    reason: str | None


class _Field(NamedTuple):
    name: str
    kind: int
    dtype: np.dtype[np.generic] | None
    width: int
    coded: bool
    children: list[_Field]


class _Batch:
    """A record batch, whose nodes and buffers are taken one after the other, as the fields come."""

    def __init__(self, record: Table, body: memoryview) -> None:
        self.length = _scalar(record, 0, Int64Flags, 0)
        self._body = body
        self._left = len(body)
        self._nodes: Iterator[tuple[int, int]] = _structs(record, 1)
        self._buffers: Iterator[tuple[int, int]] = _structs(record, 2)
        self._views = _numbers(record, 4)
        if _slot(record, 3):
            raise malformed("an Arrow stream with compressed buffers; send them as they are")

    def is_empty(self, columns: int) -> bool:
        """Whether the batch has no rows, and what belongs to so many columns of numbers without any."""
        if self.length:
            return False
        nodes, buffers = list(self._nodes), list(self._buffers)
        self._nodes, self._buffers = iter(nodes), iter(buffers)
        return nodes == [(0, 0)] * columns and [length for _, length in buffers] == [0] * (2 * columns)

    def node(self) -> tuple[int, int]:
        """Rows and nulls of the next field."""
        return next(self._nodes)

    def views(self) -> int:
        """How many further buffers the next column of views has."""
        count = next(self._views)
        if not 0 <= count <= MOST_COLUMNS:
            raise ValueError(count)
        return count

    def buffers(self, count: int) -> list[memoryview]:
        """The next buffers."""
        found = []
        for _ in range(count):
            offset, length = next(self._buffers)
            if offset < 0 or length < 0 or offset + length > len(self._body):
                raise malformed("not an Arrow stream: a buffer reaches beyond its record batch")
            self._left -= length
            if self._left < 0:  # or a few bytes would be the numbers of many columns
                raise malformed("not an Arrow stream that can be read: buffers of a record batch share their bytes")
            found.append(self._body[offset : offset + length])
        return found


class Stream(NamedTuple):
    """What a stream holds.

    Args:
        rows: how many there are.
        columns: in their order.
        index_names: the names of those that hold the index of a frame of pandas.
    """

    rows: int
    columns: list[Column]
    index_names: list[str]


def read_stream(body: Body, watch: Watch = UNWATCHED) -> Stream:
    """The columns of an IPC stream.

    Args:
        body: the schema, record batches, and the end of the stream if it is there.
        watch: asked for each record batch.

    Raises:
        MalformedBody: it is no such stream, or one that is compressed.
        ClientGone, DeadlineExceeded: from the watch.
    """
    try:
        return _read(body, watch)
    except PushforwardError:
        raise
    except (struct.error, ValueError, TypeError, IndexError, OverflowError, StopIteration) as error:
        raise malformed("not an Arrow stream: its metadata cannot be read") from error


def _read(body: Body, watch: Watch) -> Stream:
    if body.startswith(b"ARROW1"):
        raise malformed("an Arrow file; send the stream format")
    messages = _messages(body)
    first = next(messages, None)
    if first is None or first[0] != _SCHEMA:
        raise malformed("not an Arrow stream: it does not begin with a schema")
    order = _one_of("<>", _scalar(first[1], 0, Int16Flags, 0))
    left = _Left(min(MOST_COLUMNS, len(first[1].Bytes) // _LEAST_FIELD_BYTES), MOST_COLUMNS)
    fields = [_field(table, order, left) for table in _tables(first[1], 1)]
    rows = 0
    columns = [_column(field) for field in fields]
    plain = all(field.dtype is not None and not field.coded for field in fields)
    most = min(_MOST_BATCHES, max(_FEW_BATCHES, len(body) // _LEAST_BATCH_BYTES))
    for number, (kind, table, data) in enumerate(messages):
        watch.check()
        if number >= most:
            raise malformed(f"an Arrow stream of more than {most} record batches; send fewer and larger ones")
        if kind == _DICTIONARY:
            continue  # of columns that are no numbers
        if kind != _RECORDS:
            raise malformed("not an Arrow stream: a record batch is expected after the schema")
        batch = _Batch(table, data)
        if batch.length < 0:
            raise malformed("not an Arrow stream: a record batch has a negative length")
        if not (plain and batch.is_empty(len(fields))):
            columns = [_with(batch, *pair, rows) for pair in zip(fields, columns, strict=True)]
        rows += batch.length
    return Stream(rows, columns, pandas_index(_metadata(first[1], b"pandas")))


def _metadata(schema: Table, key: bytes) -> bytes | None:
    """What a schema keeps under a key, beside its fields."""
    pairs = ((_text(pair, 0), _text(pair, 1)) for pair in islice(_tables(schema, 2), _MOST_PAIRS))
    return next((value for name, value in pairs if name == key and len(value) <= _LONGEST_VALUE), None)


def _messages(body: Body) -> Iterator[tuple[int, Table, memoryview]]:
    """Kind, header and body of each message."""
    view, at = memoryview(body), 0
    while at < len(body):
        marker, size = struct.unpack_from("<Ii", body, at)
        if marker != _CONTINUES or size < 0:
            raise malformed(f"not an Arrow stream: no message begins at byte {at}")
        at += 8
        if size == 0:
            if at != len(body):
                raise malformed(f"an Arrow stream that goes on after its end, at byte {at}")
            return
        metadata = bytes(view[at : at + size])
        if len(metadata) < size:
            raise malformed("an Arrow stream that ends within a message")
        at += size
        message = Table(metadata, struct.unpack_from("<I", metadata)[0])
        length = _scalar(message, 3, Int64Flags, 0)
        if length < 0 or at + length > len(body):
            raise malformed("an Arrow stream that ends within a message")
        header = _table(message, 2)
        if header is None:
            raise malformed("not an Arrow stream: a message has no header")
        yield _scalar(message, 1, Uint8Flags, 0), header, view[at : at + length]
        at += length


class _Left:
    """How many more fields, and columns in fixed-size lists, a schema may have."""

    def __init__(self, fields: int, columns: int) -> None:
        self._fields = fields
        self._columns = columns

    def take(self, columns: int) -> None:
        """Count a field of so many columns.

        Raises:
            MalformedBody: there are too many.
        """
        self._fields -= 1
        self._columns -= max(columns, 1)
        if self._fields < 0 or self._columns < 0:
            raise malformed("an Arrow stream of too many columns, or of fields that share their bytes")


def _field(table: Table, order: str, left: _Left, depth: int = 0) -> _Field:
    if depth > _DEEPEST:
        raise malformed("an Arrow stream whose columns are nested too deep")
    kind = _scalar(table, 2, Uint8Flags, 0)
    said = _table(table, 3)
    dtype, width = None, 0
    if kind == _INTEGER and said is not None:
        bits = _scalar(said, 0, Int32Flags, 0)
        letter = _one_of("ui", _scalar(said, 1, Uint8Flags, 0))
        dtype = np.dtype(f"{order}{letter}{bits // 8}") if bits in (8, 16, 32, 64) else None
    elif kind == _FLOAT and said is not None:
        dtype = np.dtype(f"{order}f{_one_of('248', _scalar(said, 0, Int16Flags, 0))}")
    elif kind == _FIXED_LIST and said is not None:
        width = _scalar(said, 0, Int32Flags, 0)
    left.take(width)
    return _Field(
        _text(table, 0).decode(),
        kind,
        dtype,
        width,
        bool(_slot(table, 4)),
        [_field(child, order, left, depth + 1) for child in _tables(table, 5)],
    )


def _column(field: _Field) -> Column:
    reason = _reason(field)
    return Column(field.name, 0 if reason else field.width, [], reason)


def _reason(field: _Field) -> str | None:
    """Why a column holds no numbers."""
    if field.coded:
        return "is dictionary-encoded"
    if field.dtype is not None:
        return None
    if field.kind == _FIXED_LIST and field.width > 0 and len(field.children) == 1:
        return _reason(field.children[0])
    return f"is of type {_TYPES.get(field.kind, ('union', 0))[0]}"


def _with(batch: _Batch, field: _Field, column: Column, before: int) -> Column:
    """A column, with its rows of one more batch."""
    if column.reason is not None:
        _pass_over(batch, field)
        return column
    values, null = _values(batch, field, batch.length)
    if null is not None:
        return column._replace(reason=f"is null in row {before + null}")
    column.values.append(values)
    return column


def _values(batch: _Batch, field: _Field, rows: int) -> tuple[Array, int | None]:
    """The numbers of a field, and the first of its rows that is null."""
    found, nulls = batch.node()
    if not 0 <= nulls <= rows:
        raise malformed(f"not an Arrow stream: the column {field.name[:64]!r} has {nulls} nulls in {rows} rows")
    if found != rows:
        raise malformed(f"not an Arrow stream: the column {field.name[:64]!r} has other rows than its record batch")
    validity, *data = batch.buffers(_TYPES[field.kind][1])
    null = _first_null(validity, rows) if nulls else None
    if field.dtype is None:
        values, inner = _values(batch, field.children[0], rows * field.width)
        return values.reshape(rows, field.width), null if inner is None else inner // field.width
    if rows * field.dtype.itemsize > len(data[0]):
        raise malformed(f"not an Arrow stream: the column {field.name[:64]!r} is shorter than its record batch")
    return np.frombuffer(data[0], field.dtype, rows) if rows else np.empty(0, field.dtype), null


def _pass_over(batch: _Batch, field: _Field) -> None:
    """Take what belongs to a column that holds no numbers."""
    batch.node()
    if field.kind not in _TYPES:
        raise malformed(f"an Arrow stream with a union, the column {field.name[:64]!r}, which cannot be passed over")
    if field.coded:
        batch.buffers(2)
        return
    batch.buffers(_TYPES[field.kind][1] + (batch.views() if field.kind in _VIEWS else 0))
    for child in field.children:
        _pass_over(batch, child)


def _first_null(validity: memoryview, rows: int) -> int | None:
    if len(validity) == 0:
        return None
    bits = np.unpackbits(np.frombuffer(validity, np.uint8, math.ceil(rows / 8)), count=rows, bitorder="little")
    return int(np.argmin(bits)) if rows and not bits.all() else None


def _slot(table: Table, number: int) -> int:
    """Where a field of a table stands, from the table's own place; 0 where it is left out."""
    return int(table.Offset(4 + 2 * number))


def _scalar(table: Table, number: int, flags: type, default: int) -> int:
    offset = _slot(table, number)
    return int(table.Get(flags, table.Pos + offset)) if offset else default


def _one_of(values: str, number: int) -> str:
    """The value that an enumeration's number stands for. A negative number is none, and is no count from the end.

    Raises:
        ValueError: it has no such number.
    """
    if not 0 <= number < len(values):
        raise ValueError(number)
    return values[number]


def _text(table: Table, number: int) -> bytes:
    """A text of a table; empty where it is left out."""
    offset = _slot(table, number)
    return bytes(table.String(table.Pos + offset)) if offset else b""


def _table(table: Table, number: int) -> Table | None:
    offset = _slot(table, number)
    return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None


def _tables(table: Table, number: int) -> Iterator[Table]:
    """The tables of a vector."""
    offset = _slot(table, number)
    if offset:
        start = table.Vector(offset)
        for at in range(table.VectorLen(offset)):
            yield Table(table.Bytes, table.Indirect(start + 4 * at))


def _numbers(table: Table, number: int, each: int = 1) -> Iterator[int]:
    """The 64-bit integers of a vector whose elements have `each` of them."""
    offset = _slot(table, number)
    count = each * table.VectorLen(offset) if offset else 0
    start = table.Vector(offset) if offset else 0
    if start + 8 * count > len(table.Bytes):
        raise ValueError(count)
    return iter(struct.unpack_from(f"<{count}q", table.Bytes, start))


def _structs(table: Table, number: int) -> Iterator[tuple[int, int]]:
    """The elements of a vector of pairs of 64-bit integers."""
    values = _numbers(table, number, 2)
    return zip(values, values, strict=True)
