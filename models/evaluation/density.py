"""The flow as its evaluation sees it: densities, latents and samples as NumPy arrays, whatever computes them.

`models.training` has one of a flow in torch, `pushforward evaluate` one of a bundle in ONNX Runtime. Must not import
torch.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from models.data.readers import FloatArray
from service.bundle.bases import Base

__all__ = ["Density", "Draws"]


class Draws(NamedTuple):
    """Rows drawn from a flow.

    Args:
        rows: float64 ``[K, n, D]``: n rows for each of K contexts; K is 1 without a context.
        log_prob: ``[K, n]``, in nats.
    """

    rows: FloatArray
    log_prob: FloatArray


class Density(Protocol):
    """A flow: x -> z and back, with densities in nats.

    Rows are flat, ``[N, D]``, float64 with values that float32 holds.
    """

    @property
    def base(self) -> Base:
        """The distribution of z."""
        ...

    def log_prob(self, rows: FloatArray, context: FloatArray | None) -> FloatArray:
        """Log p(x) ``[N]`` of rows ``[N, D]``, given their context ``[N, C]``; -inf outside the support."""
        ...

    def latents(self, rows: FloatArray, context: FloatArray | None) -> FloatArray:
        """Z ``[N, D]`` of rows inside the support."""
        ...

    def sample(self, count: int, context: FloatArray | None, seed: int) -> Draws:
        """Draw `count` rows, or as many for each context ``[K, C]``."""
        ...
