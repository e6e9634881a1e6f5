"""The monotone splines of nflows and normflows, without the boolean masks that no graph can hold.

Both libraries pick the entries inside a spline's interval by a mask, so that the number of entries depends on the
data. Here each entry is clamped into the interval, goes through the spline, and is chosen by `where`: the same
numbers, in a shape that is known. Beyond the interval the spline goes on as the identity; where a library has no tails,
and raises there, this is what an exported graph does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.flows.univariate import Bin

__all__ = ["Knots", "linear", "quadratic", "rational_quadratic"]


@dataclass(frozen=True, slots=True)
class Knots:
    """The interval of a spline, the same on both axes, and the least sizes of what its parameters give.

    Args:
        low: the lower end; a number, or one for each column, ``[D]``.
        high: the upper end.
        width: the least width of a bin, as a share of the interval.
        height: the least height of a bin.
        derivative: the least derivative at a knot.
    """

    low: float | Tensor
    high: float | Tensor
    width: float = 1e-3
    height: float = 1e-3
    derivative: float = 1e-3


def rational_quadratic(
    x: Tensor, widths: Tensor, heights: Tensor, derivatives: Tensor, knots: Knots, *, inverse: bool
) -> tuple[Tensor, Tensor]:
    """A monotone rational-quadratic spline of K bins, from the parameters of both libraries; `Bin` has the formula.

    Args:
        x: ``[N, D]``.
        widths: ``[N, D, K]``, before the softmax; or ``[D, K]``.
        heights: the same for the heights.
        derivatives: ``[N, D, K + 1]``, before the softplus, at every knot.
        knots: the interval.
        inverse: x is a value of the spline, and its argument is wanted.

    Returns:
        y and log|dy/dx|, ``[N, D]`` each.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, equations 4 to 8; Gregory and Delbourgo, 1982.
    """
    inside, point = _clamp(x, knots)
    slopes = knots.derivative + F.softplus(derivatives)
    edges_x, edges_y = (_edges(_shares(raw, least), knots) for raw, least in
                        ((widths, knots.width), (heights, knots.height)))  # fmt: skip
    bins = _bin(edges_y if inverse else edges_x, point)
    left, bottom = _pick(edges_x, bins), _pick(edges_y, bins)
    found = Bin(
        x_0=left,
        y_0=bottom,
        width=_pick(edges_x, bins + 1) - left,
        height=_pick(edges_y, bins + 1) - bottom,
        left=_pick(slopes, bins),
        right=_pick(slopes, bins + 1),
    )
    y, ladj = found.argument(point) if inverse else found.value(point)
    return _outside(inside, x, y, ladj)


def linear(x: Tensor, density: Tensor, knots: Knots, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """A piecewise linear cumulative density of K equal bins.

    Args:
        x: ``[N, D]``.
        density: ``[N, D, K]``, before the softmax.
        knots: the interval.
        inverse: as for `rational_quadratic`.

    Returns:
        y and log|dy/dx|, ``[N, D]`` each.

    References:
        Müller et al., 2018, https://arxiv.org/abs/1808.03856, section 4.
    """
    inside, point = _clamp(x, knots)
    unit = (point - knots.low) / (knots.high - knots.low)
    shares, count = density.softmax(dim=-1), density.shape[-1]
    edges = _cumulative(shares)
    bins = _bin(edges, unit) if inverse else (unit * count).floor().clamp(max=count - 1).long()
    share = _pick(shares, bins)
    start = _pick(edges, bins)
    if inverse:
        y = ((unit - start) / share + bins.to(x.dtype)) / count
    else:
        y = start + (unit * count - bins.to(x.dtype)) * share
    ladj = (share * count).log()
    y = y.clamp(0, 1) * (knots.high - knots.low) + knots.low
    return _outside(inside, x, y, -ladj if inverse else ladj)


def quadratic(x: Tensor, widths: Tensor, heights: Tensor, knots: Knots, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """A piecewise quadratic cumulative density: its derivative is linear in each of K bins.

    Args:
        x: ``[N, D]``.
        widths: ``[N, D, K]``, before the softmax.
        heights: of the density at the knots, before the softplus: ``[N, D, K + 1]``; or ``[N, D, K - 1]``, at the
            inner ones, where the outer two are one, so that the identity goes on smoothly outside.
        knots: the interval.
        inverse: as for `rational_quadratic`.

    Returns:
        y and log|dy/dx|, ``[N, D]`` each.

    References:
        Müller et al., 2018, https://arxiv.org/abs/1808.03856, section 4.
    """
    inside, point = _clamp(x, knots)
    unit = (point - knots.low) / (knots.high - knots.low)
    shares = _shares(widths, knots.width)
    raw = F.softplus(heights) + 1e-3
    if raw.shape[-1] == shares.shape[-1] - 1:
        first, last = 0.5 * shares[..., :1], 0.5 * shares[..., -1:]
        area = 0.5 * first * raw[..., :1] + 0.5 * last * raw[..., -1:]
        area = area + _total((raw[..., :-1] + raw[..., 1:]) / 2 * shares[..., 1:-1])
        end = area / (1 - 0.5 * first - 0.5 * last)
        raw = torch.cat((end, raw, end), dim=-1)
    area = _total((raw[..., :-1] + raw[..., 1:]) / 2 * shares)
    density = knots.height + (1 - knots.height) * raw / area
    edges_x, edges_y = _cumulative(shares), _cumulative((density[..., :-1] + density[..., 1:]) / 2 * shares)
    bins = _bin(edges_y if inverse else edges_x, unit)
    left, bottom, width = _pick(edges_x, bins), _pick(edges_y, bins), _pick(shares, bins)
    d0, d1 = _pick(density, bins), _pick(density, bins + 1)
    if inverse:
        # of a alpha^2 + b alpha = c, the root that stays exact where a is zero
        a, b, c = 0.5 * (d1 - d0) * width, d0 * width, unit - bottom
        alpha = 2 * c / (b + (b * b + 4 * a * c).clamp(min=0).sqrt())
        y = alpha * width + left
    else:
        alpha = (unit - left) / width
        y = 0.5 * (d1 - d0) * width * alpha**2 + d0 * width * alpha + bottom
    ladj = (alpha * (d1 - d0) + d0).log()
    y = y.clamp(0, 1) * (knots.high - knots.low) + knots.low
    return _outside(inside, x, y, -ladj if inverse else ladj)


def _clamp(x: Tensor, knots: Knots) -> tuple[Tensor, Tensor]:
    low, high = (torch.as_tensor(end, dtype=x.dtype) for end in (knots.low, knots.high))
    return (x >= low) & (x <= high), x.clamp(low, high)


def _outside(inside: Tensor, x: Tensor, y: Tensor, ladj: Tensor) -> tuple[Tensor, Tensor]:
    return torch.where(inside, y, x), torch.where(inside, ladj, torch.zeros_like(ladj))


def _total(values: Tensor) -> Tensor:
    """The sum over the bins, ``[..., K]`` -> ``[..., 1]``, as a product: see `models.export.rewrites.reductions`."""
    return values @ values.new_ones(values.shape[-1], 1)


def _shares(raw: Tensor, least: float) -> Tensor:
    return least + (1 - least * raw.shape[-1]) * raw.softmax(dim=-1)


def _cumulative(shares: Tensor) -> Tensor:
    """The knots that shares of one make: 0, their partial sums, 1."""
    inner = shares.cumsum(dim=-1)[..., :-1]
    return torch.cat((torch.zeros_like(shares[..., :1]), inner, torch.ones_like(shares[..., :1])), dim=-1)


def _edges(shares: Tensor, knots: Knots) -> Tensor:
    low, high = (torch.as_tensor(end, dtype=shares.dtype).unsqueeze(-1) for end in (knots.low, knots.high))
    unit = _cumulative(shares)
    # the last knot is the end itself, not low + (high - low): the two differ in their last digits
    inner = low + (high - low) * unit[..., :-1]
    return torch.cat((inner, high + torch.zeros_like(unit[..., -1:])), dim=-1)


def _bin(edges: Tensor, point: Tensor) -> Tensor:
    """The bin of each entry: how many inner knots are not above it."""
    return (point.unsqueeze(-1) >= edges[..., 1:-1]).to(torch.int64).sum(dim=-1)


def _pick(values: Tensor, bins: Tensor) -> Tensor:
    """For each entry the value of its bin: values ``[N, D, K]`` or ``[D, K]``, bins ``[N, D]``."""
    return values.expand(*bins.shape, values.shape[-1]).gather(-1, bins.unsqueeze(-1)).squeeze(-1)
