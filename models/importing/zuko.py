"""Flows of zuko (https://github.com/probabilists/zuko) with their base.

The transforms are those of `models.flows.zuko_steps`.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.distributions import ComposeTransform, Distribution, ExpTransform, Transform
from zuko.flows import FFJTransform
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.flows.spline import CircularRQSTransform
from zuko.lazy import (
    Flow,
    LazyComposedTransform,
    LazyInverse,
    UnconditionalDistribution,
)
from zuko.transforms import (
    AdditiveTransform,
    ComposedTransform,
    CouplingTransform,
    FreeFormJacobianTransform,
    LULinearTransform,
    MonotonicAffineTransform,
    MonotonicRQSTransform,
    MonotonicTransform,
    PermutationTransform,
    RotationTransform,
)

from models.flows.flow import Bijection
from models.flows.inverted import invert_chain
from models.flows.zuko_steps import from_zuko
from models.importing import bases
from models.importing.adapted import AdaptedFlow, Unsupported, unsupported_layer
from models.importing.steps import Permutation, linear_step
from models.importing.support import box_of, support_of_constraint

__all__ = ["adapt"]

_CIRCLE: Final = box_of(-3.1415925, 3.1415925)
"""Where circular splines are no bijection any more: the float32 next to pi inside."""

_FORMULAS: Final = (MonotonicAffineTransform, AdditiveTransform, MonotonicRQSTransform, CircularRQSTransform)
_INVERSE: Final = type(ExpTransform().inv)
"""The class of any transform of torch taken the other way round; it has no public name."""
_UNSEEN: Final = object()
"""In the place of a context: what looks at it fails, and what does not is the same for every context."""
_CONTINUOUS: Final = (
    "it solves a differential equation in steps that it chooses by looking at the rows",
    "Fit another family, such as NSF, to the same data",
)
_WAYS_OUT: Final[dict[type, tuple[str, str]]] = {
    FFJTransform: _CONTINUOUS,
    FreeFormJacobianTransform: _CONTINUOUS,
    CouplingTransform: (
        "it looks for its columns anew at each call",
        "Use zuko.flows.coupling.GeneralCouplingTransform",
    ),
}


def adapt(source: nn.Module) -> AdaptedFlow:
    """Take a `Flow` of zuko apart; where its base is a flow itself, the steps of both.

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
    parts = [source]
    while isinstance(parts[-1].base, Flow):
        parts.append(parts[-1].base)
    distribution, width = _base_distribution(parts[-1].base)
    base, extra = bases.of_distribution(distribution, "a zuko flow")

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        for step in reversed(extra):
            z, _ = step.inverse(z, context)
        for part in reversed(parts):
            z = part.transform(context).inv(z)
        return z

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        result: Tensor = source(context).log_prob(x)
        return result

    return AdaptedFlow(
        "zuko",
        [step for part in parts for step in _steps(part.transform)],
        base,
        (*distribution.batch_shape, *distribution.event_shape),
        log_prob,
        generate,
        context_width=width,
        base_steps=extra,
    )


def _base_distribution(base: nn.Module) -> tuple[Distribution, int | None]:
    """The distribution that a base is, and the width of context that a flow can have beside it; None for any.

    Raises:
        Unsupported: it depends on the context.
    """
    # what fails here fails in any flow, and is told as it is
    found, width = base() if isinstance(base, UnconditionalDistribution) else _given(base, _UNSEEN), None
    if found is None:
        # one that looks at the context is a constant in a flow without
        found, width = _given(base, None), 0
    if found is None:
        raise unsupported_layer(
            base,
            "a bundle's base does not depend on the context",
            "Let a step of the flow shift and scale by the context",
        )
    if not isinstance(found, Distribution):
        raise bases.unsupported_base(found, "a zuko flow")
    return found, width


def _given(lazy: nn.Module, context: object) -> object:
    """What a lazy module gives for a context; None where it fails on it."""
    try:
        found: object = lazy(context)
    except Exception:  # whatever code raises that looks at the context
        return None
    return found


def _steps(transform: nn.Module) -> list[Bijection]:
    if isinstance(transform, LazyComposedTransform):
        return [step for part in transform.transforms for step in _steps(part)]
    if isinstance(transform, LazyInverse):
        return invert_chain(_steps(transform.transform))
    if type(transform) in _WAYS_OUT:
        raise unsupported_layer(transform, *_WAYS_OUT[type(transform)])
    if isinstance(transform, GeneralCouplingTransform | MaskedAutoregressiveTransform):
        constant = None
    else:
        constant = _given(transform, _UNSEEN)
    if isinstance(constant, Transform):
        steps = _constant_steps(constant, transform)
        if steps is not None:
            return steps
    steps = from_zuko(transform)
    if isinstance(constant, Transform):
        steps[0].domain, steps[0].image = map(support_of_constraint, (constant.domain, constant.codomain))
    elif _univariate(transform) is CircularRQSTransform:
        steps[0].domain = _CIRCLE
    return steps if _has_formula(transform, constant) else [_SearchedInverse(step) for step in steps]


def _constant_steps(transform: Transform, owner: nn.Module) -> list[Bijection] | None:
    """The steps of a transform that is the same for every context and row, where a graph cannot make it anew.

    Args:
        transform: what the lazy transform gives.
        owner: the lazy transform.

    Returns:
        The steps; None for a transform that a graph can make of the parameters of the lazy one.

    Raises:
        Unsupported: it cannot be in a bundle.
    """
    if type(transform) in _WAYS_OUT:
        raise unsupported_layer(transform, *_WAYS_OUT[type(transform)])
    if isinstance(transform, RotationTransform):
        return [linear_step(transform, transform.R.shape[-1])]
    if isinstance(transform, LULinearTransform):
        return [linear_step(transform, transform.L.shape[-1])]
    if isinstance(transform, PermutationTransform):
        return [Permutation(transform.order)]
    if isinstance(transform, _INVERSE):
        steps = _constant_steps(transform.inv, owner)
        return None if steps is None else invert_chain(steps)
    if isinstance(transform, ComposedTransform | ComposeTransform):
        held = transform.transforms if isinstance(transform, ComposedTransform) else transform.parts
        parts = [_constant_steps(part, owner) for part in held]
        known = [part for part in parts if part is not None]
        if known and len(known) < len(parts):
            raise unsupported_layer(
                owner,
                "it composes a matrix or a permutation with another transform",
                "Give each of them as an UnconditionalTransform of its own",
            )
        return [step for part in known for step in part] if known else None
    if not transform.bijective:
        raise unsupported_layer(transform, "it is no bijection", "Leave it out of the flow")
    return None


def _has_formula(transform: nn.Module, constant: object) -> bool:
    """Whether zuko undoes a transform by a formula; its polynomials and monotone networks it undoes by bisection.

    Args:
        transform: the lazy transform.
        constant: what it gives, where that is the same for every context and row.
    """
    univariate = _univariate(transform)
    return (univariate is None or univariate in _FORMULAS) and not isinstance(constant, MonotonicTransform)


def _univariate(transform: nn.Module) -> object:
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
