"""The rows of a file for a flow that is there already: columns by the flow's names, as its manifest has them.

The rule is that of `service.tabular`, as CSV on the command line has it: names are matched exactly, and columns that
are not wanted are passed over. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.data.labelled_rows import LabelledRows
from models.data.readers import FloatArray, Source, cell_number
from models.data.selection import column_label, kept_rows, numbers_of, row_places
from service.bundle.manifest import ContextFeature, Manifest
from service.bundle.precision import DTYPES
from service.errors import DataError, Reason
from service.tabular import Header

__all__ = ["FlowRows", "select_flow_rows"]


@dataclass(frozen=True, slots=True, eq=False)
class FlowRows:
    """Rows of a flow.

    Args:
        rows: ``[N, *event]``, finite, in the flow's precision.
        context: ``[N, C]``, the same; None for a flow without, or where it was not asked for.
        place: the number of a row here -> where it is in the file, in words.
    """

    rows: npt.NDArray[np.floating[Any]]
    context: npt.NDArray[np.floating[Any]] | None
    place: Callable[[int], str]


def select_flow_rows(
    source: Source, manifest: Manifest, where: Sequence[str] = (), *, with_context: bool = True
) -> FlowRows:
    """Take a flow's rows out of a file.

    Args:
        source: the file.
        manifest: of the flow.
        where: conditions on the rows, as `pushforward train` has them.
        with_context: whether the file is to hold the context of a conditional flow too.

    Returns:
        The rows, and their context.

    Raises:
        DataError: a column is not there or is there twice over, a row has another shape, or a cell holds no finite
            number or an unknown class; row and column are named.
    """
    kept, _ = kept_rows(source, where)
    place = row_places(source, kept)
    given = _context_columns(source, manifest) if with_context and manifest.context_width else {}
    if source.array is None:
        names = _event_columns(source, manifest, behind=manifest.context_width if given is None else 0)
        labels = [column_label(source, name) for name in names]
        rows = numbers_of(source, {name: source.columns[name] for name in names}, kept, "")
    else:
        rows = source.array if kept is None else source.array[kept]
        labels = [f"pixel [{', '.join(map(str, at))}]" for at in np.ndindex(rows.shape[1:])]
    event = tuple(manifest.event_shape)
    if rows.shape[1:] != event and (len(event) == 1 or rows.shape[1:] != (manifest.event_width,)):
        raise DataError(f"{source.file}: rows must have the shape {list(event)}, and have {list(rows.shape[1:])}")
    _check_finite(source, rows, labels, place)
    context = None
    if given is None:
        last = list(source.columns)[manifest.event_width :]
        given = {name: source.columns[name] for name in last}
    if given:
        context = _read_context(source, given, kept, manifest.context_features)
        _check_finite(source, context, [f"context {name!r}" for name in given], place)
    dtype = DTYPES[manifest.precision]
    return FlowRows(
        rows=rows.reshape(len(rows), *event).astype(dtype),
        context=None if context is None else context.astype(dtype),
        place=place,
    )


def _check_finite(source: Source, rows: FloatArray, labels: Sequence[str], place: Callable[[int], str]) -> None:
    if not len(rows):
        raise DataError(f"{source.file} holds no rows")
    LabelledRows(file=source.file, rows=rows, labels=labels, keys=labels, place=place).check_finite()


def _event_columns(source: Source, manifest: Manifest, behind: int) -> list[str]:
    """The columns of a row, in the flow's order.

    Args:
        source: a table.
        manifest: of the flow.
        behind: how many columns of context stand behind them, where these have no names.
    """
    names, width = list(source.columns), manifest.event_width
    if len(manifest.event_shape) > 1:
        raise DataError(f"{source.file}: rows must have the shape {manifest.event_shape}, and this is a table")
    wanted = [feature.name for feature in manifest.features] or [f"x{at}" for at in range(width)]
    if not source.named:
        if len(names) != width + behind:
            more = f", and {behind} of context after them" if behind else ""
            raise DataError(f"{source.file}: {len(names)} columns, and a row of this flow has {width}{more}")
        return names[:width]
    header = Header(names)
    missing = header.missing(wanted)
    if not missing:
        return wanted
    if header.may_stand_in_order(wanted, named=bool(manifest.features)):
        context = {name for feature in manifest.context_features for name in (feature.name, feature.column)}
        context |= {f"context{at}" for at in range(manifest.context_width)}
        others = [name for name in names if name not in context and name not in source.index]
        if len(others) == width:
            return others
    apart = header.in_other_case(missing)
    hint = f" (in {', '.join(map(repr, apart[:10]))} upper and lower case differ)" if apart else ""
    raise DataError(
        f"{source.file}: there is no column {', '.join(map(repr, missing[:10]))}{hint}; there are "
        f"{', '.join(map(repr, names[:20]))}"
    )


def _context_columns(source: Source, manifest: Manifest) -> dict[str, Any] | None:
    """The values of each column of the context; None where they have no names and stand behind the rows."""
    there = {**source.columns, **source.beside} if source.named or source.beside else dict(source.beside)
    for name, array in source.arrays.items():
        if array.ndim == 2 and len(array) == source.rows and array.dtype.kind in "biuf":
            there |= {f"{name}{at}": array[:, at] for at in range(array.shape[1])}
        elif array.ndim == 1 and len(array) == source.rows:
            there[name] = array
    numbered = [f"context{at}" for at in range(manifest.context_width)]
    named = [name for f in manifest.context_features for name in (f.name, f.column)]
    if not any(name in there for name in named) and all(name in there for name in numbered):
        return {name: there[name] for name in numbered}
    if not manifest.context_features:
        return None
    missing = [f.name for f in manifest.context_features if f.name not in there and f.column not in there]
    if missing and not source.named and source.array is None and not source.beside and not source.arrays:
        return None  # an array without names
    if missing:
        raise DataError(
            f"{source.file}: there is no column {', '.join(map(repr, missing[:10]))} for the context; --context gives "
            "it apart"
        )
    return {f.name: there[f.name if f.name in there else f.column or ""] for f in manifest.context_features}


def _read_context(
    source: Source,
    given: Mapping[str, Any],
    kept: npt.NDArray[np.bool_] | None,
    features: Sequence[ContextFeature],
) -> FloatArray:
    classes = {feature.name: feature for feature in features if feature.column is not None}
    columns = []
    for name, values in given.items():
        feature = classes.get(name)
        if feature is None or name in source.columns:
            columns.append(numbers_of(source, {name: values}, kept, "")[:, 0])
        else:
            known = [each.category or "" for each in features if each.column == feature.column]
            columns.append(_one_hot(source, values, feature, known, kept))
    return np.stack(columns, axis=1)


def _one_hot(
    source: Source,
    values: Any,  # noqa: ANN401  NumPy's or Arrow's
    feature: ContextFeature,
    known: Sequence[str],
    kept: npt.NDArray[np.bool_] | None,
) -> FloatArray:
    """1 in the rows of one class, 0 in those of the others."""
    cells = values.tolist() if isinstance(values, np.ndarray) else values.to_pylist()
    chosen = np.arange(len(cells)) if kept is None else np.flatnonzero(kept)
    keys = {_class_key(category): category for category in known}
    found = np.empty(len(chosen))
    for at, row in enumerate(chosen):
        cell = "" if cells[row] is None else str(cells[row]).strip()
        category = keys.get(_class_key(cell))
        if category is None:
            what = f"{source.place(int(row))}, column {feature.column!r}: {cell!r} is no class of it"
            reason = f"{what}; there are {', '.join(known[:20])}"
            raise DataError(f"{source.file}: {reason}", (Reason((source.file, feature.column or ""), reason, row=at),))
        found[at] = category == feature.category
    return found


def _class_key(text: str) -> str | float:
    number = cell_number(text)
    return text if number is None else number
