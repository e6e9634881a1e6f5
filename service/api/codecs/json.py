"""`application/json` (RFC 8259)."""

from __future__ import annotations

import codecs
import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from service.api.codecs.codec import Answer, Array, Form, malformed
from service.api.codecs.json_text import begins_as_utf16, not_an_object, parse_json
from service.exchange import UNWATCHED, Body, Watch
from service.plan import Floats

if TYPE_CHECKING:
    from service.api.codecs.large_json import Parsers

__all__ = ["Json", "between", "json_lines", "json_value", "numbers"]


class Json:
    """A number goes out as the shortest exact text of its precision, and comes back bit for bit.

    JSON has neither NaN nor infinity. A density of zero, log_prob = -inf, goes out as null; then, and only then,
    `in_support` says of each row whether its density is above zero.
    """

    media_type = "application/json"
    single = False
    _LARGE = 1 << 16  # a body of more bytes is read by `service.api.codecs.large_json`
    _PIECE = 1 << 14  # values written at once: between pieces other threads have their turn

    @functools.cached_property
    def _parsers(self) -> Parsers:
        from service.api.codecs.large_json import Parsers  # a library that is loaded by whoever needs it

        return Parsers()

    def decode(self, body: Body, main: str, watch: Watch = UNWATCHED) -> Mapping[str, Any]:  # noqa: ARG002  an object names them all
        """The object that `body` holds."""
        if len(body) > self._LARGE:
            from service.api.codecs.large_json import read_object

            return read_object(body, watch, self._parsers)
        if not body.strip():
            raise malformed("empty; a JSON object is expected")
        value = json_value(body)
        if not isinstance(value, dict):
            raise not_an_object(_KINDS.get(type(value), "a number"))
        return value

    def encode(self, answer: Answer, form: Form | None = None) -> bytes:  # noqa: ARG002  an object holds all arrays
        """The answer as an object, with `in_support` where a density is zero."""
        log_prob = answer.get("log_prob")
        if isinstance(log_prob, np.ndarray) and _holds_zero(log_prob):
            answer = {**answer, "in_support": log_prob != -math.inf}
        if all(map(self._small, answer.values())):
            return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        pieces: list[bytes] = []
        self._write(answer, pieces)
        return b"".join(pieces)

    def _small(self, value: Any) -> bool:  # noqa: ANN401  whatever an answer holds
        """Whether a value is soon written: a list of objects, which a trace is, never passes for one."""
        if isinstance(value, np.ndarray):
            return value.size <= self._PIECE
        return not (isinstance(value, list) and value and isinstance(value[0], dict))

    def _write(self, value: Any, pieces: list[bytes]) -> None:  # noqa: ANN401  whatever an answer holds
        """Append the text of a value; a large array in many pieces, of which only the whole is ever joined."""
        if isinstance(value, Mapping):
            for at, (name, item) in enumerate(value.items()):
                pieces += (b"," if at else b"{", orjson.dumps(name), b":")
                self._write(item, pieces)
            pieces.append(b"}")
            return
        if isinstance(value, list) and not self._small(value):
            for at, item in enumerate(value):
                pieces.append(b"," if at else b"[")
                self._write(item, pieces)
            pieces.append(b"]")
            return
        if not isinstance(value, np.ndarray) or value.size <= self._PIECE or value.ndim == 0:
            pieces.append(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
            return
        rows = self._PIECE * len(value) // value.size
        start = len(pieces)
        for at in range(0, len(value), max(1, rows)):
            pieces.append(b",")
            if rows == 0 and value.ndim > 1:  # a row is longer than a piece
                self._write(value[at], pieces)
            else:
                pieces.append(orjson.dumps(value[at : at + max(1, rows)], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
        pieces[start] = b"["
        pieces.append(b"]")


def _holds_zero(log_prob: Floats) -> bool:
    """Whether some density is zero. For a few rows a list is searched sooner than an array."""
    if log_prob.ndim == 1 and len(log_prob) <= _FEW:
        return -math.inf in log_prob.tolist()
    return bool((log_prob == -math.inf).any())


_FEW: Final = 16

_KINDS: Final = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


def numbers(values: Array) -> list[bytes]:
    """The text of each item of ``[N, ...]``, without the brackets that are around it; N at least 1.

    Args:
        values: all finite, as `Json.encode` writes them.

    Example:
        >>> numbers(np.array([[0.5, 1], [2, 3]], np.float32))
        [b'0.5,1.0', b'2.0,3.0']
    """
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    depth = values.ndim
    return text[depth:-depth].split(between(depth))


@functools.cache
def between(depth: int) -> bytes:
    """What stands between the texts of two items of an array with so many axes."""
    return b"]" * (depth - 1) + b"," + b"[" * (depth - 1)


def json_value(text: Body) -> Any:  # noqa: ANN401
    """Read one JSON value, a bare NaN and numbers beyond float64 too, so that an error can name their row.

    Args:
        text: UTF-8.

    Raises:
        MalformedBody: it is not JSON.
    """
    return _value(text)


def json_lines(body: Body, before: int = 0) -> list[Any]:
    """Read a JSON value a line, each as `json_value`; blank lines are passed over.

    Args:
        body: UTF-8.
        before: the number of lines before it.

    Raises:
        MalformedBody: a line is not JSON; it is named.
    """
    lines: list[Body] = [*body.split(b"\n")]
    return [_value(line, number) for number, line in enumerate(lines, before + 1) if line and not line.isspace()]


def _value(text: Body, line: int | None = None) -> Any:  # noqa: ANN401
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return _lenient_value(text, line)


def _lenient_value(text: Body, line: int | None) -> Any:  # noqa: ANN401
    """What is no JSON to one parser, and may be to another."""
    try:
        return parse_json(text)
    except orjson.JSONDecodeError as error:
        if text.startswith(codecs.BOM_UTF8):  # a parser may pass over it (RFC 8259, section 8.1)
            return _value(text[len(codecs.BOM_UTF8) :], line)
        if begins_as_utf16(text):
            raise malformed("not JSON in UTF-8: it begins as UTF-16 or UTF-32 does") from error
        where = f"line {line or error.lineno}, column {error.colno}"
        raise malformed(f"not JSON: {error.msg} ({where})") from error
