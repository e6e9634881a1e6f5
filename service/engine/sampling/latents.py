"""Latents of each base distribution, transformed from uniform numbers.

A row is computed by exactly rounded steps (`service.engine.sampling.exact`) from its own numbers alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple, Self, assert_never

import numpy as np
import numpy.typing as npt

from service.bundle.bases import Base, DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase, UniformBase
from service.bundle.precision import DTYPES, FloatType
from service.engine.sampling.exact import inverse_normal_cdf, log
from service.plan import Floats

__all__ = ["Truncation", "transform_uniform", "words_per_row"]

Float64 = npt.NDArray[np.float64]

_FACTORS: Final = 16
"""The uniform numbers that are multiplied before a logarithm is taken: float64 holds this power of 2^-53, the least."""


def words_per_row(base: Base, width: int) -> int:
    """The number of uniform numbers that a row is made of.

    Args:
        base: the distribution of z.
        width: D.

    Example:
        >>> words_per_row(NormalBase(), 3), words_per_row(StudentTBase(degrees_of_freedom=5), 3)
        (3, 12)
    """
    match base:
        case StudentTBase(degrees_of_freedom=freedom):
            return width * (1 + freedom % 2 + freedom // 2)
        case MixtureBase():
            return 1 + width
        case _:
            return width


class Truncation(NamedTuple):
    """The truncation of the normal numbers of each row, to between -bound and bound.

    Args:
        bounds: float64 ``[N, 1]``, in standard deviations; infinite for a row that is not truncated.
        tails: float64 ``[N, 1]``, the distribution function Phi at -bound.
    """

    bounds: Float64
    tails: Float64

    @classmethod
    def of(cls, bounds: Sequence[float | None], lengths: Sequence[int]) -> Self:
        """Truncate groups of rows.

        Args:
            bounds: of each group; None for no truncation.
            lengths: the number of rows of each group.
        """
        ends = [math.inf if bound is None else bound for bound in bounds]
        tails = [0.5 * math.erfc(end / math.sqrt(2)) for end in ends]
        return cls(np.repeat(ends, lengths)[:, None], np.repeat(tails, lengths)[:, None])


def transform_uniform(
    base: Base,
    width: int,
    values: Float64,
    scale: Float64 | None = None,
    truncation: Truncation | None = None,
    dtype: FloatType = DTYPES["float32"],
) -> Floats:
    """Transform uniform numbers to rows of z.

    A normal number is Phi^-1(u), a mixture takes one more u for its component, and a uniform number is low + (high -
    low) u. A Student-t number is Phi^-1(u) / sqrt(X / n) with X of a chi-squared distribution (`_student_t`).

    Args:
        base: the distribution of z.
        width: D.
        values: float64 ``[N, W]``, strictly between 0 and 1, W from `words_per_row`.
        scale: float64 ``[N, 1]``, the factor of the standard deviations of each row; None for 1.
        truncation: of the normal numbers before they are scaled; None for none.
        dtype: of the flow's precision.

    Returns:
        ``[N, D]`` of that dtype. A number beyond its range is infinite, and the flow refuses its row.
    """
    match base:
        case NormalBase():
            z = _normals(values, scale, truncation)
        case DiagonalNormalBase(frame=(mean, deviation)):
            z = _normals(values, scale, truncation)
            z *= deviation
            z += mean
        case MixtureBase(frames=(means, deviations), thresholds=thresholds):
            chosen = np.searchsorted(thresholds, values[:, 0], side="right")
            z = _normals(values[:, 1:], scale, truncation)
            z *= deviations[chosen]
            z += means[chosen]
        case StudentTBase(degrees_of_freedom=freedom):
            z = _student_t(values.reshape(len(values), -1, width), freedom)
        case UniformBase(low=low, high=high):
            return _uniforms_between(low, high, values, dtype)
        case _:
            assert_never(base)
    with np.errstate(over="ignore"):
        return z.astype(dtype)


def _normals(values: Float64, scale: Float64 | None, truncation: Truncation | None) -> Float64:
    """Normal numbers of mean 0: Phi^-1(t + (1 - 2 t) u), t the share of a tail that is cut off."""
    if truncation is None:
        z = inverse_normal_cdf(values)
    else:
        z = inverse_normal_cdf(truncation.tails + (1.0 - 2.0 * truncation.tails) * values)
        np.clip(z, -truncation.bounds, truncation.bounds, out=z)
    if scale is not None:
        z *= scale
    return z


def _student_t(values: Float64, freedom: int) -> Float64:
    """Student-t numbers: Z / sqrt(X / n), Z normal and X of a chi-squared distribution with n degrees of freedom.

    X is -2 log(U_1 ... U_(n // 2)), plus the square of another normal number where n is odd: -2 log U is chi-squared
    with two degrees of freedom.

    Args:
        values: uniform ``[N, 1 + n % 2 + n // 2, D]``.
        freedom: n.
    """
    normals = 1 + freedom % 2
    first = inverse_normal_cdf(values[:, :normals])
    z = first[:, 0]
    squares = first[:, 1] * first[:, 1] if normals == 2 else np.zeros_like(z)
    for start in range(normals, values.shape[1], _FACTORS):
        product = values[:, start].copy()
        for k in range(start + 1, min(start + _FACTORS, values.shape[1])):
            product *= values[:, k]
        squares -= 2.0 * log(product)
    squares /= freedom
    ratio: Float64 = z / np.sqrt(squares)
    return ratio


def _uniforms_between(low: float, high: float, values: Float64, dtype: FloatType) -> Floats:
    """Numbers between low and high, both ends left out."""
    rows = (low + (high - low) * values).astype(dtype)
    # Rounding must not move a value onto an end, where the density may be zero.
    first, last = dtype.type(low), dtype.type(high)
    inside: Floats = np.clip(rows, np.nextafter(first, last), np.nextafter(last, first))
    return inside
