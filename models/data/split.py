"""The split of a table into training, validation and held-out rows, and the seeds that follow from a recipe's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from models.data.load import Table
from models.recipe import DataRecipe
from service.errors import DataError

__all__ = ["Split", "derived_seed", "split"]


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


def split(table: Table, options: DataRecipe, seed: int, dtype: torch.dtype = torch.float32) -> Split:
    """Cut a table into training, validation and held-out rows, at random by seed, or as the table says.

    Args:
        table: the rows.
        options: `validation` and `test` are the fractions.
        seed: the same seed, the same cut.
        dtype: of the fit's precision.

    Returns:
        The three parts, and their context.

    Raises:
        DataError: where a column of the context is constant in the training rows, as a class of few rows may be.
    """
    count = len(table.rows) - table.held_out
    validation, test = (max(2, round(count * part)) for part in (options.validation, options.test))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(derived_seed(seed, "split")))
    if table.held_out:
        count, test = len(table.rows), table.held_out
        order = torch.cat((torch.arange(count - test, count), order))
    rows = torch.from_numpy(table.rows).to(dtype)[order]
    parts = slice(test + validation, None), slice(test, test + validation), slice(0, test)
    if table.context is None:
        return Split(*(rows[part] for part in parts))
    context = torch.from_numpy(table.context).to(dtype)[order]
    same = torch.nonzero(context[parts[0]].amax(dim=0) == context[parts[0]].amin(dim=0)).flatten().tolist()
    if same:
        raise DataError(
            f"{table.context_labels[same[0]]}: this is the same in all {count - test - validation} training rows, so "
            "that nothing can be learned of it; leave such rows out, or give another seed"
        )
    return Split(*(rows[part] for part in parts), *(context[part] for part in parts))
