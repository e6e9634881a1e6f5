"""Rows from a file or a pipe, CSV or .npy, in blocks, so that a file larger than memory can be read.

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

from pushforward.cli.csv_rows import csv_blocks
from pushforward.cli.layout import Block, Layout, block_of
from pushforward.client.errors import InvalidInput

__all__ = ["Rows", "open_rows"]

_NPY_MAGIC: Final = b"\x93NUMPY"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows to be read once.

    Args:
        name: what the input is called, for an error.
        total: how many rows there are; None where only reading tells.
        blocks: the rows, at least one.
    """

    name: str
    total: int | None
    blocks: Iterator[Block]

    def whole(self) -> Block:
        """All rows in one block."""
        blocks = list(self.blocks)
        lines = [line for block in blocks for line in block.lines or ()]
        contexts = [block.context for block in blocks if block.context is not None]
        return Block(
            np.concatenate([block.values for block in blocks]),
            0,
            lines or None,
            np.concatenate(contexts) if contexts else None,
        )


@contextmanager
def open_rows(
    path: str, layout: Layout, block_rows: int, delimiter: str = ",", beside: Layout | None = None
) -> Iterator[Rows]:
    """Read rows from CSV, with a header or without, or from .npy; the first bytes say which.

    A header (a first line in which no cell is a number) is held against the flow's feature names: the columns are
    taken by name, in any order, and others are passed over. Without a header, and for a flow whose features have no
    names, the columns are taken as they stand.

    Where the input is to hold the rows' context too, a header names its columns, and a flow whose features have no
    names takes the other columns as they stand. Without a header, and in .npy, they follow the row's own.

    Args:
        path: a file; ``-`` for the standard input. A .npy file is mapped, not read.
        layout: what a row must look like.
        block_rows: at most so many rows in a block.
        delimiter: what stands between the cells of CSV.
        beside: what a row of context must look like, which the input holds too; None for none.

    Yields:
        The rows. CSV is read while they are taken, and its errors come then.

    Raises:
        InvalidInput: the input cannot be opened, is empty, of another width, ragged, or holds something that is not a
            finite float32.
    """
    name = "standard input" if path == "-" else path
    with _opened(path) as stream:
        if stream.peek(len(_NPY_MAGIC))[: len(_NPY_MAGIC)] == _NPY_MAGIC:
            whole = layout if beside is None else _together(layout, beside)
            hint = "" if beside is None else f": the last {beside.width} are the context, unless --context gives it"
            array = _npy(stream, path, name, whole, hint)
            yield Rows(name, len(array), _array_blocks(array, name, layout, block_rows, beside))
        else:
            with closing(csv_blocks(stream, name, layout, block_rows, delimiter, beside)) as blocks:
                yield Rows(name, None, blocks)


@contextmanager
def _opened(path: str) -> Iterator[io.BufferedReader]:
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


def _together(layout: Layout, beside: Layout) -> Layout:
    """Rows and their context side by side."""
    return Layout((layout.width + beside.width,), (*layout.names, *beside.names), named=False)


def _npy(stream: io.BufferedReader, path: str, name: str, layout: Layout, hint: str) -> npt.NDArray[Any]:
    array: npt.NDArray[Any]
    try:
        if path == "-":
            array = np.load(io.BytesIO(stream.read()), allow_pickle=False)
        else:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InvalidInput(f"{name} is not a .npy file of plain numbers") from error
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} must hold real numbers, and holds {array.dtype}")
    event = layout.event_shape
    if array.ndim == 1 and layout.width == 1:
        array = array.reshape(-1, *event)
    elif array.shape == event:
        array = array.reshape(1, *event)
    if array.ndim == 0 or array.shape[1:] not in (event, (layout.width,)):
        raise InvalidInput(f"{name} must have the shape {['N', *event]}, and has {list(array.shape)}{hint}")
    if len(array) == 0:
        raise InvalidInput(f"{name} holds no rows")
    return array


def _array_blocks(
    array: npt.NDArray[Any], name: str, layout: Layout, block_rows: int, beside: Layout | None
) -> Iterator[Block]:
    for start in range(0, len(array), block_rows):
        given = array[start : start + block_rows].reshape(-1, array[0].size)
        with np.errstate(over="ignore"):
            numbers = np.ascontiguousarray(given, dtype=np.float32)
        yield block_of(numbers, given, start, None, name, layout, beside)
