"""Scores of a log-density: its place among the log-densities of held-out rows.

With l = log_prob(x), and the held-out rows' own log_prob l_1 <= ... <= l_M (`service.bundle.manifest.Calibration`):

    quantile    the share of the l_i that are below l
    anomaly     whether the share of the l_i that are not above l is at most the alarm rate
    typicality  |-l - h| / s, where h = mean(-l_i) estimates the entropy and s is the standard deviation of the l_i
    bits        -(l / D + log(step)) / log 2, the bits a dimension

A sample is typical where -log_prob is near the entropy, above it or below (Nalisnick et al., "Detecting
out-of-distribution inputs to deep generative models using typicality", arXiv:1906.02994): typicality has two sides,
quantile and anomaly look at the low one alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import Calibration
from service.plan import Floats

__all__ = ["HeldOut", "bits_per_dim"]

Float64 = npt.NDArray[np.float64]


class HeldOut:
    """Held-out log-densities, as a scale for others.

    Exact to 1 / rows where the calibration keeps every value, as it does up to
    `service.bundle.manifest.MAX_QUANTILES`; between two that are kept of more, or of a bundle of format 1, a
    quantile is interpolated and an anomaly is told only where it is sure.

    Args:
        calibration: of the manifest.
        dtype: of the flow's precision, in which its log_prob comes.
    """

    def __init__(self, calibration: Calibration, dtype: npt.DTypeLike = np.float32) -> None:
        self._mean = calibration.mean
        self._deviation = calibration.standard_deviation
        self._rows = calibration.rows
        self._values: Floats = np.asarray(calibration.quantiles, dtype)
        if calibration.ranks is None:
            ranks: Float64 = np.linspace(0, calibration.rows - 1, len(self._values))
        else:
            ranks = np.asarray(calibration.ranks, np.float64)
        self._ranks: Float64 = np.append(ranks, calibration.rows)  # past the greatest value lie all rows

    def log_prob_at(self, levels: Sequence[float]) -> Floats:
        """The greatest log_prob whose quantile is at most each of these levels: ``[L]``, in nats.

        Args:
            levels: quantiles, from 0 to below 1.
        """
        ranks = np.floor(np.asarray(levels) * self._rows + 1e-9)  # 0.29 * 100 is a little below 29
        return self._values[np.searchsorted(self._ranks, ranks)]

    def quantile(self, log_prob: Floats) -> Floats:
        """The share of held-out rows with a lower log_prob, ``[N]`` in [0, 1].

        Args:
            log_prob: ``[N]``, in nats; -inf where the density is zero.
        """
        above = np.searchsorted(self._values, log_prob, side="left")
        inside = (above > 0) & (above < len(self._values))
        lower = self._ranks[above]
        if len(self._values) < self._rows and inside.any():
            at = above[inside]
            low, high = self._values[at - 1].astype(np.float64), self._values[at].astype(np.float64)
            part = (log_prob[inside] - low) / (high - low)
            first = self._ranks[at - 1] + 1.0  # of the rows between the two, at least this one is lower
            lower[inside] = first + part * (self._ranks[at] - first)
        share: Floats = (lower / self._rows).astype(log_prob.dtype)
        return share

    def anomaly(self, log_prob: Floats, alarm_rate: float) -> npt.NDArray[np.bool_]:
        """The rows that are as unlikely as at most this share of held-out rows, bool ``[N]``.

        Of M held-out rows that differ just floor(alarm_rate * M) are: a share of at most the alarm rate, and within
        1 / M of it.

        Args:
            log_prob: as for `quantile`.
            alarm_rate: between 0 and 1.
        """
        above = np.searchsorted(self._values, log_prob, side="right")
        alarms: npt.NDArray[np.bool_] = self._ranks[above] / self._rows <= alarm_rate
        return alarms

    def typicality(self, log_prob: Floats) -> Floats:
        """The distance of -log_prob from the entropy, on either side, in held-out standard deviations: ``[N]``.

        Args:
            log_prob: as for `quantile`; -inf is infinitely far.
        """
        distance = np.abs(log_prob.astype(np.float64) - self._mean)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.where(distance == 0, 0.0, distance / self._deviation)
        result: Floats = scaled.astype(log_prob.dtype)
        return result


def bits_per_dim(log_prob: Floats, width: int, step: float) -> Floats:
    """-log2 of the density, a dimension; of quantized data, of the probability of a row's bin: ``[N]``.

    Args:
        log_prob: ``[N]``, in nats.
        width: D.
        step: the width of a bin in the units of x; 1 for data that is not quantized, whose bits depend on its units
            and may be negative.
    """
    nats = -log_prob.astype(np.float64) / width - math.log(step)
    bits: Floats = (nats / math.log(2)).astype(log_prob.dtype)
    return bits
