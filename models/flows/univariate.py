"""Monotone functions of one number, whose parameters a conditioner gives: splines and polynomials.

They are transforms as zuko's are, and equal to zuko's; written anew so that a graph can hold them: no boolean masks, no
automatic differentiation inside, every index within its range, and the inverse gives its log-derivative in one pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.nn import functional as F
from zuko.transforms import AdditiveTransform, MonotonicAffineTransform

from models.flows.options import check, check_bound, check_slope

__all__ = [
    "ADDITIVE",
    "Bernstein",
    "Bin",
    "OnePass",
    "RationalQuadratic",
    "UnivariateFamily",
    "affine_family",
    "bernstein_family",
    "spline_family",
]

Array = npt.NDArray[np.float64]

_TINY: Final = 1e-30  # stands for a share of nothing: its powers are 0, and its power 0 is 1


class OnePass(Transform, ABC):
    """An increasing function of one number that gives value and log-derivative together, in both directions.

    Its parameters have the shape of x ``[*]``, or one that is broadcast to it, and further axes at the end.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = +1

    @abstractmethod
    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X ``[*]`` -> y and log dy/dx, both ``[*]``."""

    @abstractmethod
    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Y ``[*]`` -> x and log dx/dy, both ``[*]``."""

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:  # noqa: ARG002
        """Log dy/dx ``[*]``."""
        return self.call_and_ladj(x)[1]

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inverse_and_ladj(y)[0]


class Bin(NamedTuple):
    """One bin of a rational-quadratic spline for each value: its corner, its size, and the slopes at its ends.

    In a bin of width w and height h, of mean slope s = h / w, with slopes d0 and d1 at its ends and
    u = (x - x0) / w:  y = y0 + h (s u^2 + d0 u (1 - u)) / (s + (d0 + d1 - 2 s) u (1 - u)). With v = 1 - u,
    a = s u + d0 v and b = s v + d1 u the formula is y = y0 + h u a / (u a + v b), and
    dy/dx = s^2 (v a + u b) / (u a + v b)^2: no term is ever negative.

    Back, with e = (y - y0) / h, c = s e, b = (d0 - e (d0 + d1 - 2 s)) / 2:  u = c / (b + sqrt((b - c)^2 + c (s - c))).

    Each field has the shape of the values, ``[*]``, or one that is broadcast to it.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, section 3.1 and equations 4 to 8.
    """

    x_0: Tensor
    y_0: Tensor
    width: Tensor
    height: Tensor
    left: Tensor
    right: Tensor

    def value(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X ``[*]`` inside the bin -> y and log dy/dx."""
        u = ((x - self.x_0) / self.width).clamp(0.0, 1.0)
        s = self.height / self.width
        top, bottom, rise = self._parts(s, u)
        slope = s / bottom
        return self.y_0 + self.height * top / bottom, (slope * rise * slope).log()

    def argument(self, y: Tensor, means: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Find the x of a value.

        Args:
            y: ``[*]``, inside the bin.
            means: d0 / 2 and (d0 + d1) / 2, where they are at hand.

        Returns:
            x and log dx/dy, ``[*]`` each.
        """
        half, middle = (0.5 * self.left, 0.5 * (self.left + self.right)) if means is None else means
        s = self.height / self.width
        e = ((y - self.y_0) / self.height).clamp(0.0, 1.0)
        b, c = half - e * (middle - s), s * e
        apart = b - c
        u = (c / (b + (apart * apart + c * (s - c)).sqrt())).clamp(0.0, 1.0)
        _, bottom, rise = self._parts(s, u)
        slope = bottom / s
        return self.x_0 + u * self.width, (slope / rise * slope).log()

    def _parts(self, s: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """U a, u a + v b and v a + u b: what y and dy/dx are made of."""
        v = 1 - u
        a, b = s * u + self.left * v, s * v + self.right * u
        top = u * a
        return top, top + v * b, v * a + u * b


class RationalQuadratic(OnePass):
    """A rational-quadratic spline of K bins on [-B, B], and y = x outside; `Bin` has the formula.

    Zeros for all parameters give y = x.

    Args:
        sizes: ``[*, 2, K]``, of any size: the bins are as wide, and as high, as their softmax, bounded softly.
        slopes: ``[*, K - 1]``, the logarithms of the slopes at the inner knots, bounded softly.
        bound: B, above zero.
        slope: how much narrower, lower or flatter than another a bin may be at most, in (0, 1).

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, section 3.1 and equations 4 to 8.
    """

    def __init__(self, sizes: Tensor, slopes: Tensor, bound: float = 5.0, slope: float = 1e-2) -> None:
        super().__init__()
        self.bound = bound
        self.bins = sizes.shape[-1]
        build = _table_by_products if torch.compiler.is_exporting() else _table
        self.table = build(sizes, slopes, bound, abs(math.log(slope)))

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X ``[*]`` -> y and log dy/dx."""
        inner = x.clamp(-self.bound, self.bound).unsqueeze(-1)
        found, _ = self._bin(0, inner)
        return _joined(x, found.value(inner), self.bound)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Y ``[*]`` -> x and log dx/dy."""
        inner = y.clamp(-self.bound, self.bound).unsqueeze(-1)
        found, means = self._bin(1, inner)
        return _joined(y, found.argument(inner, means), self.bound)

    def _bin(self, axis: int, values: Tensor) -> tuple[Bin, tuple[Tensor, Tensor] | None]:
        """Find the bin whose corner is the last one at or below each value.

        Args:
            axis: along x (0) or y (1).
            values: ``[*, 1]``, within the bounds.

        Returns:
            The bin, ``[*, 1]``; along y in a graph, where they cost nothing, also d0 / 2 and (d0 + d1) / 2.
        """
        start = axis * self.bins
        # the first corner is at -bound, which is at or below every value
        reached = self.table[..., start : start + self.bins] <= values
        if torch.compiler.is_exporting():
            # ONNX Runtime gathers slowly; one term of each sum is not zero, so that these products give the same digits
            chosen, sums = _constants(_choosing(self.bins, axis), values)
            found = (self.table * (reached.to(values.dtype) @ chosen)) @ sums
            quantities = found.chunk(found.shape[-1], dim=-1)
            return Bin(*quantities[:6]), (quantities[6], quantities[7]) if axis else None
        shape = (*reached.shape[:-1], 6)
        index = (reached.sum(dim=-1) - 1)[..., None, None].expand(*shape, 1)
        table = torch.unflatten(self.table, -1, (6, self.bins)).expand(*shape, -1)
        return Bin(*table.gather(-1, index).squeeze(-1).chunk(6, dim=-1)), None


def _joined(given: Tensor, answer: tuple[Tensor, Tensor], bound: float) -> tuple[Tensor, Tensor]:
    """Take the answer within the bounds, and what was given, unmoved, outside.

    Args:
        given: ``[*]``.
        answer: value and log-derivative, ``[*, 1]`` each.
        bound: where the function ends.

    Returns:
        Value and log-derivative, ``[*]`` each.
    """
    inside = given.abs() < bound
    value, ladj = answer
    return torch.where(inside, value.squeeze(-1), given), torch.where(inside, ladj.squeeze(-1), 0.0)


def _table(sizes: Tensor, slopes: Tensor, bound: float, log_slope: float) -> Tensor:
    """The bins of a spline, one quantity after the other ``[*, 6 K]``: the six of a `Bin`.

    Args:
        sizes: ``[*, 2, K]``.
        slopes: ``[*, K - 1]``.
        bound: where it ends.
        log_slope: the greatest logarithm of a slope.
    """
    bins = sizes.shape[-1]
    shares = _bounded(sizes, log_slope / 2).exp()  # what is bounded cannot overflow
    # products with small constants, which take less time than softmax, cumsum and pad
    extents = shares / (shares @ shares.new_full((bins, bins), 0.5 / bound))
    corners = extents @ torch.ones(bins, bins, dtype=sizes.dtype, device=sizes.device).triu(1) - bound
    inner = torch.eye(bins - 1, dtype=sizes.dtype, device=sizes.device)
    ends = torch.cat((F.pad(inner, (1, 0)), F.pad(inner, (0, 1))), dim=1)
    both = torch.unflatten((_bounded(slopes, log_slope) @ ends).exp(), -1, (2, bins))
    return torch.cat((corners, extents, both), dim=-2).flatten(-2)


def _table_by_products(sizes: Tensor, slopes: Tensor, bound: float, log_slope: float) -> Tensor:
    """The same by products with constants: fewer nodes of a graph, none of which is slow or asks for a shape."""
    limits, spread, totals, places = _constants(_matrices(sizes.shape[-1], bound, log_slope), sizes)
    given = torch.cat((sizes.flatten(-2), slopes), dim=-1)
    shares = (_bounded(given, limits) @ spread).exp()  # what is bounded cannot overflow
    return (shares / (shares @ totals)) @ places


def _constants(arrays: Sequence[Array], like: Tensor) -> list[Tensor]:
    return [torch.tensor(array, dtype=like.dtype, device=like.device) for array in arrays]


@cache
def _matrices(bins: int, bound: float, log_slope: float) -> tuple[Array, Array, Array, Array]:
    """The constants by which the parameters of a spline become its table; K bins, and [-B, B] the bounds.

    Returns:
        The limits ``[3 K - 1]`` of the parameters: logarithms of widths, heights, inner slopes.
        ``[3 K - 1, 4 K]``: those of widths, heights, and each bin's slopes on the left and on the right. At both
        ends the slope is 1.
        ``[4 K, 4 K]``: what each is to be divided by, the sum of all widths over 2 B, or of all heights; slopes by the
        first of them, which is 1.
        ``[4 K, 6 K]``: the bins' left ends, lower ends, and the four again.
    """
    limits = np.concatenate([np.full(2 * bins, log_slope / 2), np.full(bins - 1, log_slope)])
    spread = np.zeros((3 * bins - 1, 4 * bins))
    spread[: 2 * bins, : 2 * bins] = np.eye(2 * bins)
    spread[2 * bins :, 2 * bins + 1 : 3 * bins] = spread[2 * bins :, 3 * bins : -1] = np.eye(bins - 1)
    totals, places = np.zeros((4 * bins, 4 * bins)), np.zeros((4 * bins, 6 * bins))
    for part in (slice(bins), slice(bins, 2 * bins)):
        totals[part, part] = 0.5 / bound
        places[part, part] = np.triu(np.ones((bins, bins)), 1)
    totals[2 * bins, 2 * bins :] = 1.0
    places[2 * bins, : 2 * bins] = -bound
    places[:, 2 * bins :] = np.eye(4 * bins)
    return limits, spread, totals, places


@cache
def _choosing(bins: int, axis: int) -> tuple[Array, Array]:
    """The constants by which a spline's table becomes one bin.

    Returns:
        ``[K, 6 K]``: from which corners are reached to which bin it is, six times.
        ``[6 K, 6]``, or ``[6 K, 8]`` for `axis` 1: the sum over the bins of each quantity, and what `_bin` adds.
    """
    chosen = np.tile(np.eye(bins) - np.eye(bins, k=-1), (1, 6))
    means = [[0.0] * 8] * 4 + [[0.0] * 6 + [0.5, 0.5], [0.0] * 7 + [0.5]]
    quantities = np.array(means) + np.eye(6, 8)
    return chosen, np.repeat(quantities[:, : 8 if axis else 6], bins, axis=0)


class Bernstein(OnePass):
    """A polynomial in Bernstein form that increases on [-B, B], and y = x outside; the two meet twice differentiably.

    y = sum_i theta_i C(M, i) t^i (1 - t)^(M - i) with t = (x + B) / 2B and theta increasing from -B to B, so that
    dy/dx = M / 2B sum_i (theta_(i+1) - theta_i) C(M - 1, i) t^i (1 - t)^(M - 1 - i) is a sum of positive terms. Zeros
    for all parameters give y = x.

    There is no formula back. x is searched for, by a number of steps that is fixed: on a grid of `GRID` cells, by
    `BISECTIONS` bisections of the cell, to within B / (GRID 2^BISECTIONS), and by `NEWTON` steps of Newton from there.

    Args:
        increments: ``[*, P]``, of any size; the inner steps of theta are as high as their softmax, bounded softly.
            M = P + 4: two steps at each end are fixed, for the slope and the curvature where it meets y = x.
        bound: B, above zero.
        slope: how much lower than another a step may be at most, in (0, 1).

    References:
        Sick et al., 2020, https://arxiv.org/abs/2004.00464. Arpogaus et al., 2022, https://arxiv.org/abs/2204.13939.
    """

    GRID: Final = 64
    BISECTIONS: Final = 8
    NEWTON: Final = 3

    def __init__(self, increments: Tensor, bound: float = 5.0, slope: float = 1e-2) -> None:
        super().__init__()
        self.bound = bound
        inner = increments.shape[-1]
        self.degree = inner + 4
        step = 2 * bound / self.degree
        steps = F.softmax(_bounded(increments, math.log(slope) / 2), dim=-1) * (inner * step)
        ends = torch.full_like(steps[..., :2], step)
        self.steps = torch.cat((ends, steps, ends), dim=-1)
        sums = torch.ones(self.degree, self.degree + 1, dtype=steps.dtype, device=steps.device).triu(1)
        self.theta = self.steps @ sums - bound

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X ``[*]`` -> y and log dy/dx."""
        inner = x.clamp(-self.bound, self.bound).unsqueeze(-1)
        return _joined(x, (self._value(inner), self._slope(inner).log()), self.bound)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Y ``[*]`` -> x and log dx/dy."""
        inner = y.clamp(-self.bound, self.bound).unsqueeze(-1)
        half = self.bound / self.GRID
        grid = torch.linspace(-self.bound, self.bound, self.GRID + 1, dtype=y.dtype, device=y.device)[1:-1, None]
        cell = (self.theta @ self._basis(grid, self.degree).T <= inner).sum(dim=-1, keepdim=True)
        low = cell * (2 * half) - self.bound
        for _ in range(self.BISECTIONS):
            middle = low + half
            low = torch.where(self._value(middle) <= inner, middle, low)
            half /= 2
        x = low + half
        for _ in range(self.NEWTON):
            x = (x - (self._value(x) - inner) / self._slope(x)).clamp(-self.bound, self.bound)
        return _joined(y, (x, -self._slope(x).log()), self.bound)

    def _value(self, x: Tensor) -> Tensor:
        """The polynomial at x ``[*, 1]``."""
        return self._sum(self.theta * self._basis(x, self.degree))

    def _slope(self, x: Tensor) -> Tensor:
        """Its derivative at x ``[*, 1]``."""
        return self._sum(self.steps * self._basis(x, self.degree - 1)) * (self.degree / (2 * self.bound))

    def _basis(self, x: Tensor, degree: int) -> Tensor:
        """C(m, i) t^i (1 - t)^(m - i) for every i, by their logarithms: x ``[*, 1]`` -> ``[*, m + 1]``."""
        signs = torch.tensor([0.5, -0.5], dtype=x.dtype, device=x.device) / self.bound
        shares = (x * signs + 0.5).clamp(min=_TINY).log()
        powers = [list(range(degree + 1)), list(range(degree, -1, -1))]
        log_binomials = [math.log(math.comb(degree, i)) for i in range(degree + 1)]
        exponents = shares @ torch.tensor(powers, dtype=x.dtype, device=x.device)
        return (exponents + torch.tensor(log_binomials, dtype=x.dtype, device=x.device)).exp()

    @staticmethod
    def _sum(terms: Tensor) -> Tensor:
        """The sum over the last axis, by a product: the digits of a sum depend on where a row lies in memory."""
        return terms @ torch.ones(terms.shape[-1], 1, dtype=terms.dtype, device=terms.device)


def _bounded(values: Tensor, limit: float | Tensor) -> Tensor:
    """Values / (1 + |values / limit|): any number, softly kept between -|limit| and |limit|."""
    return values / (1 + (values / limit).abs())


@dataclass(frozen=True, slots=True)
class UnivariateFamily:
    """An increasing function of one column up to its parameters; zeros for all of them give the identity.

    Args:
        transform: the function, from its parameters.
        shapes: the shape of each parameter for one column.
        numeric_inverse: whether the inverse is a search.
    """

    transform: Callable[..., Transform]
    shapes: tuple[tuple[int, ...], ...]
    numeric_inverse: bool = False


ADDITIVE: Final = UnivariateFamily(AdditiveTransform, ((),))
"""A shift: y = x + t."""

_MAX_BINS, _MAX_DEGREE = 64, 32


def affine_family(slope: float) -> UnivariateFamily:
    """A shift and a scale: y = x exp(s) + t with s = a / (1 + |a / log slope|), from the parameters t and a.

    Args:
        slope: the least factor, in (0, 1); the greatest is 1 / slope.

    Raises:
        DataError: where it is out of its range.
    """
    check_slope(slope)
    return UnivariateFamily(partial(MonotonicAffineTransform, slope=slope), ((), ()))


def spline_family(bins: int, bound: float, slope: float) -> UnivariateFamily:
    """A rational-quadratic spline, from widths and heights ``[2, K]`` and slopes at the inner knots ``[K - 1]``.

    Args:
        bins: K, 2 to 64.
        bound: where it ends, above zero.
        slope: how much narrower, lower or flatter than another a bin may be at most, in (0, 1).

    Raises:
        DataError: where one of them is out of its range.
    """
    check("bins", 2 <= bins <= _MAX_BINS, bins, f"a number from 2 to {_MAX_BINS}")
    check_bound("bound", bound)
    check_slope(slope)
    return UnivariateFamily(partial(RationalQuadratic, bound=bound, slope=slope), ((2, bins), (bins - 1,)))


def bernstein_family(degree: int, bound: float, slope: float) -> UnivariateFamily:
    """A polynomial in Bernstein form, from the logarithms of its inner steps ``[degree - 4]``.

    Args:
        degree: 6 to 32.
        bound: where it ends, above zero.
        slope: how much lower than another a step may be at most, in (0, 1).

    Raises:
        DataError: where one of them is out of its range.
    """
    check("degree", 6 <= degree <= _MAX_DEGREE, degree, f"a number from 6 to {_MAX_DEGREE}")
    check_bound("bound", bound)
    check_slope(slope)
    return UnivariateFamily(partial(Bernstein, bound=bound, slope=slope), ((degree - 4,),), numeric_inverse=True)
