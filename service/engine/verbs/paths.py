"""Paths through latent space: straight, or along great circles, through K points.

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
from service.engine.verbs.arc_length import Arc, share_steps
from service.errors import InvalidArgument, Reason
from service.plan import Floats

__all__ = ["Path", "PathContext", "PathKind", "Spacing", "context_at", "default_path"]

Float64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
PathKind = Literal["linear", "slerp"]
Spacing = Literal["parameter", "arc_length"]

_PARALLEL: Final = 1e-6
"""Below this angle, in radians, a great circle and a straight line agree to within float32."""
_OPPOSITE: Final = 1e-6
"""This close to a half turn, in radians, rounding alone would choose the great circle."""


def default_path(manifest: Manifest) -> PathKind:
    """The path that a flow takes where nobody chooses: slerp for a normal base, linear for all others.

    A circle could leave a uniform base's box. A Student-t and a mixture have no sphere that holds their mass. In one
    dimension there is no circle.
    """
    return manifest.base.path if manifest.latent_width > 1 else "linear"


class Path:
    """The rows of one walk, or of several, through K points each: no joint twice, every point hit exactly.

    A walk has T = (K - 1)(steps - 1) + 1 rows, so many for each of its K - 1 segments on average, and point k lies at
    t = k. With spacing by parameter row i lies at t = i / (steps - 1). With spacing by arc length (K - 1)(steps - 1)
    steps are shared out to the segments in proportion to their lengths, at least one to each, and those of a segment
    are equally long: as long as all others', but for what sharing out whole steps leaves. Lengths are those of the
    latent walk, in units of the base's deviations.

    Rows are computed slice by slice, the walks one after the other: this is the `Rows` that interpolation runs.

    Args:
        points: ``[K, D]``, K at least 2; or ``[B, K, D]`` for B walks.
        steps: at least 2.
        kind: how to go from one point to the next.
        base: the distribution of z; None for one about the origin.
        spacing: how the rows of a walk are spread.

    Raises:
        InvalidArgument: for slerp between exactly opposite points, where no great circle is the shortest.
    """

    def __init__(
        self,
        points: Floats,
        steps: int,
        kind: PathKind,
        base: Base | None = None,
        spacing: Spacing = "parameter",
    ) -> None:
        count, width = map(int, points.shape[-2:])
        self._walks = len(points) if points.ndim > 2 else None
        self._exact = points.reshape(-1, width)
        self._points = self._exact.astype(np.float64)
        self._frame = base.frame if isinstance(base, DiagonalNormalBase) else None
        if self._frame is not None:
            self._points = (self._points - self._frame[0]) / self._frame[1]
        self._segments = count - 1
        self._steps = steps
        self._each = self._segments * (steps - 1) + 1
        self._starts = np.flatnonzero(np.arange(len(self._points)) % count != self._segments)
        self._norms = np.linalg.norm(self._points, axis=1)
        self._angles = _angles(self._points, self._norms, self._starts) if kind == "slerp" else None
        self._ends: npt.NDArray[np.intp] | None = None
        self._lengths: Float64 | None = None
        if spacing == "arc_length":
            self._lengths = self._arc(np.arange(len(self._starts))).length(np.ones(len(self._starts)))
            shares = share_steps(self._lengths.reshape(-1, self._segments), self._each - 1)
            self._ends = np.cumsum(shares)

    def __len__(self) -> int:
        return self._each * (self._walks or 1)

    @property
    def t(self) -> Float64:
        """The place of each row on its walk, from 0 to K - 1; point k lies at t = k: float64 ``[T]``.

        ``[B, T]`` for several walks that are spaced by arc length; by parameter they all have the same.
        """
        shared = self._ends is None or self._walks is None
        t = self.at(0, self._each if shared else len(self))
        return t if shared else t.reshape(-1, self._each)

    def at(self, start: int, stop: int) -> Float64:
        """The t of the rows start to stop, all walks counted on: float64 ``[stop - start]``."""
        rows = np.arange(start, stop)
        if self._ends is None:
            t: Float64 = (rows % self._each) / (self._steps - 1)
            return t
        segment, s, _ = self._locate(rows)
        return segment % self._segments + s

    def __getitem__(self, index: slice, /) -> Floats:
        # Whole groups of 8 are computed and cut, so that a row's digits do not depend on the slice it is in.
        count = index.stop - index.start
        rows = np.minimum(np.arange(index.start, index.start - (-count // 8) * 8), len(self) - 1)
        segment, s, joint = self._locate(rows)
        first = self._starts[segment]
        start, end = self._weights(segment, s)
        walked = start[:, None] * self._points[first] + end[:, None] * self._points[first + 1]
        if self._frame is not None:
            walked = walked * self._frame[1] + self._frame[0]
        walk: Floats = walked.astype(self._exact.dtype)
        walk[joint] = self._exact[np.where(s == 1.0, first + 1, first)[joint]]
        return walk[:count]

    def _locate(self, rows: Places) -> tuple[Places, Float64, npt.NDArray[np.bool_]]:
        """Of each row the segment, those of all walks counted on, how far along it is, and whether at a point."""
        walk, row = np.divmod(rows, self._each)
        last = row == self._each - 1
        step = walk * (self._each - 1) + row - last  # steps are counted by where they begin; the last row ends one
        if self._ends is None:
            segment, done = np.divmod(step, self._steps - 1)
            s: Float64 = (done + last) / (self._steps - 1)
        else:
            segment = np.searchsorted(self._ends, step, side="right")
            begin = np.where(segment > 0, self._ends[segment - 1], 0)
            s = (step - begin + last) / (self._ends[segment] - begin)
        joint = last | (s == 0.0)
        if self._lengths is not None:
            length = self._lengths[segment]
            along = self._arc(segment).fraction(s * length)
            s = np.where(joint | (length == 0.0), s, along)  # between equal points t goes on
        return segment, s, joint

    def _arc(self, segment: Places) -> Arc:
        """The curves of these segments."""
        first = self._starts[segment]
        if self._angles is None:
            straight = np.linalg.norm(self._points[first + 1] - self._points[first], axis=1)
            return Arc(straight, np.zeros(len(segment)), np.zeros(len(segment)))
        angle = self._angles[segment]
        turns = angle >= _PARALLEL
        chord = np.linalg.norm(self._points[first + 1] - self._points[first], axis=1)
        growth = np.where(turns, self._norms[first + 1] - self._norms[first], chord)
        return Arc(growth, np.where(turns, angle, 0.0), self._norms[first])

    def _weights(self, segment: Places, s: Float64) -> tuple[Float64, Float64]:
        if self._angles is None:
            return 1.0 - s, s
        angle = self._angles[segment]
        straight = angle < _PARALLEL
        turn = np.where(straight, 1.0, angle)
        first = self._starts[segment]
        near, far = self._norms[first], self._norms[first + 1]
        near_safe, far_safe = np.where(straight, 1.0, near), np.where(straight, 1.0, far)
        radius = ((1.0 - s) * near_safe + s * far_safe) / np.sin(turn)
        start = radius * np.sin((1.0 - s) * turn) / near_safe
        end = radius * np.sin(s * turn) / far_safe
        return np.where(straight, 1.0 - s, start), np.where(straight, s, end)


class PathContext:
    """The context of each row of a path, computed slice by slice.

    Args:
        contexts: ``[R, C]``, as `context_at` takes it.
        path: the walk, or several, of K points each.
        count: K.
    """

    def __init__(self, contexts: Floats, path: Path, count: int) -> None:
        self._contexts = contexts
        self._path = path
        self._count = count

    def __len__(self) -> int:
        return len(self._path)

    def __getitem__(self, index: slice, /) -> Floats:
        return context_at(self._contexts, self._path.at(index.start, index.stop), self._count)


def context_at(contexts: Floats, t: Float64, count: int) -> Floats:
    """The context of rows of a walk through K points, linear in t between those that are given.

    Args:
        contexts: ``[R, C]``. One row holds for the whole walk, two are its ends, K are those of its points.
        t: ``[N]``, from 0 to K - 1.
        count: K.

    Returns:
        ``[N, C]``.
    """
    place = t * ((len(contexts) - 1) / (count - 1))
    first = np.minimum(place.astype(np.intp), max(len(contexts) - 2, 0))
    part = (place - first)[:, None]
    following = np.minimum(first + 1, len(contexts) - 1)
    context: Floats = ((1.0 - part) * contexts[first] + part * contexts[following]).astype(contexts.dtype)
    return context


def _angles(points: Float64, norms: Float64, starts: Places) -> Float64:
    """The angle of each segment, in radians; 0 where a point is the origin, which has no direction."""
    a, b = points[starts] * norms[starts + 1, None], points[starts + 1] * norms[starts, None]
    # Kahan's form: exact where the cosine is not, near 0 and near pi
    angles: Float64 = 2.0 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    angles = np.where((norms[starts] > 0) & (norms[starts + 1] > 0), angles, 0.0)
    opposite = starts[np.pi - angles < _OPPOSITE]
    if len(opposite):
        k = int(opposite[0])
        raise InvalidArgument(
            f"points {k} and {k + 1} are exactly opposite, so that no great circle between them is the shortest; "
            "use path=linear",
            tuple(
                Reason(("points",), f"opposite to point {int(k) + 1}: use path=linear", int(k))
                for k in opposite[: InvalidArgument.MAX_REASONS]
            ),
        )
    return angles
