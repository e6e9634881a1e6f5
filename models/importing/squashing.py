"""The squashing functions of nflows and normflows, without the question that nflows asks: do all rows lie inside?

Outside the range of a function its inverse is that of the nearest point inside, so that x stays finite.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.flows.flow import Bijection
from models.importing.steps import per_row
from models.importing.support import box_of

__all__ = ["InsetLogit", "LogTanh", "Sigmoid", "Tanh"]

_EDGE: Final = 2.0**-24
"""How near to an end of its range an inverse is taken: what float32 can tell from the end."""


class Tanh(Bijection):
    """y = tanh x, back x = artanh y; log|dy/dx| = log(1 - y^2).

    Args:
        layer: `nflows.transforms.Tanh`.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.image = box_of(-1.0, 1.0)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> y."""
        # log(1 - tanh^2 x), without the difference that is zero in float32 for |x| above 9
        ladj = 2 * (math.log(2) - x - F.softplus(-2 * x))
        return x.tanh(), ladj.flatten(1).sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> x."""
        y = y.clamp(-1 + _EDGE, 1 - _EDGE)
        below, above = torch.log1p(-y), torch.log1p(y)
        return 0.5 * (above - below), -(below + above).flatten(1).sum(dim=1)


class Sigmoid(Bijection):
    """y = 1 / (1 + exp(-t x)), back x = (log y - log(1 - y)) / t, for y no nearer to 0 and 1 than eps.

    Args:
        layer: `nflows.transforms.Sigmoid`: t is its temperature.
    """

    fixed: Tensor

    def __init__(self, layer: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.eps = float(layer.eps)
        self.image = box_of(0.0, 1.0, closed=True)  # its inverse takes the ends too
        # a temperature that is not learned is no buffer in nflows, and would keep its precision
        self.register_buffer("fixed", torch.as_tensor(layer.temperature).detach().clone())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> y."""
        scaled = self.fixed * x
        ladj = self.fixed.log() - F.softplus(-scaled) - F.softplus(scaled)
        return torch.sigmoid(scaled), ladj.flatten(1).sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> x."""
        y = y.clamp(self.eps, 1 - self.eps)
        scaled = y.log() - torch.log1p(-y)
        ladj = self.fixed.log() - F.softplus(-scaled) - F.softplus(scaled)
        return scaled / self.fixed, -ladj.flatten(1).sum(dim=1)


class LogTanh(Bijection):
    """tanh between two cut points, and a logarithm beyond them.

    Args:
        layer: `nflows.transforms.LogTanh`.
    """

    def __init__(self, layer: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.cut, self.inverse_cut = float(layer.cut_point), float(layer.inv_cut_point)
        self.alpha, self.beta = float(layer.alpha), float(layer.beta)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> y."""
        size = x.abs()
        middle, beyond = x.clamp(-self.cut, self.cut).tanh(), size.clamp(min=self.cut)
        y = torch.where(size > self.cut, x.sign() * self.alpha * (self.beta * beyond).log(), middle)
        ladj = torch.where(size > self.cut, math.log(self.alpha) - beyond.log(), (1 - middle**2).log())
        return y, per_row(ladj.flatten(1).sum(dim=1), x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> x."""
        size = y.abs()
        middle = y.clamp(-self.inverse_cut, self.inverse_cut)
        beyond = size.clamp(min=self.inverse_cut) / self.alpha
        x = torch.where(
            size > self.inverse_cut,
            y.sign() * beyond.exp() / self.beta,
            0.5 * (torch.log1p(middle) - torch.log1p(-middle)),
        )
        ladj = torch.where(size > self.inverse_cut, beyond - math.log(self.alpha * self.beta), -(1 - middle**2).log())
        return x, per_row(ladj.flatten(1).sum(dim=1), y)


class InsetLogit(Bijection):
    """y = log u - log(1 - u) with u = a + (1 - 2 a) x: a logit of [0, 1] that is finite at both ends.

    log|dy/dx| = log(1 - 2 a) - log u - log(1 - u). It takes x from -a / (1 - 2 a) to 1 + a / (1 - 2 a).

    Args:
        alpha: a, in [0, 1/2).

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, section 4.1.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        margin = alpha / (1 - 2 * alpha)
        self.domain = box_of(-margin, 1 + margin)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, ...]`` -> y."""
        share = 1 - 2 * self.alpha
        # 1 - u by a difference of its own: near one, u has lost the digits
        below, above = (self.alpha + share * x).log(), (self.alpha + share * (1 - x)).log()
        return below - above, (math.log(share) - below - above).flatten(1).sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, ...]`` -> x."""
        share = 1 - 2 * self.alpha
        ladj = -F.softplus(y) - F.softplus(-y) - math.log(share)
        return (torch.sigmoid(y) - self.alpha) / share, ladj.flatten(1).sum(dim=1)
