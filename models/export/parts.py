"""A flow's answers in parts: rows go through it a few at a time, so that what it holds in between stays small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

__all__ = ["answer_in_parts"]

_VALUES: Final = 1 << 17
"""So many values go through a flow at once: a convolution holds hundreds of numbers for each of them."""


def answer_in_parts(
    answer: Callable[[Tensor, Tensor | None], tuple[Tensor, ...]], rows: Tensor, context: Tensor | None
) -> tuple[Tensor, ...]:
    """Answer rows in parts, without gradients, and join the answers.

    Args:
        answer: rows ``[M, ...]`` and their context -> quantities ``[M, ...]``.
        rows: ``[N, ...]``.
        context: ``[N, C]``, or None.

    Returns:
        The quantities ``[N, ...]``.
    """
    at_once = max(1, _VALUES // max(1, rows[0].numel()))
    parts = torch.split(rows, at_once)
    contexts = [None] * len(parts) if context is None else torch.split(context, at_once)
    with torch.no_grad():
        answers = [answer(part, given) for part, given in zip(parts, contexts, strict=True)]
    return tuple(torch.cat(quantity) for quantity in zip(*answers, strict=True))
