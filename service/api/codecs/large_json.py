"""Large JSON bodies: numbers go from text into arrays, without a Python object for each, some hundred kB at once.

A parser that reads 50 MB in one call keeps the event loop waiting for as long as it takes. A body whose first array is
long is therefore cut between rows, and each piece parsed as an array of its own: that all pieces are arrays of rows is
just what it takes for the whole to be one.

Whatever is not plain is left to `service.api.codecs.json`, which then tells the error: this module knows none.
"""

from __future__ import annotations

import re
from queue import Empty, SimpleQueue
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import orjson
import simdjson

from service.exchange import Body

__all__ = ["LargeJson"]

_PIECE: Final = 1 << 16
"""Bytes that are parsed at once."""

_BRACKET: Final = ord("[")

# An object whose first arguments are plain strings, numbers and the like, up to the first that is an array of arrays.
_HEAD: Final = re.compile(
    rb'[ \t\n\r]*\{[ \t\n\r]*(?:"[^"]*"[ \t\n\r]*:[ \t\n\r]*(?:"[^"]*"|[-+.\w]+)[ \t\n\r]*,[ \t\n\r]*)*'
    rb'"(?P<name>[^"]*)"[ \t\n\r]*:[ \t\n\r]*\[[ \t\n\r]*(?P<rows>\[+)'
)

Float64 = npt.NDArray[np.float64]


class LargeJson:
    """The reader. It keeps a parser for each thread that reads at once: to allocate one takes as long as to use it."""

    def __init__(self) -> None:
        self._parsers: SimpleQueue[simdjson.Parser] = SimpleQueue()

    def read(self, body: Body) -> dict[str, Any] | None:
        """The arguments in a JSON object, arrays of arrays of numbers as arrays; None where anything is not plain.

        Args:
            body: the text.

        Returns:
            The same names and numbers as `orjson.loads` gives, or None.
        """
        head = _HEAD.match(body)
        if head is None:
            return None
        parser = self._parser()
        try:
            return _arguments(parser, body, head["name"].decode(), head.start("rows"), len(head["rows"]))
        except (ValueError, TypeError, RuntimeError):  # how simdjson says that it is not JSON, or not of numbers
            return None
        finally:
            self._parsers.put(parser)

    def _parser(self) -> simdjson.Parser:
        try:
            return self._parsers.get_nowait()
        except Empty:
            return simdjson.Parser()


def _arguments(parser: simdjson.Parser, body: Body, name: str, start: int, depth: int) -> dict[str, Any] | None:
    between = re.compile(rb"\]{%d},[ \t\n\r]*(?=\[{%d})" % (depth, depth))
    whole = memoryview(body)
    pieces: list[Float64] = []
    at = start
    while len(body) - at > 2 * _PIECE and (gap := between.search(body, at + _PIECE)) is not None:
        text = b"".join((b"[", whole[at : gap.start() + depth], b"]"))
        if b'"' in text:  # the next name: the array ends in here
            break
        numbers = _numbers(cast("simdjson.Array", parser.parse(text)))
        if numbers is None or _count(text, _BRACKET) != _brackets(numbers.shape):
            return None
        pieces.append(numbers)
        at = gap.end()
    text = bytes(body if at == start else b"".join((whole[:start], whole[at:])))
    # Without escapes, brackets in the text of the small arguments are those in the text of the body.
    if b"\\" in text:
        return None
    if len(text) > 4 * _PIECE:
        parser = simdjson.Parser()  # one that has grown so far is not to be kept
    arguments = _object(parser.parse(text))
    if arguments is None or sum(map(_brackets_of, arguments.items())) != _count(text, _BRACKET):
        return None
    last = arguments.get(name)
    if not isinstance(last, np.ndarray):
        return None
    return {**arguments, name: np.concatenate([*pieces, last])}  # a ValueError where the pieces do not fit


def _object(value: Any) -> dict[str, Any] | None:  # noqa: ANN401
    names = list(value.keys())
    arguments: dict[str, Any] = {}
    for name in names:
        item = value[name]
        if isinstance(item, simdjson.Array):
            numbers = _numbers(item) if len(item) and isinstance(item[0], simdjson.Array) else None
            item = item.as_list() if numbers is None else numbers
        arguments[name] = item
    return arguments if len(arguments) == len(names) else None  # of two with one name another reader takes the last


def _numbers(value: simdjson.Array) -> Float64 | None:
    """The numbers of an array of arrays, if its lengths are those of a rectangle. A bracket more may hide in it."""
    shape = []
    item: Any = value
    while isinstance(item, simdjson.Array):
        shape.append(len(item))
        item = item[0] if len(item) else None
    if not _rectangular(value, shape):
        return None
    numbers = np.frombuffer(value.as_buffer(of_type="d"), np.float64) if item is not None else np.empty(0)
    return numbers.reshape(shape) if numbers.size == int(np.prod(shape)) else None


def _rectangular(value: simdjson.Array, shape: list[int]) -> bool:
    if len(value) != shape[0]:
        return False
    if len(shape) == 1:
        return True
    if len(shape) == 2:
        return set(map(len, value)) <= {shape[1]}  # type: ignore[arg-type]  # a number among them raises TypeError
    return all(_rectangular(item, shape[1:]) for item in value)  # type: ignore[arg-type]


def _brackets(shape: tuple[int, ...]) -> int:
    """How many arrays an array of this shape is made of, itself among them."""
    return sum(int(np.prod(shape[:axes])) for axes in range(len(shape)))


def _brackets_of(argument: tuple[str, Any]) -> int:
    name, value = argument
    if isinstance(value, np.ndarray):
        return name.count("[") + _brackets(value.shape)
    return name.count("[") + orjson.dumps(value).count(b"[")


def _count(text: Body, byte: int) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == byte))
