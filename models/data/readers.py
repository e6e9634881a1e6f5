"""The readers of files of rows: CSV, .npy, .npz, Parquet, Feather and folders of PNGs. A fault names its place.

`models.data.load` decides which rows are kept and whether they can be fitted. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet

from models.data.image_files import read_images
from service.errors import DataError, PushforwardError, Reason
from service.tabular import NotCsv, TextTable, explain_text, find_index, pandas_index, parse_number, read_table

__all__ = ["FloatArray", "NoNumber", "Source", "cell_number", "read_source", "to_numbers"]

FloatArray = npt.NDArray[np.float64]

_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".npy", ".npz", ".parquet", ".pq", ".feather", ".arrow")

_LINES: Final = 1 << 12
"""Lines of CSV that are held as Python's texts at a time."""

_ERROR_CHARACTERS: Final = 200

_COUNTS: Final = {2: "two", 3: "three"}

_COUNTED: Final = (
    "the first line counts 0, 1 and so on, and was taken for a row, since it holds numbers. If it names the columns, "
    "give --header"
)


def _row(row: int) -> str:
    return f"row {row}"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a file holds, before any row or column is chosen.

    Args:
        file: the file's name, for errors and for the manifest.
        columns: for a table: name or number -> values ``[N]``, numbers or text.
        named: whether the file itself names the columns.
        index: the columns that are an index, or have neither a name nor a value. They are fitted where they are asked
            for alone.
        nameless: the columns that have no name beside others that have one. They cannot be fitted.
        array: for events of more than one axis: ``[N, H, W, C]``; then there are no columns.
        beside: name -> values ``[N]`` that can select rows but are not fitted.
        arrays: the other arrays of an .npz, of any shape.
        place: a row, counted from 0 -> where that is in the file, in words.
        held_out: how many of the rows, the last ones, are to be held out; 0 where that is left to chance.
        notes: what the user should know.
    """

    file: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False
    index: tuple[str, ...] = ()
    nameless: tuple[str, ...] = ()
    array: FloatArray | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    place: Callable[[int], str] = _row
    held_out: int = 0
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values()), ())) if self.array is None else len(self.array)


def read_source(path: Path, key: str | None = None, header: bool | None = None, test_key: str | None = None) -> Source:
    """Read a file of rows, or a folder of images.

    Args:
        path: its name's ending says what it is.
        key: the array to take from an .npz; None takes ``X``, ``x``, or the only one with rows and columns.
        header: whether a CSV's first line names the columns; None goes by the rule of `service.tabular`.
        test_key: the array of an .npz that is to be held out; its rows come after those of the other.

    Returns:
        What it holds.

    Raises:
        DataError: where there is no such file, it is not what its name says, or its rows have different lengths.
    """
    if not path.exists():
        raise DataError(f"there is no file {path}")
    readers: dict[str, Callable[[], Source]] = {
        ".csv": lambda: _read_csv(path, header),
        ".npy": lambda: _from_array(_read_arrays(path), path.name, "the array"),
        ".npz": lambda: _read_npz(path, key, test_key),
        ".parquet": lambda: _read_arrow(path, "Parquet", _read_parquet),
        ".feather": lambda: _read_arrow(path, "Feather", _read_feather),
        "folder": lambda: _read_folder(path),
    }
    aliases = {".tsv": ".csv", ".txt": ".csv", ".pq": ".parquet", ".arrow": ".feather"}
    suffix = "folder" if path.is_dir() else path.suffix.lower()
    reader = readers.get(aliases.get(suffix, suffix))
    if reader is None:
        raise DataError(f"{path.name}: expected a file that ends in one of {', '.join(_SUFFIXES)}, or a folder of PNGs")
    if (key is not None or test_key is not None) and suffix != ".npz":
        raise DataError(f"{path.name}: a key names an array of an .npz, and this is none")
    return reader()


def _read_csv(path: Path, header: bool | None) -> Source:
    with _open_text(path) as file:
        table = read_table(file, header=header)
        if table is None:
            raise DataError(f"{path.name}: the file is empty")
        cells, lines = _read_cells(path.name, table)
    keys = _keys(path.name, table)
    columns = dict(zip(keys, cells, strict=True))
    nameless = [key for key, name in zip(keys, table.names or keys, strict=True) if not name]
    empty = [key for key in nameless if not any(map(len, pc.utf8_trim_whitespace(columns[key]).unique().to_pylist()))]
    counted = [column[0].as_py().strip() for column in cells if len(lines)] == list(map(str, range(table.width)))
    return Source(
        path.name,
        columns,
        named=table.names is not None,
        index=tuple(key for place, key in enumerate(keys) if place in table.index or key in empty),
        nameless=tuple(key for key in nameless if key not in empty),
        place=lambda row: f"row {row} (line {lines[row]})",
        notes=(_COUNTED,) if header is None and counted and table.width > 1 and table.names is None else (),
    )


@contextmanager
def _open_text(path: Path) -> Iterator[Iterator[str]]:
    """Open a file of CSV.

    Raises:
        DataError: it cannot be read, or is not CSV, while its lines are taken too.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name}: expected text in UTF-8, and found other bytes: {error.reason}") from error
    except OSError as error:
        raise DataError(f"{path.name}: the file cannot be read: {error.strerror}") from error
    except NotCsv as error:
        raise DataError(f"{path.name}: this is not CSV: {error.reason} (line {error.line})") from error


def _read_cells(file: str, table: TextTable) -> tuple[list[pa.ChunkedArray], npt.NDArray[np.int64]]:
    """The cells of a table, column by column, and the number of each row's line.

    Raises:
        DataError: rows have more or fewer cells than the first line; the first such rows are named.
    """
    chunks: list[list[pa.Array]] = [[] for _ in range(table.width)]
    lines: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    ragged: list[Reason] = []
    first = 0
    while block := list(islice(table.rows, _LINES)):
        for row, (number, cells) in enumerate(block, first):
            if len(cells) != table.width and len(ragged) < PushforwardError.MAX_REASONS:
                found = f"expected {table.width} cells, as in the first line, and found {len(cells)}"
                ragged.append(Reason((file,), f"row {row} (line {number}): {found}", row=row))
        first += len(block)
        if not ragged:
            lines.append(np.array([number for number, _ in block]))
            for chunk, column in zip(chunks, zip(*(cells for _, cells in block), strict=True), strict=True):
                chunk.append(pa.array(column, pa.string()))
    if ragged:
        raise DataError(f"{file}: {ragged[0].reason}", tuple(ragged))
    return [pa.chunked_array(chunk, pa.string()) for chunk in chunks], np.concatenate(lines)


def _keys(file: str, table: TextTable) -> list[str]:
    """A name for each column: its own, or else its number.

    Raises:
        DataError: two columns have the same name.
    """
    if table.names is None:
        return [str(place) for place in range(table.width)]
    _require_distinct(file, table.names)
    return [name or f"column {place}" for place, name in enumerate(table.names)]


def _require_distinct(file: str, names: Sequence[str]) -> None:
    """Refuse names that two columns have; columns without a name have none in common.

    Raises:
        DataError: the first such name is told, with the numbers of its columns.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    twice = {name: found for name, found in places.items() if name and len(found) > 1}
    if twice:
        name, found = next(iter(twice.items()))
        more = f", and {len(twice) - 1} more names are there more than once" if len(twice) > 1 else ""
        where = f"columns {' and '.join(map(str, found))}, counted from 0{more}"
        raise DataError(
            f"{file}: {_COUNTS.get(len(found), len(found))} columns are called {name!r} ({where}); rename them"
        )


def cell_number(text: str) -> float | None:
    """The number in a cell of text, by the rule of `service.tabular`; None where it holds none."""
    try:
        return parse_number(text)
    except ValueError:
        return None


def _read_arrow(path: Path, kind: str, read: Callable[[Path], tuple[pa.Schema, Callable[[], pa.Table]]]) -> Source:
    """Read a file of Arrow's columns.

    Args:
        path: of the file.
        kind: what it is called.
        read: gives its schema, and then its table.

    Raises:
        DataError: it is no such file, or two columns have the same name.
    """
    try:
        schema, whole = read(path)
        names = [name.strip() for name in schema.names]
        _require_distinct(path.name, names)
        table = whole()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name}: this is not {kind}: {str(error).splitlines()[0]}") from error
    own = [name.strip() for name in pandas_index((schema.metadata or {}).get(b"pandas"))]
    keys = [name or f"column {place}" for place, name in enumerate(names)]
    index = find_index(names, own)
    return Source(
        path.name,
        dict(zip(keys, table.columns, strict=True)),
        named=True,
        index=tuple(key for place, key in enumerate(keys) if place in index),
        nameless=tuple(key for key, name in zip(keys, names, strict=True) if not name),
    )


def _read_parquet(path: Path) -> tuple[pa.Schema, Callable[[], pa.Table]]:
    file = pa.parquet.ParquetFile(path)
    return file.schema_arrow, file.read


def _read_feather(path: Path) -> tuple[pa.Schema, Callable[[], pa.Table]]:
    table = pa.feather.read_table(path)
    return table.schema, lambda: table


def _read_arrays(path: Path) -> Any:  # noqa: ANN401  an array, or name -> array of an archive
    """The array of a .npy file, or all arrays of an .npz."""
    try:
        with path.open("rb") as stream, np.errstate(over="ignore"):  # a header may claim more than NumPy can count
            loaded = np.load(stream, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except Exception as error:  # NumPy's readers and Python's parser raise a dozen classes on what is no array
        why = "it holds Python objects" if "pickle" in str(error) else f"it cannot be read as such ({_first(error)})"
        raise DataError(f"{path.name}: expected a plain NumPy file: {why}") from error


def _first(error: Exception) -> str:
    """The first line of an error, or what it is called."""
    lines = str(error).splitlines()
    return lines[0][:_ERROR_CHARACTERS] if lines else type(error).__name__


def _read_npz(path: Path, key: str | None, test_key: str | None) -> Source:
    arrays: dict[str, npt.NDArray[Any]] = _read_arrays(path)
    if not isinstance(arrays, dict):
        raise DataError(f"{path.name}: expected an archive of plain NumPy arrays")
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    if key is None:
        wide = [name for name, array in arrays.items() if array.ndim >= 2]
        key = next((name for name in ("X", "x") if name in arrays), wide[0] if len(wide) == 1 else None)
        if key is None:
            raise DataError(f"{path.name}: which array holds the rows? Give its key; there are {shapes}")
    for name in (key, test_key):
        if name is not None and name not in arrays:
            raise DataError(f"{path.name}: there is no array {name!r}; there are {shapes}")
    held_out = 0
    place: Callable[[int], str] = _row
    if test_key is not None:
        held_out, place = len(arrays[test_key]), _place_in_two(len(arrays[key]), test_key)
        arrays = _joined(path.name, arrays, key, test_key)
    source = _from_array(arrays[key], path.name, f"array {key}")
    count = len(arrays[key])
    others = {name: array for name, array in arrays.items() if name != key}
    beside = {name: a.reshape(count) for name, a in others.items() if a.shape in ((count,), (count, 1))}
    return Source(
        source.file,
        source.columns,
        array=source.array,
        beside=beside,
        arrays={name: array for name, array in others.items() if name not in beside},
        place=place,
        held_out=held_out,
    )


def _joined(file: str, arrays: dict[str, npt.NDArray[Any]], key: str, test_key: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays with the held-out rows below the others, under the name of the others.

    What lies beside the rows is joined alike, where the two names differ as the keys do: with the keys x_train and
    x_test, y_test goes below y_train.
    """
    if key == test_key:
        raise DataError(f"{file}: key and test_key name the same array, {key!r}")
    rows, held_out = arrays[key], arrays[test_key]
    if rows.ndim == 0 or rows.shape[1:] != held_out.shape[1:] or rows.dtype.kind != held_out.dtype.kind:
        raise DataError(
            f"{file}: {test_key} must hold rows as {key} does, and they are {held_out.dtype} {list(held_out.shape)} "
            f"and {rows.dtype} {list(rows.shape)}"
        )
    start = _agreeing(key, test_key)
    end = _agreeing(key[start:][::-1], test_key[start:][::-1])
    ours, theirs = (name[start : len(name) - end] for name in (key, test_key))
    joined, below = {}, {}
    for name, array in arrays.items():
        other = name.replace(ours, theirs) if ours else f"{name}{theirs}"
        if other != name and other in arrays and (len(array), len(arrays[other])) == (len(rows), len(held_out)):
            joined[name] = np.concatenate((array, arrays[other]))
            below[other] = name
    return {name: joined.get(name, array) for name, array in arrays.items() if name not in below}


def _agreeing(one: str, other: str) -> int:
    """How many characters two names begin with alike."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _place_in_two(count: int, test_key: str) -> Callable[[int], str]:
    return lambda row: _row(row) if row < count else f"row {row - count} of {test_key}"


def _read_folder(path: Path) -> Source:
    array, names = read_images(path)
    return replace(_from_array(array, path.name, "the folder"), place=lambda row: names[row])


def _from_array(array: npt.NDArray[Any], file: str, what: str) -> Source:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{file}: {what} must hold numbers, and is of type {array.dtype}")
    if not 1 <= array.ndim <= 4:
        raise DataError(
            f"{file}: {what} must be [N, D] for a table, or [N, H, W] or [N, H, W, C] for images, "
            f"and has the shape {list(array.shape)}"
        )
    if 0 in array.shape[1:]:
        raise DataError(f"{file}: {what} has the shape {list(array.shape)}, so that a row holds no value")
    if array.ndim <= 2:
        table = array if array.ndim == 2 else array[:, None]
        return Source(file, {str(i): table[:, i] for i in range(table.shape[1])})
    images = array if array.ndim == 4 else array[..., None]
    return Source(file, array=np.asarray(images, np.float64))


class NoNumber(NamedTuple):
    """A cell that holds no number.

    Args:
        row: where it is.
        found: what it holds, in words.
        hint: what that may mean; empty where nothing is known of it.
    """

    row: int
    found: str
    hint: str = ""


def to_numbers(column: Any) -> tuple[FloatArray, list[NoNumber]]:  # noqa: ANN401  NumPy's or Arrow's
    """A column's values as float64, and the cells that are none.

    Args:
        column: values ``[N]``, of NumPy or Arrow, numbers or text.

    Returns:
        ``[N]`` float64, NaN where there is no number, and each cell that is none.
    """
    if isinstance(column, np.ndarray):
        if column.dtype.kind in "biuf":
            return column.astype(np.float64), []
        column = pa.chunked_array([pa.array(column.astype(str).tolist(), pa.string())])
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        numbers = column.cast(pa.int8() if pa.types.is_boolean(kind) else kind).cast(pa.float64(), safe=False)
        missing = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        return np.asarray(numbers.to_numpy(), np.float64), [NoNumber(int(row), "nothing") for row in missing]
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return np.full(len(column), np.nan), [NoNumber(0, f"a column of type {kind}")] if len(column) else []
    text = pc.utf8_trim_whitespace(column)
    try:
        numbers = np.asarray(text.cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid:
        return _cell_by_cell(text.to_pylist())
    # Arrow gives NaN for a missing cell, and for some texts that are no numbers, such as nan(1).
    return _cell_by_cell(text.to_pylist()) if np.isnan(numbers).any() else (numbers, [])


def _cell_by_cell(cells: list[str | None]) -> tuple[FloatArray, list[NoNumber]]:
    numbers, bad = np.full(len(cells), np.nan), list[NoNumber]()
    for row, cell in enumerate(cells):
        number = cell_number(cell or "")
        if number is None:
            found = (repr(cell[:60]), explain_text(cell[:60])) if cell else ("nothing", "")
            bad.append(NoNumber(row, *found))
        else:
            numbers[row] = number
    return numbers, bad
