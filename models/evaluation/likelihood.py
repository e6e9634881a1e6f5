"""The log-likelihood of a flow on held-out rows, beside those of simpler densities. Must not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from models.data.readers import FloatArray

__all__ = ["Evaluation", "Gaussian", "Score"]

_RIDGE = 1e-6  # of each column's variance, added where columns depend on one another


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """A density's log-likelihood over rows.

    Args:
        log_prob: ``[N]`` float64, in nats.
    """

    log_prob: FloatArray

    @property
    def mean(self) -> float:
        """The mean, in nats."""
        return float(self.log_prob.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean, in nats: the standard deviation (divisor N - 1) over sqrt(N)."""
        return float(self.log_prob.std(ddof=1)) / math.sqrt(len(self.log_prob))


@dataclass(frozen=True, slots=True, eq=False)
class Gaussian:
    """N(mean, covariance): the least that a flow should beat.

    log p(x) = -|L^-1 (x - mean)|^2 / 2 - sum log L_ii - D log(2 pi) / 2, with covariance = L L^T. Given a context c,
    the mean is that of a linear regression of x on c, and the covariance that of what it leaves over.

    Args:
        mean: ``[D]``.
        factor: ``[D, D]`` the lower Cholesky factor L of the covariance.
        ridged: whether the covariance had no such factor, and a millionth of each variance was added.
        slope: ``[C, D]``: the mean given c is ``mean + c @ slope``; None without a context.
    """

    mean: FloatArray
    factor: FloatArray
    ridged: bool = False
    slope: FloatArray | None = None

    @classmethod
    def fit(cls, rows: FloatArray, context: FloatArray | None = None) -> Gaussian:
        """The Gaussian of greatest likelihood (divisor N) for rows ``[N, D]``, given their context ``[N, C]``."""
        if context is not None:
            return cls._regression(rows, context)
        mean = rows.mean(axis=0)
        covariance = np.atleast_2d(np.cov(rows, rowvar=False, bias=True))
        scale = np.sqrt(np.diag(covariance))
        return cls(mean, *_factor(covariance, scale))

    @classmethod
    def _regression(cls, rows: FloatArray, context: FloatArray) -> Gaussian:
        centre, spread = context.mean(axis=0), context.std(axis=0)
        spread[spread == 0] = 1.0  # a class without a row in this part of a table
        scaled = (context - centre) / spread
        mean = rows.mean(axis=0)
        slope = np.linalg.lstsq(scaled, rows - mean, rcond=None)[0]  # of least norm: classes sum to one
        left = rows - mean - scaled @ slope
        covariance = np.atleast_2d(np.cov(left, rowvar=False, bias=True))
        # Where the context determines a column nothing is left over, and a density would have no bound.
        floor = math.sqrt(_RIDGE) * rows.std(axis=0)
        scale = np.sqrt(np.diag(covariance))
        determined = scale < floor
        covariance[np.diag_indices_from(covariance)] += np.where(determined, floor * floor, 0.0)
        factor, ridged = _factor(covariance, np.sqrt(np.diag(covariance)))
        slope = slope / spread[:, None]
        return cls(mean - centre @ slope, factor, ridged or bool(determined.any()), slope)

    def log_prob(self, rows: FloatArray, context: FloatArray | None = None) -> FloatArray:
        """Log p(x) ``[N]`` in nats of rows ``[N, D]``, given their context ``[N, C]``."""
        white = self.whiten(rows, context)
        constant = self.log_volume + 0.5 * len(self.mean) * math.log(2 * math.pi)
        return np.asarray(-0.5 * (white * white).sum(axis=1) - constant, np.float64)

    def whiten(self, rows: FloatArray, context: FloatArray | None = None) -> FloatArray:
        """L^-1 (x - mean) ``[N, D]``: of rows that are so distributed, independent standard normals."""
        mean = self.mean if self.slope is None or context is None else self.mean + context @ self.slope
        return np.asarray(solve_triangular(self.factor, (rows - mean).T, lower=True).T, np.float64)

    @property
    def log_volume(self) -> float:
        """Log det L: what whitening takes from a log-density."""
        return float(np.log(np.diag(self.factor)).sum())


def _factor(covariance: FloatArray, scale: FloatArray) -> tuple[FloatArray, bool]:
    """The lower Cholesky factor of a covariance whose standard deviations are `scale`, and whether it was ridged."""
    constant = scale == 0
    if constant.any():  # in a part of a table, or at a width under which float64 loses it
        scale = np.where(constant, scale.max() or 1.0, scale)
        return _factor(covariance + np.diag(np.where(constant, _RIDGE * scale**2, 0.0)), scale)[0], True
    correlation = covariance / np.outer(scale, scale)
    ridged = bool(np.linalg.eigvalsh(correlation)[0] < _RIDGE)
    if ridged:
        correlation = correlation + _RIDGE * np.eye(len(scale))
    return scale[:, None] * np.linalg.cholesky(correlation), ridged


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A flow and a Gaussian on the same held-out rows, in the same units.

    Args:
        width: the number of values in a row, D.
        flow: the flow on held-out rows; dequantized ones are spread over their bins once, by a fixed seed.
        gaussian: a full-covariance Gaussian, fitted to the training rows, on the same rows; given their context where
            there is one.
        gaussian_ridged: whether its covariance was singular, and had to be widened a little.
        log_bins: the sum of log(step) over a row's columns, where all of them are dequantized; else None.
        centres: the flow on held-out rows as the user has them, each at the centre of its bins, where any column is
            dequantized; else None. This is what HTTP answers for such rows.
        centres_gaussian: the Gaussian on the same.
        context_width: the number of columns of context that both were given, C; 0 for none.
        mixture: a mixture of Gaussians on the rows of `flow`; None where it was not fitted.
        components: how many Gaussians the mixture has; 0 where it was not fitted.
        train: the flow on the rows that it was fitted to; None where these are not known.
    """

    width: int
    flow: Score
    gaussian: Score
    gaussian_ridged: bool = False
    log_bins: float | None = None
    centres: Score | None = None
    centres_gaussian: Score | None = None
    context_width: int = 0
    mixture: Score | None = None
    components: int = 0
    train: Score | None = None

    @property
    def served(self) -> Score:
        """The flow on held-out rows as a user sends them."""
        return self.centres or self.flow

    @property
    def served_gaussian(self) -> Score:
        """The Gaussian on held-out rows as a user sends them."""
        return self.centres_gaussian or self.gaussian

    @property
    def gain(self) -> Score:
        """The flow's log_prob less the Gaussian's, row by row: their standard error is that of the difference."""
        return Score(self.flow.log_prob - self.gaussian.log_prob)

    @property
    def warning(self) -> str | None:
        """What must be told loudly: that the flow is no better than the Gaussian; None where it is better.

        It counts as better where the gain is over twice its standard error.
        """
        gain = self.gain
        if gain.mean > 2 * gain.standard_error:
            return None
        what = "a linear Gaussian, given the context" if self.context_width else "a full-covariance Gaussian"
        surely = "is no better than" if gain.mean <= 0 else "is not surely better than"
        return (
            f"The flow {surely} {what}: its gain is {gain.mean:+.3f} ± {gain.standard_error:.3f} nats a held-out row. "
            "Use the Gaussian, or fit again: by another family, less noise, or more rows"
        )

    def bits_per_dim(self, score: Score) -> float | None:
        """-(mean log p(x + u) + sum log step) / (D log 2): a bound on the bits that a discrete value needs.

        None where not every column is dequantized: bits of a density have no meaning.

        References:
            Theis et al., 2016, https://arxiv.org/abs/1511.01844, section 3.1.
        """
        return None if self.log_bins is None else -(score.mean + self.log_bins) / (self.width * math.log(2))

    def bits_error(self, score: Score) -> float | None:
        """The standard error of `bits_per_dim`; None where that is."""
        return None if self.log_bins is None else score.standard_error / (self.width * math.log(2))

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        rows = {"held_out": (self.flow, self.gaussian)}
        if self.centres is not None and self.centres_gaussian is not None:
            rows["held_out_at_bin_centres"] = (self.centres, self.centres_gaussian)
        figures: dict[str, Any] = {
            name: {"flow": self._figures(f), "gaussian": self._figures(g)} for name, (f, g) in rows.items()
        }
        figures["held_out"]["gain"] = {"mean": self.gain.mean, "standard_error": self.gain.standard_error}
        if self.mixture is not None:
            figures["held_out"]["mixture"] = {**self._figures(self.mixture), "components": self.components}
        if self.train is not None:
            figures["training"] = {"flow": self._figures(self.train)}
        return figures

    def _figures(self, score: Score) -> dict[str, Any]:
        bits = {"bits_per_dim": self.bits_per_dim(score), "bits_per_dim_standard_error": self.bits_error(score)}
        return {
            "rows": len(score.log_prob),
            "mean": score.mean,
            "standard_error": score.standard_error,
            "mean_per_dimension": score.mean / self.width,
            **({} if score is self.centres or score is self.centres_gaussian else bits),
        }
