"""Annealed importance sampling by Metropolis steps, which need no gradient of the target.

From a distribution that can be drawn from to one that cannot, along the geometric path
log p_b = (1 - b) log start + b log end. A pilot, whose draws are thrown away, chooses the temperatures and the steps;
the run that counts keeps them fixed, so that the mean of its weights is the ratio of the normalizing constants,
without bias.

R. M. Neal: Annealed importance sampling. Statistics and Computing 11 (2001), 125-139.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

__all__ = ["Annealed", "Schedule", "WideStart", "anneal", "metropolis", "plan_schedule"]

_ACCEPTED: Final = 0.3  # the share of proposals that steps are sized for
_HALVINGS: Final = 40
_MAX_TEMPERATURES: Final = 2000
_LOG_2_PI: Final = math.log(2 * math.pi)

LogDensity = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class WideStart:
    """The distribution that annealing starts from: N(0, scale^2) in each unconstrained coordinate.

    Args:
        width: the number of coordinates.
        scale: its standard deviation.
    """

    width: int
    scale: float

    def sample(self, rows: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Draw ``[rows, M]``."""
        return self.scale * torch.randn(rows, self.width, generator=generator, dtype=dtype)

    def log_prob(self, u: Tensor) -> Tensor:
        """Log density of ``[N, M]`` in nats: ``[N]``."""
        scaled = u / self.scale
        return -0.5 * (scaled * scaled).sum(dim=1) - u.shape[1] * (math.log(self.scale) + 0.5 * _LOG_2_PI)


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """What a run keeps fixed.

    Args:
        temperatures: b ascending, without 0, the last of them 1.
        factors: ``[T, M, M]``, by which normal numbers become a proposal's step at each.
    """

    temperatures: tuple[float, ...]
    factors: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Annealed:
    """What annealing came to.

    Args:
        u: ``[N, M]``, the ends of the chains.
        log_weights: ``[N]``, the logarithms of their weights; -inf for a weight of zero.
    """

    u: Tensor
    log_weights: Tensor


def metropolis(
    u: Tensor, log_prob: Tensor, density: LogDensity, factor: Tensor, steps: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Random-walk Metropolis steps, which leave `density` as it is.

    Args:
        u: ``[N, M]``.
        log_prob: ``[N]``, the density's there; a row where it is -inf takes any proposal that has a density.
        density: ``[N, M]`` -> ``[N]``.
        factor: ``[M, M]``, by which normal numbers become a step.
        steps: how many.
        generator: draws the proposals.

    Returns:
        The rows, their log density, and the share of proposals that were accepted.
    """
    accepted = 0.0
    for _ in range(steps):
        normal = torch.randn(u.shape, generator=generator, dtype=u.dtype)
        proposal = u + normal @ factor.T
        found = density(proposal)
        chance = torch.rand(len(u), generator=generator, dtype=u.dtype).log()
        better = found - log_prob.clamp(min=torch.finfo(u.dtype).min) > chance
        u = torch.where(better[:, None], proposal, u)
        log_prob = torch.where(better, found, log_prob)
        accepted += float(better.to(torch.float64).mean())
    return u, log_prob, accepted / max(1, steps)


def plan_schedule(
    start: WideStart,
    density: LogDensity,
    *,
    chains: int,
    steps: int,
    efficiency: float,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> Schedule:
    """Choose temperatures and steps by a pilot, in which chains are resampled at each temperature.

    Args:
        start: what is drawn from.
        density: the end, ``[N, M]`` -> ``[N]``.
        chains: of the pilot.
        steps: of Metropolis at each temperature.
        efficiency: the effective share of chains that the weights of one temperature leave, in (0, 1): the nearer to 1,
            the more temperatures.
        generator: of the pilot.
        dtype: of the rows.
    """
    u = start.sample(chains, generator, dtype)
    first, last = start.log_prob(u), density(u)
    reached, scale = 0.0, 2.38 / math.sqrt(start.width)
    temperatures: list[float] = []
    factors: list[Tensor] = []
    while reached < 1.0:
        step = _next_step(last - first, 1.0 - reached, efficiency)
        if len(temperatures) + 1 >= _MAX_TEMPERATURES:
            step = 1.0 - reached
        reached = 1.0 if reached + step > 1.0 - 1e-9 else reached + step
        weights = torch.softmax(torch.nan_to_num(step * (last - first), nan=-math.inf, neginf=-math.inf), dim=0)
        chosen = _resample(weights, generator)
        u, first, last = u[chosen], first[chosen], last[chosen]
        root = _root_covariance(u)
        tempered = _between(start.log_prob, density, reached)
        log_prob = _mix(first, last, reached)
        for _ in range(steps):
            u, log_prob, share = metropolis(u, log_prob, tempered, scale * root, 1, generator)
            scale *= math.exp(0.5 * (share - _ACCEPTED))
        first, last = start.log_prob(u), density(u)
        temperatures.append(reached)
        factors.append(scale * root)
    return Schedule(tuple(temperatures), torch.stack(factors))


def anneal(
    start: WideStart,
    density: LogDensity,
    schedule: Schedule,
    *,
    chains: int,
    steps: int,
    generator: torch.Generator,
    dtype: torch.dtype,
) -> Annealed:
    """Run chains from `start` to `density` by a fixed schedule.

    Args:
        start: what is drawn from.
        density: the end, ``[N, M]`` -> ``[N]``, up to a constant.
        schedule: temperatures and steps; it must not come from these chains.
        chains: how many.
        steps: of Metropolis at each temperature.
        generator: of the chains.
        dtype: of the rows.

    Returns:
        The ends of the chains, and weights whose mean estimates the constant of `density`.
    """
    u = start.sample(chains, generator, dtype)
    first, last = start.log_prob(u), density(u)
    log_weights = torch.zeros(chains, dtype=torch.float64)
    reached = 0.0
    for temperature, factor in zip(schedule.temperatures, schedule.factors, strict=True):
        log_weights += (temperature - reached) * (last - first).to(torch.float64)
        reached = temperature
        tempered = _between(start.log_prob, density, temperature)
        u, _, _ = metropolis(u, _mix(first, last, temperature), tempered, factor, steps, generator)
        first, last = start.log_prob(u), density(u)
    return Annealed(u, log_weights)


def _between(start: LogDensity, end: LogDensity, share: float) -> LogDensity:
    def log_prob(u: Tensor) -> Tensor:
        return _mix(start(u), end(u), share)

    return log_prob


def _mix(first: Tensor, last: Tensor, share: float) -> Tensor:
    """(1 - b) log start + b log end; where the end has no density there is none."""
    return last if share >= 1.0 else (1.0 - share) * first + share * last


def _next_step(difference: Tensor, left: float, efficiency: float) -> float:
    """The longest step in temperature, at most `left`, whose weights leave an effective share of `efficiency`."""
    exact = difference.to(torch.float64)
    best = float(torch.isfinite(exact).to(torch.float64).mean())  # rows without density are lost at any step

    def share(step: float) -> float:
        weights = torch.softmax(step * exact.clamp(min=-1e300), dim=0)
        return float(1.0 / (len(weights) * (weights * weights).sum()))

    low, high = 0.0, left
    if share(high) >= efficiency * best:
        return high
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if share(middle) >= efficiency * best else (low, middle)
    return max(low, 1e-6)


def _resample(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Systematic resampling: places ``[N]`` drawn in proportion to the weights."""
    count = len(weights)
    offset = torch.rand(1, generator=generator, dtype=torch.float64)
    points = (torch.arange(count, dtype=torch.float64) + offset) / count
    return torch.searchsorted(weights.to(torch.float64).cumsum(0), points).clamp(max=count - 1)


def _root_covariance(u: Tensor) -> Tensor:
    """A square root ``[M, M]`` of the covariance of rows, drawn a little towards its diagonal."""
    exact = u.to(torch.float64)
    centred = exact - exact.mean(dim=0)
    covariance = centred.T @ centred / len(exact)
    diagonal = covariance.diagonal().clamp(min=1e-12)
    shrunk = 0.9 * covariance + 0.1 * diagonal.diag()
    root: Tensor = torch.linalg.cholesky(shrunk + 1e-9 * diagonal.diag())
    return root.to(u.dtype)
