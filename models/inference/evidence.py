"""The evidence: ELBO and log Z of a fit, with their errors, by draws of the flow and by annealed rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.flows.flow import Flow
from models.inference.annealing import Annealed
from models.inference.density import UnconstrainedDensity
from models.inference.objectives import draw
from service.engine.verbs.importance import pareto_k

__all__ = ["Evidence", "Missed", "annealed_evidence", "find_missed", "log_mean", "measure", "measure_joint"]

Float64 = npt.NDArray[np.float64]

_ROWS_AT_ONCE: Final = 4096
_MISSED: Final = 10.0  # nats: where the flow has less than e^-10 of the density that is there
_BLOCKS: Final = 20  # of annealed weights, for the error of log Z


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the draws of a flow say of a fit.

    Args:
        elbo: the mean of log p - log q, in nats; -inf where the target has no density at some draw.
        elbo_se: its standard error.
        log_evidence: log Z by importance sampling, in nats.
        log_evidence_se: its standard error.
        ess_share: the effective share of the draws, in [0, 1].
        pareto_k: the shape of the weights' tail; None where it cannot be told.
        outside: the share of draws at which the target has no density.
        log_weights: ``[N]``, log p - log q of the draws.
    """

    elbo: float
    elbo_se: float
    log_evidence: float
    log_evidence_se: float
    ess_share: float
    pareto_k: float | None
    outside: float
    log_weights: Float64


@dataclass(frozen=True, slots=True)
class Missed:
    """Where annealing found density that a flow does not have.

    Args:
        share: of the target's mass, at rows where the flow has less than e^-10 of the density.
        rows: how many annealed rows lie there.
        example: the heaviest of them, in the user's coordinates; None where there is none.
    """

    share: float
    rows: int
    example: tuple[float, ...] | None


def log_mean(log_weights: Float64) -> tuple[float, float]:
    """Log of the mean of weights, and its standard error by the delta method.

    Args:
        log_weights: ``[N]``; -inf for a weight of zero.

    Returns:
        Both in nats; -inf and infinity where all weights are zero.

    Example:
        >>> value, error = log_mean(np.log([1.0, 3.0]))
        >>> round(value, 4), round(error, 4)
        (0.6931, 0.5)
    """
    most = float(log_weights.max(initial=-math.inf))
    if not math.isfinite(most):
        return -math.inf, math.inf
    ratios = np.exp(log_weights - most)
    mean = float(ratios.mean())
    error = float(ratios.std(ddof=1)) / mean / math.sqrt(len(ratios)) if len(ratios) > 1 else math.inf
    return most + math.log(mean), error


def measure(flow: Flow, density: UnconstrainedDensity, draws: int, generator: torch.Generator) -> Evidence:
    """Measure a fit by draws of the flow.

    Args:
        flow: q over unconstrained coordinates.
        density: p.
        draws: how many.
        generator: of the draws.
    """
    found = []
    for start in range(0, draws, _ROWS_AT_ONCE):
        u, log_q = draw(flow, min(_ROWS_AT_ONCE, draws - start), generator)
        with torch.no_grad():
            found.append(density.log_prob(u).to(torch.float64) - log_q.to(torch.float64))
    return _evidence(torch.cat(found).numpy())


def _evidence(log_weights: Float64) -> Evidence:
    """What weights ``[N]`` come to."""
    finite = np.isfinite(log_weights)
    value, error = log_mean(log_weights)
    if not finite.any():
        return Evidence(-math.inf, math.inf, value, error, 0.0, None, 1.0, log_weights)
    ratios = np.exp(log_weights - log_weights.max())
    ess = float(ratios.sum() ** 2 / (ratios * ratios).sum())
    whole = bool(finite.all())
    return Evidence(
        elbo=float(log_weights.mean()) if whole else -math.inf,
        elbo_se=float(log_weights.std(ddof=1) / math.sqrt(len(log_weights))) if whole else math.inf,
        log_evidence=value,
        log_evidence_se=error,
        ess_share=ess / len(log_weights),
        pareto_k=pareto_k(log_weights),
        outside=float(1.0 - finite.mean()),
        log_weights=log_weights,
    )


def measure_joint(
    flow: Flow, density: UnconstrainedDensity, rows: Tensor, draws: int, generator: torch.Generator
) -> list[Evidence]:
    """Measure q(z given x) for each row of x.

    Args:
        flow: q.
        density: the joint density.
        rows: ``[K, C]``.
        draws: how many for each.
        generator: of the draws.
    """
    found = []
    for row in rows:
        parts = []
        for start in range(0, draws, _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, draws - start)
            given = row.expand(count, -1)
            u, log_q = draw(flow, count, generator, given)
            with torch.no_grad():
                parts.append(density.log_prob(u, given).to(torch.float64) - log_q.to(torch.float64))
        found.append(_evidence(torch.cat(parts).numpy()))
    return found


def annealed_evidence(runs: Sequence[Annealed]) -> tuple[float, float]:
    """Log Z by annealed importance sampling, over all runs, and its standard error.

    The error is by the delta method, and at least as large as the spread of blocks of chains says: few chains carry
    most of the weight, and one alone does not know that.

    Args:
        runs: of independent chains.
    """
    log_weights = torch.cat([run.log_weights for run in runs]).numpy()
    value, error = log_mean(log_weights)
    blocks = [log_mean(block)[0] for block in np.array_split(log_weights, _BLOCKS)]
    if not all(map(math.isfinite, blocks)):
        return value, error
    return value, max(error, float(np.std(blocks, ddof=1)) / math.sqrt(_BLOCKS))


@torch.no_grad()
def find_missed(
    flow: Flow,
    density: UnconstrainedDensity,
    runs: Sequence[Annealed],
    log_evidence: float,
    given: Tensor | None = None,
) -> Missed:
    """Look for density that the flow does not have, at the ends of annealed chains.

    Args:
        flow: q.
        density: p.
        runs: of annealing from a wide start.
        log_evidence: log Z by draws of the flow.
        given: ``[C]``, the context of a conditional flow.
    """
    u = torch.cat([run.u for run in runs])
    weights = torch.softmax(torch.cat([run.log_weights for run in runs]), dim=0)
    scores = []
    for part in torch.split(u, _ROWS_AT_ONCE):
        context = None if given is None else given.expand(len(part), -1)
        scores.append(density.log_prob(part).to(torch.float64) - flow.log_prob(part, context))
    there = torch.cat(scores) - log_evidence > _MISSED
    there &= weights > 0.0
    if not there.any():
        return Missed(0.0, 0, None)
    heaviest = int(torch.where(there, weights, -1.0).argmax())
    x, _ = density.to_user(u[heaviest : heaviest + 1])
    return Missed(float(weights[there].sum()), int(there.sum()), tuple(x[0].tolist()))
