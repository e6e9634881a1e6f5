"""The rows of many requests: numbers of JSON and arrays -> one array, and which requests have none that is plain."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from service.api.native.arrays import NUMBERS
from service.api.native.rounding import ROUNDED_TWICE, round_numbers
from service.bundle.precision import FloatType
from service.plan import Floats

__all__ = ["Piece", "gather", "repeated", "rows_of"]

_LISTS: Final = {list}

_FEW: Final = 256
"""Up to so many numbers Python packs them sooner than NumPy reads them."""


Piece: TypeAlias = tuple[list[Any] | Floats, int]
"""The rows of one request: a list of what JSON holds, one row after the other, or an array ``[N, width]``; and N."""


def repeated(piece: Piece, times: int) -> Piece:
    """A single row, so many times."""
    numbers = piece[0]
    if isinstance(numbers, list):
        return numbers * times, times
    return np.repeat(numbers, times, axis=0), times


def rows_of(
    value: Any,  # noqa: ANN401  as a codec gave it
    event: tuple[int, ...],
    width: int,
    *,
    single: bool = True,
) -> Piece | None:
    """The numbers of a value that has the shape of rows; None for anything else.

    Args:
        value: nested lists, or an array.
        event: the shape of a row.
        width: the number of values in a row: each row may also be flat.
        single: whether the value may be a single row.
    """
    if type(value) is list:
        if len(value) == 1:
            row = value[0]
            if type(row) is list and len(row) == width and type(row[0]) is not list:
                return row, 1
        return _listed(value, event, width, single=single)
    if not isinstance(value, np.ndarray):
        return None
    shape = value.shape
    whole = single and shape in (event, (width,))
    if not whole and shape[1:] not in (event, (width,)):
        return None
    rows = value.reshape(-1, width)
    return (rows, len(rows)) if len(rows) else None


def _listed(value: list[Any], event: tuple[int, ...], width: int, *, single: bool) -> Piece | None:
    if not value:
        return None
    first = value[0]
    if type(first) is not list:
        return (value, 1) if single and len(value) == width else None
    count = len(value)
    if len(first) == width and type(first[0]) is not list:
        if set(map(type, value)) != _LISTS or set(map(len, value)) != {width}:
            return None
        return list(chain.from_iterable(value)), count
    return _nested(value, event, count) or (_nested([value], event, 1) if single else None)


def _nested(rows: list[Any], event: tuple[int, ...], count: int) -> Piece | None:
    """The numbers of rows that have the shape of an event each."""
    level = rows
    for size in event:
        if set(map(type, level)) != _LISTS or set(map(len, level)) != {size}:
            return None
        level = list(chain.from_iterable(level))
    return level, count


def gather(pieces: Sequence[Piece], width: int, dtype: FloatType) -> tuple[Floats, list[int]]:
    """All rows as one array.

    Args:
        pieces: at least one.
        width: of a row, in values.
        dtype: of the flow's precision.

    Returns:
        ``[rows, width]``; and the places of the pieces that hold what is no number, or none of that precision. Where
        there are such, the array is of no use.
    """
    if len(pieces) == 1 and (few := _packed(pieces[0], width, dtype)) is not None:
        return few, []
    lists = [numbers for numbers, _ in pieces if isinstance(numbers, list)]
    if len(lists) == len(pieces):
        numbers = list(chain.from_iterable(lists))
        if not NUMBERS.issuperset(map(type, numbers)):
            return np.empty((0, width), dtype), _not_numbers(pieces)
        rows = round_numbers(np.fromiter(numbers, np.float64, len(numbers)), dtype).reshape(-1, width)
    else:
        faulty = _not_numbers(pieces)
        if faulty:
            return np.empty((0, width), dtype), faulty
        rows = np.concatenate([_rounded(numbers, dtype).reshape(-1, width) for numbers, _ in pieces])
    finite = np.isfinite(rows)
    if finite.all():
        return rows, []
    whole: npt.NDArray[np.bool_] = np.asarray(finite.all(axis=1))
    ends = np.cumsum([count for _, count in pieces])
    ranges = zip(ends, pieces, strict=True)
    return rows, [at for at, (end, (_, count)) in enumerate(ranges) if not whole[end - count : end].all()]


def _rounded(numbers: list[Any] | Floats, dtype: FloatType) -> Floats:
    """Numbers in the precision of a flow, rounded as `service.api.native.arrays` rounds them."""
    if isinstance(numbers, list):
        return round_numbers(np.fromiter(numbers, np.float64, len(numbers)), dtype)
    read = np.float32 if np.can_cast(numbers.dtype, np.float32) else np.float64
    return round_numbers(numbers.astype(read, copy=False), dtype)


def _not_numbers(pieces: Sequence[Piece]) -> list[int]:
    return [
        at
        for at, (numbers, _) in enumerate(pieces)
        if isinstance(numbers, list) and not NUMBERS.issuperset(map(type, numbers))
    ]


def _packed(piece: Piece, width: int, dtype: FloatType) -> Floats | None:
    """A few numbers, at the least cost; None where they are many, or not as they should be."""
    numbers = piece[0]
    if not isinstance(numbers, list) or len(numbers) > _FEW or not NUMBERS.issuperset(map(type, numbers)):
        return None
    try:
        packed = _packer(len(numbers), dtype.char).pack(*numbers)
    except (OverflowError, struct.error):  # a number is beyond the range
        return None
    if not math.isfinite(sum(numbers)):
        return None
    if dtype.char == "f" and (ROUNDED_TWICE[0] in packed or ROUNDED_TWICE[1] in packed):
        return None
    rows: Floats = np.frombuffer(packed, dtype)
    rows.shape = (-1, width)
    return rows


@functools.lru_cache(maxsize=64)
def _packer(count: int, char: str) -> struct.Struct:
    """float64 values to native float32 or float64, each rounded to the nearest, as NumPy does."""
    return struct.Struct(f"={count}{char}")
