"""A log-density for each row, as a caller computed it: numbers of which some may be minus infinity."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.api.codecs.items import Items, block_items
from service.api.native.arrays import NUMBERS
from service.errors import InvalidArgument, NotFinite, PushforwardError, Reason, WrongShape

__all__ = ["log_target_rows"]

_NAMES: Final = {str: "a string", bool: "a boolean", dict: "an object", list: "an array"}


def log_target_rows(value: Any, count: int, loc: tuple[str | int, ...]) -> npt.NDArray[np.float64]:  # noqa: ANN401
    """Read the log-density of a target.

    Args:
        value: a list of numbers or an array, ``[N]``, or ``[N, 1]`` as a column of a table is. Null stands for minus
            infinity, as it does in an answer's log_prob.
        count: N, the number of rows that it belongs to.
        loc: where it stands, for errors.

    Returns:
        float64 ``[N]``, finite or -inf.

    Raises:
        InvalidArgument: something in it is no number; the row is named.
        WrongShape: there are more or fewer than N.
        NotFinite: one is NaN or plus infinity; the row is named.
    """
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1) if value.ndim == 2 and value.shape[1] == 1 else value
        if flat.ndim != 1:
            raise _error(WrongShape, loc, f"expected shape [{count}], and found {list(value.shape)}")
        numbers = flat.astype(np.float64)
    elif isinstance(value, list):
        numbers = _listed(value, 0, loc)
    elif isinstance(value, Items):
        numbers = _from_items(value, count, loc)
    else:
        kind = _NAMES.get(type(value), "a number")
        raise _error(InvalidArgument, loc, f"expected an array of {count} numbers, and found {kind}")
    if len(numbers) != count:
        raise _error(WrongShape, loc, f"expected a number for each of the {count} rows, and found {len(numbers)}")
    bad = np.flatnonzero(~(numbers < math.inf))
    if bad.size:
        reason = "expected a finite number, or null for a density of zero"
        reasons = tuple(
            Reason(loc, f"{reason}, and found {'NaN' if math.isnan(numbers[row]) else 'infinity'}", int(row))
            for row in bad[: PushforwardError.MAX_REASONS]
        )
        raise NotFinite(f"{loc[-1]}, row {bad[0]}: {reasons[0].reason}", reasons)
    return numbers


def _listed(items: list[Any], before: int, loc: tuple[str | int, ...]) -> npt.NDArray[np.float64]:
    return np.array([_number(item, row, loc) for row, item in enumerate(items, before)], np.float64)


def _from_items(items: Items, count: int, loc: tuple[str | int, ...]) -> npt.NDArray[np.float64]:
    """The numbers of a long list, and no more than one too many."""
    found: list[npt.NDArray[np.float64]] = []
    read = 0
    for block in items.blocks():
        plain = isinstance(block, np.ndarray) and block.ndim == 1
        found.append(block if plain else _listed(block_items(block), read, loc))  # type: ignore[arg-type]  # as looked at
        read += len(block)
        if read > count:
            raise _error(WrongShape, loc, f"expected a number for each of the {count} rows, and found more")
    return np.concatenate(found) if found else np.empty(0)


def _number(item: Any, row: int, loc: tuple[str | int, ...]) -> float:  # noqa: ANN401  what JSON holds
    if type(item) is list and len(item) == 1:  # a column of a table
        item = item[0]
    if item is None:
        return -math.inf
    if type(item) not in NUMBERS:
        found = _NAMES.get(type(item), "something else")
        raise _error(InvalidArgument, loc, f"expected a number, and found {found}", row)
    try:
        return float(item)
    except OverflowError:  # an integer beyond float64
        return math.inf if item > 0 else -math.inf


def _error(kind: type[PushforwardError], loc: tuple[str | int, ...], reason: str, row: int | None = None) -> Exception:
    where = "" if row is None else f", row {row}"
    return kind(f"{loc[-1]}{where}: {reason}", (Reason(loc, reason, row),))
