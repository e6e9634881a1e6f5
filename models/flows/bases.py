"""The distribution of z in torch: its density, draws from it, and one whose numbers are learnt.

Which bases there are, and what their numbers mean, `service.bundle.bases` says. A density here is finite wherever its
terms are: far out it falls off as its formula does, and gives no NaN.
"""

from __future__ import annotations

import math
from typing import assert_never

import numpy as np
import torch
from torch import Tensor, nn

from service.bundle.bases import Base, DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase, UniformBase
from service.bundle.precision import DTYPES, Precision

__all__ = ["LearntBase", "base_log_prob", "in_float32", "sample_base"]

_LOG_2_PI = math.log(2 * math.pi)


def base_log_prob(base: Base, z: Tensor) -> Tensor:
    """Log p_Z(z) in nats.

    Args:
        base: the distribution.
        z: ``[N, D]``.

    Returns:
        ``[N]``; -inf outside a uniform base's box.
    """
    width = z.shape[1]
    match base:
        case NormalBase():
            return -0.5 * (z * z).sum(dim=1) - 0.5 * width * _LOG_2_PI
        case DiagonalNormalBase(frame=(mean, deviation)):
            scaled = (z - z.new_tensor(mean)) / z.new_tensor(deviation)
            return -0.5 * (scaled * scaled).sum(dim=1) - float(np.log(deviation).sum() + 0.5 * width * _LOG_2_PI)
        case MixtureBase(frames=(means, deviations), weights=weights):
            constants = np.log(weights) - math.log(math.fsum(weights)) - np.log(deviations).sum(axis=1)
            constants -= 0.5 * width * _LOG_2_PI
            return _mixture(z, z.new_tensor(constants), z.new_tensor(means), z.new_tensor(deviations))
        case StudentTBase(degrees_of_freedom=freedom):
            return _student_t(z, freedom)
        case UniformBase(low=low, high=high):
            inside = ((z >= low) & (z <= high)).all(dim=1)
            return torch.where(inside, torch.zeros_like(z[:, 0]) - width * math.log(high - low), -math.inf)
        case _:
            assert_never(base)


def sample_base(
    base: Base, rows: int, width: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw z ``[rows, width]`` for training and tests. Serving draws its own, by row."""
    if isinstance(base, UniformBase):
        return base.low + (base.high - base.low) * torch.rand(rows, width, generator=generator, dtype=dtype)
    z = torch.randn(rows, width, generator=generator, dtype=dtype)
    match base:
        case NormalBase():
            return z
        case DiagonalNormalBase(frame=(mean, deviation)):
            return z * z.new_tensor(deviation) + z.new_tensor(mean)
        case MixtureBase(frames=(means, deviations), weights=weights):
            shares = torch.tensor(weights, dtype=torch.float64)
            chosen = torch.multinomial(shares, rows, replacement=True, generator=generator)
            return z * z.new_tensor(deviations)[chosen] + z.new_tensor(means)[chosen]
        case StudentTBase(degrees_of_freedom=freedom):
            squares = torch.zeros_like(z)
            for _ in range(freedom):
                squares += torch.randn(rows, width, generator=generator, dtype=dtype).square()
            return z / (squares / freedom).sqrt()
        case _:
            assert_never(base)


def in_float32(base: Base) -> Base:
    """The base with the float32 nearest to each number of a column: what a float32 graph and its reference agree on."""
    match base:
        case DiagonalNormalBase(frame=(mean, deviation)):
            return DiagonalNormalBase(mean=_rounded(mean), standard_deviation=_rounded(deviation))
        case MixtureBase(frames=(means, deviations), weights=weights):
            return MixtureBase(
                weights=_rounded(np.array(weights)),
                means=[_rounded(row) for row in means],
                standard_deviations=[_rounded(row) for row in deviations],
            )
        case _:
            return base


class LearntBase(nn.Module):
    """A mixture of K diagonal normals whose numbers are weights of the flow; one diagonal normal where K is 1.

    w = softmax(logits), s = exp(log_deviations), so that any step of a fit gives a distribution.

    Args:
        means: ``[K, D]``, where the fit starts.
        deviations: ``[K, D]``, above zero. The components start with equal weights.

    Example:
        >>> LearntBase(torch.zeros(1, 2), torch.ones(1, 2)).stated("float32")
        DiagonalNormalBase(family='diagonal_normal', mean=[0.0, 0.0], standard_deviation=[1.0, 1.0])
    """

    def __init__(self, means: Tensor, deviations: Tensor) -> None:
        super().__init__()
        self.means = nn.Parameter(means.detach().clone())
        self.log_deviations = nn.Parameter(deviations.detach().log())
        self.logits = nn.Parameter(torch.zeros(means.shape[0])) if means.shape[0] > 1 else None

    def stated(self, precision: Precision = "float32") -> DiagonalNormalBase | MixtureBase:
        """The distribution as a manifest writes it, its numbers as they are now, rounded to a precision."""
        limits = np.finfo(DTYPES[precision])
        least, greatest = float(limits.tiny), float(limits.max)
        means = self.means.detach().double()
        deviations = self.log_deviations.detach().double().exp().clamp(least, greatest)
        if self.logits is None:
            return DiagonalNormalBase(
                mean=_rounded(means[0].numpy(), precision),
                standard_deviation=_rounded(deviations[0].numpy(), precision),
            )
        return MixtureBase(
            weights=_rounded(self.logits.detach().double().softmax(dim=0).clamp(min=least).numpy(), precision),
            means=[_rounded(row, precision) for row in means.numpy()],
            standard_deviations=[_rounded(row, precision) for row in deviations.numpy()],
        )

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw z ``[rows, D]``, with a path from each row to the numbers of its component.

        Args:
            rows: how many.
            generator: of the draws.

        Returns:
            z, and the logarithm of the weight of each row's component ``[rows]``; None for a single one. The choice of
            a component has no path, and a gradient by its score needs that.
        """
        normal = torch.randn(rows, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        if self.logits is None:
            return self.means[0] + normal * self.log_deviations[0].exp(), None
        weights = self.logits.log_softmax(dim=0)
        chosen = torch.multinomial(weights.detach().exp(), rows, replacement=True, generator=generator)
        return self.means[chosen] + normal * self.log_deviations[chosen].exp(), weights[chosen]

    def log_prob(self, z: Tensor) -> Tensor:
        """Log p_Z(z) ``[N]`` in nats, for z ``[N, D]``; its gradient reaches the numbers."""
        constants = -self.log_deviations.sum(dim=1) - 0.5 * z.shape[1] * _LOG_2_PI
        if self.logits is not None:
            constants = constants + self.logits.log_softmax(dim=0)
        return _mixture(z, constants, self.means, self.log_deviations.exp())


def _mixture(z: Tensor, constants: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """Log sum_k exp(c_k - |(z - m_k) / s_k|^2 / 2), the greatest term taken out first.

    Args:
        z: ``[N, D]``.
        constants: c ``[K]``.
        means: m ``[K, D]``.
        deviations: s ``[K, D]``.
    """
    count, width = means.shape
    scaled = ((z.unsqueeze(1) - means) / deviations).reshape(-1, width)
    # Sums over the columns of a matrix, which the exporter turns into products: a sum of three axes it leaves alone.
    terms = (-0.5 * (scaled * scaled).sum(dim=1)).reshape(-1, count) + constants
    # Where squares overflow all terms are -inf, and so is the density: their difference must not be NaN.
    most = terms.amax(dim=1, keepdim=True).clamp(min=torch.finfo(z.dtype).min)
    return (terms - most).exp().sum(dim=1).log() + most.squeeze(1)


def _student_t(z: Tensor, freedom: int) -> Tensor:
    """Sum over the columns of log p_i, with log(1 + t^2) = 2 log max(t, 1) + log1p(min(t, 1/t)^2), t = |z| / sqrt(n).

    So the square of a number far out, which float32 does not hold, is not needed.
    """
    t = z.abs() / math.sqrt(freedom)
    large = t.clamp(min=1.0)
    small = torch.minimum(t, 1.0 / large)
    tails = large.log() + 0.5 * torch.log1p(small * small)
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    return -(freedom + 1.0) * tails.sum(dim=1) + z.shape[1] * constant


def _rounded(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], precision: Precision = "float32"
) -> list[float]:
    return [float(value) for value in values.astype(DTYPES[precision])]
