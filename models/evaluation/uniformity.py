"""The uniformity of quantiles: of log_prob, of latents, and of values given a context. Must not import torch.

If rows were drawn from the flow, each of these is uniform on (0, 1):

    u = P(log p(X') < log p(x) | c)    the quantile of log_prob among the flow's own samples X' at the same context
    F_d(z_d), z = f(x; c)              each latent through the distribution function F_d of its coordinate of the base
    P(X'_d < x_d | c)                  the rank of each value among the flow's own samples at the same context

The first is the probability integral transform (PIT) of the log-density. The region of greatest density that holds a
share a of the flow's probability then holds a share a of the rows: P(u >= 1 - a) = a, the expected coverage. The third
is simulation-based calibration, column by column. The columns together are tested by distances (TARP): from a point
that depends on chance and on the context alone, the share of samples at the same context that lie nearer to it than the
row does is uniform too.

References:
    Talts et al., 2018, https://arxiv.org/abs/1804.06788, on ranks. Hermans et al., 2022,
    https://arxiv.org/abs/2110.06581, on expected coverage. Lemos et al., 2023, https://arxiv.org/abs/2302.03026, on
    TARP. Rosenblatt, 1952, on latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtr, stdtr
from scipy.stats import ks_2samp, kstest

from models.data.readers import FloatArray
from service.bundle.bases import Base, DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase

__all__ = [
    "LEVELS",
    "Coverage",
    "Uniformity",
    "base_quantiles",
    "measure_coverage",
    "measure_tarp",
    "sample_quantiles",
    "smallest_p",
]

LEVELS: Final = (0.5, 0.68, 0.8, 0.9, 0.95, 0.99)
"""The levels of the credible regions whose coverage is told."""


@dataclass(frozen=True, slots=True, eq=False)
class Uniformity:
    """Quantiles that are uniform on (0, 1) if rows were drawn from the flow, held against that.

    Args:
        quantiles: ``[N]``.
        statistic: the greatest distance of their distribution function from the diagonal (Kolmogorov and Smirnov).
        p_value: the chance of such a distance for uniform quantiles.
    """

    quantiles: FloatArray
    statistic: float
    p_value: float

    @classmethod
    def of(cls, quantiles: FloatArray) -> Uniformity:
        """Test quantiles ``[N]``."""
        found = kstest(quantiles, "uniform", method="auto" if len(quantiles) <= 100 else "asymp")
        return cls(quantiles, float(found.statistic), float(found.pvalue))

    @classmethod
    def among(cls, values: FloatArray, samples: FloatArray, seed: int) -> Uniformity:
        """Test the quantiles of values among samples that all of them share, which have an error of their own.

        Args:
            values: ``[N]``.
            samples: ``[L]``.
            seed: of the places between neighbours.
        """
        found = ks_2samp(values, samples, method="asymp")
        quantiles = sample_quantiles(values, samples[None], seed)
        return cls(quantiles, float(found.statistic), float(found.pvalue))


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of rows in the region of greatest density that holds a share of the flow's probability.

    Args:
        level: that share of the probability.
        covered: the share of the rows.
        standard_error: of `covered`, if it were `level`.
    """

    level: float
    covered: float
    standard_error: float


def sample_quantiles(values: FloatArray, samples: FloatArray, seed: int) -> FloatArray:
    """The quantile of each value among samples, with a place drawn at random between its neighbours.

    With k of L samples below it and t equal to it, the quantile is uniform on [k, k + t + 1) / (L + 1): of values that
    were drawn as the samples were, just uniform on (0, 1).

    Args:
        values: ``[N]``.
        samples: ``[N, L]``; or ``[1, L]`` for all values.
        seed: of the places.

    Returns:
        ``[N]``.
    """
    if len(samples) == 1:
        ordered = np.sort(samples[0])
        below = np.searchsorted(ordered, values, side="left")
        equal = np.searchsorted(ordered, values, side="right") - below
    else:
        below = (samples < values[:, None]).sum(axis=1)
        equal = (samples == values[:, None]).sum(axis=1)
    places = np.random.default_rng(seed).uniform(size=len(values))
    return np.asarray((below + places * (equal + 1)) / (samples.shape[1] + 1), np.float64)


def base_quantiles(base: Base, latents: FloatArray) -> FloatArray:
    """F_d(z_d) of latents: the distribution function of each coordinate of the base.

    Args:
        base: the distribution of z.
        latents: ``[N, D]``.

    Returns:
        ``[N, D]`` in [0, 1].
    """
    if isinstance(base, NormalBase):
        return np.asarray(ndtr(latents), np.float64)
    if isinstance(base, DiagonalNormalBase):
        mean, deviation = base.frame
        return np.asarray(ndtr((latents - mean) / deviation), np.float64)
    if isinstance(base, StudentTBase):
        return np.asarray(stdtr(base.degrees_of_freedom, latents), np.float64)
    if isinstance(base, MixtureBase):
        means, deviations = base.frames
        total = math.fsum(base.weights)
        parts = zip(base.weights, means, deviations, strict=True)
        return np.asarray(sum(w / total * ndtr((latents - m) / s) for w, m, s in parts), np.float64)
    return np.asarray(np.clip((latents - base.low) / (base.high - base.low), 0, 1), np.float64)


def measure_coverage(quantiles: FloatArray) -> tuple[Coverage, ...]:
    """The coverage of the regions of greatest density, by the quantiles of log_prob ``[N]``."""
    count = len(quantiles)
    return tuple(
        Coverage(level, float(np.mean(quantiles >= 1 - level)), math.sqrt(level * (1 - level) / count))
        for level in LEVELS
    )


def measure_tarp(rows: FloatArray, samples: FloatArray, context: FloatArray, seed: int) -> Uniformity:
    """Test the distances from random points: of rows among samples at their own contexts.

    A point is the row's linear prediction from its context, by a fit to the other half of the rows, and as much chance.
    Points that knew nothing of the context would not tell a flow that does not either. Ranks see a shift of all samples
    better than this does.

    Args:
        rows: ``[N, D]``.
        samples: ``[N, L, D]``.
        context: ``[N, C]``.
        seed: of the points, and of the places between neighbours.
    """
    spread = rows.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    generator = np.random.default_rng([seed, 1])
    points = _predict(rows, context, generator) + generator.normal(size=rows.shape) * scale
    with np.errstate(over="ignore", invalid="ignore"):
        own = (((rows - points) / scale) ** 2).sum(axis=1)
        others = (((samples - points[:, None]) / scale) ** 2).sum(axis=2)
    return Uniformity.of(sample_quantiles(own, np.where(np.isnan(others), np.inf, others), seed))


def _predict(rows: FloatArray, context: FloatArray, generator: np.random.Generator) -> FloatArray:
    """Each row ``[N, D]`` as its context predicts it, linearly, by a fit to the half that it is not in."""
    known = np.hstack([np.ones((len(rows), 1)), context])
    first = generator.permutation(len(rows)) < len(rows) // 2
    found = np.empty_like(rows)
    for half in (first, ~first):
        fit = known[~half] if (~half).sum() > 4 * known.shape[1] else known[~half, :1]
        weights = np.linalg.lstsq(fit, rows[~half], rcond=None)[0]
        found[half] = known[half, : fit.shape[1]] @ weights
    return found


def smallest_p(tests: Sequence[Uniformity]) -> float:
    """The p-value of several tests as one: the smallest, times their number (Bonferroni)."""
    return min(1.0, len(tests) * min(test.p_value for test in tests))
