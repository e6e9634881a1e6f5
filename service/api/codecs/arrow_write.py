"""Arrow's IPC stream format, written: columns of floats and booleans to a schema and record batches.

https://arrow.apache.org/docs/format/Columnar.html. Metadata goes through the library of flatbuffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from flatbuffers import Builder

from service.api.codecs.codec import Array

__all__ = ["END", "records", "schema"]

END: Final = struct.pack("<II", 0xFFFFFFFF, 0)
"""What stands after the last record batch."""

_VERSION: Final = 4  # of the metadata: V5
_SCHEMA, _RECORDS = 1, 3
_FLOAT, _BOOLEAN = 3, 6
_PRECISIONS: Final = {np.dtype(np.float32): 1, np.dtype(np.float64): 2}
_ALIGNMENT: Final = 64  # what Arrow recommends; a message itself is held to 8


def schema(columns: Sequence[tuple[str, np.dtype[Any]]]) -> bytes:
    """The message that a stream begins with.

    Args:
        columns: name and dtype of each: float32, float64 or bool.
    """
    builder = Builder(64 * (1 + len(columns)))
    fields = [_field(builder, name, dtype) for name, dtype in columns]
    vector = _vector(builder, fields)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(1, vector, 0)
    return _message(builder, _SCHEMA, builder.EndObject(), 0)


def records(columns: Iterable[Array]) -> bytes:
    """A record batch.

    Args:
        columns: one array ``[N]`` for each of the schema's, of the same dtype; nothing in them is null.
    """
    nodes, buffers, body, at = [], [], [], 0
    rows = 0
    for column in columns:
        rows = len(column)
        packed = np.packbits(column, bitorder="little") if column.dtype == np.bool_ else np.ascontiguousarray(column)
        data = packed.tobytes()
        padding = -len(data) % _ALIGNMENT
        nodes += [rows, 0]
        buffers += [at, 0, at, len(data)]  # no validity bitmap, then the values
        body += [data, bytes(padding)]
        at += len(data) + padding
    builder = Builder(1024 + 48 * len(nodes))
    placed = _pairs(builder, buffers)
    counted = _pairs(builder, nodes)
    builder.StartObject(5)
    builder.PrependInt64Slot(0, rows, 0)
    builder.PrependUOffsetTRelativeSlot(1, counted, 0)
    builder.PrependUOffsetTRelativeSlot(2, placed, 0)
    return b"".join([_message(builder, _RECORDS, builder.EndObject(), at), *body])


def _field(builder: Builder, name: str, dtype: np.dtype[Any]) -> int:
    text = builder.CreateString(name)
    builder.StartObject(1)
    if dtype != np.bool_:
        builder.PrependInt16Slot(0, _PRECISIONS[dtype], 0)
    kind = builder.EndObject()
    none = _vector(builder, [])
    builder.StartObject(7)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependUint8Slot(2, _BOOLEAN if dtype == np.bool_ else _FLOAT, 0)
    builder.PrependUOffsetTRelativeSlot(3, kind, 0)
    builder.PrependUOffsetTRelativeSlot(5, none, 0)
    return int(builder.EndObject())


def _vector(builder: Builder, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _pairs(builder: Builder, values: Sequence[int]) -> int:
    """A vector of structs of two 64-bit integers each."""
    builder.StartVector(16, len(values) // 2, 8)
    for value in reversed(values):
        builder.PrependInt64(value)
    return int(builder.EndVector())


def _message(builder: Builder, kind: int, header: int, body_bytes: int) -> bytes:
    builder.StartObject(5)
    builder.PrependInt64Slot(3, body_bytes, 0)
    builder.PrependUOffsetTRelativeSlot(2, header, 0)
    builder.PrependUint8Slot(1, kind, 0)
    builder.PrependInt16Slot(0, _VERSION, 0)
    builder.Finish(builder.EndObject())
    metadata = bytes(builder.Output())
    padding = -(len(metadata)) % 8
    return struct.pack("<II", 0xFFFFFFFF, len(metadata) + padding) + metadata + bytes(padding)
