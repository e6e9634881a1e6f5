"""A mixture of Gaussians beside the flow: its components counted by held-out rows. Must not import torch.

scikit-learn fits it, by expectation-maximization.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from models.data.readers import FloatArray
from models.evaluation.likelihood import Gaussian
from models.evaluation.single_thread import single_thread

__all__ = ["MAX_WIDTH", "Mixture"]

MAX_WIDTH: Final = 64
"""Rows wider than this, with their context, get no mixture: its covariances would have more numbers than rows."""

_COMPONENTS: Final = (1, 2, 4, 8, 16, 32)
_ROWS: Final = 5000  # that are fitted; more change the figure by less than its error
_HELD_BACK: Final = 0.2  # of them, by which components are counted
_LEAST_ROWS: Final = 10  # for each component
_RIDGE: Final = 1e-4  # of the variance of a whitened coordinate: 0.01 standard deviations
_DIRECTION: Final = 1e-3  # standard deviation of a direction of the scaled context, under which it is none


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """The coordinates that a mixture is fitted in: whitened rows, and the whitened directions of their context.

    Args:
        gaussian: whitens rows.
        centre: ``[C]`` of the context; zero without one.
        directions: ``[C, E]``: a scaled context is ``(c - centre) @ directions``; None without one.
    """

    gaussian: Gaussian
    centre: FloatArray
    directions: FloatArray | None

    @classmethod
    def of(cls, gaussian: Gaussian, context: FloatArray | None) -> _Frame:
        if context is None:
            return cls(gaussian, np.zeros(0), None)
        spread = context.std(axis=0)
        spread[spread == 0] = 1.0
        centre = context.mean(axis=0)
        _, sizes, axes = np.linalg.svd((context - centre) / spread, full_matrices=False)
        sizes = sizes / np.sqrt(len(context))
        kept = sizes > _DIRECTION  # the classes of a column sum to one
        return cls(gaussian, centre, (axes[kept] / sizes[kept, None]).T / spread[:, None])

    def __call__(self, rows: FloatArray, context: FloatArray | None) -> FloatArray:
        white = self.gaussian.whiten(rows, context)
        if self.directions is None or context is None:
            return white
        return np.concatenate([white, (context - self.centre) @ self.directions], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """log p(x) of a mixture of K Gaussians with full covariances; given a context c, log p(x, c) - log p(c).

    It is fitted to rows that the full-covariance Gaussian has whitened, so that one component is that Gaussian.

    Args:
        frame: the coordinates that it is fitted in.
        log_weights: ``[K]``.
        means: ``[K, D + E]``.
        covariances: ``[K, D + E, D + E]``.
        width: D.
    """

    frame: _Frame
    log_weights: FloatArray
    means: FloatArray
    covariances: FloatArray
    width: int

    @property
    def components(self) -> int:
        """K."""
        return len(self.log_weights)

    @classmethod
    def fit(cls, gaussian: Gaussian, rows: FloatArray, context: FloatArray | None, seed: int) -> Mixture | None:
        """Fit mixtures of 1, 2, 4 and so on, and keep the one that gives rows held back from it the most.

        Args:
            gaussian: fitted to the same rows.
            rows: ``[N, D]``.
            context: ``[N, C]``; None for none.
            seed: of the rows that are held back, and of the first means.

        Returns:
            The mixture; None where rows with their context are wider than `MAX_WIDTH`, or too few.
        """
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(rows))[:_ROWS]
        frame = _Frame.of(gaussian, context)
        points = frame(rows[order], None if context is None else context[order])
        cut = int(len(points) * _HELD_BACK)
        width = rows.shape[1]
        if points.shape[1] > MAX_WIDTH or len(points) - cut < max(2 * _LEAST_ROWS, 2 * points.shape[1]):
            return None
        best, best_scores = None, np.full(cut, -np.inf)
        for components in _COMPONENTS:
            if components * _LEAST_ROWS > len(points) - cut:
                break
            found = cls._fitted(frame, points[cut:], components, width, seed)
            scores = found.log_prob_in_frame(points[:cut])
            gain = scores - best_scores
            if best is not None and gain.mean() <= gain.std() / math.sqrt(cut):
                break  # no more than by chance
            best, best_scores = found, scores
        # The rows held back have chosen: all of them are fitted.
        return None if best is None else cls._fitted(frame, points, best.components, width, seed)

    @classmethod
    def _fitted(cls, frame: _Frame, points: FloatArray, components: int, width: int, seed: int) -> Mixture:
        model = GaussianMixture(
            components, reg_covar=_RIDGE, max_iter=60, init_params="k-means++", random_state=seed % 2**32
        )
        with single_thread(), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # one that was stopped early is a density all the same
            model.fit(points)
        return cls(frame, np.log(np.maximum(model.weights_, 1e-300)), model.means_, model.covariances_, width)

    def log_prob(self, rows: FloatArray, context: FloatArray | None = None) -> FloatArray:
        """Log p(x) ``[N]`` in nats of rows ``[N, D]``, given their context ``[N, C]``."""
        return self.log_prob_in_frame(self.frame(rows, context)) - self.frame.gaussian.log_volume

    def log_prob_in_frame(self, points: FloatArray) -> FloatArray:
        """Log p ``[N]`` of points ``[N, D + E]`` of the frame, given the last E of their coordinates."""
        whole = self._joint(points, slice(None))
        return whole if points.shape[1] == self.width else whole - self._joint(points, slice(self.width, None))

    def _joint(self, points: FloatArray, part: slice) -> FloatArray:
        each = [
            log_weight + multivariate_normal(mean[part], covariance[part, part]).logpdf(points[:, part])
            for log_weight, mean, covariance in zip(self.log_weights, self.means, self.covariances, strict=True)
        ]
        return np.asarray(logsumexp(each, axis=0), np.float64).reshape(len(points))
