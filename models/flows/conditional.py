"""Conditional transforms, and the steps that are made of them: the coupling and the autoregressive step.

A conditional transform is an increasing function of each column, or pixel, whose parameters a network reads off other
columns. The table families, the image families and each imported library have one of their own; the steps are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from zuko.transforms import DependentTransform

from models.flows.flow import Bijection
from models.flows.jacobi import Step, jacobi
from models.flows.univariate import OnePass

__all__ = ["Autoregressive", "ConditionalTransform", "Coupling", "InvertibleTransform", "apply", "invert"]


class InvertibleTransform(Protocol):
    """The part of zuko's transforms that is used: torch's own class, and a method that zuko adds to it."""

    @property
    def inv(self) -> Callable[[Tensor], Tensor]:
        """The transform the other way round."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """X -> y."""
        ...

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Log|dy/dx| of each number, or of each row."""
        ...

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X -> y and log|dy/dx|."""
        ...


def apply(transform: InvertibleTransform, x: Tensor) -> tuple[Tensor, Tensor]:
    """X ``[N, ...]`` -> y and log|det dy/dx| ``[N]``."""
    y, ladj = transform.call_and_ladj(x)
    return y, _row_sums(ladj)


def invert(transform: InvertibleTransform, y: Tensor) -> tuple[Tensor, Tensor]:
    """Y ``[N, ...]`` -> x and log|det dx/dy| ``[N]``; the parameters lie in `transform`, so that both are cheap."""
    base = transform.base if isinstance(transform, DependentTransform) else transform
    if isinstance(base, OnePass):
        x, ladj = base.inverse_and_ladj(y)
        return x, _row_sums(ladj)
    x = transform.inv(y)
    return x, -_row_sums(transform.log_abs_det_jacobian(x, y))


def _row_sums(ladj: Tensor) -> Tensor:
    """The sum of each row's logarithms ``[N]``: a transform of single numbers gives one for each of them."""
    return ladj.flatten(1).sum(dim=1) if ladj.ndim > 1 else ladj


class ConditionalTransform(nn.Module, ABC):
    """An increasing function of each number of x, with parameters that a conditioner h gives: y = f(x | h(given))."""

    numeric_inverse: bool = False
    """Whether the inverse is searched for, rather than having a formula."""

    @abstractmethod
    def forward(
        self, x: Tensor, given: Tensor, context: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Move x; one pass of the conditioner in either direction.

        Args:
            x: ``[N, B, ...]``, the columns or channels that move.
            given: ``[N, A, ...]``, those that the conditioner is shown.
            context: ``[N, C]``, or None.
            inverse: move back, f^-1(x | h(given)).

        Returns:
            y of the shape of x, and the log-determinant ``[N]`` of that direction in nats.
        """


class Coupling(Bijection):
    """y_a = g(x_a), y_b = f(x_b | h(x_a, context)): the parameters of f come from one half of the columns.

    Back, x_a = g^-1(y_a) and x_b = f^-1(y_b | h(x_a, context)): the conditioner h runs once in either direction.
    log|det dy/dx| is the sum of those of f and g.

    Args:
        mask: bool ``[D]``, which columns, or channels, condition (a); at least one, and not all.
        transform: f and h.
        unconditional: g; None for y_a = x_a.

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, equations 4 to 8 and section 3.4.
    """

    first: Tensor
    second: Tensor
    order: Tensor

    def __init__(self, mask: Tensor, transform: ConditionalTransform, unconditional: Bijection | None = None) -> None:
        super().__init__()
        first, second = torch.nonzero(mask).flatten(), torch.nonzero(~mask).flatten()
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.register_buffer("order", torch.argsort(torch.cat((first, second))))
        self.transform, self.unconditional = transform, unconditional
        self.numeric_inverse = transform.numeric_inverse

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D, ...]`` -> y of the same shape."""
        x_a, x_b = x.index_select(1, self.first), x.index_select(1, self.second)
        y_a, (y_b, ladj) = x_a, self.transform(x_b, x_a, context)
        if self.unconditional is not None:
            y_a, term = self.unconditional(x_a)
            ladj = ladj + term
        return torch.cat((y_a, y_b), dim=1).index_select(1, self.order), ladj

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D, ...]`` -> x of the same shape."""
        y_a, y_b = y.index_select(1, self.first), y.index_select(1, self.second)
        x_a, term = (y_a, None) if self.unconditional is None else self.unconditional.inverse(y_a)
        x_b, ladj = self.transform(y_b, x_a, context, inverse=True)
        ladj = ladj if term is None else ladj + term
        return torch.cat((x_a, x_b), dim=1).index_select(1, self.order), ladj


class Autoregressive(Bijection):
    """y_i = f(x_i | h(x_<i, context)): every column is conditioned on those before it.

    log|det dy/dx| = sum log f'(x_i). Back, each pass of the conditioner settles one more group of columns at least: see
    `models.flows.jacobi`.

    Args:
        transform: f and h.
        passes: after how many passes of h the inverse is exact: the number of columns, or of groups of them that do not
            depend on each other.
        tolerance: 0, or `models.flows.jacobi.NEAR` where f scales and shifts.

    References:
        Papamakarios et al., 2017, https://arxiv.org/abs/1705.07057, equations 3 to 5.
    """

    def __init__(self, transform: ConditionalTransform, passes: int, tolerance: float = 0.0) -> None:
        super().__init__()
        self.transform = transform
        self.passes, self.tolerance = passes, tolerance
        self.numeric_inverse = transform.numeric_inverse

    @property
    def name(self) -> str:
        """What the step is called, also where a subclass computes it in another way."""
        return "autoregressive"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, D]``."""
        y, ladj = self.transform(x, x, context)
        return y, ladj

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x ``[N, D]``."""

        def step(x: Tensor) -> tuple[Tensor, Tensor]:
            moved, ladj = self.transform(y, x, context, inverse=True)
            return moved, ladj

        return jacobi(step, y, self.passes, self.first_pass(step, y, context), self.tolerance)

    def first_pass(self, step: Step, y: Tensor, context: Tensor | None) -> Tensor | None:  # noqa: ARG002
        """What the first pass gives, where that is to be had for less than a pass: nowhere, unless a subclass says so.

        Args:
            step: one pass, as `models.flows.jacobi.jacobi` takes it.
            y: ``[N, D]``.
            context: ``[N, C]``, or None.

        Returns:
            x ``[N, D]``, or None.
        """
        return None
