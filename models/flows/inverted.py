"""A bijection, or a chain of them, taken the other way round."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from models.flows.flow import Bijection

__all__ = ["Inverted", "invert_chain"]


class Inverted(Bijection):
    """A bijection the other way round: y = g^-1(x), and back x = g(y).

    Args:
        bijection: g. Where its inverse is a search, so is a direction of this one.
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection
        self.numeric_inverse = bijection.numeric_inverse
        self.domain, self.image = bijection.image, bijection.domain

    @property
    def name(self) -> str:
        """The name of what it turns round."""
        return f"inverse {self.bijection.name}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, *out]`` -> g^-1(x) ``[N, *in]``."""
        return self.bijection.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, *in]`` -> g(y) ``[N, *out]``."""
        x, ladj = self.bijection(y, context)
        return x, ladj

    def folded(self) -> Bijection:
        """The folded bijection, the other way round."""
        return Inverted(self.bijection.folded())


def invert_chain(steps: Iterable[Bijection]) -> list[Bijection]:
    """Turn a chain round: its steps in reverse order, each inverted; an inverted step becomes what it inverts."""
    return [step.bijection if isinstance(step, Inverted) else Inverted(step) for step in reversed(list(steps))]
