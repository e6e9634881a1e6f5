"""Answers to a file or a pipe, as CSV or .npy. Each float32 is written as its shortest exact text.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, Protocol

import numpy as np
import numpy.typing as npt

from pushforward.client.arrays import Float32Array, number_text
from pushforward.client.errors import InvalidInput

__all__ = ["CsvTable", "Format", "NpyArray", "Table", "open_output", "open_table"]

Format = Literal["csv", "npy"]


class Table(Protocol):
    """Where the rows of an answer go, block by block."""

    def write(self, main: Float32Array, *others: npt.NDArray[np.floating], before: Sequence[Float32Array] = ()) -> None:
        """Take consecutive rows.

        Args:
            main: what the answer is about, ``[n]`` or ``[n, *event]``.
            others: columns ``[n]`` that stand after it in CSV, and nowhere in .npy.
            before: columns ``[n]`` that stand before it in CSV.
        """
        ...

    def close(self) -> None:
        """Write what is still held back."""
        ...


class CsvTable:
    """CSV with a header, which comes with the first rows; -inf is written ``-inf``.

    Args:
        stream: where it goes.
        header: the names of the columns.
    """

    def __init__(self, stream: IO[bytes], header: Sequence[str]) -> None:
        self._stream = stream
        self._header: Sequence[str] | None = header

    def write(self, main: Float32Array, *others: npt.NDArray[np.floating], before: Sequence[Float32Array] = ()) -> None:
        """Append rows, as `Table.write` says."""
        if self._header is not None:
            line = io.StringIO()
            csv.writer(line, lineterminator="\n").writerow(self._header)
            self._stream.write(line.getvalue().encode())
            self._header = None
        columns = [np.asarray(c, np.float32).reshape(len(main), -1) for c in (*before, main, *others)]
        rows = number_text(np.hstack(columns))
        # One number that is not finite can be here, a log_prob of -inf; JSON has no word for it.
        self._stream.write(rows[2:-2].replace(b"],[", b"\n").replace(b"null", b"-inf") + b"\n")

    def close(self) -> None:
        """Nothing is held back."""


class NpyArray:
    """The main array alone, as .npy, written whole at the end: its header says how many rows there are.

    Args:
        stream: where it goes.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._blocks: list[Float32Array] = []

    def write(self, main: Float32Array, *others: npt.NDArray[np.floating], before: Sequence[Float32Array] = ()) -> None:  # noqa: ARG002  CSV's columns
        """Append rows, as `Table.write` says."""
        self._blocks.append(main)

    def close(self) -> None:
        """Write the array."""
        array = np.ascontiguousarray(np.concatenate(self._blocks))
        # Not `write_array`: it asks a buffered file for its position, and a pipe has none.
        np.lib.format.write_array_header_1_0(self._stream, np.lib.format.header_data_from_array_1_0(array))
        self._stream.write(array.data)


@contextmanager
def open_output(path: str) -> Iterator[IO[bytes]]:
    """A file that appears whole or not at all; ``-`` for the standard output.

    Args:
        path: where to write. A pipe or a device that is there already is written to as it stands.

    Raises:
        InvalidInput: where there is no such folder, or it cannot be written to.
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


@contextmanager
def open_table(path: str, form: Format | None, header: Sequence[str]) -> Iterator[Table]:
    """A table of the chosen form.

    Args:
        path: where to write; ``-`` for the standard output.
        form: CSV or .npy; None to go by the path's suffix, CSV where that says nothing.
        header: the names of CSV's columns.

    Raises:
        InvalidInput: where it cannot be written, or .npy would go to a terminal.
    """
    form = form or ("npy" if path.endswith(".npy") else "csv")
    if form == "npy" and path == "-" and sys.stdout.isatty():
        raise InvalidInput("npy is no text for a terminal: give --out FILE, or a pipe")
    with open_output(path) as stream:
        table: Table = CsvTable(stream, header) if form == "csv" else NpyArray(stream)
        yield table
        table.close()
