"""`application/x-ndjson`: a JSON value a line, a line a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from service.api.codecs.codec import Answer, Columns, Form, malformed, table_arrays
from service.api.codecs.json import json_lines
from service.errors import InvalidArgument, Reason
from service.exchange import Body

__all__ = ["Ndjson"]


class Ndjson:
    """Rows as JSON: numbers, null and `in_support` are those of `application/json`, line by line.

    In: each line is an event; or an object with the main argument, and `context`, of one row; or an object with a
    number for each column of the flow. Other names, and blank lines, are passed over.
    """

    media_type = "application/x-ndjson"
    single = False

    @property
    def end(self) -> bytes:
        """Nothing stands after the rows."""
        return b""

    def decode(self, body: Body, main: str) -> Mapping[str, Any]:
        """The rows, as lists or as `Columns`."""
        rows = json_lines(body)
        if not rows:
            raise malformed("empty; a JSON value a line is expected")
        first = rows[0]
        if not isinstance(first, dict):
            odd = next((row for row, value in enumerate(rows) if isinstance(value, dict)), None)
            if odd is not None:
                raise _mixed(main, odd)
            return {main: rows}
        for row, value in enumerate(rows):
            if not isinstance(value, dict):
                raise _mixed(main, row)
            if value.keys() != first.keys():
                different = sorted(value.keys() ^ first.keys())[0][:64]
                reason = f"the first line has other names; {different!r} is in one of them alone"
                raise InvalidArgument(f"{main}, row {row}: {reason}", (Reason(("body", main), reason, row),))
        if main not in first:
            return {main: _Records(rows)}
        return {name: [value[name] for value in rows] for name in first if name in (main, "context")}

    def encode(self, answer: Answer, form: Form) -> bytes:
        """A line for each row."""
        return self.more(answer, form)

    def start(self, answer: Answer, form: Form, lead: tuple[int, ...]) -> bytes:  # noqa: ARG002  nothing stands before
        """The first rows."""
        return self.more(answer, form)

    def more(self, answer: Answer, form: Form) -> bytes:
        """The next rows."""
        found = table_arrays(answer, form)
        line = b"{%b}\n" % b",".join(orjson.dumps(array.name) + b":%b" for array in found)
        outside = b'%b,"in_support":false}\n'
        texts = [_texts(array.rows.reshape(len(array.rows), *array.event)) for array in found]
        lines = [line % row for row in zip(*texts, strict=True)]
        log_prob = answer.get("log_prob")
        if isinstance(log_prob, np.ndarray):
            for row in np.flatnonzero(log_prob == -math.inf).tolist():
                lines[row] = outside % lines[row][:-2]
        return b"".join(lines)


class _Records(Columns):
    """Objects with the same names."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        super().__init__(tuple(records[0]), len(records[0]))
        self._records = records

    def _taken(self, places: Sequence[int], loc: tuple[str, ...]) -> list[list[Any]]:  # noqa: ARG002
        names = [(self.names or ())[place] for place in places]
        return [[record[name] for name in names] for record in self._records]


def _texts(rows: np.ndarray[Any, Any]) -> list[bytes]:
    """The JSON text of each row."""
    text = orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)
    if len(rows) == 0:
        return []
    opened, closed = b"[" * (rows.ndim - 1), b"]" * (rows.ndim - 1)
    inside = text[rows.ndim : len(text) - rows.ndim].split(closed + b"," + opened)
    return [opened + row + closed for row in inside]


def _mixed(main: str, row: int) -> InvalidArgument:
    reason = "an object stands beside arrays: all lines must be of one kind"
    return InvalidArgument(f"{main}, row {row}: {reason}", (Reason(("body", main), reason, row),))
