"""The context of rows: columns that condition a flow and are not fitted themselves. Classes become a column each.

Must not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.data.grid import is_whole
from models.data.labelled_rows import LabelledRows
from models.data.readers import FloatArray, Source, to_numbers
from models.data.selection import column_label, numbers_of, row_places
from models.recipe import DataRecipe, nearest
from service.bundle.manifest import ContextFeature
from service.errors import DataError, Reason

__all__ = ["MAX_CLASSES", "Context", "context_columns", "read_context"]

MAX_CLASSES: Final = 256
"""A column of more classes than this is not one of classes."""

_FEW: Final = 20  # so many whole numbers or fewer may be classes that one_hot does not name


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What a flow is conditioned on, row by row.

    Args:
        rows: ``[N, C]`` float64, finite.
        labels: a column -> what to call it in a sentence.
        features: the columns as the manifest names them; empty where the data does not name them.
        notes: what the user should know.
    """

    rows: FloatArray
    labels: tuple[str, ...]
    features: tuple[ContextFeature, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One column of the context; `category` is the class that it stands for, if any."""

    name: str
    values: FloatArray
    category: str | None = None


def context_columns(source: Source, asked: Sequence[str], key: str = "context") -> tuple[str, ...]:
    """The columns, or arrays of an .npz, that a recipe calls the context.

    Args:
        source: the file.
        asked: names, or numbers of columns from 0.
        key: the recipe's, for errors.

    Returns:
        The names as the file has them, in the order in which they were asked for.

    Raises:
        DataError: for one that is not there (the nearest name is given), or that is asked for twice.
    """
    beside = {**source.beside, **source.arrays}
    numbered = {str(number): name for number, name in enumerate(source.columns)}
    known = numbered | {name: name for name in (*source.columns, *beside)}
    missing = [name for name in asked if name not in known]
    if missing:
        hint = nearest(missing[0], [*source.columns, *beside])
        raise DataError(f"{key}: {source.file} has no column {missing[0]!r}{hint}")
    found = [known[name] for name in asked]
    if len(set(found)) < len(found):
        raise DataError(f"{key}: a column is asked for twice: {', '.join(found)}")
    return tuple(found)


def read_context(
    source: Source,
    options: DataRecipe,
    names: Sequence[str],
    kept: npt.NDArray[np.bool_] | None,
    units: Mapping[str, str],
) -> Context | None:
    """Read and check the context of the rows that are kept.

    Args:
        source: the file.
        options: `one_hot` names the columns of classes.
        names: from `context_columns`.
        kept: which rows, bool ``[N]``; None for all.
        units: a column's name -> its unit.

    Returns:
        None where `names` is empty.

    Raises:
        DataError: where a value is text (and no class), NaN or infinite, a column is constant, an array has other
            rows than the events, or a column of classes has too many. Rows and columns are named.
    """
    if not names:
        return None
    classes = _classes(source, options.one_hot, names)
    columns = [
        column
        for name in names
        for column in (_one_hot(source, name, kept) if name in classes else _numbers(source, name, kept))
    ]
    rows = np.stack([column.values for column in columns], axis=1)
    labels = [f"context {_label(source, column)}" for column in columns]
    labelled = LabelledRows(
        file=source.file,
        rows=rows,
        labels=labels,
        keys=[_title(column) for column in columns],
        place=row_places(source, kept),
    )
    labelled.check_finite()
    labelled.check_variation(None, constant="tells nothing of a row; leave it out of the context")
    notes = (*(note for note in map(_note, columns, labels) if note), *labelled.faults())
    return Context(rows=rows, labels=tuple(labels), features=_features(source, columns, units), notes=notes)


def _classes(source: Source, asked: Sequence[str], names: Sequence[str]) -> set[str]:
    found = set(context_columns(source, asked, "one_hot"))
    besides = sorted(found - set(names))
    if besides:
        raise DataError(f"one_hot: column {besides[0]!r} is none of the context{nearest(besides[0], list(names))}")
    return found


def _values(source: Source, name: str) -> Any:  # noqa: ANN401  as `Source` has it
    """A column, or an array with a row for each event."""
    if name in source.columns:
        return source.columns[name]
    if name in source.beside:
        return source.beside[name]
    array, count = source.arrays[name], source.rows
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or 0 in array.shape[1:]:
        raise DataError(
            f"{source.file}: array {name!r} must hold numbers of shape [N] or [N, C] to be a context, and has shape "
            f"{list(array.shape)} and type {array.dtype}"
        )
    if len(array) != count:
        raise DataError(f"{source.file}: array {name!r} is the context, of {len(array)} rows, for {count} rows of data")
    return array


def _numbers(source: Source, name: str, kept: npt.NDArray[np.bool_] | None) -> list[_Column]:
    values = _values(source, name)
    parts = {name: values}
    if isinstance(values, np.ndarray) and values.ndim == 2:
        parts = {f"{name}{at}": values[:, at] for at in range(values.shape[1])}
    hint = "; if it holds classes, name it in one_hot as well"
    rows = numbers_of(source, parts, kept, hint)
    return [_Column(part, rows[:, at]) for at, part in enumerate(parts)]


def _one_hot(source: Source, name: str, kept: npt.NDArray[np.bool_] | None) -> list[_Column]:
    """A column of 0 and 1 for each class, in ascending order."""
    values = _values(source, name)
    if isinstance(values, np.ndarray) and values.ndim == 2:
        raise DataError(f"{source.file}: one_hot takes one column of classes, and array {name!r} has {values.shape[1]}")
    numbers, bad = to_numbers(values)
    if bad:
        cells = values.tolist() if isinstance(values, np.ndarray) else values.to_pylist()
        given = np.array(["" if cell is None else str(cell).strip() for cell in cells])
    else:
        given = numbers
    given = given if kept is None else given[kept]
    missing = np.flatnonzero(given == "" if bad else ~np.isfinite(given))
    if missing.size:
        row = int(missing[0])
        found = f"{row_places(source, kept)(row)}, {column_label(source, name)}: expected a class, and found "
        found += "nothing" if bad else f"{given[row]:g}"
        raise DataError(f"{source.file}: {found}", (Reason((source.file, name), found, row=row),))
    classes = np.unique(given)
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"{source.file}: {column_label(source, name)} has {len(classes)} values, and one_hot takes at most "
            f"{MAX_CLASSES} classes"
        )
    return [_Column(name, (given == c).astype(np.float64), str(c) if bad else _text(float(c))) for c in classes]


def _text(number: float) -> str:
    return str(int(number)) if number == round(number) else repr(number)


def _title(column: _Column) -> str:
    return column.name if column.category is None else f"{column.name}={column.category}"


def _label(source: Source, column: _Column) -> str:
    words = column_label(source, column.name) if column.name in source.columns else repr(column.name)
    return words if column.category is None else f"{words} is {column.category}"


def _features(source: Source, columns: Sequence[_Column], units: Mapping[str, str]) -> tuple[ContextFeature, ...]:
    """One feature a column; none where the file has no names, no column is a class, and none has a unit."""
    named = [column.name not in source.columns or source.named for column in columns]
    described = any(named) or any(column.category is not None or column.name in units for column in columns)
    if not described:
        return ()
    features = []
    for column, its_own in zip(columns, named, strict=True):
        name = column.name if its_own else f"column {column.name}"
        features.append(
            ContextFeature(name=name, unit=units.get(column.name))
            if column.category is None
            else ContextFeature(name=f"{name}={column.category}", column=name, category=column.category)
        )
    return tuple(features)


def _note(column: _Column, label: str) -> str:
    """A hint where whole numbers may be classes: between two of them there may be nothing."""
    if column.category is not None:
        return ""
    found = np.unique(column.values)
    if not 2 < len(found) <= _FEW or not is_whole(found):
        return ""
    return (
        f"{label} holds {len(found)} whole numbers, and the flow takes them as a quantity. If they are classes, name "
        "the column in one_hot"
    )
