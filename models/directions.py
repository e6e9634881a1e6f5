"""The directions of latent space between two kinds of rows: computed from their latents, in NumPy, without torch.

`pushforward direction` and the shipped flows compute theirs here; a bundle holds the numbers that come out.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from service.errors import DataError

__all__ = ["logistic_direction", "mean_direction", "separation"]

Float64 = npt.NDArray[np.float64]

_TOLERANCE: Final = 1e-8
"""The greatest slope of the regression's loss, a row, at which it counts as minimized."""
_ITERATIONS: Final = 1000


def mean_direction(positive: npt.ArrayLike, negative: npt.ArrayLike) -> Float64:
    """The difference of the mean latents: strength 1 takes the mean of the negative rows onto that of the positive.

    Args:
        positive: latents ``[P, D]`` of the rows that it leads to.
        negative: latents ``[N, D]`` of the rows that it leads away from.

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
    """The direction along which the odds of a positive row grow fastest, by scikit-learn's logistic regression.

    The regression minimizes sum log(1 + exp(-y (w z + b))) + ridge |w|^2 / 2. The direction is w at the length at which
    strength 1 moves a row, along it, by as much as the means lie apart: w (w d) / |w|^2, where d is the difference of
    the means. It leaves out what the two kinds of rows differ in only by chance, or because of another coordinate.

    Args:
        positive: latents ``[P, D]`` of the rows that it leads to.
        negative: latents ``[N, D]`` of the rows that it leads away from.
        ridge: the weight of the penalty, above zero: rows that a plane parts would have no finite answer without.

    Returns:
        ``[D]``; zero where the means are equal along w.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise DataError("a logistic direction needs scikit-learn: install the extra `train` of pushforward") from error
    towards, away = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    rows, label = np.concatenate([towards, away]), np.repeat([1, 0], [len(towards), len(away)])
    regression = LogisticRegression(C=1 / ridge, tol=_TOLERANCE, max_iter=_ITERATIONS).fit(rows, label)
    w: Float64 = regression.coef_[0]
    length = float(w @ w)
    if length == 0:
        return w
    direction: Float64 = w * float(w @ mean_direction(towards, away)) / length
    return direction


def separation(direction: Float64, positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """The share of pairs in which the positive row lies further along a direction than the negative one; ties half.

    Args:
        direction: ``[D]``.
        positive: latents ``[P, D]``.
        negative: latents ``[N, D]``.

    Returns:
        From 0 to 1; 0.5 where the direction says nothing of the kind.

    Example:
        >>> separation(np.array([1.0]), [[1.0], [3.0]], [[0.0], [2.0]])
        0.75
    """
    ahead, behind = np.asarray(positive, np.float64) @ direction, np.sort(np.asarray(negative, np.float64) @ direction)
    below = np.searchsorted(behind, ahead, "left") + np.searchsorted(behind, ahead, "right")
    return float(below.mean() / (2 * len(behind)))
