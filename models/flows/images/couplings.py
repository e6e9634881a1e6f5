"""Couplings of image flows: half of the channels move, by what a convolutional network reads off the other half.

After a `models.flows.images.layers.Squeeze` both of RealNVP's masks are choices of channels: `checkerboard` and
`channel_halves`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from zuko.transforms import MonotonicAffineTransform

from models.flows.conditional import ConditionalTransform, Coupling, InvertibleTransform, apply, invert
from models.flows.conditioners import check_network, nonlinearity
from models.flows.options import check
from models.flows.univariate import RationalQuadratic

__all__ = [
    "ConvolutionalConditioner",
    "Convolutions",
    "PixelTransform",
    "affine_coupling",
    "channel_halves",
    "checkerboard",
    "spline_coupling",
]

_MAX_BLOCKS: Final = 32
_MAX_HIDDEN: Final = 4096


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


MakeConvolutions = Callable[[tuple[int, int]], Convolutions]


@dataclass(frozen=True, slots=True)
class ConvolutionalConditioner:
    """The options of the conditioners of an image flow, each an option of every image family.

    Args:
        hidden: the channels of the hidden layers.
        blocks: the residual blocks; with none the network has three layers.
        activation: a name of `models.flows.conditioners.ACTIVATIONS`.
        reach: how far out a conditioner sees, in standard deviations of a channel as the flow starts; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).

    Raises:
        DataError: where one of them is out of its range.
    """

    hidden: int = 32
    blocks: int = 0
    activation: str = "relu"
    reach: float = 10.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check("hidden", 1 <= self.hidden <= _MAX_HIDDEN, self.hidden, f"a number from 1 to {_MAX_HIDDEN}")
        check("blocks", 0 <= self.blocks <= _MAX_BLOCKS, self.blocks, f"a number from 0 to {_MAX_BLOCKS}")
        check_network(self.activation, self.reach, self.dropout)

    def network(self, size: tuple[int, int], context_width: int, channels: tuple[int, int]) -> Convolutions:
        """Make a conditioner.

        Args:
            size: H, W.
            context_width: the columns of context; 0 for none.
            channels: how many go in and come out.
        """
        return Convolutions(
            channels,
            size,
            context_width,
            hidden=self.hidden,
            blocks=self.blocks,
            activation=partial(nonlinearity, self.activation, self.dropout),
            reach=self.reach,
        )


class PixelTransform(ConditionalTransform):
    """An increasing function of each pixel, with parameters that a convolutional network reads off other channels.

    Args:
        conditioner: the network.
        univariate: the parameters ``[N, K B, H, W]`` of B channels -> the function of their pixels ``[N, B, H, W]``.
    """

    def __init__(self, conditioner: Convolutions, univariate: Callable[[Tensor], InvertibleTransform]) -> None:
        super().__init__()
        self.conditioner, self.univariate = conditioner, univariate

    def forward(
        self, x: Tensor, given: Tensor, context: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """X ``[N, B, H, W]`` and given ``[N, A, H, W]`` -> y ``[N, B, H, W]`` and the log-determinant ``[N]``."""
        transform = self.univariate(self.conditioner(given, context))
        return invert(transform, x) if inverse else apply(transform, x)


def affine_coupling(mask: Tensor, conditioner: MakeConvolutions, slope: float) -> Coupling:
    """A coupling that scales and shifts: y_b = x_b exp(s) + t, (a, t) = h(x_a, context), s = a / (1 + |a / log slope|).

    Args:
        mask: bool ``[C]``, which channels condition.
        conditioner: makes h, from its numbers of channels (in, out).
        slope: the least factor by which a pixel may be scaled, in (0, 1); the greatest is 1 / slope.

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, equations 7 and 8.
    """

    def univariate(parameters: Tensor) -> InvertibleTransform:
        scale, shift = parameters.chunk(2, dim=1)
        transform: InvertibleTransform = MonotonicAffineTransform(shift, scale, slope=slope)
        return transform

    return _coupling(mask, conditioner, 2, univariate)


def spline_coupling(mask: Tensor, conditioner: MakeConvolutions, bins: int, box: float, slope: float) -> Coupling:
    """A coupling of splines: y_b = g(x_b), a `RationalQuadratic` on [-box, box], and the identity outside.

    Args:
        mask: bool ``[C]``, which channels condition.
        conditioner: makes h, from its numbers of channels (in, out).
        bins: how many bins, at least 2.
        box: where the spline ends, in the units of its input.
        slope: the least slope at a knot, in (0, 1), and the least ratio of two bins; the greatest is 1 / slope.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, section 3.1, equations 4 to 8.
    """

    def univariate(parameters: Tensor) -> InvertibleTransform:
        count, (channels, height, width) = 3 * bins - 1, parameters.shape[1:]
        each = parameters.reshape(-1, count, channels // count, height, width).movedim(1, -1)
        # half of each: so sizes move as much as slopes do where a fit moves their parameters alike
        sizes = torch.unflatten(0.5 * each[..., : 2 * bins], -1, (2, bins))
        return RationalQuadratic(sizes, each[..., 2 * bins :], bound=box, slope=slope)

    return _coupling(mask, conditioner, 3 * bins - 1, univariate)


def _coupling(
    mask: Tensor, conditioner: MakeConvolutions, parameters: int, univariate: Callable[[Tensor], InvertibleTransform]
) -> Coupling:
    conditioning = int(mask.sum())
    network = conditioner((conditioning, parameters * (len(mask) - conditioning)))
    return Coupling(mask, PixelTransform(network, univariate))
