"""NumPy arrays to JSON numbers and back, without the loss of a bit; a NaN or an infinity is refused.

Imports neither httpx nor the server.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from pushforward.client.errors import InvalidInput, UnexpectedAnswer
from service.errors import Reason

__all__ = [
    "Float32Array",
    "dump_numbers",
    "read_array",
    "read_numbers",
    "restore_float32",
    "to_float32",
    "widen_tie",
]

Float32Array: TypeAlias = npt.NDArray[np.float32]
"""An array of float32, as the client takes and gives."""

_TIE_BITS: Final = np.uint32(0x15AE43FD)
"""The bits of 7.038531e-26: of all float32 the only one (with its negative) whose shortest text, read as a float64,
falls just between two float32. `tests/pushforward/client/test_arrays.py` says how that was found."""


def to_float32(values: npt.ArrayLike, name: str) -> Float32Array:
    """Turn the numbers of a caller into float32.

    Args:
        values: numbers of any real dtype, in nested lists or an array; float64 is rounded to the nearest float32.
        name: of the argument, for the error.

    Returns:
        A C-contiguous array of the same shape.

    Raises:
        InvalidInput: the array is ragged, empty or not of numbers, or a value is NaN, infinite or beyond float32's
            range; the row and the column are named.

    Example:
        >>> to_float32([[0.1, 1]], "x")
        array([[0.1, 1. ]], dtype=float32)
    """
    try:
        given = np.asarray(values)
    except ValueError as error:
        raise InvalidInput(f"{name} is ragged: its rows have different lengths") from error
    if given.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} must hold real numbers, and holds {given.dtype}")
    if given.size == 0:
        raise InvalidInput(f"{name} holds no rows: its shape is {list(given.shape)}")
    with np.errstate(over="ignore"):
        array: Float32Array = np.asarray(given, dtype=np.float32, order="C")
    finite = np.isfinite(array)
    if not finite.all():
        faults = np.argwhere(~finite)[: InvalidInput.MAX_REASONS]
        reasons = tuple(_not_finite(name, given, tuple(index)) for index in faults.tolist())
        raise InvalidInput(f"{name} holds a value that is not a finite float32: {reasons[0].reason}", reasons)
    return array


def _not_finite(name: str, given: npt.NDArray[Any], index: tuple[int, ...]) -> Reason:
    value = given[index]
    what = f"{value} is beyond the range of float32" if np.isfinite(value) else f"{value} is not finite"
    row, event = (index[0], index[1:]) if given.ndim > 1 else (0, index)
    column = int(np.ravel_multi_index(event, given.shape[given.ndim - len(event) :])) if event else 0
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    return Reason((name, *index), f"{where} = {what} (row {row}, column {column}, counted from 0)", row, column)


def widen_tie(array: Float32Array) -> npt.NDArray[np.floating]:
    """The array as float64 where it holds the float32 tie, so that its text is read back as the same float32 by anyone.

    orjson writes a float32 as its shortest exact text. A reader that takes the text as a float64 and rounds that to
    float32 gets the same number of every float32 but one: `_TIE_BITS`, which is written in full as a float64.
    """
    if np.any(array.view(np.uint32) & np.uint32(0x7FFFFFFF) == _TIE_BITS):
        return array.astype(np.float64)
    return array


def restore_float32(numbers: npt.NDArray[np.float64]) -> Float32Array:
    """Round float64 that were read from the shortest texts of float32 back to just those float32.

    From text to float64 to float32, a number is rounded twice. Where the float64 lies exactly between two float32, the
    second rounding cannot know on which side the text lay; the neighbour is taken whose own text reads as that float64.

    Args:
        numbers: any shape, as a JSON or CSV reader gives them.

    Returns:
        The same shape; float64 that come from no float32's text are rounded to the nearest.

    Example:
        >>> restore_float32(np.array([0.1]))
        array([0.1], dtype=float32)
        >>> hex(restore_float32(np.array([7.038531e-26])).view(np.uint32)[0])  # rounded twice it would be 0x15ae43fe
        '0x15ae43fd'
    """
    with np.errstate(over="ignore"):
        nearest = numbers.astype(np.float32)
    error = np.zeros_like(numbers)
    np.subtract(numbers, nearest, out=error, where=np.isfinite(nearest))
    doubtful = np.flatnonzero(error)
    if doubtful.size == 0:
        return nearest
    flat, wanted, missed = nearest.reshape(-1), numbers.reshape(-1)[doubtful], error.reshape(-1)[doubtful]
    with np.errstate(over="ignore"):
        other = np.nextafter(flat[doubtful], np.copysign(np.float32(np.inf), missed).astype(np.float32))
    between = np.flatnonzero(other.astype(np.float64) - wanted == missed)
    if between.size:
        its_text_reads_so = np.array(orjson.loads(dump_numbers(other[between])), np.float64) == wanted[between]
        flat[doubtful[between[its_text_reads_so]]] = other[between[its_text_reads_so]]
    return nearest


def dump_numbers(array: npt.NDArray[np.floating]) -> bytes:
    """Write an array as JSON: a float32 as its shortest exact text, a number that is not finite as ``null``."""
    return orjson.dumps(np.ascontiguousarray(array), option=orjson.OPT_SERIALIZE_NUMPY)


def read_array(value: object, name: str, *, null: float | None = None) -> Float32Array:
    """Read nested lists of JSON numbers as float32.

    Args:
        value: what the JSON reader gave.
        name: the answer's key, for the error.
        null: what a JSON null stands for, such as -inf in ``log_prob``; None where there may be none.

    Raises:
        UnexpectedAnswer: the value is not an array of numbers.
    """
    return restore_float32(read_numbers(value, name, null=null))


def read_numbers(value: object, name: str, *, null: float | None = None) -> npt.NDArray[np.float64]:
    """Read nested lists of JSON numbers as float64.

    Args:
        value: what the JSON reader gave.
        name: the answer's key, for the error.
        null: what a JSON null stands for, such as -inf in ``log_prob``; None where there may be none.

    Raises:
        UnexpectedAnswer: the value is not an array of numbers.
    """
    if not isinstance(value, list):
        raise UnexpectedAnswer(f"the answer's {name!r} is not an array")
    try:
        numbers = np.array(value, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise UnexpectedAnswer(f"the answer's {name!r} is not an array of numbers") from error
    missing = np.isnan(numbers)
    if missing.any():
        if null is None:
            raise UnexpectedAnswer(f"the answer's {name!r} holds a null")
        numbers[missing] = null
    return numbers
