"""The comparison of samples of a flow with held-out rows: by a classifier, and column by column.

A classifier that is fitted to tell the two apart, and judged on rows that it was not fitted to, has an area under the
ROC curve (AUROC) of 0.5 where they have the same distribution, and of 1 where they never look alike. The classifier is
scikit-learn's, of boosted trees. Must not import torch.

References:
    Lopez-Paz and Oquab, 2017, https://arxiv.org/abs/1610.06545.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import ks_2samp, norm, wasserstein_distance
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.utils.extmath import randomized_svd

from models.data.readers import FloatArray
from models.evaluation.single_thread import single_thread

__all__ = ["Atom", "Margin", "TwoSample", "compare_margins", "compare_samples", "find_atoms"]

FOLDS: Final = 5

_WIDTH: Final = 128  # of rows whose columns the classifier is given; of wider ones it gets their main directions
_DIRECTIONS: Final = 32
_REPEATED: Final = 0.05  # of the rows, that repeat values more often than samples do, from which a column has atoms
_TREES, _LEAVES, _RATE = 60, 12, 0.15
_ERRORS: Final = 3.0  # standard errors from 0.5, from which on columns are asked for


@dataclass(frozen=True, slots=True)
class Atom:
    """A column whose values repeat, as no sample of a density does: it alone tells rows from samples.

    Args:
        column: its place.
        kind: what is seen, in words.
        repeated: the share of held-out rows whose value another row has too.
    """

    column: int
    kind: str
    repeated: float


@dataclass(frozen=True, slots=True)
class Margin:
    """One column of samples beside that of held-out rows.

    Args:
        statistic: the greatest distance of their distribution functions (Kolmogorov and Smirnov).
        p_value: the chance of such a distance for equal distributions.
        wasserstein: the mean distance that samples would have to move, in the units of the column.
    """

    statistic: float
    p_value: float
    wasserstein: float


@dataclass(frozen=True, slots=True)
class TwoSample:
    """How well a classifier tells samples from held-out rows.

    Args:
        auroc: the mean over folds of the area under the ROC curve; 0.5 for equal distributions.
        standard_error: of `auroc`, if the distributions were equal.
        rows: how many held-out rows were told from as many samples.
        telling: the columns by which it tells them, the first the most: place and how far `auroc` falls without it.
        atoms: columns whose values repeat.
        auroc_rounded: `auroc` where in these columns each value of a sample is rounded to the nearest of the held-out
            rows'; None where there are none.
    """

    auroc: float
    standard_error: float
    rows: int
    telling: tuple[tuple[int, float], ...] = ()
    atoms: tuple[Atom, ...] = ()
    auroc_rounded: float | None = None

    @property
    def judged(self) -> float:
        """The AUROC that says how good samples are: `auroc_rounded` where values repeat."""
        return self.auroc if self.auroc_rounded is None else self.auroc_rounded

    @property
    def p_value(self) -> float:
        """The chance of such an `auroc`, or of a greater one, for equal distributions."""
        return float(norm.sf((self.auroc - 0.5) / self.standard_error))


def compare_samples(
    rows: FloatArray,
    samples: FloatArray,
    context: FloatArray | None,
    seed: int,
    progress: Callable[[int], object],
) -> TwoSample:
    """Tell samples from held-out rows, in `FOLDS` folds, or as many as there are rows.

    Args:
        rows: ``[N, D]``, N at least 2.
        samples: ``[N, D]``; the i-th drawn at the context of the i-th row.
        context: ``[N, C]`` of both; None for none.
        seed: of the folds and of the trees.
        progress: called with the number of folds done since, `FOLDS` in all.

    Returns:
        What was found.
    """
    with single_thread():
        return _compare(rows, samples, context, seed, progress)


def _compare(
    rows: FloatArray,
    samples: FloatArray,
    context: FloatArray | None,
    seed: int,
    progress: Callable[[int], object],
) -> TwoSample:
    atoms = find_atoms(rows, samples)
    judge = _Judge.of(rows, samples, context, seed)
    areas = []
    telling: tuple[tuple[int, float], ...] = ()
    for fold in range(judge.count):
        areas.append(judge.area(fold))
        progress(1)
    progress(FOLDS - judge.count)
    auroc = float(np.mean(areas))
    if auroc - 0.5 > _ERRORS * judge.standard_error and rows.shape[1] <= _WIDTH:
        telling = judge.telling_columns(fold=0)
    rounded = None
    if atoms:
        judge = _Judge.of(rows, _rounded(rows, samples, [atom.column for atom in atoms]), context, seed)
        rounded = float(np.mean([judge.area(fold) for fold in range(judge.count)]))
    return TwoSample(
        auroc=auroc,
        standard_error=judge.standard_error,
        rows=len(rows),
        telling=telling,
        atoms=atoms,
        auroc_rounded=rounded,
    )


def compare_margins(rows: FloatArray, samples: FloatArray) -> tuple[Margin, ...]:
    """Compare samples ``[M, D]`` with held-out rows ``[N, D]``, column by column."""
    found = []
    for ours, theirs in zip(rows.T, samples.T, strict=True):
        test = ks_2samp(ours, theirs, method="asymp")
        found.append(Margin(float(test.statistic), float(test.pvalue), float(wasserstein_distance(ours, theirs))))
    return tuple(found)


def find_atoms(rows: FloatArray, samples: FloatArray) -> tuple[Atom, ...]:
    """The columns of rows ``[N, D]`` whose values repeat more often than those of samples ``[M, D]``."""
    found = []
    for column in range(rows.shape[1]):
        values, counts = np.unique(rows[:, column], return_counts=True)
        repeated = float(counts[counts > 1].sum()) / len(rows)
        if repeated - _repeated(samples[:, column]) < _REPEATED:
            continue
        heaviest, share = values[counts.argmax()], counts.max() / len(rows)
        if np.all(values == np.round(values)):
            kind = "whole numbers"
        elif share >= _REPEATED:
            kind = f"{share:.0%} of the rows are {heaviest:g}"
        else:
            kind = "repeated values"
        found.append(Atom(column, kind, repeated))
    return tuple(found)


def _rounded(rows: FloatArray, samples: FloatArray, columns: Sequence[int]) -> FloatArray:
    """Samples whose values in some columns are rounded to the nearest value that a held-out row has there."""
    found = samples.copy()
    for column in columns:
        values = np.unique(rows[:, column])
        borders = (values[1:] + values[:-1]) / 2
        found[:, column] = values[np.searchsorted(borders, samples[:, column])]
    return found


def _repeated(values: FloatArray) -> float:
    _, counts = np.unique(values, return_counts=True)
    return float(counts[counts > 1].sum()) / len(values)


@dataclass(frozen=True, slots=True, eq=False)
class _Judge:
    """The classifier of each fold. A row and the sample at its context are in the same fold.

    Args:
        points: ``[2N, D]``: the rows, then the samples.
        context: ``[2N, C]``; None for none.
        axes: ``[D, E]`` the directions whose coordinates are given beside the columns, or in their place.
        folds: ``[2N]``.
        seed: of the trees.
    """

    points: FloatArray
    context: FloatArray | None
    axes: FloatArray
    folds: npt.NDArray[np.intp]
    seed: int

    @classmethod
    def of(cls, rows: FloatArray, samples: FloatArray, context: FloatArray | None, seed: int) -> _Judge:
        points = np.concatenate([rows, samples])
        spread = points.std(axis=0)
        spread[spread == 0] = 1.0
        # Trees cut along axes: what is wrong in the sum or difference of columns shows along these. They are those of
        # rows and samples together: axes of the rows alone fit the rows better, and would give them away.
        scaled = (points - points.mean(axis=0)) / spread
        if rows.shape[1] > _WIDTH:
            _, sizes, axes = randomized_svd(scaled, _DIRECTIONS, random_state=seed % 2**32)
        else:
            _, sizes, axes = np.linalg.svd(scaled, full_matrices=False)
        kept = sizes > 1e-6 * sizes[0]
        folds = np.random.default_rng(seed).permutation(np.arange(len(rows)) % min(FOLDS, len(rows)))
        return cls(
            points=points,
            context=None if context is None else np.concatenate([context, context]),
            axes=(axes[kept] / spread).T,
            folds=np.concatenate([folds, folds]),
            seed=seed,
        )

    @property
    def standard_error(self) -> float:
        """Of the mean area over folds, for equal distributions.

        Each area has the variance of Mann and Whitney's statistic, (2n + 1) / 12n^2. The mean over K folds has 1/K +
        1/(K - 1) of it, since the classifiers of two folds were fitted to the same rows (Nadeau and Bengio, 2003,
        https://doi.org/10.1023/A:1024068626366, equation 7).
        """
        counts = [int(np.sum(self.folds == fold)) // 2 for fold in range(self.count)]
        each = sum((2 * n + 1) / (12 * n * n) for n in counts) / self.count
        return math.sqrt(each * (1 / self.count + 1 / (self.count - 1)))

    @property
    def count(self) -> int:
        """The number of folds: `FOLDS`, or as many as there are rows."""
        return int(self.folds.max()) + 1

    def area(self, fold: int) -> float:
        """The AUROC on the rows and samples of a fold, of a classifier that was fitted to the others."""
        tested = self.folds == fold
        model = self._fitted(fold)
        return self._area(model, self.points[tested], None if self.context is None else self.context[tested])

    def telling_columns(self, fold: int) -> tuple[tuple[int, float], ...]:
        """Each column without which the area of a fold falls, and how far: its values are put in another order."""
        tested = self.folds == fold
        model, points = self._fitted(fold), self.points[tested]
        context = None if self.context is None else self.context[tested]
        whole = self._area(model, points, context)
        order = np.random.default_rng(self.seed).permutation(len(points))
        falls = []
        for column in range(points.shape[1]):
            mixed = points.copy()
            mixed[:, column] = points[order, column]
            falls.append(whole - self._area(model, mixed, context))
        ranked = sorted(enumerate(falls), key=lambda each: -each[1])
        return tuple((column, fall) for column, fall in ranked if fall > max(0.01, 0.1 * ranked[0][1]))

    def _fitted(self, fold: int) -> HistGradientBoostingClassifier:
        others = self.folds != fold
        model = HistGradientBoostingClassifier(
            max_iter=_TREES,
            learning_rate=_RATE,
            max_leaf_nodes=_LEAVES,
            min_samples_leaf=int(np.clip(others.sum() // 20, 2, 20)),
            early_stopping=False,
            random_state=self.seed % 2**32,
        )
        context = None if self.context is None else self.context[others]
        return model.fit(self._features(self.points[others], context), self._labels(others))

    def _area(self, model: HistGradientBoostingClassifier, points: FloatArray, context: FloatArray | None) -> float:
        half = len(points) // 2
        truth = np.repeat([0, 1], half)
        return float(roc_auc_score(truth, model.predict_proba(self._features(points, context))[:, 1]))

    def _features(self, points: FloatArray, context: FloatArray | None) -> FloatArray:
        parts: Sequence[FloatArray] = [points @ self.axes]
        if points.shape[1] <= _WIDTH:
            parts = [points, *parts] if points.shape[1] > 1 else [points]
        return np.concatenate([*parts, *([] if context is None else [context])], axis=1)

    def _labels(self, which: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        count = len(self.points) // 2
        return np.repeat([0, 1], count)[which]
