"""Flows of zuko (https://github.com/probabilists/zuko) with their base.

The transforms are those of `models.flows.zuko_steps`.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from zuko.flows import FFJTransform
from zuko.flows.spline import CircularRQSTransform
from zuko.lazy import (
    Flow,
    LazyComposedTransform,
    LazyInverse,
    LazyTransform,
    UnconditionalDistribution,
    UnconditionalTransform,
)
from zuko.transforms import AdditiveTransform, MonotonicAffineTransform, MonotonicRQSTransform

from models.flows.flow import Bijection
from models.flows.inverted import invert_chain
from models.flows.zuko_steps import from_zuko
from models.importing import bases
from models.importing.adapted import AdaptedFlow, Unsupported, unsupported_layer
from models.importing.support import box_of, support_of_constraint

__all__ = ["adapt"]

_CIRCLE: Final = box_of(-3.1415925, 3.1415925)
"""Where circular splines are no bijection any more: the float32 next to pi inside."""

_FORMULAS: Final = (MonotonicAffineTransform, AdditiveTransform, MonotonicRQSTransform, CircularRQSTransform)


def adapt(source: nn.Module) -> AdaptedFlow:
    """Take a `Flow` of zuko apart.

    Args:
        source: in float64 and evaluation mode.

    Raises:
        Unsupported: a transform or the base cannot be exported, or it is another class.
    """
    if not isinstance(source, Flow):
        raise Unsupported(
            f"zuko {type(source).__name__} cannot be imported: a zuko.flows.Flow can. Give the flow itself, not "
            "what it returns for a context"
        )
    if not isinstance(source.base, UnconditionalDistribution):
        raise unsupported_layer(
            source.base,
            "a bundle's base does not depend on the context",
            "Let a step of the flow shift and scale by the context",
        )
    base, extra = bases.of_distribution(source.base(), "a zuko flow")
    shape = tuple(source.base().event_shape)

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        for step in reversed(extra):
            z, _ = step.inverse(z, context)
        result: Tensor = source.transform(context).inv(z)
        return result

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        result: Tensor = source(context).log_prob(x)
        return result

    return AdaptedFlow("zuko", _steps(source.transform), base, shape, log_prob, generate, base_steps=extra)


def _steps(transform: LazyTransform) -> list[Bijection]:
    if isinstance(transform, LazyComposedTransform):
        return [step for part in transform.transforms for step in _steps(part)]
    if isinstance(transform, LazyInverse):
        return invert_chain(_steps(transform.transform))
    if isinstance(transform, FFJTransform):
        raise unsupported_layer(
            transform,
            "it solves a differential equation in steps that it chooses by looking at the rows",
            "Fit another family, such as NSF, to the same data",
        )
    steps = from_zuko(transform)
    if isinstance(transform, UnconditionalTransform):
        known = transform()
        steps[0].domain, steps[0].image = map(support_of_constraint, (known.domain, known.codomain))
    elif _univariate(transform) is CircularRQSTransform:
        steps[0].domain = _CIRCLE
    return steps if _has_formula(transform) else [_SearchedInverse(step) for step in steps]


def _has_formula(transform: LazyTransform) -> bool:
    """Whether zuko undoes a transform by a formula; its polynomials and monotone networks it undoes by bisection."""
    univariate = _univariate(transform)
    return univariate is None or univariate in _FORMULAS


def _univariate(transform: LazyTransform) -> object:
    """What makes the transform of one column, where it is made of a network's parameters; else None."""
    univariate = getattr(transform, "univariate", None)
    return univariate.func if isinstance(univariate, partial) else univariate


class _SearchedInverse(Bijection):
    """A step that zuko undoes by bisection, and whose log-determinant it may take by differentiation.

    zuko marks the tensors that it differentiates by, also where nobody asked for gradients.

    Args:
        step: the step.
    """

    numeric_inverse = True

    def __init__(self, step: Bijection) -> None:
        super().__init__()
        self.step = step
        self.domain, self.image = step.domain, step.image

    @property
    def name(self) -> str:
        """What the step is called."""
        return self.step.name

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y."""
        return _detach(self.step(x, context))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x."""
        return _detach(self.step.inverse(y, context))


def _detach(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair if torch.is_grad_enabled() else (pair[0].detach(), pair[1].detach())
