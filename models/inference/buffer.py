"""The replay buffer of an alpha = 2 fit: annealed rows, drawn in proportion to weights that follow the flow.

L. Midgley and others: Flow annealed importance sampling bootstrap. ICLR 2023, arXiv:2208.01893, section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["ReplayBuffer"]


class ReplayBuffer:
    """Rows, the logarithms of their weights, and the flow's log density there when the weights were last set.

    Args:
        capacity: the most rows; the oldest go first.
        width: the number of coordinates.
        dtype: of the rows.
    """

    def __init__(self, capacity: int, width: int, dtype: torch.dtype) -> None:
        self.capacity = capacity
        self.u = torch.empty(0, width, dtype=dtype)
        self.log_weights = torch.empty(0, dtype=torch.float64)
        self.log_q = torch.empty(0, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.u)

    def add(self, u: Tensor, log_weights: Tensor, log_q: Tensor) -> None:
        """Add rows ``[N, M]`` that have a weight."""
        kept = torch.isfinite(log_weights) & torch.isfinite(log_q)
        self.u = torch.cat([self.u, u[kept]])[-self.capacity :]
        self.log_weights = torch.cat([self.log_weights, log_weights[kept].to(torch.float64)])[-self.capacity :]
        self.log_q = torch.cat([self.log_q, log_q[kept].to(torch.float64)])[-self.capacity :]

    def draw(self, rows: int, generator: torch.Generator) -> Tensor:
        """The places of `rows` rows, drawn in proportion to their weights."""
        shares = torch.softmax(self.log_weights, dim=0)
        return torch.multinomial(shares, rows, replacement=True, generator=generator)

    def follow(self, places: Tensor, log_q: Tensor) -> Tensor:
        """Take rows on to a flow that has moved: their weights are of p^2 / q, and q is another now.

        Args:
            places: ``[N]`` from `draw`.
            log_q: ``[N]`` the flow's log density there now.

        Returns:
            ``[N]``, the logarithms of the factors by which the weights change.
        """
        now = log_q.to(torch.float64)
        change = self.log_q[places] - now
        self.log_weights[places] += change  # a place that stands twice changes once: both write the same
        self.log_q[places] = now
        return change

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"u": self.u, "log_weights": self.log_weights, "log_q": self.log_q}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what a checkpoint kept."""
        self.u, self.log_weights, self.log_q = state["u"], state["log_weights"], state["log_q"]
