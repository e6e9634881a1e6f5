"""Pieces of large inputs: rows with their context, or contexts, as many as one request takes.

Imports neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy.typing as npt

from pushforward.client.arrays import FloatArray, FloatType, to_context, to_rows
from pushforward.client.errors import InvalidInput

__all__ = ["cut_contexts", "cut_rows"]


def cut_contexts(contexts: FloatArray | None, answers_each: int, max_values: int) -> Iterator[FloatArray | None]:
    """Contexts in pieces of about `max_values` numbers; one context, or none, is one piece.

    Args:
        contexts: ``[K, C]``, ``[C]`` or None.
        answers_each: the numbers that come of each context.
        max_values: the bound on the numbers of a piece, and on those that come of it.
    """
    if contexts is None or contexts.ndim < 2:
        yield contexts
        return
    each = max(1, max_values // max(contexts[0].size, answers_each))
    for start in range(0, len(contexts), each):
        yield contexts[start : start + each]


def cut_rows(
    key: str,
    values: npt.ArrayLike,
    context: npt.ArrayLike | None,
    answers_per_row: int,
    dtype: FloatType,
    *,
    max_values: int,
) -> Iterator[dict[str, FloatArray]]:
    """Rows and their context, in pieces of about `max_values` numbers.

    Args:
        key: the argument that holds the rows.
        values: of it.
        context: of the rows; None where there is none.
        answers_per_row: how often each row comes back.
        dtype: that numbers are sent in.
        max_values: the bound on the numbers of a piece, and on those of its answer.

    Raises:
        InvalidInput: an array cannot be sent, or there are more or fewer rows of context.
    """
    rows = to_rows(values, key, dtype)
    fixed: dict[str, FloatArray] = {}
    cut: dict[str, FloatArray] = {key: rows}
    if context is not None:
        contexts = to_context(context, dtype)
        for_all = contexts.ndim < 2 or len(contexts) == 1
        (fixed if for_all else cut)["context"] = contexts
    if answers_per_row * sum(array.size for array in cut.values()) <= max_values or rows.ndim < 2:
        yield {**cut, **fixed}
        return
    if any(len(array) != len(rows) for array in cut.values()):
        raise InvalidInput(f"context has {len(cut['context'])} rows, and {key} has {len(rows)}")
    step = max(1, max_values // (answers_per_row * sum(array[0].size for array in cut.values())))
    for start in range(0, len(rows), step):
        yield {**{name: array[start : start + step] for name, array in cut.items()}, **fixed}
