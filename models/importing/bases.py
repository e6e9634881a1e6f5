"""Base distributions of other libraries as bases of the manifest, with the step that makes each one so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, distributions
from zuko.distributions import Mixture

from models.flows.bases import LearntBase
from models.flows.flow import Bijection
from models.flows.linear import FixedLinear
from models.importing.adapted import Unsupported
from models.importing.steps import Affine
from service.bundle.bases import MAX_DEGREES_OF_FREEDOM as MAX_FREEDOM
from service.bundle.bases import Base, DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase, UniformBase

__all__ = ["check_width", "is_own", "of_distribution", "of_mixture", "of_normal", "of_uniform", "unsupported_base"]

Kind = TypeVar("Kind")


def is_own(distribution: object, kind: type[Kind], method: str = "log_prob") -> TypeGuard[Kind]:
    """Whether a distribution is of a class, or of one that inherits its density: another density is another base.

    Args:
        distribution: the base.
        kind: the class.
        method: the name of the method that gives the density.
    """
    return isinstance(distribution, kind) and getattr(type(distribution), method) is getattr(kind, method)


def check_width(base: Base | LearntBase, steps: Sequence[Bijection], width: int, owner: str) -> None:
    """Refuse a base with parameters for another number of columns: they would broadcast, and be counted once.

    Args:
        base: as the manifest will have it.
        steps: from what the flow gives to the base.
        width: the number of columns D.
        owner: the flow it belongs to, for the error.

    Raises:
        Unsupported: it is for another number of columns.
    """
    stated = [] if isinstance(base, LearntBase) else [base.width]
    found = {*stated, *(step.shift.numel() for step in steps if isinstance(step, Affine))} - {None, width}
    if found:
        raise Unsupported(
            f"the base of {owner} has parameters for {min(size for size in found if size)} columns, and the flow has "
            f"{width}: give it one for each column, by expand([{width}]) for one of torch's"
        )


def of_normal(mean: Tensor, log_scale: Tensor) -> Base:
    """A normal base of independent columns: the standard one, or with the means and deviations in the manifest."""
    mean, log_scale = mean.detach().double().flatten(), log_scale.detach().double().flatten()
    if not mean.any() and not log_scale.any():
        return NormalBase()
    return DiagonalNormalBase(mean=mean.tolist(), standard_deviation=log_scale.exp().tolist())


def of_mixture(log_weights: Tensor, means: Tensor, log_scales: Tensor) -> Base:
    """A mixture of K normals of independent columns: ``[K]``, and ``[K, D]`` twice."""
    weights = log_weights.detach().double().softmax(dim=0)
    return MixtureBase(
        weights=weights.tolist(),
        means=means.detach().double().tolist(),
        standard_deviations=log_scales.detach().double().exp().tolist(),
    )


def of_uniform(low: Tensor, high: Tensor) -> tuple[Base, list[Bijection]]:
    """A uniform base over a box, and the affine step to [0, 1] where its sides differ."""
    low, high = low.detach().double().flatten(), high.detach().double().flatten()
    low, high = low + 0 * high, high + 0 * low
    if bool((low == low[0]).all() and (high == high[0]).all()):
        return UniformBase(low=float(low[0]), high=float(high[0])), []
    return UniformBase(low=0.0, high=1.0), [Affine(low, (high - low).log())]


def of_distribution(distribution: object, owner: str) -> tuple[Base, list[Bijection]]:
    """A distribution of torch's own classes: a normal, a mixture of normals, a Student-t or a uniform box.

    Args:
        distribution: the base.
        owner: the flow it belongs to, for the error.

    Raises:
        Unsupported: it is another one.
    """
    inner = distribution
    while is_own(inner, distributions.Independent):
        inner = inner.base_dist
    if is_own(inner, distributions.Normal):
        return of_normal(inner.loc, inner.scale.log()), []
    if is_own(inner, distributions.StudentT):
        freedom = inner.df.flatten()
        if bool((freedom == freedom[0]).all()) and float(freedom[0]).is_integer() and 1 <= freedom[0] <= MAX_FREEDOM:
            return StudentTBase(degrees_of_freedom=int(freedom[0])), _affine(inner.loc, inner.scale.log())
    if is_own(inner, distributions.Uniform):
        return of_uniform(inner.low, inner.high)
    if is_own(inner, distributions.MixtureSameFamily) and is_own(inner.mixture_distribution, distributions.Categorical):
        mixture = _mixture(inner.mixture_distribution.logits, inner.component_distribution)
    else:
        mixture = _mixture(inner.logits, inner.base) if is_own(inner, Mixture) else None
    if mixture is not None:
        return mixture, []
    if is_own(inner, distributions.MultivariateNormal) or is_own(inner, distributions.LowRankMultivariateNormal):
        return NormalBase(), [_whitening(inner.loc, inner.covariance_matrix)]
    raise unsupported_base(distribution, owner)


def _mixture(log_weights: Tensor, components: object) -> Base | None:
    """A mixture of normals of independent columns; None where its components are others."""
    while is_own(components, distributions.Independent):
        components = components.base_dist
    if not is_own(components, distributions.Normal) or components.loc.ndim != 2:
        return None
    return of_mixture(log_weights, components.loc, components.scale.log())


def _whitening(mean: Tensor, covariance: Tensor) -> FixedLinear:
    """The step from a normal with a covariance matrix C to the standard one: z = L^-1 (x - mean) with L L^T = C."""
    mean, factor = mean.detach().double(), torch.linalg.cholesky(covariance.detach().double())
    matrix = torch.linalg.inv(factor).T
    return FixedLinear(matrix, -(mean @ matrix))


def _affine(shift: Tensor, log_scale: Tensor) -> list[Bijection]:
    return [Affine(shift, log_scale)] if shift.any() or log_scale.any() else []


def unsupported_base(distribution: object, owner: str) -> Unsupported:
    """The error for a base that the manifest has no name for."""
    return Unsupported(
        f"the base {type(distribution).__name__} of {owner} is not one that a bundle can hold: a normal, a mixture of "
        "normals of independent columns, a Student-t with one whole number of degrees of freedom, or a uniform box. "
        "Let the flow's last step map it to a standard normal"
    )
