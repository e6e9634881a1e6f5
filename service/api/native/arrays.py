"""Nested lists of numbers -> arrays in a flow's shape and precision. Nothing passes for a number that is none.

NumPy alone would read "1.5" and true as numbers, and null as NaN; each of them is an error here, and named.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.api.codecs.items import Block, Items, block_items
from service.api.native.rounding import ROUNDED_TWICE, round_numbers
from service.bundle.precision import DTYPES, FloatType
from service.errors import InvalidArgument, MalformedBody, NotFinite, PushforwardError, Reason, WrongShape
from service.guard import WorkLimit
from service.plan import Floats

__all__ = ["NUMBERS", "context_rows", "event_rows", "item_array", "plain_rows", "walks_of"]

Loc = tuple[str | int, ...]
Shape = tuple[int, ...]

_BLOCK: Final = 1024
"""Items of a list that are read in one go."""

_FEW: Final = 16
"""Up to so many rows are packed one by one."""

_MOST_AXES: Final = 8

NUMBERS: Final = frozenset({int, float})
"""The types of what JSON calls a number; a boolean has another."""

_RAGGED: Final = "the rows are ragged: "
_NAMES: Final = {str: "a string", bool: "a boolean", type(None): "null", dict: "an object", list: "an array"}


def event_rows(
    value: Any,  # noqa: ANN401  what JSON holds
    event_shape: Sequence[int],
    loc: Loc,
    *,
    single: bool = True,
    dtype: FloatType = DTYPES["float32"],
    most: WorkLimit | None = None,
) -> Floats:
    """Read rows of events.

    Args:
        value: nested lists as JSON gives them, or an array, or `Items`: ``[N, *event]``, a single ``[*event]``, or
            either with each event flat, ``[N, D]`` and ``[D]``.
        event_shape: of the flow.
        loc: where the value stands, for errors.
        single: whether the whole may be one event; not of a table, whose lines are never joined into one.
        dtype: of the flow's precision.
        most: held against items while they are read.

    Returns:
        ``[N, *event]`` of that dtype, N at least 1, all finite.

    Raises:
        OverWorkBudget: of items, there are too many.
        MalformedBody: ragged; the row is named, and where in it.
        InvalidArgument: something in it is no number.
        WrongShape: of another shape, or without a row.
        NotFinite: a number is infinite or beyond the range of the dtype; row and column are named.
    """
    event = tuple(event_shape)
    if (plain := plain_rows(value, event, dtype)) is not None:
        return plain
    width = math.prod(event)
    inner = [event, (width,), *([()] if not single and width == 1 else [])]
    whole = [event, (width,)] if single else []
    either = [f"[N, {_listed(event)}]", *([f"[{_listed(event)}]"] if single else [])]
    either += [] if event == (width,) else [f"[N, {width}]"]
    if isinstance(value, Items):
        reader = _ItemReader(loc, (1, len(event)) if single else (), dtype, " or ".join(either), most)
        return reader.read(value, inner, whole, width).reshape(-1, *event)
    numbers, shape = _numbers(value, loc, (1, len(event)) if single else ())
    if shape[1:] not in inner and shape not in whole:
        raise _wrong_shape(loc, f"expected shape {' or '.join(either)}, and found [{_listed(shape)}]")
    if numbers.size == 0:
        raise _wrong_shape(loc, "expected at least one row, and found none")
    return _finite(numbers, width, loc, dtype).reshape(-1, *event)


def plain_rows(
    value: Any,  # noqa: ANN401  what JSON holds
    event: tuple[int, ...],
    dtype: FloatType = DTYPES["float32"],
) -> Floats | None:
    """A few rows of a table that are as they should be, read at the least cost; None for anything else.

    Args:
        value: as for `event_rows`.
        event: the shape of a row.
        dtype: of the flow's precision.
    """
    if type(value) is not list or len(event) != 1 or not 0 < len(value) <= _FEW:
        return None
    width = event[0]
    for row in value:
        if type(row) is not list or len(row) != width or not NUMBERS.issuperset(map(type, row)):
            return None
    try:
        packed = b"".join([_packer(width, dtype.char).pack(*row) for row in value])
    except (OverflowError, struct.error):  # a number is beyond the range: told with its row and column
        return None
    if not all(map(math.isfinite, map(sum, value))):  # what float32 holds does not overflow a sum
        return None
    if dtype.char == "f" and any(each in packed for each in ROUNDED_TWICE):
        return None
    rows: Floats = np.frombuffer(packed, dtype).reshape(len(value), width)
    return rows


@functools.lru_cache(maxsize=64)
def _packer(width: int, char: str) -> struct.Struct:
    """float64 values to native float32 or float64, each rounded to the nearest, as NumPy does."""
    return struct.Struct(f"={width}{char}")


def walks_of(value: Any, event_shape: Sequence[int]) -> tuple[Any, int | None]:  # noqa: ANN401  what JSON holds
    """Tell several walks from one.

    Args:
        value: nested lists or an array: points ``[K, *event]``, or ``[B, K, *event]``, an event flat in either.
        event_shape: of the flow.

    Returns:
        The points of all walks, one after the other, for `event_rows`; and how many walks they are, None for one.

    Raises:
        MalformedBody: the walks have different numbers of points.

    Example:
        >>> walks_of([[[0, 1], [2, 3]], [[4, 5], [6, 7]]], (2,))
        ([[0, 1], [2, 3], [4, 5], [6, 7]], 2)
    """
    shape: list[int] = []
    level = value
    while type(level) is list and level and len(shape) < _MOST_AXES:
        shape.append(len(level))
        level = level[0]
    if isinstance(value, np.ndarray):
        shape = list(value.shape)
    rank = len(event_shape)
    flat = len(shape) == 3 and rank > 2 and shape != list(event_shape)
    if len(shape) != rank + 2 and not flat:
        return value, None
    if isinstance(value, np.ndarray):
        return value.reshape(shape[0] * shape[1], *shape[2:]), shape[0]
    for at, walk in enumerate(value):
        if type(walk) is not list or len(walk) != shape[1]:
            points = f"{len(walk)} points" if type(walk) is list else "no points"
            raise _error(MalformedBody, ("body", "points"), f"walk {at} has {points}, and the first one has {shape[1]}")
    return list(chain.from_iterable(value)), shape[0]


def context_rows(
    value: Any,  # noqa: ANN401  what JSON holds
    width: int,
    loc: Loc,
    *,
    single: bool = True,
    dtype: FloatType = DTYPES["float32"],
) -> Floats:
    """Read conditioning rows.

    Args:
        value: ``[N, C]`` or ``[C]``.
        width: C; 0 for a flow without context.
        loc: where the value stands, for errors.
        single: whether the whole may be one row, as for `event_rows`.
        dtype: of the flow's precision.

    Returns:
        That dtype, of the same number of axes; ``[N, C]`` where it may not be one row.

    Raises:
        WrongShape, MalformedBody, InvalidArgument, NotFinite: as `event_rows`.
    """
    if width == 0:
        raise _wrong_shape(loc, "this flow takes no context")
    either = f"[N, {width}] or [{width}]" if single else f"[N, {width}]"
    if isinstance(value, Items):
        inner = [(width,), *([()] if not single and width == 1 else [])]
        reader = _ItemReader(loc, (1,) if single else (), dtype, either, None)
        read = reader.read(value, inner, [(width,)] if single else [], width)
        return read if reader.whole else read.reshape(-1, width)
    numbers, shape = _numbers(value, loc, (1,) if single else ())
    if not single and width == 1 and len(shape) == 1:
        shape = (*shape, 1)
    if len(shape) not in ((1, 2) if single else (2,)) or shape[-1] != width:
        raise _wrong_shape(loc, f"expected shape {either}, and found [{_listed(shape)}]")
    if numbers.size == 0:
        raise _wrong_shape(loc, "expected at least one row, and found none")
    return _finite(numbers, width, loc, dtype).reshape(shape)


def item_array(value: Items, loc: Loc, most: WorkLimit, dtype: FloatType) -> Floats:
    """Read items of any one shape.

    Args:
        value: of numbers, or of nested lists of them.
        loc: where they stand, for errors.
        most: held against them while they are read, as rows of its width.
        dtype: that a number must be in the range of.

    Raises:
        OverWorkBudget: there are too many.
        MalformedBody, InvalidArgument, NotFinite: as `event_rows`.
    """
    return _ItemReader(loc, (), dtype, "", most).read(value, None, [], most.width)


class _ItemReader:
    """The way of items into one array, block by block, up to the first that cannot be.

    Args:
        loc: where they stand, for errors.
        single: the numbers of axes that one event may have.
        dtype: of the array.
        expected: the shapes that it may have, for errors.
        most: held against what has been read.
    """

    def __init__(
        self, loc: Loc, single: tuple[int, ...], dtype: FloatType, expected: str, most: WorkLimit | None
    ) -> None:
        self._loc = loc
        self._single = single
        self._dtype = dtype
        self._expected = expected
        self._most = most
        self.whole = False
        """Whether what has been read is one row."""

    def read(self, items: Items, inner: list[Shape] | None, whole: list[Shape], width: int) -> Floats:
        """The array.

        Args:
            items: numbers, or nested lists of them.
            inner: the shapes that an item may have which is a row; None for any.
            whole: the shapes that all items may have together.
            width: of a row, in values.
        """
        pieces: list[Floats] = []
        first: Shape = ()
        count = 0
        for block in items.blocks():
            numbers, shape = self._block(block, items, first, count)
            if not pieces:
                first = shape[1:]
                self.whole = inner is not None and first not in inner
                if self.whole and first not in [each[1:] for each in whole]:
                    raise self._wrong("N", first)
            pieces.append(_finite(numbers, width, self._loc, self._dtype, count * math.prod(first)))
            count += shape[0]
            if self.whole and all(count > each[0] for each in whole if each[1:] == first):
                raise self._wrong("N", first)
            if self._most is not None:
                self._most.check(count * math.prod(first) // width)
        if not count or not math.prod(first):
            raise _wrong_shape(self._loc, "expected at least one row, and found none")
        if self.whole and (count, *first) not in whole:
            raise self._wrong(count, first)
        return np.concatenate(pieces).reshape(count, *first)

    def _block(self, block: Block, items: Items, first: Shape, before: int) -> tuple[npt.NDArray[np.floating], Shape]:
        """The numbers of a block, and its shape, which is that of the first item but for the number of items."""
        if isinstance(block, np.ndarray) and (not before or block.shape[1:] == first):
            return block.ravel(), block.shape
        listed = block_items(block)
        if not before:
            return _block(listed, 0, self._loc, self._single)
        begins = items.first.tolist() if isinstance(items.first, np.ndarray) else items.first
        numbers, (length, *inner) = _block([begins, *listed], before - 1, self._loc, self._single)
        return numbers[math.prod(inner) :], (length - 1, *inner)

    def _wrong(self, count: int | str, first: Shape) -> PushforwardError:
        found = ", ".join(map(str, (count, *first)))
        return _wrong_shape(self._loc, f"expected shape {self._expected}, and found [{found}]")


def _numbers(
    value: Any,  # noqa: ANN401  what JSON holds
    loc: Loc,
    single: tuple[int, ...],
) -> tuple[npt.NDArray[np.floating], tuple[int, ...]]:
    """All numbers in their order, and the shape they had. `single` has the numbers of axes that one event may have.

    A long list is read block by block: a single call over millions of values would keep every other thread, and so
    the event loop, waiting for as long as it takes.
    """
    if isinstance(value, np.ndarray):
        # A dtype that float32 holds whole needs no detour by float64, and no copy.
        dtype: type[np.floating] = np.float32 if np.can_cast(value.dtype, np.float32) else np.float64
        return value.astype(dtype, copy=False).ravel(), value.shape
    if not isinstance(value, list):
        raise _error(InvalidArgument, loc, f"expected an array of numbers, and found {_name(value)}")
    numbers, shape = _block(value[:_BLOCK], 0, loc, single)
    pieces = [numbers]
    for at in range(_BLOCK, len(value), _BLOCK):
        # The very first item goes before each further block, so that all are held against the same one.
        numbers, (_, *inner) = _block([value[0], *value[at : at + _BLOCK]], at - 1, loc, single)
        pieces.append(numbers[math.prod(inner) :])
    return np.concatenate(pieces), (len(value), *shape[1:])


def _block(
    rows: list[Any], offset: int, loc: Loc, single: tuple[int, ...]
) -> tuple[npt.NDArray[np.float64], tuple[int, ...]]:
    """Numbers and shape of a list whose first item stands at `offset` in the whole."""
    level, shape = rows, [len(rows)]
    while (kinds := set(map(type, level))) == {list} and len(lengths := set(map(len, level))) == 1:
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    if kinds <= NUMBERS:
        return np.fromiter(level, np.float64, len(level)), tuple(shape)
    # The first row that is wrong is the one to name: each is read again, by itself or beside the very first.
    if len(rows) > 1:
        _block(rows[:1], offset, loc, single)
    if len(rows) > 2:
        for at, row in enumerate(rows[1:]):
            _block([rows[0], row], offset + at, loc, single)
    tell = _of_another_length if kinds == {list} else _of_another_kind
    raise tell(level, shape, _Place(rows, offset, single), loc)


class _Place:
    """The place of an item, for errors: its row, and its index in it.

    Args:
        rows: nested lists, rows of events or a single event: how deep they go tells which.
        offset: where the first of them stands in the whole.
        single: the numbers of axes that a single event may have.
    """

    def __init__(self, rows: list[Any], offset: int, single: tuple[int, ...]) -> None:
        depth = 0
        level: Any = rows
        while type(level) is list:
            depth, level = depth + 1, level[0] if level else None
        self._single = depth in single
        self._offset = offset

    def of(self, index: int, shape: Sequence[int]) -> tuple[int, int, str]:
        """The row, the flat index in it, and that one written out, of a flat index in a level of this shape."""
        inner = math.prod(shape[1:])
        index += self._offset * inner
        row, at = (0, index) if self._single else divmod(index, inner)
        axes = (self._offset + shape[0], *shape[1:]) if self._single else tuple(shape[1:])
        return row, at, "".join(f"[{i}]" for i in np.unravel_index(at, axes))


def _of_another_length(level: list[list[Any]], shape: list[int], place: _Place, loc: Loc) -> PushforwardError:
    """Name the first list whose length is not that of the first one."""
    expected = len(level[0])
    wrong = next(i for i, item in enumerate(level) if len(item) != expected)
    row, _, inside = place.of(wrong, shape)
    reason = f"{_subject(inside)} has length {len(level[wrong])}, and the first one has {expected}"
    return _error(MalformedBody, loc, reason, row, prefix=_RAGGED)


def _of_another_kind(level: list[Any], shape: list[int], place: _Place, loc: Loc) -> PushforwardError:
    """Name the first item that is no number, or no array beside arrays; one for the other is ragged."""
    arrays = type(level[0]) is list
    kinds, others = ({list}, NUMBERS) if arrays else (NUMBERS, {list})
    wrong = next(i for i, item in enumerate(level) if type(item) not in kinds)
    row, at, inside = place.of(wrong, shape)
    expected, column = ("an array", None) if arrays else ("a number", at)
    found = _name(level[wrong])
    if type(level[wrong]) in others:
        reason = f"{_subject(inside)} is {found}, and the first one is {expected}"
        return _error(MalformedBody, loc, reason, row, column, prefix=_RAGGED)
    where = f" as its item {inside}" if inside and arrays else ""
    return _error(InvalidArgument, loc, f"expected {expected}{where}, and found {found}", row, column)


def _subject(inside: str) -> str:
    return f"its item {inside}" if inside else "row"


def _finite(numbers: npt.NDArray[np.floating], width: int, loc: Loc, dtype: FloatType, before: int = 0) -> Floats:
    """Numbers in a flow's precision. `before` is how many numbers of the whole stand before them."""
    values = round_numbers(numbers, dtype)
    finite = np.isfinite(values)
    if finite.all():
        return values
    reasons = []
    for index in np.flatnonzero(~finite)[: PushforwardError.MAX_REASONS].tolist():
        row, column = divmod(before + index, width)
        what = "is not finite" if not math.isfinite(numbers[index]) else f"is beyond the range of {dtype}"
        reasons.append(Reason(loc, f"{numbers[index]:g} {what}", row, column))
    first = reasons[0]
    raise NotFinite(f"{loc[-1]}, row {first.row}, column {first.column}: {first.reason}", tuple(reasons))


def _wrong_shape(loc: Loc, reason: str) -> PushforwardError:
    return _error(WrongShape, loc, reason)


def _error(
    kind: type[PushforwardError],
    loc: Loc,
    reason: str,
    row: int | None = None,
    column: int | None = None,
    prefix: str = "",
) -> PushforwardError:
    where = "".join(f", {name} {at}" for name, at in (("row", row), ("column", column)) if at is not None)
    return kind(f"{prefix}{loc[-1]}{where}: {reason}", (Reason(loc, reason, row, column),))


def _name(value: object) -> str:
    return _NAMES.get(type(value), "a number")


def _listed(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
