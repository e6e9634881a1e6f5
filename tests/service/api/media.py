"""Each media type as a client speaks it: arrays to bodies, bodies to arrays."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

__all__ = ["ALL", "Media"]


class Media(NamedTuple):
    """One media type.

    Args:
        name: of the type.
        write: rows -> a body. Columns are called "column 0" and so on, or as is said, where the type has names.
        read: a body, the name of the main array and those of its columns -> that array, float32.
    """

    name: str
    write: Callable[..., bytes]
    read: Callable[[bytes, str, Sequence[str]], np.ndarray]


def _npy(rows: np.ndarray, names: Sequence[str] = ()) -> bytes:
    out = io.BytesIO()
    np.save(out, rows)
    return out.getvalue()


def _arrow(rows: np.ndarray, names: Sequence[str] = ()) -> bytes:
    flat = rows.reshape(len(rows), -1)
    names = names or [f"column {at}" for at in range(flat.shape[1])]
    table = pa.table({name: flat[:, at] for at, name in enumerate(names)})
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)
    return out.getvalue()


def _from_arrow(body: bytes, columns: Sequence[str]) -> np.ndarray:
    table = pa.ipc.open_stream(body).read_all()
    return np.stack([table[name].to_numpy() for name in columns], 1)


def _from_csv(body: bytes, columns: Sequence[str]) -> np.ndarray:
    header, *lines = csv.reader(io.StringIO(body.decode()))
    places = [header.index(name) for name in columns]
    return np.array([[float(line[at]) for at in places] for line in lines], np.float32)


def _from_json(value: Any) -> np.ndarray:
    return np.array([[-np.inf if v is None else v for v in np.ravel(row)] for row in value], np.float32)


JSON = Media(
    "application/json",
    lambda rows, _=(): json.dumps({"x": rows.tolist()}).encode(),
    lambda body, main, columns: _from_json(json.loads(body)[main]),
)
ALL = (
    Media("application/x-npy", _npy, lambda body, main, columns: np.load(io.BytesIO(body)).reshape(-1, len(columns))),
    Media("application/vnd.apache.arrow.stream", _arrow, lambda body, main, columns: _from_arrow(body, columns)),
    Media(
        "application/x-ndjson",
        lambda rows, _=(): b"".join(json.dumps(row.tolist()).encode() + b"\n" for row in rows),
        lambda body, main, columns: _from_json([json.loads(line)[main] for line in body.splitlines()]),
    ),
    Media(
        "text/csv",
        lambda rows, _=(): "\n".join(",".join(map(repr, row.ravel().tolist())) for row in rows).encode(),
        lambda body, main, columns: _from_csv(body, columns),
    ),
)
