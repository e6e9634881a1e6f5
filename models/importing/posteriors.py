"""Posteriors of sbi: the density estimator inside a `DirectPosterior`, and the bounds of its prior.

sbi is not imported: a posterior comes from the user's own code, and its classes are known by their names (sbi 0.23 to
0.27). What is no single flow is refused with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from models.importing.adapted import Unsupported
from models.importing.descriptions import one_line
from service.bundle.priors import Prior, Simplex

__all__ = ["Posterior", "is_posterior", "open_posterior", "read_bounds", "refuse_estimator"]

_WITHOUT: Final = "To import the flow without a prior, return the posterior's .posterior_estimator"

_POSTERIORS: Final[Mapping[str, str]] = {
    "EnsemblePosterior": "it is a mixture of several posteriors. Import its members, each as a flow of its own: "
    ".posteriors, with their shares in .weights",
    "ImportanceSamplingPosterior": "it draws by importance sampling from a potential. Import the proposal's flow, and "
    "weigh its draws by /weights",
    "MCMCPosterior": "it draws by Markov chains from a potential, and has no flow to evaluate",
    "RejectionPosterior": "it draws by rejection from a potential, and has no flow to evaluate",
    "VIPosterior": "its flow is fitted anew to each observation. Import the flow in its .q",
    "VectorFieldPosterior": "it follows a score or a velocity field through an equation of motion",
    "NPE_A_Posterior": "its density is a mixture of normal distributions, divided by that of the proposals",
    "FilteredDirectPosterior": "its density is that of a table model, which reads its training rows with each call",
}
"""The class of a posterior -> why it is no flow, and what to do."""

_ESTIMATORS: Final[Mapping[str, str]] = {
    "FlowMatchingEstimator": "a velocity field, which is integrated from step to step: no bijection with a density of "
    "its own. Train with an estimator that is a flow, such as 'nsf' or 'zuko_nsf'",
    "ConditionalVectorFieldEstimator": "a score or velocity field, which is integrated from step to step: no bijection "
    "with a density of its own. Train with an estimator that is a flow, such as 'nsf' or 'zuko_nsf'",
    "ConditionalScoreEstimator": "a score, which is integrated from step to step: no bijection with a density of its "
    "own. Train with an estimator that is a flow, such as 'nsf' or 'zuko_nsf'",
    "MixtureDensityEstimator": "a mixture of normal distributions whose parameters depend on the context: no flow",
    "MultivariateGaussianMDN": "a mixture of normal distributions whose parameters depend on the context: no flow",
    "MixedDensityEstimator": "an estimator of discrete and continuous columns: the discrete ones have no density",
    "CategoricalMassEstimator": "an estimator of discrete columns, which have no density",
    "TabPFNFlow": "a table model, which reads its training rows with each call",
}
"""A class of an estimator, or of what is in it -> what it is."""


class Posterior(NamedTuple):
    """A posterior that was opened.

    Args:
        estimator: the density estimator, which `models.importing.estimators` takes.
        prior: its bounds; None where it is not bounded.
        note: what a reader of the manifest should know.
    """

    estimator: nn.Module
    prior: Prior | None
    note: str


def is_posterior(source: object) -> bool:
    """Whether an object is a posterior of sbi, or has the structure of one."""
    names = {kind.__name__ for kind in type(source).__mro__}
    return not isinstance(source, nn.Module) and bool(names & {*_POSTERIORS, "DirectPosterior", "NeuralPosterior"})


def open_posterior(source: Any) -> Posterior:  # noqa: ANN401  an object of sbi
    """Open a posterior.

    Raises:
        Unsupported: it is no single flow, or the support of its prior cannot be read.
    """
    kind = type(source).__name__
    for name in (each.__name__ for each in type(source).__mro__):
        if name in _POSTERIORS:
            raise Unsupported(f"{kind} of sbi is no single flow: {_POSTERIORS[name]}")
    estimator = getattr(source, "posterior_estimator", None)
    if not isinstance(estimator, nn.Module):
        raise Unsupported(f"{kind} of sbi has no posterior_estimator that is a torch module")
    shape = getattr(estimator, "input_shape", None)
    if shape is None:
        raise Unsupported(
            f"the posterior_estimator of {kind}, a {type(estimator).__name__}, does not say its input_shape"
        )
    prior = read_bounds(getattr(source, "prior", None), math.prod(shape))
    if prior is None:
        return Posterior(estimator, None, "the prior of the posterior has no bounds: nothing leaks out of it")
    return Posterior(estimator, prior, "the bounds of the posterior's prior are kept: draws outside are drawn again")


def refuse_estimator(source: nn.Module) -> None:
    """Let no estimator of sbi pass that is no flow.

    Raises:
        Unsupported: with the reason.
    """
    for module in (source, *source.children()):
        for kind in type(module).__mro__:
            if kind.__name__ in _ESTIMATORS and kind.__module__.partition(".")[0] not in ("zuko", "nflows"):
                inside = "" if module is source else f" holds a {type(module).__name__}, which"
                raise Unsupported(f"{type(source).__name__}{inside} is {_ESTIMATORS[kind.__name__]}")


def read_bounds(prior: Any, width: int) -> Prior | None:  # noqa: ANN401  a distribution, or what sbi made of one
    """The bounds of a prior.

    Args:
        prior: a distribution with a support.
        width: the number of its coordinates.

    Returns:
        None where it has no bounds.

    Raises:
        Unsupported: its support cannot be read.
    """
    try:
        support = prior.support
    except Exception as error:  # torch raises NotImplementedError, and a user's class whatever it likes
        why = f"{type(prior).__name__} does not say its support: {one_line(error)}"
        raise Unsupported(f"the prior cannot be kept: {why}. {_WITHOUT}") from error
    low: list[float | None] = [None] * width
    high: list[float | None] = [None] * width
    simplexes: list[Simplex] = []
    _read(support, 0, width, low, high, simplexes)
    if not simplexes and low == high == [None] * width:
        return None
    try:
        return Prior(low=low, high=high, simplexes=simplexes)
    except ValidationError as error:
        raise Unsupported(f"the prior cannot be kept: {error.errors()[0]['msg']}. {_WITHOUT}") from error


def _read(
    support: Any,  # noqa: ANN401  a constraint of torch, whose classes are private
    first: int,
    count: int,
    low: list[float | None],
    high: list[float | None],
    simplexes: list[Simplex],
) -> None:
    """Read the constraint of the coordinates from `first` on, `count` of them, into the bounds of all."""
    kind = type(support).__name__.strip("_").lower()
    if kind in ("independentconstraint", "independent"):
        _read(support.base_constraint, first, count, low, high, simplexes)
    elif kind == "cat":
        for part, length in zip(support.cseq, support.lengths, strict=True):
            _read(part, first, int(length), low, high, simplexes)
            first += int(length)
    elif kind in ("real", "realvector"):
        return
    elif kind in ("interval", "halfopeninterval", "greaterthan", "greaterthaneq", "lessthan"):
        _fill(low, getattr(support, "lower_bound", None), first, count)
        _fill(high, getattr(support, "upper_bound", None), first, count)
    elif kind == "simplex":
        raise Unsupported(
            f"the prior cannot be kept: its {count} coordinates from {first} on sum to 1, so that they have no "
            f"density. Fit all of them but the last. {_WITHOUT}"
        )
    else:
        raise Unsupported(f"the prior cannot be kept: its support, {support}, is not known. {_WITHOUT}")


def _fill(ends: list[float | None], bound: Any, first: int, count: int) -> None:  # noqa: ANN401  a tensor, a number or None
    """Write one end of some coordinates; an infinite one is none."""
    if bound is None:
        return
    values: Tensor = torch.as_tensor(bound).double().expand(count)
    ends[first : first + count] = [value if math.isfinite(value) else None for value in values.tolist()]
