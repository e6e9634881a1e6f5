"""Couplings of image flows: half of the channels move, by what a convolutional network reads off the other half.

After a `models.flows.images.layers.Squeeze` both of RealNVP's masks are choices of channels: `checkerboard` and
`channel_halves`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.flows.flow import Bijection

__all__ = ["AffineCoupling", "Convolutions", "ImageCoupling", "SplineCoupling", "channel_halves", "checkerboard"]


def checkerboard(channels: int) -> Tensor:
    """The channels of a squeezed image that were pixels with row + column even: bool ``[channels]``.

    Example:
        >>> checkerboard(4).tolist()
        [True, False, False, True]
    """
    place = torch.arange(channels) % 4
    return (place == 0) | (place == 3)


def channel_halves(channels: int) -> Tensor:
    """The first half of the channels: bool ``[channels]``.

    Example:
        >>> channel_halves(4).tolist()
        [True, True, False, False]
    """
    return torch.arange(channels) < channels // 2


class Convolutions(nn.Module):
    """A convolutional network: ``[N, C_in, H, W]``[, context ``[N, C]``] -> parameters ``[N, C_out, H, W]``.

    3 x 3 convolution, `blocks` residual blocks, 1 x 1 and 3 x 3 convolution, with one more bias for each place: images
    are centred, so that much depends on where a pixel lies. Context is added to the hidden channels, alike at every
    place. The input and the context are clipped to [-reach, reach], so that far outside the data the parameters stay
    what they are at its edge. The last layer starts at zero.

    Args:
        channels: C_in, C_out.
        size: H, W.
        context_width: the columns of context; 0 for none.
        hidden: the width of the hidden layers, in channels.
        blocks: how many residual blocks.
        activation: makes the nonlinearity.
        reach: how far out it sees, in the units of its input.

    References:
        Kingma and Dhariwal, 2018, https://arxiv.org/abs/1807.03039, appendix B; the blocks are those of
        He et al., 2016, https://arxiv.org/abs/1603.05027.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        size: tuple[int, int],
        context_width: int,
        *,
        hidden: int,
        blocks: int,
        activation: Callable[[], nn.Module],
        reach: float,
    ) -> None:
        super().__init__()
        self.clip = nn.Hardtanh(-reach, reach)
        self.first = nn.Conv2d(channels[0], hidden, 3, padding=1)
        self.places = nn.Parameter(torch.zeros(1, hidden, *size))
        self.context = nn.Linear(context_width, hidden) if context_width else None
        self.blocks = nn.ModuleList(
            nn.Sequential(
                activation(), nn.Conv2d(hidden, hidden, 3, padding=1), activation(), nn.Conv2d(hidden, hidden, 1)
            )
            for _ in range(blocks)
        )
        self.middle = nn.Sequential(activation(), nn.Conv2d(hidden, hidden, 1), activation())
        self.last = nn.Conv2d(hidden, channels[1], 3, padding=1)
        self.last_places = nn.Parameter(torch.zeros(1, channels[1], *size))
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """X ``[N, C_in, H, W]`` -> parameters ``[N, C_out, H, W]``."""
        h = self.first(self.clip(x)) + self.places
        if self.context is not None:
            h = h + self.context(self.clip(context))[:, :, None, None]
        for block in self.blocks:
            h = h + block(h)
        parameters: Tensor = self.last(self.middle(h)) + self.last_places
        return parameters


class ImageCoupling(Bijection, ABC):
    """y_a = x_a, y_b = g(x_b; h(x_a, context)): channels a give the parameters by which channels b move.

    Back, x_b = g^-1(y_b; h(y_a, context)), so that the conditioner h runs once in either direction.

    Args:
        mask: bool ``[C]``, which channels condition (a); at least one, and not all.
        conditioner: makes h, from its numbers of channels (in, out).

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, section 3.4.
    """

    first: Tensor
    second: Tensor
    order: Tensor

    def __init__(self, mask: Tensor, conditioner: Callable[[tuple[int, int]], Convolutions], parameters: int) -> None:
        super().__init__()
        first, second = torch.nonzero(mask).flatten(), torch.nonzero(~mask).flatten()
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.register_buffer("order", torch.argsort(torch.cat((first, second))))
        self.conditioner = conditioner((len(first), parameters * len(second)))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, C, H, W]`` -> y of the same shape."""
        x_a, x_b = x.index_select(1, self.first), x.index_select(1, self.second)
        y_b, ladj = self._move(x_b, self.conditioner(x_a, context))
        return torch.cat((x_a, y_b), dim=1).index_select(1, self.order), ladj.flatten(1).sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, C, H, W]`` -> x of the same shape."""
        y_a, y_b = y.index_select(1, self.first), y.index_select(1, self.second)
        x_b, ladj = self._move_back(y_b, self.conditioner(y_a, context))
        return torch.cat((y_a, x_b), dim=1).index_select(1, self.order), ladj.flatten(1).sum(dim=1)

    @abstractmethod
    def _move(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """X_b ``[N, B, H, W]``, parameters ``[N, K B, H, W]`` -> y_b and log dy/dx, by pixel."""

    @abstractmethod
    def _move_back(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Y_b ``[N, B, H, W]`` -> x_b and log dx/dy, by pixel."""


class AffineCoupling(ImageCoupling):
    """y_b = x_b exp(s) + t with (a, t) = h(x_a, context) and s = a / (1 + |a / log slope|); log dy_b/dx_b = s.

    Args:
        mask: bool ``[C]``, which channels condition.
        conditioner: makes h.
        slope: the least factor by which a pixel may be scaled, in (0, 1); the greatest is 1 / slope.

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, equations 7 and 8.
    """

    def __init__(self, mask: Tensor, conditioner: Callable[[tuple[int, int]], Convolutions], slope: float) -> None:
        super().__init__(mask, conditioner, 2)
        self.bound = -math.log(slope)

    def _move(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(parameters)
        return x * scale.exp() + shift, scale

    def _move_back(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = self._scale_and_shift(parameters)
        return (y - shift) * (-scale).exp(), -scale

    def _scale_and_shift(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        scale, shift = parameters.chunk(2, dim=1)
        return _bounded(scale, self.bound), shift


class SplineCoupling(ImageCoupling):
    """y_b = g(x_b), a monotonic rational-quadratic spline of [-box, box] onto itself, and the identity outside.

    Within a bin of width w and height v, from the knot (x_0, y_0), with slopes d_0 and d_1 at its two knots, s = v / w
    and q = (x - x_0) / w:

    g(x) = y_0 + v (s q^2 + d_0 q (1 - q)) / (s + (d_0 + d_1 - 2 s) q (1 - q)), and
    dg/dx = s^2 (d_1 q^2 + 2 s q (1 - q) + d_0 (1 - q)^2) / (s + (d_0 + d_1 - 2 s) q (1 - q))^2.

    Back, q solves a quadratic equation. The slopes at the ends of the box are 1; those at the other knots are exp(b)
    with b = a / (1 + |a / log slope|), and bins are shared out by the softmax of half of such numbers, so that float32
    undoes what it did.

    Args:
        mask: bool ``[C]``, which channels condition.
        conditioner: makes h.
        bins: how many bins, at least 2.
        box: where the spline ends, in the units of its input.
        slope: the least slope at a knot, in (0, 1), and the least ratio of two bins; the greatest is 1 / slope.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, section 3.1, equations 4 to 8.
    """

    def __init__(
        self, mask: Tensor, conditioner: Callable[[tuple[int, int]], Convolutions], bins: int, box: float, slope: float
    ) -> None:
        super().__init__(mask, conditioner, 3 * bins - 1)
        self.bins, self.box, self.bound = bins, box, -math.log(slope)

    def _move(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = (x > -self.box) & (x < self.box)
        # what lies outside goes through the spline from the box's middle, and is not taken
        within = torch.where(inside, x, torch.zeros_like(x))
        x_0, y_0, w, v, d_0, d_1 = self._bin(within, self._bins(parameters), 0)
        s, q = v / w, (within - x_0) / w
        p = q * (1 - q)
        below = s + (d_0 + d_1 - 2 * s) * p
        y = y_0 + v * (s * q * q + d_0 * p) / below
        return torch.where(inside, y, x), torch.where(inside, self._log_slope(s, q, p, below, d_0, d_1), 0.0)

    def _move_back(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = (y > -self.box) & (y < self.box)
        within = torch.where(inside, y, torch.zeros_like(y))
        x_0, y_0, w, v, d_0, d_1 = self._bin(within, self._bins(parameters), 1)
        s, rise = v / w, within - y_0
        curve = d_0 + d_1 - 2 * s
        a, b, c = v * (s - d_0) + rise * curve, v * d_0 - rise * curve, -s * rise
        # the root within [0, 1], in the form that does not cancel
        q = -2 * c / (b + (b * b - 4 * a * c).clamp(min=0).sqrt())
        p = q * (1 - q)
        ladj = self._log_slope(s, q, p, s + curve * p, d_0, d_1)
        return torch.where(inside, x_0 + w * q, y), torch.where(inside, -ladj, 0.0)

    def _bins(self, parameters: Tensor) -> Tensor:
        """For each bin x_0, y_0, w, v, d_0 and d_1: ``[N, 6, K, B, H, W]``."""
        _, channels, height, width = parameters.shape
        event = (channels // (3 * self.bins - 1), height, width)
        bounded = _bounded(parameters.reshape(-1, 3 * self.bins - 1, *event), self.bound)
        sizes = 2 * self.box * (bounded[:, : 2 * self.bins] / 2).reshape(-1, 2, self.bins, *event).softmax(dim=2)
        ends = 0 * bounded[:, :1]
        slopes = torch.cat((ends, bounded[:, 2 * self.bins :], ends), dim=1).exp()
        starts = sizes.cumsum(dim=2) - sizes - self.box
        return torch.cat((starts, sizes, torch.stack((slopes[:, :-1], slopes[:, 1:]), dim=1)), dim=1)

    @staticmethod
    def _bin(value: Tensor, bins: Tensor, side: int) -> tuple[Tensor, ...]:
        """The six numbers of the bin that `value` ``[N, B, H, W]`` lies in, each of its shape; side 0 is x, 1 is y."""
        index = (value[:, None] >= bins[:, side, 1:]).sum(dim=1)[:, None, None]
        found = bins.gather(2, index.expand(-1, bins.shape[1], -1, -1, -1, -1))
        return found.flatten(1, 3).chunk(bins.shape[1], dim=1)

    @staticmethod
    def _log_slope(s: Tensor, q: Tensor, p: Tensor, below: Tensor, d_0: Tensor, d_1: Tensor) -> Tensor:
        above = d_1 * q * q + 2 * s * p + d_0 * (1 - q) * (1 - q)
        return 2 * s.log() + above.log() - 2 * below.log()


def _bounded(a: Tensor, bound: float) -> Tensor:
    """A / (1 + |a / bound|): near 0 the same, and never beyond +- bound."""
    return a / (1 + (a / bound).abs())
