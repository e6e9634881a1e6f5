"""NumPy arrays to JSON numbers and back, without the loss of a bit; a NaN or an infinity is refused.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from pushforward.client.errors import InvalidInput, UnexpectedAnswer
from service.errors import Reason

__all__ = [
    "FLOAT32",
    "FLOAT64",
    "BeyondFloat32",
    "Float32Array",
    "FloatArray",
    "FloatType",
    "dump_numbers",
    "find_no_number",
    "is_plain",
    "read_array",
    "read_cells",
    "read_numbers",
    "restore_float32",
    "to_context",
    "to_float64",
    "to_floats",
    "to_rows",
    "widen_tie",
]

Float32Array: TypeAlias = npt.NDArray[np.float32]
"""An array of float32."""

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
"""An array of a flow's precision, float32 or float64, as the client gives it."""

FloatType: TypeAlias = np.dtype[np.floating[Any]]
"""The dtype of a flow's precision."""

FLOAT32: Final[FloatType] = np.dtype(np.float32)
FLOAT64: Final[FloatType] = np.dtype(np.float64)

_TIE_BITS: Final = np.uint32(0x15AE43FD)
"""The bits of 7.038531e-26: of all float32 the only one (with its negative) whose shortest text, read as a float64,
falls just between two float32. `tests/pushforward/client/test_arrays.py` says how that was found."""

_NUMBERS: Final = (Real, Decimal, np.bool_)
_PLAIN: Final = frozenset({int, float, bool, complex, str, bytes, type(None), *np.sctypeDict.values()}) - {
    np.void,
    np.object_,
}
"""The types of cells that carry neither a mask nor a label."""


class BeyondFloat32(InvalidInput):
    """A value is finite and beyond the range of float32: a flow of float64 would take it."""


def to_floats(values: npt.ArrayLike, name: str, dtype: FloatType = FLOAT32) -> FloatArray:
    """Turn the numbers of a caller into those of a flow's precision.

    Args:
        values: numbers of any real dtype, in nested lists or an array; each is rounded to the nearest.
        name: of the argument, for the error.
        dtype: of the flow: float32 or float64.

    Returns:
        A C-contiguous array of the same shape.

    Raises:
        BeyondFloat32: a value is beyond float32's range, and the dtype is float32; no other fault is there.
        InvalidInput: the array is ragged, empty or not of numbers, or a value is NaN or infinite, or a cell is masked
            or null; the row and the column are named.

    Example:
        >>> to_floats([[0.1, 1]], "x")
        array([[0.1, 1. ]], dtype=float32)
    """
    given, missing = read_cells(values, name)
    if missing is not None:
        faults = np.argwhere(missing)[: InvalidInput.MAX_REASONS]
        reasons = tuple(_reason(name, given.shape, tuple(index), "is masked or null") for index in faults.tolist())
        raise InvalidInput(f"{name} must hold real numbers: {reasons[0].reason}", reasons)
    if given.dtype.kind == "O":
        index = find_no_number(given)
        cell = given[index]
        reason = _reason(name, given.shape, index, f"holds {type(cell).__name__}")
        raise InvalidInput(f"{name} must hold real numbers: {reason.reason}", (reason,))
    if given.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} must hold real numbers, and holds {given.dtype}")
    if given.size == 0:
        raise InvalidInput(f"{name} holds no rows: its shape is {list(given.shape)}")
    with np.errstate(over="ignore"):
        array: FloatArray = np.asarray(given, dtype=dtype, order="C")
    finite = np.isfinite(array)
    if not finite.all():
        faults = np.argwhere(~finite)[: InvalidInput.MAX_REASONS]
        reasons = tuple(_not_finite(name, given, tuple(index), dtype) for index in faults.tolist())
        kind = BeyondFloat32 if np.isfinite(given).all() else InvalidInput
        raise kind(f"{name} holds a value that is not a finite {dtype}: {reasons[0].reason}", reasons)
    return array


def to_rows(values: npt.ArrayLike, name: str, dtype: FloatType = FLOAT32) -> FloatArray:
    """Turn rows of a caller into a flow's precision, as `to_floats` does; a number alone is no row.

    Args:
        values: numbers of any real dtype, in nested lists or an array.
        name: of the argument, for the error.
        dtype: of the flow.

    Raises:
        InvalidInput: as `to_floats`, and where the value is a single number.
    """
    rows = to_floats(values, name, dtype)
    if rows.ndim == 0:
        raise InvalidInput(f"{name} is the number {rows:g}, and must be rows: [N, *event], or one event")
    return rows


def to_context(values: npt.ArrayLike, dtype: FloatType = FLOAT32) -> FloatArray:
    """Turn the context of a caller into a flow's precision, as `to_floats` does; a number alone is one column."""
    return np.atleast_1d(to_floats(values, "context", dtype))


def to_float64(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    """Turn the numbers of a caller into float64; NaN and infinities stay.

    Args:
        values: numbers of any real dtype, in nested lists or an array.
        name: of the argument, for the error.

    Raises:
        InvalidInput: the array is ragged or not of numbers, or a cell is masked or null.
    """
    given, missing = read_cells(values, name)
    if missing is not None:
        index = tuple(np.argwhere(missing)[0].tolist())
        reason = _reason(name, given.shape, index, "is masked or null")
        raise InvalidInput(f"{name} must be numbers: {reason.reason}", (reason,))
    if given.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} must be numbers, and holds {given.dtype}")
    return given.astype(np.float64)


def read_cells(values: object, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    """Read the cells of an array of any library, and which of them hold no value.

    NumPy alone would take what lies under a mask, and would read a null as NaN or as an object.

    Args:
        values: nested lists, an array, or anything that NumPy makes an array of.
        name: of the argument, for the error.

    Returns:
        The cells, of dtype object where one of them is no number; and where cells are masked or null, of the same
        shape, None where none is.

    Raises:
        InvalidInput: the rows have different lengths, or NumPy cannot read the values.
    """
    try:
        cells, missing = _split(values)
    except (ValueError, TypeError, RuntimeError) as error:
        if isinstance(values, (list, tuple)) and isinstance(error, ValueError):
            raise InvalidInput(f"{name} is ragged: its rows have different lengths") from error
        kind = f"{type(values).__module__}.{type(values).__qualname__}"
        raise InvalidInput(f"{name} cannot be read as an array of numbers: {kind}: {error}") from error
    if cells.dtype.kind == "O":
        nulls = np.reshape([_is_null(cell) for cell in cells.flat], cells.shape)
        numbers = [isinstance(cell, _NUMBERS) or _is_null(cell) for cell in cells.flat]
        missing = nulls if missing is None else missing | nulls
        if all(numbers):
            flat = [math.nan if _is_null(cell) else _to_float(cell) for cell in cells.flat]
            cells = np.reshape(np.array(flat, np.float64), cells.shape)
    return cells, missing if missing is not None and missing.any() else None


def is_plain(values: object) -> bool:
    """Whether NumPy reads a value whole: numbers and text, arrays of its own without a mask, and lists of these."""
    if type(values) is np.ndarray:
        return values.dtype.names is None
    if type(values) is not list and type(values) is not tuple:
        return type(values) in _PLAIN
    kinds = set(map(type, values))
    return kinds <= _PLAIN or all(is_plain(item) for item in values if type(item) not in _PLAIN)


def find_no_number(cells: npt.NDArray[Any]) -> tuple[int, ...]:
    """The index of the first cell of an array of objects that is no number."""
    wrong = next(at for at, cell in enumerate(cells.flat) if not isinstance(cell, _NUMBERS))
    return tuple(int(at) for at in np.unravel_index(wrong, cells.shape))


def _split(values: object) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    """Cells, and where their library says that there are none."""
    if isinstance(values, np.ma.MaskedArray):
        return np.asarray(values.data), np.ma.getmaskarray(values)
    if isinstance(values, (list, tuple)) and not is_plain(values):
        parts = [_split(item) for item in values]
        cells = np.stack([cells for cells, _ in parts])
        if all(missing is None for _, missing in parts):
            return cells, None
        return cells, np.stack([np.zeros(c.shape, bool) if missing is None else missing for c, missing in parts])
    cells = np.asarray(values)
    for read in (_read_mask, _read_nulls):
        missing = read(values)
        if missing is not None and missing.shape == cells.shape:
            return cells, missing
    return cells, None


def _read_mask(values: object) -> npt.NDArray[np.bool_] | None:
    """The mask that an array of another library carries; a method of this name is something else."""
    mask = getattr(values, "mask", None)
    return None if mask is None or callable(mask) else np.asarray(mask, np.bool_)


def _read_nulls(values: object) -> npt.NDArray[np.bool_] | None:
    """The nulls of a column of Arrow or polars."""
    count = getattr(values, "null_count", 0)
    count = count() if callable(count) else count
    is_null = getattr(values, "is_null", None)
    return np.asarray(is_null(), np.bool_) if isinstance(count, int) and count > 0 and callable(is_null) else None


def _is_null(cell: object) -> bool:
    # pandas has a type for each of its nulls, and is not imported here.
    return cell is None or cell is np.ma.masked or type(cell).__name__ in ("NAType", "NaTType")


def _to_float(number: Any) -> float:  # noqa: ANN401  any real number
    try:
        return float(number)
    except OverflowError:  # an integer of Python's has no bound
        return math.inf if number > 0 else -math.inf


def _reason(name: str, shape: tuple[int, ...], index: tuple[int, ...], what: str) -> Reason:
    row, event = (index[0], index[1:]) if len(shape) > 1 else (0, index)
    column = int(np.ravel_multi_index(event, shape[len(shape) - len(event) :])) if event else 0
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    return Reason((name, *index), f"{where} {what} (row {row}, column {column}, counted from 0)", row, column)


def _not_finite(name: str, given: npt.NDArray[Any], index: tuple[int, ...], dtype: FloatType) -> Reason:
    value = given[index]
    what = f"{value} is beyond the range of {dtype}" if np.isfinite(value) else f"{value} is not finite"
    return _reason(name, given.shape, index, f"= {what}")


def widen_tie(array: FloatArray) -> FloatArray:
    """The array as float64 where it holds the float32 tie, so that its text is read back as the same float32 by anyone.

    An array of float64 is left as it is.

    orjson writes a float32 as its shortest exact text. A reader that takes the text as a float64 and rounds that to
    float32 gets the same number of every float32 but one: `_TIE_BITS`, which is written in full as a float64.
    """
    if array.dtype == FLOAT32 and np.any(array.view(np.uint32) & np.uint32(0x7FFFFFFF) == _TIE_BITS):
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


def read_array(value: object, name: str, *, null: float | None = None, dtype: FloatType = FLOAT32) -> FloatArray:
    """Read nested lists of JSON numbers.

    Args:
        value: what the JSON reader gave.
        name: the answer's key, for the error.
        null: what a JSON null stands for, such as -inf in ``log_prob``; None where there may be none.
        dtype: of the answer: float32 or float64.

    Raises:
        UnexpectedAnswer: the value is not an array of numbers.
    """
    numbers = read_numbers(value, name, null=null)
    return restore_float32(numbers) if dtype == FLOAT32 else numbers


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
