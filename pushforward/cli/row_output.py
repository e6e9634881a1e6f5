"""The output of rows: CSV or .npy, to a file or a pipe. A number is written as its shortest exact text.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pushforward.cli.row_layout import RowLayout
from pushforward.client.arrays import FloatArray, dump_numbers
from pushforward.client.errors import InvalidInput
from service.tabular import distinct_names, write_heading

__all__ = [
    "CsvWriter",
    "NpyWriter",
    "OutputFormat",
    "RowWriter",
    "choose_format",
    "header_of",
    "open_output",
    "open_writer",
]

OutputFormat = Literal["csv", "npy"]

_BY_SUFFIX: Final[Mapping[str, OutputFormat]] = {"": "csv", ".csv": "csv", ".npy": "npy"}


class RowWriter(Protocol):
    """The rows of an answer, written block by block."""

    def write(self, main: FloatArray, *others: npt.NDArray[np.floating], before: Sequence[FloatArray] = ()) -> None:
        """Write consecutive rows.

        Args:
            main: the main array of the answer, ``[n]`` or ``[n, *event]``, whose precision is that of all columns.
            others: columns ``[n]`` that follow it in CSV. .npy goes without them.
            before: columns ``[n]`` that precede it in CSV. .npy goes without them.
        """
        ...

    def close(self) -> None:
        """Write what is still held back."""
        ...


class CsvWriter:
    """Rows as CSV, after a header, which comes with the first rows. A density of zero is ``-inf``.

    Args:
        stream: takes the text.
        header: the names of the columns.
    """

    def __init__(self, stream: IO[bytes], header: Sequence[str]) -> None:
        self._stream = stream
        self._header: Sequence[str] | None = header

    def write(self, main: FloatArray, *others: npt.NDArray[np.floating], before: Sequence[FloatArray] = ()) -> None:
        """Write consecutive rows; arguments as `RowWriter.write`."""
        if self._header is not None:
            self._stream.write(write_heading(self._header).encode())
            self._header = None
        columns = [np.asarray(c, main.dtype).reshape(len(main), -1) for c in (*before, main, *others)]
        rows = dump_numbers(np.hstack(columns))
        # JSON has no word for a log_prob of -inf, the one number here that need not be finite.
        self._stream.write(rows[2:-2].replace(b"],[", b"\n").replace(b"null", b"-inf") + b"\n")

    def close(self) -> None:
        """Nothing is held back."""


class NpyWriter:
    """The main array alone as .npy, written whole at the end, for its header says how many rows there are.

    Args:
        stream: takes the bytes.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._blocks: list[FloatArray] = []

    def write(self, main: FloatArray, *others: npt.NDArray[np.floating], before: Sequence[FloatArray] = ()) -> None:  # noqa: ARG002  CSV's columns
        """Write consecutive rows; arguments as `RowWriter.write`."""
        self._blocks.append(main)

    def close(self) -> None:
        """Write the array."""
        array = np.ascontiguousarray(np.concatenate(self._blocks))
        # Not `write_array`: it asks a buffered file for its position, and a pipe has none.
        np.lib.format.write_array_header_1_0(self._stream, np.lib.format.header_data_from_array_1_0(array))
        self._stream.write(array.data)


def header_of(
    layout: RowLayout,
    context_layout: RowLayout | None,
    *,
    context: bool = False,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> list[str]:
    """The header of rows and of what stands beside them, which can be read as rows of the flow again.

    No further column is called as one of the flow's.

    Args:
        layout: of a row.
        context_layout: of its context; None for a flow without.
        context: whether the columns of the context come first.
        before: names of the columns that come next, before those of the row.
        after: names of the columns after them.
    """
    conditions = () if context_layout is None else context_layout.names
    first = [name for each in conditions for name in distinct_names([each], layout.names)] if context else []
    taken = [*first, *layout.names, *conditions]
    beside = [[name for each in names for name in distinct_names([each], taken)] for names in (before, after)]
    return [*first, *beside[0], *layout.names, *beside[1]]


@contextmanager
def open_output(path: str) -> Iterator[IO[bytes]]:
    """Open a file that appears whole or not at all.

    Args:
        path: of the file; ``-`` for the standard output. A pipe or a device that is there already is written to as it
            stands.

    Raises:
        InvalidInput: there is no such folder, or it cannot be written to.
    """
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(path).resolve()
    regular = target.is_file() or not target.exists()
    part = target.with_name(f".{target.name}.part") if regular else target
    try:
        file = part.open("wb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}") from error
    try:
        with file:
            yield file
        if regular:
            part.replace(target)
    except BaseException:
        if regular:
            part.unlink(missing_ok=True)
        raise


def choose_format(path: str, form: OutputFormat | None) -> OutputFormat:
    """The format of an output of rows: the one that is given, or else that of the path's suffix.

    Args:
        path: of the file; ``-`` for the standard output.
        form: of --format; None where it is not given.

    Returns:
        CSV for a path without a suffix.

    Raises:
        InvalidInput: the suffix is neither's.
    """
    if form is not None:
        return form
    suffix = Path(path).suffix
    known = _BY_SUFFIX.get(suffix.lower())
    if known is None:
        raise InvalidInput(
            f"--out {path}: rows are written as .csv or .npy, and not as {suffix}; --format csv or --format npy writes "
            "them under any name"
        )
    return known


@contextmanager
def open_writer(path: str, form: OutputFormat | None, header: Sequence[str]) -> Iterator[RowWriter]:
    """Open an output of rows.

    Args:
        path: of the file; ``-`` for the standard output.
        form: CSV or .npy; None to go by the path's suffix.
        header: the names of CSV's columns.

    Raises:
        InvalidInput: the file cannot be written, its suffix is of no known format, or .npy would go to a terminal.
    """
    form = choose_format(path, form)
    if form == "npy" and path == "-" and sys.stdout.isatty():
        raise InvalidInput("npy is no text for a terminal: give --out FILE, or a pipe")
    with open_output(path) as stream:
        writer: RowWriter = CsvWriter(stream, header) if form == "csv" else NpyWriter(stream)
        yield writer
        writer.close()
