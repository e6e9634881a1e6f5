"""The table that a recipe names: read, chosen and checked. Every fault is named by row and column.

Must not import torch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.data import builtin as datasets
from models.data.context import Context, context_columns, read_context
from models.data.grid import grid_step, is_on_grid, is_whole
from models.data.labelled_rows import LabelledRows
from models.data.membership import Membership, note_of_order, read_membership
from models.data.priors import check_inside, read_prior
from models.data.readers import FloatArray, Source, read_source
from models.data.selection import (
    chosen_columns,
    column_label,
    column_units,
    find_column,
    kept_rows,
    numbers_of,
    row_places,
)
from models.recipe import DataRecipe, Recipe
from service.bundle.manifest import ContextFeature, Feature, Quantization
from service.bundle.precision import Precision
from service.bundle.priors import Prior
from service.errors import DataError

__all__ = ["Table", "load_data", "read_builtin"]


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
        context: ``[N, C]`` float64, finite: what each row is conditioned on; None for nothing.
        context_features: its columns as the manifest names them; empty where the data does not name them.
        context_labels: what to call each of its columns in a sentence.
        held_out: how many of the rows, the last ones, are to be held out; 0 where that is left to chance.
        membership: the groups or the keys that the split goes by.
        prior: of the columns, which are then those of a posterior; None for none.
    """

    rows: FloatArray
    names: tuple[str, ...]
    features: tuple[Feature, ...]
    step: FloatArray | None
    low: float | None
    high: float | None
    words: str
    notes: tuple[str, ...] = ()
    context: FloatArray | None = None
    context_features: tuple[ContextFeature, ...] = ()
    context_labels: tuple[str, ...] = ()
    held_out: int = 0
    membership: Membership = field(default_factory=Membership)
    prior: Prior | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the rows, their shape, the bins and the context: equal where a fit sees the same data."""
        facts = (self.rows.shape, self.low, self.high, *((self.held_out,) if self.held_out else ()))
        state = hashlib.sha256(repr(facts).encode())
        state.update(np.ascontiguousarray(self.rows).tobytes())
        state.update(b"" if self.step is None else np.ascontiguousarray(self.step).tobytes())
        if self.context is not None:
            state.update(repr(self.context.shape).encode() + np.ascontiguousarray(self.context).tobytes())
        for part in (self.membership.groups, self.membership.shares):
            state.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
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


def load_data(recipe: Recipe) -> Table:
    """Read, choose and check the rows that a recipe names.

    Raises:
        DataError: where the file cannot be read, a column is not there, or its rows cannot be fitted: text, NaN,
            infinities, constant columns, too few rows, values out of bounds; or where that holds of the context. Rows
            and columns are named.
    """
    options = recipe.data
    if options.source is None:
        raise DataError("there is no data: name a file, or one of " + ", ".join(sorted(datasets.BUILTIN)))
    given: Quantization | None = None
    features: tuple[Feature, ...] = ()
    if options.source in datasets.BUILTIN:
        dataset = datasets.load(options.source)
        given, features = dataset.quantization, dataset.features
        source, words = _as_source(options.source, dataset), dataset.data
    else:
        source = read_source(Path(options.source), key=options.key, header=options.header, test_key=options.test_key)
        words = source.file + (f", array {options.key}" if options.key else "")
    kept, spent = kept_rows(source, options.where)
    given_by = context_columns(source, options.context)
    membership = read_membership(source, options, kept)
    if source.array is None:
        names = chosen_columns(source, options, spent, given_by, membership.columns)
        hint = "; leave a column of text out with --drop, or give --header where the first line names the columns"
        rows = numbers_of(source, {name: source.columns[name] for name in names}, kept, hint)
    else:
        if options.columns or options.drop or options.units:
            raise DataError(f"{source.file}: these are images; there are no columns to name")
        names, rows = (), source.array if kept is None else source.array[kept]
    labelled = _label_rows(source, names, rows, kept, recipe.fit.precision)
    labelled.check()
    step = _bin_widths(labelled, source, options, given)
    labelled.check_variation(step)
    labelled.check_bounds(options.low, options.high, closed=step is not None)
    units = column_units(source, options.units, (*names, *given_by))
    context = read_context(source, options, names=given_by, kept=kept, units=units)
    if source.named:
        known = {feature.name: feature.unit for feature in features}
        features = tuple(Feature(name=n, unit=units.get(n, known.get(n))) for n in names)
    elif any(name in units for name in names):
        features = tuple(Feature(name=f"column {n}", unit=units.get(n)) for n in names)
    held_out = source.held_out if kept is None else int(kept[len(kept) - source.held_out :].sum())
    if source.held_out and held_out < 2:
        raise DataError(f"{source.file}: {held_out} rows of {options.test_key} are too few to report on; 2 are needed")
    where = f" where {' and '.join(options.where)}" if options.where else ""
    event = f"of {_counted(len(names), 'column')}" if names else f"of shape {list(rows.shape[1:])}"
    _check_names(source.file, features, context)
    prior = None
    if options.prior is not None:
        labels = names or [str(at) for at in range(math.prod(rows.shape[1:]))]
        prior = read_prior(Path(options.prior), labels)
        check_inside(prior, rows.reshape(len(rows), -1), labels)
    condition = f", given {_counted(context.rows.shape[1], 'column')} of context" if context else ""
    besides = f"; held out, {held_out} rows of {options.test_key}" if held_out else ""
    return Table(
        rows=rows,
        names=names,
        features=features,
        step=step,
        low=options.low,
        high=options.high,
        words=f"{words}{where}: {len(rows) - held_out} rows {event}{condition}{besides}",
        notes=(
            *source.notes,
            *_index_notes(source, (*names, *given_by)),
            *labelled.notes(step),
            *(context.notes if context else ()),
            *_order_notes(rows, options),
        ),
        context=context.rows if context else None,
        context_features=context.features if context else (),
        context_labels=context.labels if context else (),
        held_out=held_out,
        membership=membership,
        prior=prior,
    )


def _index_notes(source: Source, used: Sequence[str]) -> tuple[str, ...]:
    """A note of columns that are an index, or empty, and so not fitted."""
    left = [repr(name) for name in source.index if name not in used]
    verb = "was" if len(left) == 1 else "were"
    return (f"{', '.join(left)} {verb} taken for an index of the rows, and not fitted",) if left else ()


def _order_notes(rows: FloatArray, options: DataRecipe) -> tuple[str, ...]:
    """A note where a random split flatters."""
    if options.split != "random" or options.group is not None or options.split_key is not None:
        return ()
    note = note_of_order(rows)
    return () if note is None else (note,)


def _check_names(file: str, features: Sequence[Feature], context: Context | None) -> None:
    """A class is called COLUMN=CLASS, and a column of an array ARRAY0 and so on: no other column may be."""
    names = [feature.name for feature in (*features, *(context.features if context else ()))]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise DataError(f"{file}: two columns would be called {twice!r}; rename one of them")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def read_builtin(name: str) -> Source:
    """A built-in data set as if it were a file.

    Raises:
        DataError: there is none of that name.
    """
    return _as_source(name, datasets.load(name))


def _as_source(name: str, dataset: datasets.Dataset) -> Source:
    rows, features = dataset.rows, dataset.features
    if rows.ndim > 2:
        return Source(name, array=rows, beside=dataset.beside)
    names = [feature.name for feature in features] or [str(i) for i in range(rows.shape[1])]
    return Source(name, {n: rows[:, i] for i, n in enumerate(names)}, named=bool(features), beside=dataset.beside)


def _label_rows(
    source: Source,
    names: Sequence[str],
    rows: FloatArray,
    kept: npt.NDArray[np.bool_] | None,
    precision: Precision,
) -> LabelledRows:
    if names:
        labels, keys = [column_label(source, name) for name in names], list(names)
    else:
        places = list(np.ndindex(rows.shape[1:]))
        keys = [", ".join(map(str, place)) for place in places]
        labels = [f"pixel [{key}]" for key in keys]
    return LabelledRows(
        file=source.file, rows=rows, labels=labels, keys=keys, place=row_places(source, kept), precision=precision
    )


def _bin_widths(
    labelled: LabelledRows, source: Source, options: DataRecipe, given: Quantization | None
) -> FloatArray | None:
    """The bins' widths ``[*event]``, 0 where a column is not dequantized; None where none is.

    Pixels of an image share one step; the columns of a table have one each.
    """
    if not options.dequantize and not options.dequantize_columns:
        return None
    stated = options.step if options.step is not None or given is None else given.step
    event = labelled.rows.shape[1:]
    if source.array is not None:
        if options.dequantize_columns:
            raise DataError(f"{source.file}: these are images; dequantize takes all of their pixels")
        step = grid_step(labelled.rows) if stated is None else stated
        if step is None or not is_on_grid(labelled.rows, step):
            raise DataError(f"{source.file}: the pixels are no multiples of {step or 'any step'} apart")
        return np.full(event, step)
    wanted = {find_column(source, name) for name in options.dequantize_columns}
    steps = np.zeros(event)
    for column, name in enumerate(labelled.keys):
        values = labelled.flat[:, column]
        whole = is_whole(values) if stated is None else is_on_grid(values, stated)
        if not (name in wanted if wanted else whole):
            continue
        if stated is None and values.min() == values.max():
            continue  # for the check of variation to refuse
        step = grid_step(values) if stated is None else stated
        if step is None or not is_on_grid(values, step):
            raise labelled.error(
                column, f"is not on a grid of step {step:g}" if step else "has no regular step; give one with --step"
            )
        steps[column] = step
    missing = wanted - set(labelled.keys)
    if missing:
        raise DataError(f"{source.file}: column {min(missing)!r} is to be dequantized, and is not fitted")
    if not steps.any():
        raise DataError(f"{source.file}: no column holds integers only, so there is nothing to dequantize")
    return steps
