"""Flows with a closed form: nothing to train, and every answer known on paper.

Each is a function of its numbers, all with defaults, and an entry of `ANALYTIC`; its docstring has its density.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
import torch
from torch import Tensor

from models.flows.flow import Bijection, Flow
from service.bundle.bases import DiagonalNormalBase, NormalBase, UniformBase
from service.bundle.manifest import Support
from service.errors import DataError

__all__ = [
    "ANALYTIC",
    "Affine",
    "Exp",
    "Rotation",
    "Square",
    "Tanh",
    "affine",
    "chain",
    "exp",
    "rotation",
    "square",
    "tanh_box",
]

_LEAST = 2.0**-63
"""The least z that `Square` generates from: its square is the smallest normal float32, and above zero."""


class Square(Bijection):
    """The positive half of a parabola, column by column: z = sqrt(x), back x = z^2.

    log|dz/dx| = -log 2 - (log x) / 2, and back log|dx/dz| = log 2 + log z. At z = 0 the map has no derivative, so
    that z is taken no nearer to 0 than 2^-63, whose square is the smallest normal float32.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` above zero -> sqrt(x)."""
        return x.sqrt(), (-math.log(2) - 0.5 * x.log()).sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> y^2."""
        y = y.clamp(min=_LEAST)
        return y * y, (math.log(2) + y.log()).sum(dim=1)


class Affine(Bijection):
    """A matrix and a shift: x = A z + b, back z = A^-1 (x - b), log|dz/dx| = -log|det A|.

    Unlike those of a `FixedLinear` its numbers are no buffers: they stay float64 whatever the flow is cast to, so that
    the reference for its graphs has the density on paper.

    Args:
        matrix: A ``[D, D]``, with an inverse.
        shift: b ``[D]``, in the units of x.

    Raises:
        DataError: where A is not square, has no inverse, or b is of another width.
    """

    def __init__(self, matrix: Sequence[Sequence[float]], shift: Sequence[float]) -> None:
        super().__init__()
        self.matrix, self.shift = np.array(matrix, np.float64), np.array(shift, np.float64)
        if self.matrix.shape != (self.shift.size, self.shift.size):
            raise DataError(f"a matrix of shape {list(self.matrix.shape)} does not go with {self.shift.size} columns")
        self.log_det = float(np.linalg.slogdet(self.matrix)[1])
        if not math.isfinite(self.log_det):
            raise DataError("the matrix has no inverse")
        self.inverse_matrix = np.linalg.inv(self.matrix)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> A^-1 (x - b)."""
        y = (x - x.new_tensor(self.shift)) @ x.new_tensor(self.inverse_matrix.T)
        return y, torch.zeros_like(y[:, 0]) - self.log_det

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> A y + b."""
        x = y @ y.new_tensor(self.matrix.T) + y.new_tensor(self.shift)
        return x, torch.zeros_like(x[:, 0]) + self.log_det


class Rotation(Affine):
    """A turn of the plane: x = R z, R = [[cos a, -sin a], [sin a, cos a]], back z = R^T x; its log-determinant is 0.

    Args:
        angle: a, in radians, from the first axis towards the second.
    """

    def __init__(self, angle: float) -> None:
        cosine, sine = math.cos(angle), math.sin(angle)
        super().__init__([[cosine, -sine], [sine, cosine]], [0.0, 0.0])


class Exp(Bijection):
    """The exponential, column by column: x = e^z, back z = log x, log|dz/dx| = -sum log x."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` above zero -> log x."""
        y = x.log()
        return y, -y.sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> e^y."""
        return y.exp(), y.sum(dim=1)


class Tanh(Bijection):
    """The hyperbolic tangent, column by column: x = tanh z, back z = (log(1 + x) - log(1 - x)) / 2.

    log|dz/dx| = -sum log(1 - x^2), and back log|dx/dz| = sum 2 (log 2 - |z| - log(1 + e^(-2|z|))), where 1 - x^2 may
    have no digits left.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` between -1 and 1 -> atanh x."""
        above, below = (1.0 + x).log(), (1.0 - x).log()
        return 0.5 * (above - below), -(above + below).sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> tanh y."""
        distance = y.abs()
        return y.tanh(), (2.0 * (math.log(2) - distance - torch.log1p(torch.exp(-2.0 * distance)))).sum(dim=1)


def square() -> Flow:
    """The square of a uniform number: z ~ U(0, 2), x = z^2.

    p(x) = p_Z(sqrt x) |dz/dx| = 1/2 * 1/(2 sqrt x) = 1 / (4 sqrt x) on (0, 4], and 0 elsewhere.

    Returns:
        A flow of one column, in float32, without parameters.

    Example:
        >>> import torch
        >>> float(square().log_prob(torch.tensor([[1.0]])).exp())
        0.25
    """
    support = Support(low=0.0, high=4.0, low_closed=False, high_closed=True)
    return Flow((1,), [Square()], UniformBase(low=0.0, high=2.0), support)


def affine(matrix: Sequence[Sequence[float]] = ((2.0, 0.0), (1.5, 0.5)), shift: Sequence[float] = (1.0, -2.0)) -> Flow:
    """A normal distribution with a full covariance: z ~ N(0, I), x = A z + b.

    p(x) = N(x; b, A A^T) = exp(-(x - b)^T (A A^T)^-1 (x - b) / 2) / ((2 pi)^(D/2) |det A|).

    Args:
        matrix: A ``[D, D]``, with an inverse.
        shift: b ``[D]``.
    """
    return Flow((len(shift),), [Affine(matrix, shift)], NormalBase())


def exp(mean: float = 0.0, deviation: float = 0.5) -> Flow:
    """The log-normal distribution: z ~ N(m, s^2), x = e^z.

    p(x) = exp(-(log x - m)^2 / (2 s^2)) / (x s sqrt(2 pi)) for x > 0, and 0 elsewhere.

    Args:
        mean: m, of log x.
        deviation: s, of log x; above zero.

    Returns:
        A flow of one column, with a half-line for its support.
    """
    base = DiagonalNormalBase(mean=[mean], standard_deviation=[deviation])
    return Flow((1,), [Exp()], base, Support(low=0.0))


def tanh_box(width: int = 1) -> Flow:
    """A normal distribution pressed into a box: z ~ N(0, I), x = tanh z.

    p(x) = prod exp(-atanh(x_i)^2 / 2) / (sqrt(2 pi) (1 - x_i^2)) on (-1, 1)^D, and 0 elsewhere.

    Args:
        width: D.
    """
    return Flow((width,), [Tanh()], NormalBase(), Support(low=-1.0, high=1.0))


def rotation(angle: float = math.pi / 6, deviations: Sequence[float] = (2.0, 0.5)) -> Flow:
    """An ellipse, turned: z_i ~ N(0, s_i^2), x = R z with R the rotation by the angle a.

    p(x) = N(u; 0, s_1^2) N(v; 0, s_2^2) with u = x_1 cos a + x_2 sin a and v = x_2 cos a - x_1 sin a.

    Args:
        angle: a, in radians, from the first axis towards the second.
        deviations: s ``[2]``, above zero.
    """
    base = DiagonalNormalBase(mean=[0.0, 0.0], standard_deviation=list(deviations))
    return Flow((2,), [Rotation(angle)], base)


def chain(
    angle: float = math.pi / 6,
    matrix: Sequence[Sequence[float]] = ((0.75, 0.0), (0.5, 0.25)),
    shift: Sequence[float] = (0.25, -0.5),
) -> Flow:
    """Several steps in a row: z ~ N(0, I), x = tanh(R (A z + b)), with R the rotation by the angle a.

    p(x) = N(atanh x; R b, R A A^T R^T) / ((1 - x_1^2)(1 - x_2^2)) on (-1, 1)^2, and 0 elsewhere.

    Args:
        angle: a, in radians.
        matrix: A ``[2, 2]``, with an inverse.
        shift: b ``[2]``.
    """
    steps = [Tanh(), Rotation(angle), Affine(matrix, shift)]
    return Flow((2,), steps, NormalBase(), Support(low=-1.0, high=1.0))


ANALYTIC: Final[Mapping[str, Callable[[], Flow]]] = MappingProxyType(
    {"square": square, "affine": affine, "exp": exp, "tanh_box": tanh_box, "rotation": rotation, "chain": chain}
)
"""Name -> constructor, for a recipe that names a closed form as its architecture."""
