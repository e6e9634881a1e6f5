"""The readers of files of rows: CSV, .npy, .npz, Parquet and folders of PNGs. Libraries read; a fault names its place.

`models.data.load` decides which rows are kept and whether they can be fitted. Must not import torch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from models.data.image_files import read_images
from service.errors import DataError, Reason
from service.tabular import NotCsv, parse_number, read_heading, read_lines

__all__ = ["FloatArray", "Source", "cell_number", "read_source", "to_numbers"]

FloatArray = npt.NDArray[np.float64]

_DELIMITERS: Final = (",", ";", "\t")
_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".npy", ".npz", ".parquet", ".pq")


def _row(row: int) -> str:
    return f"row {row}"


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a file holds, before any row or column is chosen.

    Args:
        file: the file's name, for errors and for the manifest.
        columns: for a table: name or number -> values ``[N]``, numbers or text.
        named: whether the file itself names the columns.
        array: for events of more than one axis: ``[N, H, W, C]``; then there are no columns.
        beside: name -> values ``[N]`` that can select rows but are not fitted.
        arrays: the other arrays of an .npz, of any shape.
        place: a row, counted from 0 -> where that is in the file, in words.
        held_out: how many of the rows, the last ones, are to be held out; 0 where that is left to chance.
    """

    file: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False
    array: FloatArray | None = None
    beside: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    place: Callable[[int], str] = _row
    held_out: int = 0

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values()), ())) if self.array is None else len(self.array)


def read_source(path: Path, key: str | None = None, header: bool | None = None, test_key: str | None = None) -> Source:
    """Read a file of rows, or a folder of images.

    Args:
        path: its name's ending says what it is.
        key: the array to take from an .npz; None takes ``X``, ``x``, or the only one with rows and columns.
        header: whether a CSV's first line names the columns; None looks: it does where no cell of it is a number.
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
        ".npy": lambda: _from_array(_load(path), path.name, "the array"),
        ".npz": lambda: _read_npz(path, key, test_key),
        ".parquet": lambda: _read_parquet(path),
        "folder": lambda: _read_folder(path),
    }
    aliases = {".tsv": ".csv", ".txt": ".csv", ".pq": ".parquet"}
    suffix = "folder" if path.is_dir() else path.suffix.lower()
    reader = readers.get(aliases.get(suffix, suffix))
    if reader is None:
        raise DataError(f"{path.name}: expected a file that ends in one of {', '.join(_SUFFIXES)}, or a folder of PNGs")
    if (key is not None or test_key is not None) and suffix != ".npz":
        raise DataError(f"{path.name}: a key names an array of an .npz, and this is none")
    return reader()


def _read_csv(path: Path, header: bool | None) -> Source:
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = next((line for line in file if line.strip()), None)
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name}: expected text in UTF-8") from error
    except OSError as error:
        raise DataError(f"{path.name}: the file cannot be read: {error.strerror}") from error
    if first is None:
        raise DataError(f"{path.name}: the file is empty")
    delimiter = max(_DELIMITERS, key=first.count)  # the first of equals: a single column has none of them
    # pyarrow takes the names from the first line only where there is one; as text, a cell stays as it was written.
    named = _is_header(path.name, first, delimiter) if header is None else header
    # pyarrow takes no header that ends with the file; then it is the only line.
    whole = first.endswith("\n")
    skipped: list[pa.csv.InvalidRow] = []

    def note(row: pa.csv.InvalidRow) -> str:
        skipped.append(row)
        return "skip"

    try:
        with pa.csv.open_csv(
            path if whole else pa.BufferReader(f"{first}\n".encode()),
            read_options=pa.csv.ReadOptions(use_threads=False, autogenerate_column_names=not named),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=note),
        ) as peek:
            columns = peek.schema.names
        skipped.clear()
        if len(set(columns)) < len(columns):
            twice = next(name for i, name in enumerate(columns) if name in columns[:i])
            raise DataError(f"{path.name}: two columns are called {twice!r}")
        table = pa.csv.read_csv(
            path if whole else pa.BufferReader(f"{first}\n".encode()),
            # One thread: only so does a ragged row come with its number.
            read_options=pa.csv.ReadOptions(use_threads=False, autogenerate_column_names=not named),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, invalid_row_handler=note),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(f"{path.name}: this is not CSV: {str(error).splitlines()[0]}") from error
    place = _lines(path, named)
    if skipped:
        reasons = tuple(
            Reason(
                (path.name,),
                f"{place(row.number - 1 - named)}: expected {row.expected_columns} cells, as in the first line, "
                f"and found {row.actual_columns}",
                row=row.number - 1 - named,
            )
            for row in skipped
        )
        raise DataError(f"{path.name}: {reasons[0].reason}", reasons)
    keys = [name.strip() for name in columns] if named else [str(i) for i in range(len(columns))]
    return Source(path.name, dict(zip(keys, table.columns, strict=True)), named, place=place)


def cell_number(text: str) -> float | None:
    """The number in a cell of text, by the rule of `service.tabular`; None where it holds none."""
    try:
        return parse_number(text)
    except ValueError:
        return None


def _is_header(file: str, line: str, delimiter: str) -> bool:
    """Whether a CSV's first line names the columns: no cell of it is a number."""
    try:
        _, cells = next(read_lines([line], delimiter))
    except NotCsv as error:
        raise DataError(f"{file}: this is not CSV: {error.reason}") from error
    return read_heading(cells) is not None


def _lines(path: Path, named: bool) -> Callable[[int], str]:
    """Where a row of a CSV is: the file is read again, since only an error asks, and empty lines are no rows."""

    def place(row: int) -> str:
        with path.open(encoding="utf-8-sig") as file:
            filled = (number for number, line in enumerate(file, start=1) if line.strip("\r\n"))
            line = next((number for i, number in enumerate(filled) if i == row + named), None)
        return f"row {row}" if line is None else f"row {row} (line {line})"

    return place


def _read_parquet(path: Path) -> Source:
    try:
        table = pa.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name}: this is not Parquet: {str(error).splitlines()[0]}") from error
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(f"{path.name}: two columns have the same name")
    return Source(path.name, dict(zip(table.column_names, table.columns, strict=True)), named=True)


def _load(path: Path) -> Any:  # noqa: ANN401  an array, or the archive of several
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        why = "it holds Python objects" if "pickle" in str(error) else "it cannot be read as such"
        raise DataError(f"{path.name}: expected a plain NumPy file: {why}") from error


def _read_npz(path: Path, key: str | None, test_key: str | None) -> Source:
    archive = _load(path)
    try:
        with archive:
            arrays: dict[str, npt.NDArray[Any]] = dict(archive)
    except (ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name}: expected an archive of plain NumPy arrays") from error
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


def to_numbers(column: Any) -> tuple[FloatArray, list[tuple[int, str]]]:  # noqa: ANN401  NumPy's or Arrow's
    """A column's values as float64, and the cells that are none.

    Args:
        column: values ``[N]``, of NumPy or Arrow, numbers or text.

    Returns:
        ``[N]`` float64, NaN where there is no number, and each cell that is none: its row and what was found.
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
        return np.asarray(numbers.to_numpy(), np.float64), [(int(row), "nothing") for row in missing]
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return np.full(len(column), np.nan), [(0, f"a column of type {kind}")] if len(column) else []
    text = pc.utf8_trim_whitespace(column)
    try:
        numbers = np.asarray(text.cast(pa.float64()).to_numpy(), np.float64)
    except pa.ArrowInvalid:
        return _cell_by_cell(text.to_pylist())
    # Arrow gives NaN for a missing cell, and for some texts that are no numbers, such as nan(1).
    return _cell_by_cell(text.to_pylist()) if np.isnan(numbers).any() else (numbers, [])


def _cell_by_cell(cells: list[str | None]) -> tuple[FloatArray, list[tuple[int, str]]]:
    numbers, bad = np.full(len(cells), np.nan), []
    for row, cell in enumerate(cells):
        number = cell_number(cell or "")
        if number is None:
            bad.append((row, repr(cell[:60]) if cell else "nothing"))
        else:
            numbers[row] = number
    return numbers, bad
