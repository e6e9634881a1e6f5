"""`application/x-ndjson`: a JSON value a line, a line a row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from service.api.codecs.codec import Answer, Form, malformed, table_arrays
from service.api.codecs.json import json_lines
from service.api.codecs.records import ArrayLines, record_table
from service.exchange import Body

__all__ = ["Ndjson"]


class Ndjson:
    """Rows as JSON: numbers, null and `in_support` are those of `application/json`, line by line.

    In: each line is an event; or an object with a number for each column of the flow; or an object with the main
    argument, and `context`, of one row. Other names, and blank lines, are passed over.
    """

    media_type = "application/x-ndjson"
    single = False

    @property
    def end(self) -> bytes:
        """Nothing stands after the rows."""
        return b""

    def decode(self, body: Body, main: str) -> Mapping[str, Any]:
        """The lines, as `Columns`: only who knows the flow can tell an argument from a column of that name."""
        rows = json_lines(body)
        if not rows:
            raise malformed("empty; a JSON value a line is expected")
        if isinstance(rows[0], dict):
            return {main: record_table(rows, ("body", main), "line")}
        return {main: ArrayLines(rows, main)}

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


def _texts(rows: np.ndarray[Any, Any]) -> list[bytes]:
    """The JSON text of each row."""
    text = orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)
    if len(rows) == 0:
        return []
    opened, closed = b"[" * (rows.ndim - 1), b"]" * (rows.ndim - 1)
    inside = text[rows.ndim : len(text) - rows.ndim].split(closed + b"," + opened)
    return [opened + row + closed for row in inside]
