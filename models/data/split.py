"""The split of a table into training, validation and held-out rows, and the seeds that follow from a recipe's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.data.load import Table
from models.recipe import DataRecipe
from service.errors import DataError

__all__ = ["Split", "derived_generator", "derived_seed", "describe_split", "split"]

_BLOCKS: Final = 20


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Three parts of a table, in the precision of the fit and in the user's units.

    Args:
        train: ``[N, *event]`` what weights and statistics are fitted to.
        validation: ``[N, *event]`` what early stopping watches.
        test: ``[N, *event]`` held out: what the report speaks of.
        train_context: ``[N, C]`` the context of the training rows; None for a flow without.
        validation_context: of the validation rows.
        test_context: of the rows held out.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    train_context: Tensor | None = None
    validation_context: Tensor | None = None
    test_context: Tensor | None = None


def derived_seed(seed: int, purpose: str) -> int:
    """A seed for one purpose, so that two streams of one recipe never overlap.

    Example:
        >>> derived_seed(0, "split") == derived_seed(0, "split") != derived_seed(0, "noise")
        True
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:7])


def derived_generator(seed: int, purpose: str) -> torch.Generator:
    """A generator of torch for one purpose of a fit, seeded by `derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose))


def split(table: Table, options: DataRecipe, seed: int, dtype: torch.dtype = torch.float32) -> Split:
    """Cut a table into training, validation and held-out rows: at random by seed, or as the table or the options say.

    By blocks, the table is cut into stretches of rows that follow one another, and by group into its groups: these are
    drawn at random by seed, and each goes whole into one part. By a key, the hash of its value decides, whatever the
    seed: below `test` a row is held out, and below `test` and `validation` together it is a validation row.

    Args:
        table: the rows.
        options: `validation` and `test` are the fractions; `split`, `group` and `split_key` say how.
        seed: the same seed, the same cut.
        dtype: of the fit's precision.

    Returns:
        The three parts, and their context.

    Raises:
        DataError: where a column of the context is constant in the training rows, as a class of few rows may be; where
            groups or keys leave a part without rows; or where a group of rows to hold out is among the others too.
    """
    places = _places(table, options, seed)
    rows = torch.from_numpy(table.rows).to(dtype)
    if table.context is None:
        return Split(*(rows[part] for part in places))
    context = torch.from_numpy(table.context).to(dtype)
    fitted = context[places[0]]
    same = torch.nonzero(fitted.amax(dim=0) == fitted.amin(dim=0)).flatten().tolist()
    if same:
        raise DataError(
            f"{table.context_labels[same[0]]}: this is the same in all {len(fitted)} training rows, so "
            "that nothing can be learned of it; leave such rows out, or give another seed"
        )
    return Split(*(rows[part] for part in places), *(context[part] for part in places))


def describe_split(table: Table, options: DataRecipe) -> str:
    """How `split` cuts a table, in words."""
    if options.group is not None and table.membership.groups is not None:
        return f"by the {table.membership.groups.max() + 1} groups of {table.membership.columns[0]!r}"
    if options.split_key is not None:
        return f"by the hash of {table.membership.columns[0]!r}"
    if options.split == "blocks":
        return f"by {_block_count(len(table.rows) - table.held_out, options)} blocks of the file"
    return "at random"


def _places(table: Table, options: DataRecipe, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The places of the training, validation and held-out rows, each part in an order drawn by seed."""
    count = len(table.rows) - table.held_out
    order = torch.randperm(count, generator=derived_generator(seed, "split"))
    test = torch.arange(count, count + table.held_out)
    groups, shares = table.membership.groups, table.membership.shares
    if options.split == "blocks":
        blocks = _block_count(count, options)
        groups = np.arange(count) * blocks // count
    if groups is not None:
        _check_apart(table, groups[:count], groups[count:])
        parts = _part_groups(groups[:count], options, seed, held_out=table.held_out)
    elif shares is not None:
        parts = np.where(shares[:count] < options.test, 2, np.where(shares[:count] < _bound(options), 1, 0))
        if table.held_out:
            parts = np.where(shares[:count] < options.validation, 1, 0)
    else:
        many = (max(2, round(count * part)) for part in (options.validation, options.test))
        validation, drawn = many
        drawn = 0 if table.held_out else drawn
        test = test if table.held_out else order[:drawn]
        return order[drawn + validation :], order[drawn : drawn + validation], test
    member = torch.from_numpy(parts)[order]
    found = order[member == 0], order[member == 1], test if table.held_out else order[member == 2]
    _check_parts(table, options, found)
    return found


def _bound(options: DataRecipe) -> float:
    return options.test + options.validation


def _block_count(count: int, options: DataRecipe) -> int:
    """So many blocks that the smaller of validation and held-out rows has two or more of them."""
    return max(3, min(count // 2, max(_BLOCKS, round(2 / min(options.validation, options.test)))))


def _part_groups(groups: npt.NDArray[np.intp], options: DataRecipe, seed: int, held_out: int) -> npt.NDArray[np.intp]:
    """The part of each row: 0 to train on, 1 to validate by, 2 held out. Groups are drawn until a part is full."""
    sizes = np.bincount(groups)
    drawn = torch.randperm(len(sizes), generator=derived_generator(seed, "groups")).tolist()
    part_of = np.zeros(len(sizes), np.intp)
    fractions = {1: options.validation} if held_out else {1: options.validation, 2: options.test}
    target = {part: max(2, round(len(groups) * fraction)) for part, fraction in fractions.items()}
    filled = dict.fromkeys(target, 0)

    def give(group: int, part: int) -> None:
        part_of[group] = part
        filled[part] += int(sizes[group])

    rest = []
    for group in (group for group in drawn if sizes[group]):
        # To the part that lacks most; a group that is larger than what any part lacks is trained on.
        lacking = [part for part in target if filled[part] + sizes[group] <= target[part]]
        if lacking:
            give(group, min(lacking, key=lambda part: filled[part] / target[part]))
        else:
            rest.append(group)
    for group in sorted(rest, key=lambda group: int(sizes[group]))[:-1]:
        empty = [part for part in target if filled[part] < max(2, target[part] // 2)]
        if empty:
            give(group, min(empty, key=lambda part: filled[part] / target[part]))
    return part_of[groups]


def _check_apart(table: Table, groups: npt.NDArray[np.intp], held_out: npt.NDArray[np.intp]) -> None:
    """Refuse groups that rows of `test_key` share with others."""
    if table.membership.groups is None:
        return
    both = np.intersect1d(groups, held_out)
    if both.size:
        raise DataError(
            f"group: {both.size} groups of {table.membership.columns[0]!r} are among the rows that test_key holds out "
            "and among the others: leave test_key away, or leave those rows out"
        )


def _check_parts(table: Table, options: DataRecipe, found: tuple[Tensor, Tensor, Tensor]) -> None:
    for name, part in zip(("training", "validation", "held-out"), found, strict=True):
        if len(part) < 2:
            raise DataError(
                f"the split {describe_split(table, options)} leaves {len(part)} {name} rows: more groups or keys are "
                "needed, of fewer rows each, or other fractions (--validation, --test)"
            )
