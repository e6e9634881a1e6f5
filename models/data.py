"""Rows that can be fitted: chosen, checked, and split. Every fault is named by row and column.

Must not import the server; of torch it uses tensors only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.checks import Sheet, grid_step, is_on_grid
from models.readers import FloatArray, Source, read_source, to_numbers
from models.recipe import DataRecipe, Recipe
from models.selection import chosen_columns, column_units, find_column, kept_rows
from models.zoo import datasets
from service.bundle.manifest import Feature, Quantization
from service.errors import DataError, Reason

__all__ = ["Split", "Table", "derived_seed", "load_data", "split"]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows fit to be fitted, in the user's units.

    Args:
        rows: ``[N, *event]`` float64, finite.
        names: the columns' names, or their numbers in the file; empty for events of more than one axis.
        features: the columns as the manifest names them; empty where the data does not name them.
        step: ``[*event]`` the width of a bin where a column is dequantized, 0 where it is not; None where none is.
        low: the lower bound of the data, None for none. Bounded data goes through a logit.
        high: the upper bound.
        words: what the data is, for the manifest.
        notes: what the user should know: columns on which the density has no bound.
    """

    rows: FloatArray
    names: tuple[str, ...]
    features: tuple[Feature, ...]
    step: FloatArray | None
    low: float | None
    high: float | None
    words: str
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the rows, their shape and the bins: equal where a fit sees the same data."""
        state = hashlib.sha256(repr((self.rows.shape, self.low, self.high)).encode())
        state.update(np.ascontiguousarray(self.rows).tobytes())
        state.update(b"" if self.step is None else np.ascontiguousarray(self.step).tobytes())
        return state.hexdigest()

    @property
    def quantization(self) -> Quantization | None:
        """How an integer row is read, where every column is dequantized by one step; else None."""
        if self.step is None or np.ptp(self.step) > 0 or not self.step.all():
            return None
        step = float(self.step.flat[0])
        return Quantization(
            low=float(self.rows.min()) if self.low is None else self.low,
            high=float(self.rows.max()) if self.high is None else self.high,
            step=step,
            reading=f"a row on the data's grid is the centre of its bin: each value k stands for [k - {step / 2:g}, "
            f"k + {step / 2:g})",
        )


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Three parts of a table, float32, in the user's units.

    Args:
        train: ``[N, *event]`` what weights and statistics are fitted to.
        validation: ``[N, *event]`` what early stopping watches.
        test: ``[N, *event]`` held out: what the report speaks of.
    """

    train: Tensor
    validation: Tensor
    test: Tensor


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose, so that two streams of one recipe never overlap.

    Example:
        >>> derived_seed(0, "split") == derived_seed(0, "split") != derived_seed(0, "noise")
        True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:7])


def load_data(recipe: Recipe) -> Table:
    """Read, choose and check the rows that a recipe names.

    Raises:
        DataError: where the file cannot be read, a column is not there, or its rows cannot be fitted: text, NaN,
            infinities, constant columns, too few rows, values out of bounds. Rows and columns are named.
    """
    options = recipe.data
    if options.source is None:
        raise DataError("there is no data: name a file, or one of " + ", ".join(sorted(datasets.BUILTIN)))
    given: Quantization | None = None
    features: tuple[Feature, ...] = ()
    if options.source in datasets.BUILTIN:
        dataset = datasets.load(options.source)
        given, features = dataset.quantization, dataset.features
        source, words = _of_builtin(options.source, dataset.rows, features), dataset.data
    else:
        source = read_source(Path(options.source), options.key, options.header)
        words = source.file + (f", array {options.key}" if options.key else "")
    kept, spent = kept_rows(source, options.where)
    if source.array is None:
        names = chosen_columns(source, options, spent)
        rows = _to_rows(source, names, kept)
    else:
        if options.columns or options.drop or options.units:
            raise DataError(f"{source.file}: these are images; there are no columns to name")
        names, rows = (), source.array if kept is None else source.array[kept]
    sheet = _sheet(source, names, rows, kept)
    sheet.check()
    step = _steps(sheet, source, options, given)
    sheet.check_variation(step)
    sheet.check_bounds(options.low, options.high, closed=step is not None)
    units = column_units(source, options.units, names)
    if source.named:
        known = {feature.name: feature.unit for feature in features}
        features = tuple(Feature(name=n, unit=units.get(n, known.get(n))) for n in names)
    elif units:
        features = tuple(Feature(name=f"column {n}", unit=units.get(n)) for n in names)
    where = f" where {' and '.join(options.where)}" if options.where else ""
    event = f"of {len(names)} columns" if names else f"of shape {list(rows.shape[1:])}"
    return Table(
        rows=rows,
        names=names,
        features=features,
        step=step,
        low=options.low,
        high=options.high,
        words=f"{words}{where}: {len(rows)} rows {event}",
        notes=sheet.notes(step),
    )


def split(table: Table, options: DataRecipe, seed: int) -> Split:
    """Cut a table into training, validation and held-out rows, at random by seed.

    Args:
        table: the rows.
        options: `validation` and `test` are the fractions.
        seed: the same seed, the same cut.
    """
    count = len(table.rows)
    validation, test = (max(2, round(count * part)) for part in (options.validation, options.test))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(derived_seed(seed, "split")))
    rows = torch.from_numpy(table.rows).to(torch.float32)[order]
    return Split(rows[test + validation :], rows[test : test + validation], rows[:test])


def _of_builtin(name: str, rows: npt.NDArray[np.float64], features: Sequence[Feature]) -> Source:
    if rows.ndim > 2:
        return Source(name, array=rows)
    names = [feature.name for feature in features] or [str(i) for i in range(rows.shape[1])]
    return Source(name, {n: rows[:, i] for i, n in enumerate(names)}, named=bool(features))


def _to_rows(source: Source, names: Sequence[str], kept: npt.NDArray[np.bool_] | None) -> FloatArray:
    """The chosen columns side by side; a cell that is no number is an error."""
    values, reasons = [], []
    for position, name in enumerate(names):
        numbers, bad = to_numbers(source.columns[name])
        bad = [(row, what) for row, what in bad if kept is None or kept[row]]
        if bad:
            row, what = bad[0]
            more = f" (and {len(bad) - 1} more in this column)" if len(bad) > 1 else ""
            text = f"{source.place(row)}, {_label(source, name)}: expected a number, and found {what}{more}"
            reasons.append(Reason((source.file, name), text, row=row, column=position))
        values.append(numbers)
    if reasons:
        hint = "; leave a column of text out with --drop, or give --header where the first line names the columns"
        raise DataError(f"{source.file}: {reasons[0].reason}{hint}", tuple(reasons))
    rows = np.stack(values, axis=1)
    return rows if kept is None else rows[kept]


def _label(source: Source, name: str) -> str:
    return f"column {name!r}" if source.named else f"column {name}"


def _sheet(source: Source, names: Sequence[str], rows: FloatArray, kept: npt.NDArray[np.bool_] | None) -> Sheet:
    numbers = None if kept is None else np.flatnonzero(kept)
    if names:
        labels, keys = [_label(source, name) for name in names], list(names)
    else:
        places = list(np.ndindex(rows.shape[1:]))
        keys = [", ".join(map(str, place)) for place in places]
        labels = [f"pixel [{key}]" for key in keys]
    return Sheet(
        source.file, rows, labels, keys, lambda row: source.place(row if numbers is None else int(numbers[row]))
    )


def _steps(sheet: Sheet, source: Source, options: DataRecipe, given: Quantization | None) -> FloatArray | None:
    """The bins' widths ``[*event]``, 0 where a column is not dequantized; None where none is.

    Pixels of an image share one step; the columns of a table have one each.
    """
    if not options.dequantize and not options.dequantize_columns:
        return None
    stated = options.step if options.step is not None or given is None else given.step
    event = sheet.rows.shape[1:]
    if source.array is not None:
        if options.dequantize_columns:
            raise DataError(f"{source.file}: these are images; dequantize takes all of their pixels")
        step = grid_step(sheet.rows) if stated is None else stated
        if step is None or not is_on_grid(sheet.rows, step):
            raise DataError(f"{source.file}: the pixels are no multiples of {step or 'any step'} apart")
        return np.full(event, step)
    wanted = {find_column(source, name) for name in options.dequantize_columns}
    steps = np.zeros(event)
    for column, name in enumerate(sheet.keys):
        values = sheet.flat[:, column]
        whole = bool(np.all(values == np.round(values))) if stated is None else is_on_grid(values, stated)
        if not (name in wanted if wanted else whole):
            continue
        if stated is None and values.min() == values.max():
            continue  # for the check of variation to refuse
        step = grid_step(values) if stated is None else stated
        if step is None or not is_on_grid(values, step):
            raise sheet.error(
                column, f"is not on a grid of step {step:g}" if step else "has no regular step; give one with --step"
            )
        steps[column] = step
    missing = wanted - set(sheet.keys)
    if missing:
        raise DataError(f"{source.file}: column {min(missing)!r} is to be dequantized, and is not fitted")
    if not steps.any():
        raise DataError(f"{source.file}: no column holds integers only, so there is nothing to dequantize")
    return steps
