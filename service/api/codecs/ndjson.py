"""`application/x-ndjson`: a JSON value a line, a line a row."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import orjson

from service.api.codecs.codec import Answer, Form, malformed, table_arrays
from service.api.codecs.items import BLOCK_BYTES, LONGEST_BYTES, Block, Items
from service.api.codecs.json import json_lines
from service.api.codecs.records import ArrayLines, record_table
from service.errors import MalformedBody, PushforwardError
from service.exchange import UNWATCHED, Body, Watch

__all__ = ["Ndjson"]


class Ndjson:
    """Rows as JSON: numbers, null and `in_support` are those of `application/json`, line by line.

    In: each line is an event; or an object with a number for each column of the flow; or an object with the main
    argument, and `context`, of one row. Other names, and blank lines, are passed over.
    """

    media_type = "application/x-ndjson"
    single = False
    _LARGE = BLOCK_BYTES  # the lines of a body of more bytes are read block by block

    @property
    def end(self) -> bytes:
        """Nothing stands after the rows."""
        return b""

    def decode(self, body: Body, main: str, watch: Watch = UNWATCHED) -> Mapping[str, Any]:
        """The lines, as `Columns`: only who knows the flow can tell an argument from a column of that name."""
        if len(body) > self._LARGE:
            rows = _Lines(body, main, watch)
            return {main: record_table(rows, ("body", main), "line") if rows.of_objects else ArrayLines(rows, main)}
        lines = json_lines(body)
        if not lines:
            raise _empty()
        if isinstance(lines[0], dict):
            return {main: record_table(lines, ("body", main), "line")}
        return {main: ArrayLines(lines, main)}

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


class _Lines(Items):
    """The values on the lines of a body; blank lines are passed over.

    Args:
        body: UTF-8.
        main: the argument that they are, for errors.
        watch: asked for each block.
    """

    def __init__(self, body: Body, main: str, watch: Watch) -> None:
        self._body = body
        self._main = main
        self._watch = watch

    @property
    def of_objects(self) -> bool:
        """Whether the first line is an object, by its first byte: a line may be long.

        Raises:
            MalformedBody: there is none.
        """
        at = len(codecs.BOM_UTF8) if self._body.startswith(codecs.BOM_UTF8) else 0
        while at < len(self._body):
            self._watch.check()
            begins = bytes(memoryview(self._body)[at : at + BLOCK_BYTES]).lstrip()[:1]
            if begins:
                return begins == b"{"
            at += BLOCK_BYTES
        raise _empty()

    def blocks(self) -> Iterator[Block]:
        """The values of the lines of each block that has some.

        Raises:
            MalformedBody: a line is not JSON; it is named.
            InvalidArgument: a line is too long for what is no array of numbers.
        """
        body = self._body
        at, before = 0, 0
        while at < len(body):
            self._watch.check()
            end = body.find(b"\n", min(at + BLOCK_BYTES, len(body)))
            end = len(body) if end < 0 else end
            if end - at > LONGEST_BYTES:
                start = body.rfind(b"\n", at, at + BLOCK_BYTES) + 1
                if start <= at:
                    yield self._long(at, end, before + 1)
                    at, before = end + 1, before + 1
                    continue
                end = start - 1  # the lines before the long one
            text = bytes(memoryview(body)[at:end])
            if text and not text.isspace() and (values := json_lines(text, before)):
                yield values
            before += text.count(b"\n") + 1
            at = end + 1

    def _long(self, at: int, end: int, line: int) -> Block:
        """The value on a line that is long: an array of many numbers."""
        from service.api.codecs.large_json import Parsers, long_item

        try:
            return long_item(self._body, (at, end), self._watch, Parsers(), ("body", self._main))
        except PushforwardError as error:
            raise error.extended(f" (line {line})") from error


def _empty() -> MalformedBody:
    return malformed("empty; a JSON value a line is expected")


def _texts(rows: np.ndarray[Any, Any]) -> list[bytes]:
    """The JSON text of each row."""
    text = orjson.dumps(np.ascontiguousarray(rows), option=orjson.OPT_SERIALIZE_NUMPY)
    if len(rows) == 0:
        return []
    opened, closed = b"[" * (rows.ndim - 1), b"]" * (rows.ndim - 1)
    inside = text[rows.ndim : len(text) - rows.ndim].split(closed + b"," + opened)
    return [opened + row + closed for row in inside]
