"""The rows of an input: CSV or .npy, from a file or a pipe, in blocks, so that a file larger than memory can be read.

Imports neither httpx nor the server.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pushforward.cli.csv_input import read_csv_blocks, read_csv_width
from pushforward.cli.row_layout import RowBlock, RowLayout, make_block, rows_of_block
from pushforward.client.errors import InvalidInput

__all__ = ["RowInput", "open_rows", "read_event_shape"]

_NPY_MAGIC: Final = b"\x93NUMPY"


@dataclass(frozen=True, slots=True, eq=False)
class RowInput:
    """An input whose rows can be read once.

    Args:
        name: of the input, for an error.
        total: how many rows there are; None where only reading tells.
        blocks: the rows, at least one.
    """

    name: str
    total: int | None
    blocks: Iterator[RowBlock]

    def read_whole(self) -> RowBlock:
        """Read all rows into one block."""
        blocks = list(self.blocks)
        lines = [line for block in blocks for line in block.lines or ()]
        contexts = [block.context for block in blocks if block.context is not None]
        return RowBlock(
            values=np.concatenate([block.values for block in blocks]),
            first=0,
            lines=lines or None,
            context=np.concatenate(contexts) if contexts else None,
        )


@contextmanager
def open_rows(
    path: str,
    layout: RowLayout,
    delimiter: str | None = None,
    context_layout: RowLayout | None = None,
    *,
    block_rows: int | None = None,
) -> Iterator[RowInput]:
    """Open an input of rows: CSV, with a heading or without, or .npy. The first bytes say which.

    What a heading and a number are is the rule of `service.tabular`. Under a heading, columns are taken by the flow's
    feature names, in any order, and others are passed over. Without a heading, and for a flow whose features have no
    names, the columns are taken as they stand.

    Where the input holds the rows' context too, a heading names its columns, and a flow whose features have no names
    takes the other columns as they stand. Without a heading, and in .npy, the context follows the row.

    Args:
        path: a file; ``-`` for the standard input. A .npy file is mapped, not read.
        layout: of a row.
        delimiter: what stands between the cells of CSV; None for what the first lines show.
        context_layout: of a row's context, where the input is to hold it too; else None.
        block_rows: at most so many rows in a block; None for as many as the command line works on at a time.

    Yields:
        The rows. CSV is read while they are taken, and its errors come then.

    Raises:
        InvalidInput: the input cannot be opened, is empty, of another width, ragged, or holds something that is not a
            finite number of the flow's precision.
    """
    name = "standard input" if path == "-" else path
    width = layout.width + (0 if context_layout is None else context_layout.width)
    rows = rows_of_block(width) if block_rows is None else block_rows
    with _open_bytes(path) as stream:
        if _is_npy(stream):
            array = _read_npy(stream, path, name, layout, context_layout)
            yield RowInput(name, len(array), _array_blocks(array, name, layout, rows, context_layout))
        else:
            blocks = read_csv_blocks(
                stream,
                name=name,
                layout=layout,
                block_rows=rows,
                delimiter=delimiter,
                context_layout=context_layout,
            )
            with closing(blocks):
                yield RowInput(name, None, blocks)


def read_event_shape(path: str, delimiter: str | None = None) -> tuple[int, ...] | None:
    """The shape of a row of an input, for a flow that does not say it.

    Args:
        path: a file; ``-`` for the standard input.
        delimiter: what stands between the cells of CSV; None for what the first lines show.

    Returns:
        None where it cannot be told: of the standard input, which can be read only once, of an empty file, and of an
        array of one axis.

    Raises:
        InvalidInput: the file cannot be opened, or its first bytes are neither CSV nor .npy.
    """
    if path == "-":
        return None
    with _open_bytes(path) as stream:
        if _is_npy(stream):
            return _load_npy(stream, path, path).shape[1:] or None
        width = read_csv_width(stream, name=path, delimiter=delimiter)
    return None if width is None else (width,)


def _is_npy(stream: io.BufferedReader) -> bool:
    return stream.peek(len(_NPY_MAGIC))[: len(_NPY_MAGIC)] == _NPY_MAGIC


@contextmanager
def _open_bytes(path: str) -> Iterator[io.BufferedReader]:
    if path == "-":
        stdin = sys.stdin.buffer
        yield stdin if isinstance(stdin, io.BufferedReader) else io.BufferedReader(io.BytesIO(stdin.read()))
        return
    with ExitStack() as stack:
        try:
            file = stack.enter_context(Path(path).open("rb"))
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
        yield file


def _read_npy(
    stream: io.BufferedReader, path: str, name: str, layout: RowLayout, context_layout: RowLayout | None
) -> npt.NDArray[Any]:
    """The rows of a .npy file, ``[N, *event]`` or flat; each with its context after it, where there is one."""
    array = _load_npy(stream, path, name)
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} must hold real numbers, and holds {array.dtype}")
    width, event, hint = layout.width, layout.event_shape, ""
    if context_layout is not None:
        width += context_layout.width
        event = (width,)
        hint = f": the last {context_layout.width} are the context, unless --context gives it"
    if array.ndim == 1 and width == 1:
        array = array.reshape(-1, *event)
    elif array.shape == event:
        array = array.reshape(1, *event)
    if array.ndim == 0 or array.shape[1:] not in (event, (width,)):
        raise InvalidInput(f"{name} must have the shape {['N', *event]}, and has {list(array.shape)}{hint}")
    if len(array) == 0:
        raise InvalidInput(f"{name} holds no rows")
    return array


def _load_npy(stream: io.BufferedReader, path: str, name: str) -> npt.NDArray[Any]:
    """The array of a .npy file, mapped; of the standard input it is read."""
    array: npt.NDArray[Any]
    try:
        if path == "-":
            array = np.load(io.BytesIO(stream.read()), allow_pickle=False)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"{name} is not a .npy file of plain numbers") from error
    return array


def _array_blocks(
    array: npt.NDArray[Any], name: str, layout: RowLayout, rows: int, context_layout: RowLayout | None
) -> Iterator[RowBlock]:
    for start in range(0, len(array), rows):
        given = array[start : start + rows].reshape(-1, array[0].size)
        with np.errstate(over="ignore"):
            numbers = np.ascontiguousarray(given, dtype=layout.dtype)
        yield make_block(
            numbers, given, first=start, lines=None, name=name, layout=layout, context_layout=context_layout
        )
