"""The columns that a split goes by: a group, whose rows stay together, or a key, whose hash says where a row belongs.

Must not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.data.context import context_columns
from models.data.readers import FloatArray, Source, cell_number
from models.data.selection import column_label, row_places
from models.recipe import DataRecipe
from service.errors import DataError, Reason

__all__ = ["Membership", "note_of_order", "read_membership"]

_PAIRS: Final = 2000  # of rows that are compared
_FAR: Final = 8  # rows, after which those of a series differ more than neighbours do
_CLOSE: Final = 0.5  # of the squared distance of rows drawn at random: nearer neighbours look like a series
_CLOSER: Final = 0.8  # of that of rows that are `_FAR` apart: a file sorted by class has no such difference
_LEAST: Final = 100  # rows, under which order says nothing


@dataclass(frozen=True, slots=True, eq=False)
class Membership:
    """What a split goes by.

    Args:
        columns: the columns that it is read from; they are not fitted.
        groups: ``[N]`` the number of each row's group; None for no groups.
        shares: ``[N]`` in [0, 1), by the hash of each row's key; None for no key.
    """

    columns: tuple[str, ...] = ()
    groups: npt.NDArray[np.intp] | None = None
    shares: FloatArray | None = None


def read_membership(source: Source, options: DataRecipe, kept: npt.NDArray[np.bool_] | None) -> Membership:
    """Read the column of `group` or of `split_key`.

    Args:
        source: the file.
        options: with one of them, or none.
        kept: which rows, bool ``[N]``; None for all.

    Returns:
        The group or the share of each row that is kept.

    Raises:
        DataError: the column is not there, or a cell of it is empty; the row is named.
    """
    asked = options.group or options.split_key
    if asked is None:
        return Membership()
    option = "group" if options.group else "split_key"
    (name,) = context_columns(source, [asked], option)
    found = {**source.columns, **source.beside}.get(name)
    if found is None:
        raise DataError(f"{option}: array {name!r} of {source.file} does not hold one value for each row")
    if name in context_columns(source, options.context):
        raise DataError(f"{option}: {column_label(source, name)} is one of the context, and cannot be both")
    values = _values(source, name, found, kept)
    if option == "group":
        return Membership((name,), groups=np.unique(values, return_inverse=True)[1])
    share = {value: _share(value) for value in set(values)}
    return Membership((name,), shares=np.array([share[value] for value in values]))


def _values(source: Source, name: str, found: Any, kept: npt.NDArray[np.bool_] | None) -> list[str]:  # noqa: ANN401
    """Each value as text: one text for one number, however it is written."""
    cells = found.tolist() if isinstance(found, np.ndarray) else found.to_pylist()
    rows: Sequence[int] = range(len(cells)) if kept is None else np.flatnonzero(kept).tolist()
    place = row_places(source, kept)
    values = []
    for at, row in enumerate(rows):
        text = "" if cells[row] is None else str(cells[row]).strip()
        number = cell_number(text)
        if not text or (number is not None and np.isnan(number)):
            what = f"{place(at)}, {column_label(source, name)}: expected a value, and found nothing"
            raise DataError(f"{source.file}: {what}", (Reason((source.file, name), what, row=at),))
        exact = number is not None and abs(number) < 2**53  # ids of more digits are no numbers to float64
        values.append(repr(number + 0.0) if number is not None and exact else text)
    return values


def _share(value: str) -> float:
    return int.from_bytes(hashlib.sha256(value.encode()).digest()[:6]) / 2**48


def note_of_order(rows: FloatArray) -> str | None:
    """A note where rows that follow one another in a file are alike, as in a series, so that a random split flatters.

    The median squared distance of neighbours is held against that of rows drawn at random (von Neumann's ratio), and
    against that of rows a little further apart, which in a file that is only sorted by class is the same. Columns in
    ascending or descending order, such as a time, are left out.

    Args:
        rows: ``[N, *event]``, in the order of the file.

    Returns:
        A sentence without a final full stop; None where nothing is to be noted.
    """
    flat = rows.reshape(len(rows), -1)
    if len(flat) < _LEAST:
        return None
    at = np.unique(np.linspace(0, len(flat) - _FAR - 1, min(_PAIRS, len(flat) - _FAR)).astype(int))
    first = flat[at]
    steps = np.diff(first, axis=0)
    spread = first.std(axis=0)
    used = (spread > 0) & ~((steps >= 0).all(axis=0) | (steps <= 0).all(axis=0))
    if not used.any():
        return None
    others = first[np.random.default_rng(0).permutation(len(first))]
    # Medians: where a class ends, neighbours are far apart.
    near, far, random = (
        float(np.median((((first - each)[:, used] / spread[used]) ** 2).mean(axis=1)))
        for each in (flat[at + 1], flat[at + _FAR], others)
    )
    if near >= _CLOSE * random or near >= _CLOSER * far:
        return None
    return (
        "rows that follow one another in the file are much alike: their median squared distance is "
        f"{near / random:.0%} of that of rows drawn at random. In a series or a film a random split flatters the flow, "
        "since held-out rows have near copies among the training rows: --split blocks keeps stretches of the file "
        "together, and --group COLUMN the rows of one group"
    )
