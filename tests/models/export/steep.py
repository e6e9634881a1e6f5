"""Flows of which float32 knows little, for tests of the gate."""

from __future__ import annotations

import torch
from torch import Tensor

from models.flows.flow import Bijection

__all__ = ["Steep", "Thirds"]


class Steep(Bijection):
    """y = (x_0, x_1 exp(sin(k x_0))): the last digits of x_0 move the log-determinant by k times as much.

    Args:
        k: how steep it is.
        factor: what k is multiplied by, in two steps: the same function by another arithmetic.
        above: for smaller x_0 it is as gentle as with k = 1.
    """

    def __init__(self, k: float, factor: float = 1.0, above: float = -torch.inf) -> None:
        super().__init__()
        self.k, self.factor, self.above = k, factor, above

    def scale(self, x: Tensor) -> Tensor:
        angle = torch.where(x < self.above, x, (x * self.factor) * (self.k / self.factor))
        return torch.sin(angle)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = self.scale(x[:, 0])
        return torch.stack((x[:, 0], x[:, 1] * scale.exp()), dim=1), scale

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = self.scale(y[:, 0])
        return torch.stack((y[:, 0], y[:, 1] * (-scale).exp()), dim=1), -scale


class Thirds(Bijection):
    """y = x / 3 by the float32 next to 1/3, which is a little more: 3 is inside (-1, 1] in float32 only."""

    third: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("third", torch.tensor(1 / 3, dtype=torch.float32))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * self.third, (2 * self.third.log()).expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y / self.third, (-2 * self.third.log()).expand(len(y))
