"""The tables of other libraries: rows whose columns have names, brought into the order of a flow's columns.

pandas, polars, Arrow, xarray, NumPy's structured arrays, mappings and named tuples are known by what they offer; none
of these libraries is imported, but for Arrow's where a table offers nothing else. NumPy would drop the names and take
the columns as they stand. Names are matched by the rule of `service.tabular`: exactly, but for spaces around them; and
columns that are not wanted are passed over. Imports neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pushforward.client.answers import ModelInfo
from pushforward.client.arrays import find_no_number, is_plain, read_cells
from pushforward.client.errors import InvalidInput
from service.errors import Reason
from service.tabular import Header, find_index, pandas_index

__all__ = ["FlowColumns", "RowKind", "has_labels", "load_stream", "match_columns", "require_same_rows"]

RowKind: TypeAlias = Literal["x", "z", "context", "direction"]
"""The columns that an argument has: those of data, of latents, or of context; a direction's are either's."""

_SHOWN: Final = 10
_BY_POSITION: Final = "an array without names, such as .to_numpy(), is taken as it stands"


@dataclass(frozen=True, slots=True)
class WantedColumns:
    """The columns of one kind of rows of a flow.

    Args:
        names: in the flow's order.
        named: whether they are the flow's own. Names that are not are made up: x0, x1 and so on. A table with none of
            these is taken as it stands.
        generic: other names of all of them, that a table may have instead; empty for none.
        others: the names of what else the flow has columns for. A table with one of them is not taken as it stands.
    """

    names: tuple[str, ...]
    named: bool
    generic: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def under(self, header: Header) -> WantedColumns:
        """The columns that a table has: those with the generic names where it has these alone."""
        if not self.generic or header.missing(self.generic) or not header.missing(self.names):
            return self
        return WantedColumns(self.generic, named=True)


@dataclass(frozen=True, slots=True)
class FlowColumns:
    """The columns of one version of a flow.

    Args:
        model: the flow's name.
        version: its version.
        x: of data.
        z: of latents.
        context: of context.
    """

    model: str
    version: int
    x: WantedColumns
    z: WantedColumns
    context: WantedColumns

    @classmethod
    def of(cls, flow: ModelInfo) -> FlowColumns:
        """The columns that a server describes.

        Raises:
            UnexpectedAnswer: it does not describe the flow in full.
        """
        width = int(np.prod(flow.event_shape))
        x, z, context = _numbered("x", width), _numbered("z", width), _numbered("context", flow.context_width)
        features = tuple(flow.features) or x
        conditions = tuple(flow.context_features) if flow.context_width else ()
        generic = context if conditions and not set(context) & set(features) else ()
        return cls(
            flow.name,
            flow.version,
            WantedColumns(features, named=bool(flow.features), others=z),
            WantedColumns(z, named=False, others=(*features, *x)),
            WantedColumns(conditions or context, bool(conditions), generic, others=(*features, *x, *z)),
        )


def _numbered(letter: str, width: int) -> tuple[str, ...]:
    return tuple(f"{letter}{at}" for at in range(width))


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Rows, or one row, whose columns have labels.

    Args:
        labels: of the columns, in their order: names, or the whole numbers that pandas counts them by.
        column: gives the values of the column at a place.
        in_order: gives all rows as NumPy takes them, by the name of the argument; None where columns have no order of
            their own.
        rows: the labels of the rows; empty where they have none.
        index: the places of columns that are an index of the rows.
    """

    labels: Sequence[object]
    column: Callable[[int], object]
    in_order: Callable[[str], object] | None
    rows: Sequence[object] = ()
    index: frozenset[int] = frozenset()

    @property
    def names(self) -> list[str]:
        """The labels as the heading of CSV has them."""
        return [str(label).strip() for label in self.labels]

    def take(self, places: Sequence[int], name: str, row: int = 0) -> npt.NDArray[Any]:
        """The columns at these places, as rows.

        Args:
            places: of the columns, in the order that is wanted.
            name: of the argument, for the error.
            row: the number of the row, where the table is one row of several.

        Raises:
            InvalidInput: a cell holds no number, or columns have different lengths; row and column are named.
        """
        columns = [self._read_column(place, at, name, row) for at, place in enumerate(places)]
        try:
            return np.stack(columns, axis=-1)
        except ValueError as error:
            raise InvalidInput(f"{name}: the columns of the table have different lengths") from error

    def _read_column(self, place: int, at: int, name: str, row: int) -> npt.NDArray[Any]:
        """The numbers of a column; `at` is its place among those that are wanted."""
        label = self.names[place][:64]
        try:
            values = self.column(place)
        except (LookupError, TypeError, ValueError) as error:
            raise InvalidInput(f"{name}: the column {label!r} cannot be read: {error}") from error
        cells, missing = read_cells(values, f"{name}, column {label!r}")
        if missing is not None:
            index = (*np.argwhere(missing)[0].tolist(), row)
            raise _cell_error(name, label, (index[0], at), "is masked or null")
        if cells.dtype.kind == "O":
            index = find_no_number(cells)
            what = f"holds {type(cells[index]).__name__}, which is no number"
            raise _cell_error(name, label, ((*index, row)[0], at), what)
        if cells.dtype.kind not in "fiub":
            raise InvalidInput(f"{name}: the column {label!r} must hold real numbers, and holds {cells.dtype}")
        if cells.ndim > 1:
            raise InvalidInput(f"{name}: the column {label!r} must hold a number a row, and has {cells.ndim} axes")
        return cells


def _cell_error(name: str, label: str, place: tuple[int, int], what: str) -> InvalidInput:
    row, column = place
    reason = f"{name}, row {row} (counted from 0), column {label!r}: the cell {what}"
    return InvalidInput(reason, (Reason((name, row, column), reason, row, column),))


def load_stream(values: Any) -> Any:  # noqa: ANN401  of any library
    """A table that offers itself as an Arrow stream, or by the interchange protocol, and in no other way, in memory.

    Anything else stays as it is. A stream can be read once, so that this is done before names are looked at.

    Raises:
        InvalidInput: pyarrow is needed, and is not installed; or the stream cannot be read; or the value is a plan of
            polars that has not been carried out.
    """
    if is_plain(values) or hasattr(values, "iloc") or _is_mapping(values) or _is_xarray(values):
        return values
    if callable(getattr(values, "collect", None)) and not hasattr(values, "__array__"):
        raise InvalidInput(f"a {type(values).__name__} holds no rows before its collect() is called")
    if _column_labels(values) is not None:
        return values
    if not (hasattr(values, "__arrow_c_stream__") or hasattr(values, "__dataframe__")):
        return values
    table = _read_arrow(values)
    return values if table is None else table


def has_labels(values: Any) -> bool:  # noqa: ANN401  of any library
    """Whether the columns of some rows have labels."""
    if is_plain(values):
        return False
    if _is_list(values):
        return any(has_labels(item) for item in values)
    return _find_table(values) is not None


def match_columns(columns: FlowColumns, kinds: Mapping[str, RowKind], given: Mapping[str, Any]) -> dict[str, Any]:
    """Bring the columns of tables into a flow's order.

    A table of data that has the flow's context beside them gives that too, where it is not given by itself.

    Args:
        columns: of the flow.
        kinds: of the arguments that hold rows, by their names.
        given: the arguments. What has no labels stays as it is.

    Raises:
        InvalidInput: a column that is wanted is not there, or more than once, or holds something that is no number.
    """
    matched = dict(given)
    of_context = (*columns.context.names, *columns.context.generic)
    for name, kind in kinds.items():
        values = given[name]
        if not has_labels(values):
            continue
        wanted = _wanted(columns, kind, values)
        if kind in ("x", "z") and given.get("context") is None and _holds(values, columns.context):
            matched["context"] = _arrange(values, columns.context, (), "context")
        matched[name] = _arrange(values, wanted, () if kind == "context" else of_context, name)
    return matched


def require_same_rows(given: Mapping[str, object]) -> None:
    """Refuse arguments whose rows have the same labels in another order: NumPy would pair rows that do not belong.

    Args:
        given: the arguments that hold a value or more for each row.

    Raises:
        InvalidInput: the first two such arguments are named.
    """
    labelled = [(name, rows) for name, values in given.items() if (rows := _row_labels(values))]
    for (first, ours), (second, theirs) in pairwise(labelled):
        if len(ours) == len(theirs) and ours != theirs and _same_labels(ours, theirs):
            row = next(at for at, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
            raise InvalidInput(
                f"{second} has the row labels of {first} in another order: row {row} is {ours[row]!r} in {first} and "
                f"{theirs[row]!r} in {second}; {_BY_POSITION}"
            )


def _same_labels(ours: Sequence[object], theirs: Sequence[object]) -> bool:
    try:
        return len(set(ours)) == len(ours) and set(ours) == set(theirs)
    except TypeError:  # a label that has no hash
        return False


def _row_labels(values: Any) -> list[object]:  # noqa: ANN401  of any library
    if is_plain(values) or _is_list(values):
        return []
    return _axis_labels(values, 0) if _is_xarray(values) else _index_labels(values)


def _wanted(columns: FlowColumns, kind: RowKind, values: Any) -> WantedColumns:  # noqa: ANN401  of any library
    if kind == "direction":  # a vector of latent space, or two rows of data
        table = None if _is_list(values) else _find_table(values)
        return columns.x if table is None or np.ndim(np.asarray(table.column(0))) else columns.z
    found: WantedColumns = getattr(columns, kind)
    return found


def _holds(values: Any, wanted: WantedColumns) -> bool:  # noqa: ANN401  of any library
    """Whether rows have all of these columns."""
    if not wanted.names or is_plain(values):
        return False
    if _is_list(values):
        return all(_holds(item, wanted) for item in values)
    table = _find_table(values)
    if table is None:
        return False
    header = Header(table.names)
    return not header.missing(wanted.under(header).names)


def _arrange(values: Any, wanted: WantedColumns, besides: Sequence[str], name: str, row: int = 0) -> Any:  # noqa: ANN401
    """Rows with their columns in the order that is wanted; what has no labels as it is."""
    if is_plain(values):
        return values
    if _is_list(values):
        return [_arrange(item, wanted, besides, name, at) for at, item in enumerate(values)]
    table = _find_table(values)
    if table is None:
        return values
    header = Header(table.names)
    wanted = wanted.under(header)
    missing = header.missing(wanted.names)
    if not missing:
        repeated = header.repeated(wanted.names)
        if repeated:
            raise InvalidInput(f"{name}: the table has the column {repeated[0][:64]!r} more than once")
        return table.take([header.place(column) for column in wanted.names], name, row)
    if _counts(table.labels):
        if table.in_order is not None and not _in_axis(table.rows, wanted.names):
            return table.in_order(name)
    elif not wanted.named and table.in_order is not None and _are_other_names(table.labels, wanted):
        others = [at for at, label in enumerate(table.names) if label not in besides and at not in table.index]
        return table.in_order(name) if len(others) == len(table.names) else table.take(others, name, row)
    shown = ", ".join(repr(column[:64]) for column in missing[:_SHOWN])
    there = ", ".join(repr(column[:64]) for column in table.names[:_SHOWN]) or "none"
    if (found := header.alike(wanted.others)) and not wanted.named:
        there += f", of which {', '.join(repr(column[:64]) for column in found[:_SHOWN])} are other columns of the flow"
    along = "; its rows are called so: transpose it" if _in_axis(table.rows, wanted.names) else ""
    raise InvalidInput(f"{name}: the table has no column {shown}; it has {there}{along}; {_BY_POSITION}")


def _counts(labels: Sequence[object]) -> bool:
    """Whether labels are but 0, 1, 2 and so on, as pandas counts columns that have no names."""
    return all(isinstance(label, (int, np.integer)) and label == at for at, label in enumerate(labels))


def _are_other_names(labels: Sequence[object], wanted: WantedColumns) -> bool:
    """Whether labels are names of which the flow knows none, not even in another case."""
    names = [label for label in labels if isinstance(label, str)]
    in_order = Header(names).may_stand_in_order(wanted.names, named=False, others=wanted.others)
    return len(names) == len(labels) and in_order


def _in_axis(labels: Sequence[object], wanted: Sequence[str]) -> bool:
    return bool(labels) and isinstance(labels[0], str) and set(wanted) <= {str(label) for label in labels}


def _is_list(values: object) -> bool:
    return isinstance(values, (list, tuple)) and not hasattr(values, "_fields")


def _is_xarray(values: object) -> bool:
    return hasattr(values, "coords") and hasattr(values, "__array__") and not _is_mapping(values)


def _is_mapping(values: object) -> bool:
    return callable(getattr(values, "keys", None)) and hasattr(values, "__getitem__")


def _find_table(values: Any) -> Table | None:  # noqa: ANN401  of any library
    """The table that a value is; None where its columns have no labels."""
    if isinstance(values, (np.ndarray, np.void)):
        fields = values.dtype.names
        return None if fields is None else _table_of(fields, lambda at: values[fields[at]])
    labels = _column_labels(values)
    if labels is not None:
        own_index = pandas_index(_arrow_metadata(values))
        return _table_of(labels, _column_reader(values, labels), rows=_index_labels(values), index=own_index)
    if isinstance(values, tuple) and hasattr(values, "_fields"):
        return Table(values._fields, lambda at: values[at], lambda _: list(values))
    if _is_xarray(values):
        return _xarray_table(values)
    index = _index_labels(values)
    if index and np.ndim(values) == 1:
        if not any(isinstance(label, (str, int, np.integer)) for label in index):
            return None
        return Table(index, lambda at: values.iloc[at], lambda _: values)
    if _is_mapping(values):
        keys = list(values.keys())
        return Table(keys, lambda at: values[keys[at]], None)
    return None


def _table_of(
    labels: Sequence[object],
    column: Callable[[int], object],
    rows: Sequence[object] = (),
    index: Collection[str] = (),
) -> Table:
    """A table whose columns have an order."""
    table = Table(labels, column, None, rows)
    places = find_index(table.names, index)
    return Table(labels, column, lambda name: table.take(range(len(labels)), name), rows, places)


def _arrow_metadata(values: Any) -> bytes | None:  # noqa: ANN401  of any library
    """What an Arrow table keeps of the frame of pandas that it was made of; None for anything else."""
    metadata = getattr(getattr(values, "schema", None), "metadata", None)
    found = metadata.get(b"pandas") if isinstance(metadata, Mapping) else None
    return found if isinstance(found, bytes) else None


def _column_labels(values: Any) -> list[object] | None:  # noqa: ANN401  of any library
    """The labels of the columns of a data frame or an Arrow table; None for anything else."""
    for attribute in ("column_names", "columns", "colnames"):
        labels = getattr(values, attribute, None)
        if labels is not None and not callable(labels) and not isinstance(labels, (str, int)):
            return list(labels)
    return None


def _column_reader(values: Any, labels: Sequence[object]) -> Callable[[int], object]:  # noqa: ANN401  of any library
    """The way to a column by its place: by the library's own, by its label, or by Arrow."""
    if hasattr(values, "iloc"):
        return lambda at: values.iloc[:, at]
    if callable(getattr(values, "column", None)):
        return values.column  # type: ignore[no-any-return]
    if hasattr(values, "__getitem__"):
        return lambda at: values[labels[at]]
    table = _read_arrow(values)
    if table is not None:
        return table.column  # type: ignore[no-any-return]
    rows = np.asarray(values)
    return lambda at: rows[..., at]


def _read_arrow(values: Any) -> Any:  # noqa: ANN401  pyarrow.Table, which serving does without
    """A table that offers itself in Arrow's way; None where it is a column, or is read as an array instead.

    Raises:
        InvalidInput: it is no array, and pyarrow is not installed.
    """
    has_array = hasattr(values, "__array__")
    try:
        import pyarrow as pa
    except ImportError as error:
        if has_array and np.ndim(values) == 1:
            return None
        raise InvalidInput(f"pyarrow is needed to read the columns of a {type(values).__name__}") from error
    try:
        if hasattr(values, "__arrow_c_stream__"):
            return pa.table(values)
        from pyarrow.interchange import from_dataframe

        return from_dataframe(values)
    except (TypeError, ValueError) as error:  # pyarrow's own are of these
        if has_array:
            return None
        raise InvalidInput(f"the columns of a {type(values).__name__} cannot be read: {error}") from error


def _index_labels(values: Any) -> list[object]:  # noqa: ANN401  of any library
    """The labels of the rows of a frame, or of the values of a series, of pandas."""
    index = getattr(values, "index", None)
    return [] if index is None or callable(index) or not hasattr(values, "iloc") else list(index)


def _axis_labels(values: Any, axis: int) -> list[object]:  # noqa: ANN401  xarray.DataArray
    dims = values.dims
    if not dims or dims[axis] not in values.coords:
        return []
    labels = np.asarray(values.coords[dims[axis]])
    return labels.tolist() if labels.ndim == 1 else []


def _xarray_table(values: Any) -> Table | None:  # noqa: ANN401  xarray.DataArray
    """The columns along the last axis, where they are called by names; else those along another are the rows'."""
    labels = _axis_labels(values, -1)
    rows = [label for axis in range(np.ndim(values) - 1) for label in _axis_labels(values, axis)]
    named = bool(labels) and isinstance(labels[0], str)
    if not named and not (rows and isinstance(rows[0], str)):
        return None
    array = np.asarray(values)
    labels = labels if named else list(range(array.shape[-1]))
    return Table(labels, lambda at: array[..., at], lambda _: array, rows)
