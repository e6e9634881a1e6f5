"""The evaluation of a fitted flow in torch: what `models.evaluation` asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from models.data.readers import FloatArray
from models.evaluation.density import Draws
from models.evaluation.evaluate import HeldOutRows, measure_likelihood
from models.evaluation.likelihood import Evaluation
from models.flows.bases import sample_base
from models.flows.flow import Flow
from models.training.fit import log_prob
from service.bundle.bases import Base

__all__ = ["TorchDensity", "evaluate", "gather_rows"]

_AT_ONCE: Final = 1 << 18  # values of x


class TorchDensity:
    """A flow in torch, as its evaluation sees it.

    Args:
        flow: fitted.
    """

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    @property
    def base(self) -> Base:
        """The distribution of z."""
        return self._flow.base

    def log_prob(self, rows: FloatArray, context: FloatArray | None) -> FloatArray:
        """Log p(x) ``[N]`` of rows ``[N, D]``, given their context ``[N, C]``."""
        scores = log_prob(self._flow, self._events(rows), self._given(context))
        return np.asarray(scores.to(torch.float64).numpy(), np.float64)

    def latents(self, rows: FloatArray, context: FloatArray | None) -> FloatArray:
        """Z ``[N, D]`` of rows ``[N, D]``."""
        given = self._given(context)
        with torch.no_grad():
            parts = [
                self._flow(x, None if given is None else given[at : at + len(x)])[0]
                for at, x in self._batches(self._events(rows))
            ]
        return _flat(torch.cat(parts))

    def sample(self, count: int, context: FloatArray | None, seed: int) -> Draws:
        """Draw `count` rows, or as many for each context ``[K, C]``; one beyond its precision is not finite."""
        contexts = 1 if context is None else len(context)
        generator = torch.Generator().manual_seed(seed)
        latents = sample_base(self._flow.base, contexts * count, self._flow.width, generator, self._flow.dtype)
        each = self._given(context)
        each = None if each is None else each.repeat_interleave(count, dim=0)
        rows, scores = [], []
        with torch.no_grad():
            for at, z in self._batches(latents):
                given = None if each is None else each[at : at + len(z)]
                x, ladj = self._flow.inverse(z, given)
                rows.append(x.flatten(1))
                scores.append(self._flow.base_log_prob(z) - ladj)
        shape = (contexts, count)
        return Draws(
            np.asarray(torch.cat(rows).to(torch.float64).numpy(), np.float64).reshape(*shape, self._flow.width),
            np.asarray(torch.cat(scores).to(torch.float64).numpy(), np.float64).reshape(shape),
        )

    def _given(self, context: FloatArray | None) -> Tensor | None:
        return None if context is None else torch.from_numpy(context).to(self._flow.dtype)

    def _events(self, rows: FloatArray) -> Tensor:
        return torch.from_numpy(rows).to(self._flow.dtype).reshape(len(rows), *self._flow.event_shape)

    def _batches(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        at_once = max(1, _AT_ONCE // self._flow.width)
        return ((at, rows[at : at + at_once]) for at in range(0, len(rows), at_once))


def gather_rows(
    train: Tensor,
    held_out: Tensor,
    *,
    step: Tensor | None = None,
    centres: Tensor | None = None,
    train_context: Tensor | None = None,
    context: Tensor | None = None,
) -> HeldOutRows:
    """The rows of a fit, flat, for `models.evaluation`.

    Args:
        train: ``[N, *event]`` the training rows as the fit saw them: dequantized, where they are.
        held_out: ``[M, *event]``, M at least 2: dequantized once, where they are.
        step: ``[*event]`` the bins' widths, 0 where a column is not dequantized; None where none is.
        centres: ``[M, *event]`` the held-out rows as the user has them; None where nothing is dequantized.
        train_context: ``[N, C]`` the context of the training rows; None for a flow without.
        context: ``[M, C]`` the context of the held-out rows.

    Returns:
        The rows.
    """
    return HeldOutRows(
        rows=_flat(held_out),
        context=None if context is None else _flat(context),
        centres=None if centres is None else _flat(centres),
        step=None if step is None else _flat(step[None])[0],
        train=_flat(train),
        train_context=None if train_context is None else _flat(train_context),
    )


def evaluate(flow: Flow, rows: HeldOutRows, seed: int = 0) -> Evaluation:
    """Score a flow on held-out rows, beside a Gaussian and a mixture fitted to the same training rows.

    Args:
        flow: fitted.
        rows: from `gather_rows`.
        seed: of the mixture.

    Returns:
        The scores, at the centres of the bins too where anything is dequantized.

    Raises:
        DataError: where a row has no finite log_prob.
    """
    return measure_likelihood(TorchDensity(flow), rows, seed)


def _flat(rows: Tensor) -> FloatArray:
    return np.asarray(rows.to(torch.float64).flatten(1).numpy(), np.float64)
