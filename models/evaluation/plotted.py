"""Numbers behind the figures of a report, the same in its pictures and in its live figures.

Must not import torch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from models.data.readers import FloatArray

__all__ = ["CoverageCurve", "UniformBand", "coverage_curve", "log_prob_edges", "relative_density", "uniform_band"]


class UniformBand(NamedTuple):
    """The bars of a histogram of quantiles, and where 99 of 100 bars lie if the quantiles are uniform.

    Args:
        bars: how many there are.
        low: the least rows of a bar.
        high: the most.
        expected: the mean.
    """

    bars: int
    low: float
    high: float
    expected: float


def uniform_band(rows: int) -> UniformBand:
    """The bars and their band for so many rows."""
    bars = int(np.clip(rows // 20, 5, 25))
    low, high = binom.interval(0.99, rows, 1 / bars)
    return UniformBand(bars, float(low), float(high), rows / bars)


class CoverageCurve(NamedTuple):
    """The share of rows inside each region of greatest density.

    Args:
        levels: the probabilities of the regions.
        covered: the share of rows inside.
        error: within it lie 99% of exact flows.
    """

    levels: FloatArray
    covered: FloatArray
    error: FloatArray


def coverage_curve(quantiles: FloatArray, points: int) -> CoverageCurve:
    """The curve at so many levels, by the quantiles of log_prob ``[N]``."""
    levels = np.linspace(0, 1, points)
    covered = (quantiles[None, :] >= 1 - levels[:, None]).mean(axis=1)
    return CoverageCurve(levels, covered, 2.576 * np.sqrt(levels * (1 - levels) / len(quantiles)))


def log_prob_edges(flow: FloatArray, gaussian: FloatArray) -> FloatArray:
    """The edges of a histogram of log_prob, in nats; the far tail is counted in the outermost bars.

    Args:
        flow: ``[N]``, of held-out rows.
        gaussian: ``[N]``, of the same rows.
    """
    both = np.concatenate([flow, gaussian])
    low, high = np.quantile(both, 0.01), np.quantile(both, 0.999)
    margin = 0.05 * (high - low) or 1.0
    return np.linspace(low - margin, high + margin, int(np.clip(3 * len(flow) ** 0.5, 12, 60)) + 1)


def relative_density(values: FloatArray) -> tuple[FloatArray, float]:
    """Densities as shares of the greatest, and the log_prob of that one.

    Args:
        values: log_prob in nats; minus infinity and NaN count as no density.
    """
    finite = np.isfinite(values)
    top = float(values[finite].max()) if finite.any() else 0.0
    return np.exp(np.where(finite, values, -np.inf) - top), top
