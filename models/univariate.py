"""Monotone functions of one number, whose parameters a conditioner gives: splines and polynomials.

They are transforms as zuko's are, and equal to zuko's; written anew so that a graph can hold them: no boolean masks, no
automatic differentiation inside, every index within its range, and the inverse gives its log-derivative in one pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.nn import functional as F

__all__ = ["Bernstein", "OnePass", "RationalQuadratic"]

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


class _Bin(NamedTuple):
    """The bin of each value ``[*, 1, 1]``: left end, lower end, width, height, slopes at both ends."""

    x: Tensor
    y: Tensor
    width: Tensor
    height: Tensor
    left: Tensor
    right: Tensor


class RationalQuadratic(OnePass):
    """A rational-quadratic spline of K bins on [-B, B], and y = x outside.

    In a bin of width w and height h, of mean slope s = h / w, with slopes d0 and d1 at its ends and
    u = (x - x0) / w:  y = y0 + h (s u^2 + d0 u (1 - u)) / (s + (d0 + d1 - 2 s) u (1 - u)). Back, u is the root of a
    quadratic. Zeros for all parameters give y = x. With v = 1 - u, a = s u + d0 v and b = s v + d1 u the formula is
    y = y0 + h u a / (u a + v b), and dy/dx = s^2 (v a + u b) / (u a + v b)^2: no term is ever negative.

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
        bins, log_slope = sizes.shape[-1], math.log(slope)
        # a softmax times 2 B; what is bounded cannot overflow
        shares = _bounded(sizes, log_slope / 2).exp()
        extents = shares / (shares @ shares.new_full((bins, bins), 0.5 / bound))
        # products with constants rather than cumsum and pad: few nodes of a graph, none of which asks for a shape
        corners = extents @ torch.ones(bins, bins, dtype=sizes.dtype, device=sizes.device).triu(1) - bound
        inner = torch.eye(bins - 1, dtype=sizes.dtype, device=sizes.device)
        ends = torch.cat((F.pad(inner, (1, 0)), F.pad(inner, (0, 1))), dim=1)
        both = torch.unflatten((_bounded(slopes, log_slope) @ ends).exp(), -1, (2, bins))
        self.table = torch.cat((corners, extents, both), dim=-2)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """X ``[*]`` -> y and log dy/dx."""
        inner = x.clamp(-self.bound, self.bound)[..., None, None]
        found = self._bin(0, inner)
        u = ((inner - found.x) / found.width).clamp(0.0, 1.0)
        s = found.height / found.width
        top, bottom, rise = self._parts(found, s, u)
        return self._joined(x, found.y + found.height * top / bottom, self._log_slope(s, bottom, rise))

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Y ``[*]`` -> x and log dx/dy."""
        inner = y.clamp(-self.bound, self.bound)[..., None, None]
        found = self._bin(1, inner)
        s = found.height / found.width
        above = (inner - found.y).clamp(min=0.0)
        curve = found.left + found.right - 2 * s
        bend = above * curve
        a = found.height * (s - found.left) + bend
        b = found.height * found.left - bend
        c = s * above
        u = (2 * c / (b + (b * b + 4 * a * c).clamp(min=0.0).sqrt())).clamp(0.0, 1.0)
        _, bottom, rise = self._parts(found, s, u)
        return self._joined(y, found.x + u * found.width, -self._log_slope(s, bottom, rise))

    def _bin(self, axis: int, values: Tensor) -> _Bin:
        """The bin whose corner is the last one at or below each value ``[*, 1, 1]``, along x (0) or y (1)."""
        table = self.table
        if table.shape[:-2] != values.shape[:-2]:  # the same parameters for every row
            table = table.expand(*values.shape[:-2], -1, -1)
        # the first corner is at -bound, below every value
        index = (table[..., axis : axis + 1, :] <= values).sum(dim=-1, keepdim=True) - 1
        rows = table.shape[-2]
        return _Bin(*table.gather(-1, torch.cat([index] * rows, dim=-2)).chunk(rows, dim=-2))

    def _joined(self, given: Tensor, answer: Tensor, ladj: Tensor) -> tuple[Tensor, Tensor]:
        """The answer within the bounds, and what was given, unmoved, outside."""
        inside = given.abs() < self.bound
        return torch.where(inside, answer.flatten(-3), given), torch.where(inside, ladj.flatten(-3), 0.0)

    @staticmethod
    def _parts(found: _Bin, s: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """U a, u a + v b and v a + u b: what y and dy/dx are made of."""
        v = 1 - u
        a, b = s * u + found.left * v, s * v + found.right * u
        top = u * a
        return top, top + v * b, v * a + u * b

    @staticmethod
    def _log_slope(s: Tensor, bottom: Tensor, rise: Tensor) -> Tensor:
        """Log dy/dx = log(s^2 (v a + u b) / (u a + v b)^2)."""
        return 2 * (s / bottom).log() + rise.log()


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
        return self._joined(x, self._value(inner), self._slope(inner).log())

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
        return self._joined(y, x, -self._slope(x).log())

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

    def _joined(self, given: Tensor, answer: Tensor, ladj: Tensor) -> tuple[Tensor, Tensor]:
        """The answer within the bounds, and what was given, unmoved, outside."""
        inside = given.abs() < self.bound
        return torch.where(inside, answer.squeeze(-1), given), torch.where(inside, ladj.squeeze(-1), 0.0)


def _bounded(values: Tensor, limit: float) -> Tensor:
    """Values / (1 + |values / limit|): any number, softly kept between -|limit| and |limit|."""
    return values / (1 + (values / limit).abs())
