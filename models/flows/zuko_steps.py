"""A transform of zuko as bijections of this project: value and log-determinant from one pass of each conditioner.

zuko's own inverse runs every conditioner twice, once for the value and once for the log-determinant, and splits a
coupling by `nonzero` of a mask, which a graph cannot hold. Here the conditioner and the univariate transforms are
zuko's; what is done with them is not.
"""

from __future__ import annotations

from functools import partial, reduce
from typing import Final, Protocol

import torch
from torch import Tensor
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import LazyComposedTransform, LazyTransform
from zuko.transforms import DependentTransform, MonotonicAffineTransform

from models.flows.blocks import Blocks
from models.flows.flow import Bijection
from models.flows.jacobi import NEAR, REACH, jacobi
from models.flows.univariate import OnePass

__all__ = ["Autoregressive", "Coupling", "Univariate", "from_zuko"]

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
        return [Coupling(transform)]
    if isinstance(transform, MaskedAutoregressiveTransform):
        return [Autoregressive(transform)]
    return [Univariate(transform)]


class Coupling(Bijection):
    """y_a = x_a, y_b = f(x_b | h(x_a, context)): the parameters of f come from one half of the columns.

    Back, x_b = f^-1(y_b | h(y_a, context)): x_a = y_a, so that the conditioner h runs once in either direction.

    Args:
        lazy: the coupling; its mask says which columns condition (x_a).

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, equations 4 to 8.
    """

    first: Tensor
    second: Tensor
    order: Tensor

    def __init__(self, lazy: GeneralCouplingTransform) -> None:
        super().__init__()
        self.lazy = lazy
        mask = lazy.mask
        first, second = torch.nonzero(mask).flatten(), torch.nonzero(~mask).flatten()
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.register_buffer("order", torch.argsort(torch.cat((first, second))))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, D]``."""
        x_a, x_b = x.index_select(1, self.first), x.index_select(1, self.second)
        y_b, ladj = _apply(self.lazy.meta(context, x_a), x_b)
        return torch.cat((x_a, y_b), dim=1).index_select(1, self.order), ladj

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x ``[N, D]``."""
        y_a, y_b = y.index_select(1, self.first), y.index_select(1, self.second)
        x_b, ladj = _invert(self.lazy.meta(context, y_a), y_b)
        return torch.cat((y_a, x_b), dim=1).index_select(1, self.order), ladj


class Autoregressive(Bijection):
    """y_i = f(x_i | h(x_<i, context)): every column is conditioned on those before it.

    Back, each pass of the conditioner settles one more group of columns at least: see `models.flows.jacobi`.

    Args:
        lazy: the autoregressive transform.

    References:
        Papamakarios et al., 2017, https://arxiv.org/abs/1705.07057, equations 3 to 5.
    """

    def __init__(self, lazy: MaskedAutoregressiveTransform) -> None:
        super().__init__()
        self.lazy = lazy
        self.blocks = _cut(lazy)
        self.tolerance = NEAR if _is_affine(lazy) else 0.0

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, D]``."""
        return _apply(self.lazy.meta(context, x), x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x ``[N, D]``."""
        if self.blocks is not None and torch.compiler.is_exporting():
            return self.inverse_in_blocks(self.blocks, y, context)

        def step(x: Tensor) -> tuple[Tensor, Tensor]:
            return _invert(self.lazy.meta(context, x), y)

        # what h(0) gives is the same for all rows: one row here, and a constant in a graph
        first = step(y.new_zeros(1, y.shape[1]))[0] if context is None else None
        return jacobi(step, y, self.lazy.passes, first, self.tolerance)

    def inverse_in_blocks(self, blocks: Blocks, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The same as `inverse`, one block of columns after the other: less work, in more nodes of a graph."""
        known = blocks.before(context)
        parts, terms = [], []
        for block in range(1, blocks.count + 1):
            y_b = y.index_select(1, blocks.columns(block))

            def step(x: Tensor, block: int = block, y_b: Tensor = y_b) -> tuple[Tensor, Tensor]:
                univariate = self.lazy.univariate(*blocks.parameters(block, x, known))
                return _invert(DependentTransform(univariate, 1), y_b)

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
        lazy: the transform; its conditioner, where there is one, reads the context alone.
    """

    def __init__(self, lazy: LazyTransform) -> None:
        super().__init__()
        self.lazy = lazy

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, D]``."""
        return _apply(self.lazy(context), x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x ``[N, D]``."""
        return _invert(self.lazy(context), y)


class _Transform(Protocol):
    """The part of zuko's transforms that is used: torch's own class, and a method that zuko adds to it."""

    @property
    def inv(self) -> _Transform: ...

    def __call__(self, x: Tensor) -> Tensor: ...

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor: ...

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


def _apply(transform: _Transform, x: Tensor) -> tuple[Tensor, Tensor]:
    return transform.call_and_ladj(x)


def _invert(transform: _Transform, y: Tensor) -> tuple[Tensor, Tensor]:
    """Give x and log|det dx/dy|. The parameters lie in `transform` already, so that both formulas are cheap."""
    base = transform.base if isinstance(transform, DependentTransform) else transform
    if isinstance(base, OnePass):
        x, ladj = base.inverse_and_ladj(y)
        return x, ladj.sum(dim=-1)
    x = transform.inv(y)
    return x, -transform.log_abs_det_jacobian(x, y)
