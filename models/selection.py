"""Which rows and columns of a file are fitted: conditions, names, numbers and units, held against what is there."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.readers import Source, is_number, to_numbers
from models.recipe import DataRecipe, nearest
from service.errors import DataError

__all__ = ["chosen_columns", "column_units", "find_column", "kept_rows"]

_COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "==": operator.eq, "=": operator.eq,
    "<": operator.lt, ">": operator.gt,
}  # fmt: skip


def kept_rows(source: Source, conditions: Sequence[str]) -> tuple[npt.NDArray[np.bool_] | None, set[str]]:
    """Hold conditions against a file's columns.

    Args:
        source: the file.
        conditions: such as ``"y=0"``, ``"age>=18"`` or ``"kind!=red"``; numbers where both sides are, else text.

    Returns:
        Which rows all conditions hold for, bool ``[N]`` (None where there is no condition), and the columns that a
        condition makes constant.

    Raises:
        DataError: for what is no condition, a column that is not there, or where no row is left.
    """
    kept, spent = None, set()
    candidates = {**source.columns, **source.beside}
    for condition in conditions:
        match = re.fullmatch(r"\s*(.+?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", condition)
        if match is None:
            raise DataError(f"where: expected a condition such as y=0 or age>=18, and found {condition!r}")
        name, sign, value = match.groups()
        if name not in candidates:
            raise DataError(f"where: {source.file} has no column {name!r}{nearest(name, list(candidates))}")
        holds = _holds(name, candidates[name], sign, value)
        if not holds.any():
            raise DataError(f"where: no row of {source.file} has {condition}")
        kept = holds if kept is None else kept & holds
        if sign in ("=", "=="):
            spent.add(name)
    if kept is not None and not kept.any():
        raise DataError(f"where: no row of {source.file} has {' and '.join(conditions)} at once")
    return kept, spent


def _holds(name: str, column: Any, sign: str, value: str) -> npt.NDArray[np.bool_]:  # noqa: ANN401  as `Source` has it
    numbers, bad = to_numbers(column)
    if not bad and is_number(value):
        return np.asarray(_COMPARISONS[sign](numbers, float(value)), np.bool_)
    if sign not in ("=", "==", "!="):
        raise DataError(f"where: {name} is not a column of numbers, so {sign} does not apply to it")
    cells = column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
    return np.array([(str(cell).strip() == value) is (sign != "!=") for cell in cells])


def chosen_columns(source: Source, options: DataRecipe, spent: set[str]) -> tuple[str, ...]:
    """The columns to fit, in the file's order, or in the order in which they were asked for.

    Args:
        source: the file.
        options: `columns` or `drop`.
        spent: columns that a condition made constant; they are left out unless they are asked for.

    Raises:
        DataError: for a column that is not there or is asked for twice, or where none is left.
    """
    asked = [find_column(source, name) for name in options.columns]
    if asked:
        if len(set(asked)) < len(asked):
            raise DataError(f"{source.file}: a column is asked for twice: {', '.join(asked)}")
        return tuple(asked)
    dropped = {find_column(source, name) for name in options.drop} | spent
    names = tuple(name for name in source.columns if name not in dropped)
    if not names:
        raise DataError(f"{source.file}: no column is left to fit")
    return names


def find_column(source: Source, name: str) -> str:
    """A column by its name, or by its number from 0.

    Raises:
        DataError: where it is not there; the nearest name is given.
    """
    if name in source.columns:
        return name
    if name.isdecimal() and int(name) < len(source.columns):
        return list(source.columns)[int(name)]
    raise DataError(f"{source.file} has no column {name!r}{nearest(name, list(source.columns))}")


def column_units(source: Source, units: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The units of the columns `names`, by name.

    Raises:
        DataError: for a unit of a column that is not there, or is not fitted.
    """
    found = {find_column(source, name): unit for name, unit in units.items()}
    unfitted = [name for name in found if name not in names]
    if unfitted:
        raise DataError(f"units: column {unfitted[0]!r} is not fitted")
    return found
