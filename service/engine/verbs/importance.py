"""Importance weights of a flow's draws, for a target that is known up to a constant factor.

With w_i = p(x_i) / q(x_i), p the target and q the flow's density, sum_i w_i h(x_i) / sum_i w_i estimates the mean of h
under the target. How far that can be trusted shows in the largest of the weights: the Pareto k-hat, the shape of the
generalized Pareto distribution that fits their tail. Knows no flow and no HTTP: arrays in, arrays out, in float64.

A. Vehtari, D. Simpson, A. Gelman, Y. Yao, J. Gabry: Pareto smoothed importance sampling. JMLR 25 (2024), 72,
arXiv:1507.02646. J. Zhang, M. Stephens: A new and efficient estimation method for the generalized Pareto distribution.
Technometrics 51 (2009), 316-325.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import InvalidArgument, OutOfSupport, PushforwardError, Reason

__all__ = ["Importance", "importance", "pareto_k", "pareto_threshold"]

Float64 = npt.NDArray[np.float64]

_SMALLEST_TAIL: Final = 5
_HIGHEST_GOOD: Final = 0.7
_LEAST: Final = 1e-300
"""An exceedance that is smaller, beside the largest ratio, is none: the fit divides by it."""
_PRIOR_K, _PRIOR_WEIGHT = 0.5, 10  # a weak prior on k: the paper's equation (5), worth ten exceedances


class Importance(NamedTuple):
    """Weights of draws, and the measures of how far they can be relied on.

    Args:
        weights: float64 ``[N]``, self-normalized: their sum is 1.
        log_weights: float64 ``[N]``, their logarithms; -inf for a weight of zero.
        ess: the effective sample size, 1 / sum of squared weights: from 1 to N.
        ess_share: ess / N.
        pareto_k: the shape of the weights' upper tail; None where it cannot be estimated.
        pareto_k_threshold: what it should stay below, with so many draws.
        log_evidence: log of the mean of exp(log_target - log_prob), in nats: the logarithm of the target's normalizing
            constant.
        log_evidence_se: its standard error, by the delta method: sqrt((N / ess - 1) / (N - 1)); 0 for a single draw.
        verdict: one sentence that begins with good, more draws, bad, useless or unknown.
    """

    weights: Float64
    log_weights: Float64
    ess: float
    ess_share: float
    pareto_k: float | None
    pareto_k_threshold: float
    log_evidence: float
    log_evidence_se: float
    verdict: str


def importance(log_target: Float64, log_prob: npt.NDArray[np.floating[Any]]) -> Importance:
    """Self-normalized importance weights, w_i proportional to exp(log_target_i - log_prob_i).

    Args:
        log_target: ``[N]``, the log-density of the target at each draw, up to a constant, in nats; -inf where it is
            zero, else finite.
        log_prob: ``[N]``, that of the flow which they were drawn from, in nats and in its precision.

    Raises:
        InvalidArgument: the target is zero at every draw.
        OutOfSupport: a row where the flow's density is zero and the target's is not; it is no draw of the flow.

    Example:
        >>> round(importance(np.log([1.0, 2.0, 1.0]), np.zeros(3)).ess, 3)
        2.667
    """
    wanted = log_target > -np.inf
    if not wanted.any():
        detail = "the target is zero at every row, so that no row has any weight"
        raise InvalidArgument(f"log_target: {detail}", (Reason(("log_target",), detail),))
    missed = np.flatnonzero(wanted & np.isneginf(log_prob))
    if missed.size:
        reason = "the flow's density is zero here and the target's is not, so that the weight would be infinite"
        named = tuple(Reason(("x",), reason, int(row)) for row in missed[: PushforwardError.MAX_REASONS])
        raise OutOfSupport(f"x, row {missed[0]}: {reason}", named)
    precision = log_prob.dtype
    proposed = np.where(wanted, log_prob.astype(np.float64), 0.0)
    log_ratios = np.where(wanted, log_target - proposed, -np.inf)
    with np.errstate(over="ignore"):  # a difference beyond float64 is a weight of zero
        largest = float(log_ratios.max())
        log_ratios -= largest
    ratios = np.exp(log_ratios)
    total = float(ratios.sum())
    count = len(ratios)
    ess = total**2 / float((ratios**2).sum())
    # Ratios that differ by what was rounded off log_prob have a tail of rounding errors, which says nothing.
    equal = log_ratios.min() >= -np.finfo(precision).eps * (1 + np.abs(proposed).max())
    k = None if equal else pareto_k(log_ratios)
    verdict = f"good: all weights are equal, to the rounding of {precision}" if equal else _verdict(k, count)
    # The relative variance of the ratios is N / ess - 1; that of their mean is smaller by N - 1.
    spread = math.sqrt(max(0.0, count / ess - 1.0) / (count - 1)) if count > 1 else 0.0
    return Importance(
        weights=ratios / total,
        log_weights=log_ratios - math.log(total),
        ess=ess,
        ess_share=ess / count,
        pareto_k=k,
        pareto_k_threshold=pareto_threshold(count),
        log_evidence=largest + math.log(total / count),
        log_evidence_se=spread,
        verdict=verdict,
    )


def pareto_threshold(draws: int) -> float:
    """The k-hat to stay below with so many draws: min(1 - 1 / log10(S), 0.7).

    Example:
        >>> round(pareto_threshold(100), 3), pareto_threshold(100_000)
        (0.5, 0.7)
    """
    return min(1.0 - 1.0 / math.log10(draws), _HIGHEST_GOOD) if draws > 1 else -math.inf


def pareto_k(log_ratios: Float64) -> float | None:
    """The Pareto k-hat of importance ratios.

    A generalized Pareto distribution is fitted to the exceedances of the largest min(S / 5, 3 sqrt(S)) ratios over the
    next smaller one.

    Args:
        log_ratios: ``[S]``, up to a constant; -inf for a ratio of zero.

    Returns:
        k-hat; None where fewer than five ratios stand out of the rest.
    """
    draws = len(log_ratios)
    tail = math.ceil(min(draws / 5, 3 * math.sqrt(draws)))
    if tail < _SMALLEST_TAIL:
        return None
    ratios = np.exp(np.sort(log_ratios)[-tail - 1 :] - log_ratios.max())
    exceedances = ratios[1:] - ratios[0]
    exceedances = exceedances[exceedances > _LEAST]
    return _shape(exceedances) if len(exceedances) >= _SMALLEST_TAIL else None


def _shape(exceedances: Float64) -> float:
    """The shape k of a generalized Pareto distribution with location 0.

    Zhang and Stephens' estimate: the posterior mean of theta = -k / sigma over a grid, whose profile likelihood is the
    weight; then k at that theta, drawn towards `_PRIOR_K`.

    Args:
        exceedances: ascending, positive, at least `_SMALLEST_TAIL`.
    """
    count = len(exceedances)
    grid = 30 + math.floor(math.sqrt(count))
    quartile = exceedances[math.floor(count / 4 + 0.5) - 1]
    theta = 1.0 / exceedances[-1] + (1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3.0 * quartile)
    k = np.log1p(-theta[:, None] * exceedances).mean(axis=1)
    log_likelihood = count * (np.log(-theta / k) - k - 1.0)
    likelihood = np.exp(log_likelihood - log_likelihood.max())
    mean = float((theta * likelihood).sum() / likelihood.sum())
    found = float(np.log1p(-mean * exceedances).mean())
    return (count * found + _PRIOR_WEIGHT * _PRIOR_K) / (count + _PRIOR_WEIGHT)


def _verdict(k: float | None, draws: int) -> str:
    if k is None:
        return "unknown: too few weights stand out of the rest to tell how heavy their tail is"
    if k < pareto_threshold(draws):
        return "good: means under these weights can be relied on"
    if k < _HIGHEST_GOOD:
        return f"more draws: with this k about {math.ceil(10 ** (1 / (1 - k)))} are needed, and there are {draws}"
    if k < 1:
        return "bad: means under these weights are off by more than they look, and more draws help slowly"
    return "useless: weights of such a tail have no mean; the flow misses where the target is"
