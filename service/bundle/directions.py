"""Directions of latent space out of labelled rows: where the latents of some rows lie, seen from those of others.

Plain arithmetic on latents, for the command line and for the shipped flows. Imports neither onnxruntime nor torch.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["logistic_direction", "mean_direction", "separation"]

Float64 = npt.NDArray[np.float64]

_STEPS: Final = 50
_SMALL: Final = 1e-9


def mean_direction(positive: npt.ArrayLike, negative: npt.ArrayLike) -> Float64:
    """The difference of the mean latents: strength 1 takes the mean of the negative rows onto that of the positive.

    Args:
        positive: ``[P, D]``.
        negative: ``[N, D]``.

    Returns:
        ``[D]``.

    Example:
        >>> mean_direction([[1.0, 2.0], [3.0, 2.0]], [[0.0, 0.0]]).tolist()
        [2.0, 2.0]
    """
    towards, away = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    difference: Float64 = towards.mean(axis=0) - away.mean(axis=0)
    return difference


def logistic_direction(positive: npt.ArrayLike, negative: npt.ArrayLike, ridge: float = 1.0) -> Float64:
    """The direction along which the odds of a positive row grow fastest, by logistic regression.

    Minimizes sum log(1 + exp(-y (w z + b))) + ridge |w|^2 / 2 by Newton's method. The direction is w at the length at
    which strength 1 moves a row, along it, by as much as the means lie apart: w (w d) / |w|^2, d being the difference
    of the means. It leaves out what the two kinds of rows differ in only by chance, or because of another coordinate.

    Args:
        positive: ``[P, D]``.
        negative: ``[N, D]``.
        ridge: the weight of the penalty, above zero: rows that a plane parts would have no finite answer without.

    Returns:
        ``[D]``; zero where the means are equal along w.
    """
    towards, away = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    rows = np.concatenate([towards, away])
    design = np.column_stack([rows, np.ones(len(rows))])
    label = np.concatenate([np.ones(len(towards)), np.zeros(len(away))])
    penalty = np.full(design.shape[1], ridge)
    penalty[-1] = _SMALL  # the offset is free, but for what keeps the system from being singular
    weights = np.zeros(design.shape[1])
    loss = _loss(design, label, penalty, weights)
    for _ in range(_STEPS):
        share = _sigmoid(design @ weights)
        slope = design.T @ (share - label) + penalty * weights
        curvature = (design.T * (share * (1 - share))) @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        scale = 1.0
        while (further := _loss(design, label, penalty, weights - scale * step)) > loss and scale > _SMALL:
            scale /= 2
        if loss - further <= _SMALL * (1 + abs(loss)):
            break
        weights, loss = weights - scale * step, further
    w = weights[:-1]
    length = float(w @ w)
    if length == 0:
        return w
    direction: Float64 = w * float(w @ mean_direction(towards, away)) / length
    return direction


def separation(direction: Float64, positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """The share of pairs in which the positive row lies further along a direction than the negative one; ties half.

    Example:
        >>> separation(np.array([1.0]), [[1.0], [3.0]], [[0.0], [2.0]])
        0.75
    """
    ahead, behind = np.asarray(positive, np.float64) @ direction, np.sort(np.asarray(negative, np.float64) @ direction)
    below = np.searchsorted(behind, ahead, "left") + np.searchsorted(behind, ahead, "right")
    return float(below.mean() / (2 * len(behind)))


def _sigmoid(value: Float64) -> Float64:
    found: Float64 = np.exp(-np.logaddexp(0.0, -value))
    return found


def _loss(design: Float64, label: Float64, penalty: Float64, weights: Float64) -> float:
    value = design @ weights
    return float((np.logaddexp(0.0, value) - label * value).sum() + (penalty * weights**2).sum() / 2)
