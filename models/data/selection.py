"""The selection of the rows and columns of a file that are fitted: conditions, names, numbers and units."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.data.readers import FloatArray, Source, cell_number, to_numbers
from models.recipe import DataRecipe, nearest
from service.errors import DataError, Reason

__all__ = [
    "chosen_columns",
    "column_label",
    "column_units",
    "find_column",
    "kept_rows",
    "numbers_of",
    "row_places",
]

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
    number = cell_number(value)
    if not bad and number is not None:
        return np.asarray(_COMPARISONS[sign](numbers, number), np.bool_)
    if sign not in ("=", "==", "!="):
        raise DataError(f"where: {name} is not a column of numbers, so {sign} does not apply to it")
    cells = column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
    return np.array([(str(cell).strip() == value) is (sign != "!=") for cell in cells])


def chosen_columns(
    source: Source,
    options: DataRecipe,
    spent: set[str],
    context: Sequence[str] = (),
    kept_apart: Sequence[str] = (),
) -> tuple[str, ...]:
    """The columns to fit, in the file's order, or in the order in which they were asked for.

    Args:
        source: the file.
        options: `columns` or `drop`.
        spent: columns that a condition made constant; they are left out unless they are asked for.
        context: columns that the flow is conditioned on; they are never fitted.
        kept_apart: columns that a split goes by; they are never fitted.

    Returns:
        Their names as the file has them.

    Raises:
        DataError: for a column that is not there, is asked for twice, is one of the context or has no name, or where
            none is left.
    """
    names = _chosen(source, options, spent, context, kept_apart)
    nameless = next((name for name in names if name in source.nameless), None)
    if nameless is not None:
        number = list(source.columns).index(nameless)
        raise DataError(
            f"{source.file}: column {number} (counted from 0) has no name in the heading, and other columns have one: "
            f"name it, or leave it out with --drop {number}"
        )
    return names


def _chosen(
    source: Source, options: DataRecipe, spent: set[str], context: Sequence[str], kept_apart: Sequence[str]
) -> tuple[str, ...]:
    asked = [find_column(source, name) for name in options.columns]
    if asked:
        if len(set(asked)) < len(asked):
            raise DataError(f"{source.file}: a column is asked for twice: {', '.join(asked)}")
        both = [name for name in asked if name in context]
        if both:
            raise DataError(f"{source.file}: {column_label(source, both[0])} is one of the context, and so not fitted")
        parted = [name for name in asked if name in kept_apart]
        if parted:
            raise DataError(
                f"{source.file}: {column_label(source, parted[0])} says how rows are split, and is not fitted"
            )
        return tuple(asked)
    dropped = {find_column(source, name) for name in options.drop}
    dropped |= spent | set(context) | set(source.index) | set(kept_apart)
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


def column_label(source: Source, name: str) -> str:
    """What to call a column in a sentence."""
    return f"column {name!r}" if source.named else f"column {name}"


def row_places(source: Source, kept: npt.NDArray[np.bool_] | None) -> Callable[[int], str]:
    """A row's position among those that are kept -> where it is in the file, in words."""
    numbers = None if kept is None else np.flatnonzero(kept)
    return lambda row: source.place(row if numbers is None else int(numbers[row]))


def numbers_of(source: Source, columns: Mapping[str, Any], kept: npt.NDArray[np.bool_] | None, hint: str) -> FloatArray:
    """Columns as numbers, side by side.

    Args:
        source: the file.
        columns: name -> values.
        kept: which rows, bool; None for all.
        hint: what ends the error.

    Returns:
        float64 ``[N, D]``, of the rows that are kept.

    Raises:
        DataError: where a cell is no number; row and column are named.
    """
    values, reasons = [], []
    for position, (name, column) in enumerate(columns.items()):
        numbers, bad = to_numbers(column)
        bad = [cell for cell in bad if kept is None or kept[cell.row]]
        if bad:
            row, found, known = bad[0]
            more = f" (and {len(bad) - 1} more in this column)" if len(bad) > 1 else ""
            text = f"{source.place(row)}, {column_label(source, name)}: expected a number, and found {found}{more}"
            text += f": {known}" if known else ""
            reasons.append(Reason((source.file, name), text, row=row, column=position))
        values.append(numbers)
    if reasons:
        raise DataError(f"{source.file}: {reasons[0].reason}{hint}", tuple(reasons))
    rows = np.stack(values, axis=1)
    return rows if kept is None else rows[kept]


def column_units(source: Source, units: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The units of columns, by their names.

    Args:
        source: the file.
        units: column -> unit, as the recipe has them: by name or by number.
        names: the columns that are fitted or condition the flow.

    Returns:
        Column -> unit, by the names of the file.

    Raises:
        DataError: for a unit of a column that is not there, or is not fitted.
    """
    found = {find_column(source, name): unit for name, unit in units.items()}
    unfitted = [name for name in found if name not in names]
    if unfitted:
        raise DataError(f"units: column {unfitted[0]!r} is not fitted")
    return found
