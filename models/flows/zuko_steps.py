"""Transforms of zuko as bijections of this project: value and log-determinant from one pass of each conditioner.

zuko's own inverse runs every conditioner twice, once for the value and once for the log-determinant, and splits a
coupling by `nonzero` of a mask, which a graph cannot hold. Here the conditioner and the univariate transforms are
zuko's; what is done with them is not.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Final

import torch
from torch import Tensor
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import LazyComposedTransform, LazyTransform
from zuko.transforms import MonotonicAffineTransform

from models.flows.blocks import Blocks
from models.flows.conditional import Autoregressive, ConditionalTransform, Coupling, apply, invert
from models.flows.flow import Bijection
from models.flows.jacobi import NEAR, REACH, Step, jacobi

__all__ = ["Univariate", "ZukoAutoregressive", "ZukoTransform", "from_zuko"]

_LEAST_CUT: Final = 32
"""With fewer columns than that, the products cost less than a second Loop."""


def from_zuko(transform: LazyTransform) -> list[Bijection]:
    """Adapt a lazy transform; a composition becomes its steps, in order from data to latent.

    Args:
        transform: of events ``[D]``, such as ``zuko.flows.RealNVP(features=4).transform``.

    Returns:
        One bijection for each step, sharing the transform's parameters.
    """
    if isinstance(transform, LazyComposedTransform):
        return [step for part in transform.transforms for step in from_zuko(part)]
    if isinstance(transform, GeneralCouplingTransform):
        return [Coupling(transform.mask, ZukoTransform(transform))]
    if isinstance(transform, MaskedAutoregressiveTransform):
        return [ZukoAutoregressive(transform)]
    return [Univariate(transform)]


class ZukoTransform(ConditionalTransform):
    """The univariate transform and the conditioner of a coupling or an autoregressive step of zuko.

    Args:
        lazy: the step. The conditioner is its `hyper`.
        numeric_inverse: whether the transform's inverse is a search.
    """

    def __init__(
        self, lazy: GeneralCouplingTransform | MaskedAutoregressiveTransform, *, numeric_inverse: bool = False
    ) -> None:
        super().__init__()
        self.lazy = lazy
        self.numeric_inverse = numeric_inverse

    def forward(
        self, x: Tensor, given: Tensor, context: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """X ``[N, B]`` and given ``[N, A]`` -> y ``[N, B]`` and the log-determinant ``[N]``."""
        transform = self.lazy.meta(context, given)
        return invert(transform, x) if inverse else apply(transform, x)


class ZukoAutoregressive(Autoregressive):
    """An autoregressive step of zuko; its inverse is cut into two blocks of columns where that costs less.

    Args:
        lazy: the step.
    """

    transform: ZukoTransform

    def __init__(self, lazy: MaskedAutoregressiveTransform) -> None:
        super().__init__(ZukoTransform(lazy), lazy.passes, NEAR if _is_affine(lazy) else 0.0)
        self.blocks = _cut(lazy)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x ``[N, D]``."""
        if self.blocks is not None and torch.compiler.is_exporting():
            return self.inverse_in_blocks(self.blocks, y, context)
        return super().inverse(y, context)

    def first_pass(self, step: Step, y: Tensor, context: Tensor | None) -> Tensor | None:
        """The pass from zeros: what h(0) gives is the same for all rows, one row here, and a constant in a graph."""
        return step(y.new_zeros(1, y.shape[1]))[0] if context is None else None

    def inverse_in_blocks(self, blocks: Blocks, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same as `inverse`, one block of columns after the other: less work, in more nodes of a graph.

        Args:
            blocks: the conditioner, cut.
            y: ``[N, D]``.
            context: ``[N, C]``, or None.

        Returns:
            x ``[N, D]`` and log|det dx/dy| ``[N]``.
        """
        known = blocks.before(context)
        parts, terms = [], []
        for block in range(1, blocks.count + 1):
            y_b = y.index_select(1, blocks.columns(block))

            def step(x: Tensor, block: int = block, y_b: Tensor = y_b) -> tuple[Tensor, Tensor]:
                return invert(self.transform.lazy.univariate(*blocks.parameters(block, x, known)), y_b)

            first = None if known[0] else step(y.new_zeros(1, y_b.shape[1]))[0]
            x, ladj = jacobi(step, y_b, blocks.passes(block), first, self.tolerance)
            parts.append(x)
            terms.append(ladj)
            if block < blocks.count:
                blocks.settle(block, x.clamp(-REACH, REACH), known)
        return blocks.joined(parts), reduce(torch.add, terms)


def _cut(lazy: MaskedAutoregressiveTransform) -> Blocks | None:
    """Its network in two blocks; None where that is not worth it, or not possible: it is less work, and that is all."""
    if lazy.order is None or lazy.order.shape[0] < _LEAST_CUT or lazy.passes < _LEAST_CUT // 2:
        return None
    try:
        return Blocks(lazy.hyper, lazy.order.tolist(), lazy.shapes)
    except ValueError:
        return None


def _is_affine(lazy: MaskedAutoregressiveTransform) -> bool:
    """Whether a column is scaled and shifted, and nothing else."""
    univariate = lazy.univariate
    return (univariate.func if isinstance(univariate, partial) else univariate) is MonotonicAffineTransform


class Univariate(Bijection):
    """A transform whose parameters depend on nothing but the context: elementwise maps, permutations, rotations.

    Args:
        lazy: the transform, of single numbers or of rows; its conditioner, where there is one, reads the context alone.
    """

    def __init__(self, lazy: LazyTransform) -> None:
        super().__init__()
        self.lazy = lazy

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, D]``."""
        return apply(self.lazy(context), x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x ``[N, D]``."""
        return invert(self.lazy(context), y)
