"""Flows with a closed form: nothing to train, and every answer known on paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from torch import Tensor

from models.flow import Bijection, Flow
from service.bundle.manifest import Support, UniformBase

__all__ = ["ANALYTIC", "Square", "square"]

_LEAST = 2.0**-63
"""The least z that `Square` generates from: its square is the smallest normal float32, and above zero."""


class Square(Bijection):
    """The positive half of a parabola, column by column: z = sqrt(x), back x = z^2.

    log|dz/dx| = -log 2 - (log x) / 2, and back log|dx/dz| = log 2 + log z. At z = 0 the map has no derivative, so
    that z is taken no nearer to 0 than 2^-63, whose square is the smallest normal float32.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` above zero -> sqrt(x)."""
        return x.sqrt(), (-math.log(2) - 0.5 * x.log()).sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> y^2."""
        y = y.clamp(min=_LEAST)
        return y * y, (math.log(2) + y.log()).sum(dim=1)


def square() -> Flow:
    """The square of a uniform number: z ~ U(0, 2), x = z^2.

    p(x) = p_Z(sqrt x) |dz/dx| = 1/2 * 1/(2 sqrt x) = 1 / (4 sqrt x) on (0, 4], and 0 elsewhere.

    Returns:
        A flow of one column, in float32, without parameters.

    Example:
        >>> import torch
        >>> float(square().log_prob(torch.tensor([[1.0]])).exp())
        0.25
    """
    support = Support(low=0.0, high=4.0, low_closed=False, high_closed=True)
    return Flow((1,), [Square()], UniformBase(low=0.0, high=2.0), support)


ANALYTIC: Final[Mapping[str, Callable[[], Flow]]] = MappingProxyType({"square": square})
"""Name -> constructor, for a recipe that names a closed form as its architecture."""
