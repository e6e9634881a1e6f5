"""Arc lengths of the segments of a walk, and their inverse: the place at which a length is reached.

A segment whose radius goes from r0 to r0 + d while it turns by the angle w has, up to s,

    L(s) = integral from 0 to s of sqrt(d^2 + w^2 (r0 + d u)^2) du;

a straight one is a segment of that length d that does not turn.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Arc", "share_steps"]

Float64 = npt.NDArray[np.float64]

# Gauss-Legendre quadrature. The integrand has no singularity nearer than 1 / w to where it is integrated: 16 nodes give
# 8 digits and more.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_ROUNDS: Final = 8
"""Of Newton's method, on a monotone function that is convex or concave."""


class Arc(NamedTuple):
    """The curve of a segment, one for each row.

    Args:
        growth: d ``[N]``, of the radius; the length, where it does not turn.
        angle: w ``[N]``, in radians.
        radius: r0 ``[N]``.
    """

    growth: Float64
    angle: Float64
    radius: Float64

    def length(self, s: Float64) -> Float64:
        """L(s), for each row: ``[N]``, s from 0 to 1."""
        total = np.zeros_like(s)
        for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
            total += weight * self._speed(s * (0.5 + 0.5 * node))
        total *= 0.5 * s
        return total

    def fraction(self, length: Float64) -> Float64:
        """The s at which L(s) is this, for each row: ``[N]``; 0 where the curve has no length."""
        whole = self.length(np.ones_like(length))
        s: Float64 = np.divide(length, whole, out=np.zeros_like(length), where=whole > 0)
        for _ in range(_ROUNDS):
            speed = self._speed(s)
            missing = length - self.length(s)
            s = np.clip(s + np.divide(missing, speed, out=np.zeros_like(s), where=speed > 0), 0.0, 1.0)
        return s

    def _speed(self, u: Float64) -> Float64:
        across = self.angle * (self.radius + self.growth * u)
        speed: Float64 = np.sqrt(self.growth * self.growth + across * across)
        return speed


def share_steps(lengths: Float64, steps: int) -> npt.NDArray[np.intp]:
    """Share steps out to the segments of each walk in proportion to their lengths, at least one to each.

    Args:
        lengths: ``[B, S]``; a walk without any length shares them out evenly.
        steps: for each walk, at least S.

    Returns:
        ``[B, S]``, with the sum `steps` in each row.

    Example:
        >>> share_steps(np.array([[3.0, 1.0, 0.0]]), 9).tolist()
        [[6, 2, 1]]
    """
    segments = lengths.shape[1]
    totals = lengths.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, lengths / np.where(totals > 0, totals, 1.0), 1.0 / segments)
    wanted = np.maximum(shares * steps, 1.0)
    # What the short ones get beyond their share comes from what the others have beyond one.
    beyond = wanted - 1.0
    room = steps - segments
    whole = beyond.sum(axis=1, keepdims=True)
    beyond *= np.divide(room, whole, out=np.zeros_like(whole), where=whole > 0)
    given = np.floor(beyond)
    left = (room - given.sum(axis=1)).round().astype(np.intp)
    order = np.argsort(given - beyond, axis=1, kind="stable")  # the greatest remainders first
    given += np.argsort(order, axis=1) < left[:, None]
    result: npt.NDArray[np.intp] = given.astype(np.intp) + 1
    return result
