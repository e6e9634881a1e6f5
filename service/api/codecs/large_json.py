"""Large JSON bodies: the arguments of an object, and of its long arrays only where they begin and end.

A parser that reads 50 MB in one call keeps the event loop waiting for as long as it takes, and makes some gigabytes of
what is no number. Here a body is walked from member to member. A long array becomes `JsonItems`: its text is cut
between items, and each piece is parsed as an array of its own when somebody wants it. That all pieces are arrays is
just what it takes for the whole to be one. Pieces of numbers go into arrays without a Python object for each.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Iterator
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import orjson
import simdjson

from service.api.codecs.codec import MOST_COLUMNS, malformed
from service.api.codecs.items import BLOCK_BYTES, LONGEST_BYTES, Block, Items
from service.api.codecs.json_text import begins_as_utf16, not_an_object, parse_json
from service.errors import InvalidArgument, MalformedBody, Reason
from service.exchange import Body, Watch

__all__ = ["JsonItems", "Parsers", "long_item", "read_object"]

_SHORT_BYTES: Final = 1 << 18
"""Of all arrays that are short, and read at once, so many bytes are: what is made of them is a few MB."""

_LEAST_BYTES: Final = 12
"""Bytes of a long item for each array and each object in it."""

_LONGEST_TEXT: Final = 1 << 16
"""Bytes of a name, or of a text or a number that is an argument."""

_SCANNED: Final = 1 << 18
"""Bytes in which brackets are counted at once."""

_DEEPEST: Final = 64
"""Arrays in arrays; no argument has more than some axes."""

_SPACE: Final = ord(" ")
_BRACKET: Final = ord("[")
_QUOTE: Final = ord('"')
_COMMA: Final = ord(",")

_STEPS: Final = np.zeros(256, np.int8)
_STEPS[[ord("["), ord("{")]] = 1
_STEPS[[ord("]"), ord("}")]] = -1

_GAP: Final = re.compile(rb"[ \t\n\r]*")
_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SCALAR: Final = re.compile(rb"[-+.\w]+")
_AFTER: Final = re.compile(rb"[ \t\n\r]*(?:,[ \t\n\r]*)?")
_OPENED: Final = re.compile(rb"[ \t\n\r]*((?:\[[ \t\n\r]*){0,%d})" % (_DEEPEST + 1))

Float64 = npt.NDArray[np.float64]


def read_object(body: Body, watch: Watch, parsers: Parsers) -> dict[str, Any]:
    """The arguments in a JSON object: what `orjson.loads` gives, but for the arrays that are long.

    Args:
        body: the text.
        watch: asked for each member.
        parsers: of numbers.

    Raises:
        MalformedBody: it is not JSON, or has too many names.
        InvalidArgument: it is no object.
    """
    walk = _Walk(body, watch, parsers)
    at = walk.skip(len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0)
    if at == len(body):
        raise malformed("empty; a JSON object is expected")
    if body[at : at + 1] != b"{":
        kind = {b"[": "an array", b'"': "a string"}.get(bytes(body[at : at + 1]))
        raise walk.unexpected(at) if kind is None else not_an_object(kind)
    arguments, at = walk.members(at)
    at = walk.skip(at)
    if at != len(body):
        raise walk.unexpected(at)
    return arguments


class _Walk:
    """The way through the members of an object."""

    def __init__(self, body: Body, watch: Watch, parsers: Parsers) -> None:
        self._body = body
        self._watch = watch
        self._parsers = parsers
        self._members = 0
        self._short_bytes = 0

    def skip(self, at: int) -> int:
        """The next place without a space."""
        if at < len(self._body) and self._body[at] > _SPACE:
            return at  # mostly, and far sooner than by a look for spaces
        while (end := cast("re.Match[bytes]", _GAP.match(self._body, at, at + _SCANNED)).end()) == at + _SCANNED:
            self._watch.check()
            at = end
        return end

    def unexpected(self, at: int) -> MalformedBody:
        """The error for what stands at a place."""
        if begins_as_utf16(self._body):
            return malformed("not JSON in UTF-8: it begins as UTF-16 or UTF-32 does")
        what = "unexpected character" if at < len(self._body) else "unexpected end of data"
        return _misplaced(self._body, at, what)

    def members(self, at: int, depth: int = 0) -> tuple[dict[str, Any], int]:
        """The members of the object that begins at a place, and the place after it."""
        body = self._body
        found: dict[str, Any] = {}
        at = self.skip(at + 1)
        if body[at : at + 1] == b"}":
            return found, at + 1
        while True:
            self._watch.check()
            self._members += 1
            if self._members > MOST_COLUMNS:
                raise malformed(f"an object of more than {MOST_COLUMNS} names")
            name, at = self._text(at)
            at = self.skip(at)
            if body[at : at + 1] != b":":
                raise self.unexpected(at)
            value, at = self._value(name, self.skip(at + 1), depth)
            hidden = found.get(name)
            if isinstance(hidden, JsonItems):  # the last of a name counts, and the others are to be JSON, too
                for _ in hidden.blocks():
                    pass
            found[name] = value
            at = self.skip(at)
            after, at = body[at : at + 1], at + 1
            if after == b"}":
                return found, at
            if after != b",":
                raise self.unexpected(at - 1)
            at = self.skip(at)

    def _text(self, at: int) -> tuple[str, int]:
        found = _TEXT.match(self._body, at, at + _LONGEST_TEXT)
        if found is None:
            if self._body[at : at + 1] == b'"' and len(self._body) > at + _LONGEST_TEXT:
                raise _misplaced(self._body, at, f"a text of more than {_LONGEST_TEXT} bytes, or without an end")
            raise self.unexpected(at if self._body[at : at + 1] != b'"' else len(self._body))
        return cast("str", self._parsed(at, found.end())), found.end()

    def _value(self, name: str, at: int, depth: int) -> tuple[Any, int]:
        match self._body[at : at + 1]:
            case b'"':
                return self._text(at)
            case b"[":
                return self._array(name, at)
            case b"{" if depth < _DEEPEST:
                return self.members(at, depth + 1)
        found = _SCALAR.match(self._body, at, at + _LONGEST_TEXT)
        if found is None:
            raise self.unexpected(at)
        return self._parsed(at, found.end()), found.end()

    def _parsed(self, at: int, end: int) -> Any:  # noqa: ANN401  what JSON holds
        return _parsed(self._body, at, end, b"", b"")

    def _array(self, name: str, at: int) -> tuple[Any, int]:
        """The array that begins at a place, and the place after it. It is read where it is short."""
        cuts: list[int] | None = None
        end = self._end_of_numbers(at)
        if end is None:
            cuts, end = _cuts(self._body, at, self._watch)
        size = end - at
        if size <= BLOCK_BYTES and self._short_bytes + size <= _SHORT_BYTES:
            self._short_bytes += size
            return self._parsed(at, end), end
        return JsonItems(self._body, (at + 1, end - 1), self._watch, self._parsers, ("body", name), cuts), end

    def _end_of_numbers(self, at: int) -> int | None:
        """The place after an array of numbers, or of arrays of them; None where anything else may be in it.

        The array ends before the next name, or before the end of the object. What it holds is not looked at.
        """
        body = self._body
        quote = body.find(b'"', at)
        stop = len(body) if quote < 0 else quote
        brace = body.find(b"}", at, stop)
        stop = stop if brace < 0 else brace
        end = body.rfind(b"]", at, stop) + 1
        plain = end > 0 and body.find(b"{", at, end) < 0 and _AFTER.fullmatch(body, end, stop) is not None
        return end if plain else None


def _cuts(body: Body, at: int, watch: Watch, *, inside: bool = False) -> tuple[list[int], int]:
    """The places between items of an array where its text may be cut, one for some block of text, and its end.

    Args:
        body: the text.
        at: where the array begins; or one of its items.
        watch: asked every now and then.
        inside: whether an item begins there. Only the first cut is looked for then.

    Raises:
        MalformedBody: it has no end, or goes too deep.
    """
    depth, quoted, last, cuts = int(inside), False, at, list[int]()
    while at < len(body):
        watch.check()
        text = bytes(memoryview(body)[at : at + _SCANNED])
        if (len(text) - len(text.rstrip(b"\\"))) % 2:  # what it stands for is in the next block
            text = text[:-1] or text
        if b"\\" in text:
            text = text.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
        marks = np.frombuffer(text, np.uint8)
        within = np.logical_xor.accumulate(marks == _QUOTE)
        if quoted:
            within = ~within
        steps = np.where(within, np.int8(0), _STEPS[marks])
        depths = np.cumsum(steps, dtype=np.int32)
        depths += depth
        if int(depths.max()) > _DEEPEST:
            raise malformed(f"nested too deep: arrays and objects of more than {_DEEPEST} levels cannot be read")
        ends = np.flatnonzero(depths == 0)[:1]
        size = int(ends[0]) if ends.size else len(text)
        commas = np.flatnonzero((marks[:size] == _COMMA) & (depths[:size] == 1) & ~within[:size]) + at
        place = 0
        while (place := int(np.searchsorted(commas, last + BLOCK_BYTES, "left"))) < len(commas):
            last = int(commas[place])
            cuts.append(last)
            if inside:
                return cuts, last
        at += len(text)
        if ends.size:
            return cuts, at - len(text) + size + 1
        depth, quoted = int(depths[-1]), bool(within[-1])
    raise _misplaced(body, len(body), "unexpected end of data")


class JsonItems(Items):
    """The items of a long array.

    Args:
        body: the text that holds it.
        extent: where its items begin, and where they end.
        watch: asked for each block.
        parsers: of numbers.
        loc: where it stands, for errors.
        cuts: places between items, where they are known.
    """

    def __init__(
        self,
        body: Body,
        extent: tuple[int, int],
        watch: Watch,
        parsers: Parsers,
        loc: tuple[str, ...],
        cuts: list[int] | None = None,
    ) -> None:
        self._parsers = parsers
        self._body = body
        self._start, self._end = extent
        self._watch = watch
        self._loc = loc
        self._cuts = cuts

    def blocks(self) -> Iterator[Block]:
        """The items, block by block: arrays of numbers where all items of a block have one shape."""
        if cast("re.Match[bytes]", _GAP.match(self._body, self._start, self._end)).end() == self._end:
            return
        if self._cuts is not None:
            places = [self._start - 1, *self._cuts, self._end]
            for before, after in pairwise(places):
                self._watch.check()
                yield self._listed(before + 1, after)
            return
        yield from self._numbers()

    @property
    def of_objects(self) -> bool:
        """Whether the first item is an object, by its first byte: an item may be long."""
        start = cast("re.Match[bytes]", _GAP.match(self._body, self._start, self._end)).end()
        return self._body[start : start + 1] == b"{"

    def _numbers(self) -> Iterator[Block]:
        """The blocks of an array in which there is no text and no object."""
        body, end = self._body, self._end
        opened = cast("re.Match[bytes]", _OPENED.match(body, self._start, end))[1].count(b"[")
        if opened > _DEEPEST:
            raise malformed(f"nested too deep: arrays of more than {_DEEPEST} levels cannot be read")
        between = _between(opened)
        at = self._start
        while at <= end:
            self._watch.check()
            gap = between.search(body, at + BLOCK_BYTES, min(end, at + LONGEST_BYTES))
            cut = end if gap is None else gap.end()
            numbers = self._parsers.numbers(body, at, cut) if cut - at <= LONGEST_BYTES else None
            if numbers is not None and len(numbers):
                yield numbers
            else:  # perhaps the cut is within an item
                cut = self._cut(at)
                if cut - at > LONGEST_BYTES + BLOCK_BYTES:
                    yield long_item(body, (at, cut), self._watch, self._parsers, self._loc)
                else:
                    yield self._listed(at, cut)
            at = cut + 1

    def _cut(self, at: int) -> int:
        """The place of the next comma between items, for an item that begins at a place, a block further on."""
        try:
            cuts, _ = _cuts(self._body, at, self._watch, inside=True)
        except MalformedBody:
            if at + LONGEST_BYTES < self._end:
                raise
            return self._end
        return min(cuts[0], self._end) if cuts else self._end

    def _listed(self, at: int, end: int) -> list[Any]:
        size = end - at
        if size > 4 * BLOCK_BYTES:  # one item, then, and no text of which each byte makes an object may be so long
            opened = self._body.count(b"[", at, end) + self._body.count(b"{", at, end)
            if size > LONGEST_BYTES + BLOCK_BYTES or opened * _LEAST_BYTES > size:
                raise _too_long(self._loc)
        items: list[Any] = _parsed(self._body, at, end, b"[", b"]")
        if not items:
            raise _misplaced(self._body, end, "unexpected character")
        return items


def long_item(body: Body, extent: tuple[int, int], watch: Watch, parsers: Parsers, loc: tuple[str, ...]) -> Float64:
    """One item that is long: a row, or a picture, of many numbers.

    Args:
        body: the text that holds it.
        extent: where it begins, and where it ends.
        watch: asked for each block.
        parsers: of numbers.
        loc: where it stands, for errors.

    Returns:
        ``[1, ...]``.

    Raises:
        InvalidArgument: it is no array of numbers, or it is ragged.
    """
    start, end = extent
    start = cast("re.Match[bytes]", _GAP.match(body, start, end)).end()
    end = start + len(bytes(memoryview(body)[start:end]).rstrip(b" \t\n\r"))
    if body[start : start + 1] != b"[" or body[end - 1 : end] != b"]" or body.find(b"{", start, end) >= 0:
        raise _too_long(loc)
    blocks = list[Float64]()
    for block in JsonItems(body, (start + 1, end - 1), watch, parsers, loc).blocks():
        if not isinstance(block, np.ndarray) or block.shape[1:] != (blocks or [block])[0].shape[1:]:
            raise _too_long(loc)
        blocks.append(block)
    return np.concatenate(blocks)[np.newaxis] if blocks else np.empty((1, 0))


def _too_long(loc: tuple[str, ...]) -> InvalidArgument:
    reason = (
        f"an item of more than {4 * BLOCK_BYTES} bytes is neither an array of numbers of one shape nor a plain record"
    )
    return InvalidArgument(f"{loc[-1]}: {reason}", (Reason(loc, reason),))


@functools.lru_cache(maxsize=_DEEPEST + 1)
def _between(depth: int) -> re.Pattern[bytes]:
    """What stands between two items of so many brackets, up to the comma."""
    if depth == 0:
        return re.compile(rb"(?=,)")
    closed = rb"\]" + rb"[ \t\n\r]*\]" * (depth - 1)
    opened = rb"\[" + rb"[ \t\n\r]*\[" * (depth - 1)
    return re.compile(closed + rb"[ \t\n\r]*(?=,[ \t\n\r]*" + opened + rb")")


def _parsed(body: Body, at: int, end: int, before: bytes, after: bytes) -> Any:  # noqa: ANN401  what JSON holds
    """A piece of JSON text, with something before it and after it."""
    text = b"".join((before, memoryview(body)[at:end], after))
    try:
        return parse_json(text)
    except orjson.JSONDecodeError as error:
        raise _misplaced(body, at + error.pos - len(before), error.msg) from error


def _misplaced(body: Body, at: int, what: str) -> MalformedBody:
    """The error for what is wrong at a place."""
    line = body.count(b"\n", 0, at) + 1
    column = at - body.rfind(b"\n", 0, at)
    return malformed(f"not JSON: {what} (line {line}, column {column})")


class Parsers:
    """Parsers for pieces that hold nothing but numbers, one for each thread that reads: to allocate one takes time."""

    def __init__(self) -> None:
        self._free: SimpleQueue[simdjson.Parser] = SimpleQueue()

    def numbers(self, body: Body, at: int, end: int) -> Float64 | None:
        """The items of a piece as an array; None where they are not all numbers, or arrays of one shape."""
        text = b"".join((b"[", memoryview(body)[at:end], b"]"))
        try:
            parser = self._free.get_nowait()
        except Empty:
            parser = simdjson.Parser()
        try:
            numbers = _array_of(cast("simdjson.Array", parser.parse(text)))
        except (ValueError, TypeError, RuntimeError):  # how simdjson says that it is not JSON, or not of numbers
            return None
        finally:
            if len(text) <= 4 * BLOCK_BYTES:  # one that has grown further is not to be kept
                self._free.put(parser)
        return None if numbers is None or _count(text, _BRACKET) != _brackets(numbers.shape) else numbers


def _array_of(value: simdjson.Array) -> Float64 | None:
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


def _count(text: Body, byte: int) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == byte))
