"""Bodies of every media type that are refused, and what such bodies are made of."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa

JSON, NPY, ARROW = "application/json", "application/x-npy", "application/vnd.apache.arrow.stream"
NDJSON, CSV = "application/x-ndjson", "text/csv"


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def arrow(table: pa.Table) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue().to_pybytes()


def repeated(before: bytes, item: bytes, after: bytes, size: int = 100_000) -> bytes:
    return before + item * (size // len(item)) + after


def bad_bodies(size: int) -> list[tuple[str, bytes]]:
    """Bodies of every type that are refused, each for another reason."""
    rows = size // 8
    return [
        (JSON, repeated(b'{"x":[', b"{},", b"{}]}", size)),
        (JSON, repeated(b'{"x":[', b'"a",', b'"a"]}', size)),
        (JSON, repeated(b'{"x":[', b"[1,2],", b"[1]]}", size)),
        (JSON, repeated(b'{"x":[', b"[1,2],", b"[1,null]]}", size)),
        (JSON, repeated(b'{"x":[', b"[1,2],", b"[1,NaN]]}", size)),
        (JSON, repeated(b'{"x":[', b"[1,2],", b"[1,}", size)),
        (JSON, repeated(b'{"x":[', b"[1,2,3],", b"[1,2,3]]}", size)),
        (JSON, repeated(b'{"unknown":[', b"[1,2],", b"[1,2]]}", size)),
        (JSON, b'{"y":1,' + b",".join(b'"a%d":1' % at for at in range(size // 12)) + b"}"),
        (NDJSON, repeated(b"", b"[]\n", b"", size)),
        (NDJSON, repeated(b"", b"\n", b"", size)),
        (NDJSON, repeated(b"", b"[1,2]\n", b"[1\n", size)),
        (NDJSON, repeated(b"", b'{"a":1,"b":2}\n', b'{"a":1}\n', size)),
        (CSV, repeated(b"", b"a,", b"a\n1,2\n", size)),
        (CSV, repeated(b"", b"1,2\n", b"1,b\n", size)),
        (CSV, repeated(b"", b"1,2\n", b'"\n', size)),
        (CSV, repeated(b"", b"1,2\n", b"\xff\n", size)),
        (NPY, npy(np.full((rows, 2), np.nan, np.float32))),
        (NPY, npy(np.zeros((rows, 3), np.float32))),
        (NPY, npy(np.zeros((rows, 2), np.float32))[:-1]),
        (ARROW, arrow(pa.table({"a": np.zeros(rows), "b": ["x"] * rows}))),
        (ARROW, arrow(pa.table({"a": np.zeros(rows), "b": np.zeros(rows)}))[:-9]),
        ("application/x-unknown", bytes(size)),
        ("text/csv; charset=utf-16", "1,2\n".encode("utf-16") * (size // 10)),
    ]
