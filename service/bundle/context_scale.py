"""The scale of contexts: how far those lie from their mean that a flow was made for.

A posterior under a context unlike any simulated one is worth nothing, and its density does not show that. The distance
of a context c is that of Mahalanobis, |(c - mean) W|^2, W W^T the inverse of the covariance. Must not import torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, model_validator

from service.bundle.bases import ManifestPart

__all__ = ["MAX_CONTEXT", "ContextScale"]

MAX_CONTEXT: Final = 64
"""The greatest width of a context that has a scale: its covariance has the square of it."""

_MAX_DISTANCES: Final = 1001
_FLOOR: Final = 1e-8
"""Of the greatest variance: a direction that varies less is taken to vary so much."""

_Row = Annotated[list[FiniteFloat], Field(min_length=1, max_length=MAX_CONTEXT)]


class ContextScale(ManifestPart):
    """The distances of held-out contexts from their mean.

    Args:
        rows: how many contexts.
        mean: ``[C]``.
        whitening: W, ``[C, C]``.
        distances: squared, ascending; at most 1,001 of them, evenly over all.
    """

    rows: Annotated[int, Field(ge=2, lt=1 << 53)]
    mean: _Row
    whitening: Annotated[list[_Row], Field(min_length=1, max_length=MAX_CONTEXT)]
    distances: Annotated[list[Annotated[FiniteFloat, Field(ge=0)]], Field(min_length=2, max_length=_MAX_DISTANCES)]

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if {len(row) for row in (self.mean, *self.whitening)} != {len(self.whitening)}:
            raise ValueError("mean and whitening are of different widths")
        if any(a > b for a, b in zip(self.distances, self.distances[1:], strict=False)):
            raise ValueError("distances must ascend")
        return self

    @property
    def width(self) -> int:
        """C."""
        return len(self.mean)

    @classmethod
    def of(cls, context: npt.NDArray[np.floating[Any]]) -> ContextScale | None:
        """The scale of contexts ``[M, C]``; None where C is greater than `MAX_CONTEXT`."""
        count, width = context.shape
        if not 0 < width <= MAX_CONTEXT or count < 2:
            return None
        rows = context.astype(np.float64)
        mean = rows.mean(axis=0)
        centred = rows - mean
        values, vectors = np.linalg.eigh(centred.T @ centred / count)
        floor = max(_FLOOR * float(values.max()), float(np.finfo(np.float32).tiny))
        whitening = vectors / np.sqrt(np.maximum(values, floor))
        distances = np.sort(((centred @ whitening) ** 2).sum(axis=1))
        kept = distances[np.linspace(0, count - 1, min(count, _MAX_DISTANCES)).round().astype(int)]
        return cls(rows=count, mean=mean.tolist(), whitening=whitening.tolist(), distances=kept.tolist())

    def quantile(self, context: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
        """The share of the contexts that lie at least as far out as each of these: 0 for one unlike any of them.

        Args:
            context: ``[N, C]``.

        Example:
            >>> scale = ContextScale.of(np.arange(5.0)[:, None])
            >>> scale.quantile(np.array([[2.0], [4.0], [9.0]])).tolist()
            [1.0, 0.4, 0.0]
        """
        with np.errstate(over="ignore", invalid="ignore"):
            moved = (context.astype(np.float64) - np.asarray(self.mean)) @ np.asarray(self.whitening)
            distances = np.nan_to_num((moved**2).sum(axis=1), nan=np.inf, posinf=np.inf)
        nearer = np.searchsorted(np.asarray(self.distances) * (1 + 1e-9) + 1e-12, distances, side="left")
        found: npt.NDArray[np.float64] = 1.0 - nearer / len(self.distances)
        return found
