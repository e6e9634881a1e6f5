"""Walks through latent space: straight, or along great circles, through K points.

Between points a and b, with s from 0 to 1:

    linear  (1 - s) a + s b
    slerp   r(s) (sin((1 - s) w) a/|a| + sin(s w) b/|b|) / sin w,  w the angle between a and b,
            r(s) = (1 - s)|a| + s|b|

Under a normal base in many dimensions nearly all mass lies near the sphere of radius sqrt(D), and a straight line
cuts through its empty middle; slerp keeps to it (Shoemake, "Animating rotation with quaternion curves", SIGGRAPH
1985; White, "Sampling generative networks", arXiv:1609.04468, section 2.1). A diagonal normal base has its own
sphere: there a and b are counted from its mean, in units of its deviations.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from service.bundle.bases import Base, DiagonalNormalBase
from service.bundle.manifest import Manifest
from service.engine.plan import Float32
from service.errors import InvalidArgument, Reason

__all__ = ["Path", "PathKind", "default_path"]

Float64 = npt.NDArray[np.float64]
PathKind = Literal["linear", "slerp"]

_PARALLEL: Final = 1e-6
"""Below this angle, in radians, a great circle and a straight line agree to within float32."""
_OPPOSITE: Final = 1e-6
"""This close to a half turn, in radians, rounding alone would choose the great circle."""


def default_path(manifest: Manifest) -> PathKind:
    """Slerp for a normal base, diagonal or not; linear for all others, and where there is no circle.

    A uniform base's box could be left on a circle; a Student-t and a mixture have no sphere that holds their mass.
    """
    return manifest.base.path if manifest.latent_width > 1 else "linear"


class Path:
    """The rows of a walk through K points, `steps` a segment with both ends, no joint twice.

    There are T = (K - 1)(steps - 1) + 1 rows; row i lies at t = i / (steps - 1), and point k at t = k, exactly.
    Rows are computed slice by slice: this is the `Rows` that interpolation runs.

    Args:
        points: ``[K, D]`` float32, K at least 2.
        steps: at least 2.
        kind: how to go from one point to the next.
        base: the distribution of z; None for one about the origin.

    Raises:
        InvalidArgument: for slerp between exactly opposite points, where no great circle is the shortest.
    """

    def __init__(self, points: Float32, steps: int, kind: PathKind, base: Base | None = None) -> None:
        self._points = points.astype(np.float64)
        self._exact = points
        self._frame = base.frame if isinstance(base, DiagonalNormalBase) else None
        if self._frame is not None:
            self._points = (self._points - self._frame[0]) / self._frame[1]
        self._steps = steps
        self._length = (len(points) - 1) * (steps - 1) + 1
        self._angles = self._norms = None
        if kind == "slerp":
            self._norms = np.linalg.norm(self._points, axis=1)
            self._angles = _angles(self._points, self._norms)

    def __len__(self) -> int:
        return self._length

    @property
    def t(self) -> Float64:
        """Where on the walk each row lies: float64 ``[T]`` from 0 to K - 1; point k at t = k."""
        t: Float64 = np.arange(self._length) / (self._steps - 1)
        return t

    def __getitem__(self, index: slice, /) -> Float32:
        # Whole groups of 8 are computed and cut, so that a row's digits do not depend on the slice it is in.
        count = index.stop - index.start
        rows = np.minimum(np.arange(index.start, index.start - (-count // 8) * 8), self._length - 1)
        segment, step = np.divmod(rows, self._steps - 1)
        last = segment == len(self._points) - 1
        segment = np.where(last, segment - 1, segment)
        s = np.where(last, 1.0, step / (self._steps - 1))
        start, end = self._weights(segment, s)
        walked = start[:, None] * self._points[segment] + end[:, None] * self._points[segment + 1]
        if self._frame is not None:
            walked = walked * self._frame[1] + self._frame[0]
        walk: Float32 = walked.astype(np.float32)
        joints = (step == 0) | last
        walk[joints] = self._exact[np.where(last, segment + 1, segment)[joints]]
        return walk[:count]

    def _weights(self, segment: npt.NDArray[np.intp], s: Float64) -> tuple[Float64, Float64]:
        if self._angles is None or self._norms is None:
            return 1.0 - s, s
        angle = self._angles[segment]
        straight = angle < _PARALLEL
        turn = np.where(straight, 1.0, angle)
        first, second = self._norms[segment], self._norms[segment + 1]
        first_safe, second_safe = np.where(straight, 1.0, first), np.where(straight, 1.0, second)
        radius = ((1.0 - s) * first_safe + s * second_safe) / np.sin(turn)
        start = radius * np.sin((1.0 - s) * turn) / first_safe
        end = radius * np.sin(s * turn) / second_safe
        return np.where(straight, 1.0 - s, start), np.where(straight, s, end)


def _angles(points: Float64, norms: Float64) -> Float64:
    """The angle of each segment, in radians; 0 where a point is the origin, which has no direction."""
    a, b = points[:-1] * norms[1:, None], points[1:] * norms[:-1, None]
    # Kahan's form: exact where the cosine is not, near 0 and near pi
    angles: Float64 = 2.0 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    angles = np.where((norms[:-1] > 0) & (norms[1:] > 0), angles, 0.0)
    opposite = np.flatnonzero(np.pi - angles < _OPPOSITE)
    if len(opposite):
        k = int(opposite[0])
        raise InvalidArgument(
            f"points {k} and {k + 1} are exactly opposite, so that no great circle between them is the shortest; "
            "use path=linear",
            tuple(Reason(("points",), f"opposite to point {int(k) + 1}: use path=linear", int(k)) for k in opposite),
        )
    return angles
