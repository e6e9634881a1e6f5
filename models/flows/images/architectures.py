"""Image flows by name: the multi-scale chains that a recipe's `[flow]` table may ask for.

Each is called with the event's shape ``[H, W, C]``, takes the event flat, and gives z flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from models.flows.conditioners import check, check_network, check_slope, check_transforms, nonlinearity
from models.flows.flow import Bijection
from models.flows.images.couplings import AffineCoupling, Convolutions, SplineCoupling, channel_halves, checkerboard
from models.flows.images.layers import ActNorm, ChannelsFirst, InvertibleConvolution, MultiScale, Squeeze
from service.errors import DataError

__all__ = ["glow", "image_real_nvp", "image_spline"]

_MAX_BLOCKS, _MAX_HIDDEN, _MAX_BINS = 32, 4096, 256


def image_real_nvp(
    event_shape: Sequence[int],
    context_width: int = 0,
    *,
    levels: int = 2,
    transforms: int = 8,
    hidden: int = 32,
    blocks: int = 0,
    activation: str = "relu",
    slope: float = 0.05,
    reach: float = 10.0,
    dropout: float = 0.0,
) -> list[Bijection]:
    """Affine couplings with checkerboard and channel masks, in levels: RealNVP for images.

    A level squeezes the image and has `transforms` couplings; after each but the last level half of the channels leave
    for z (`models.flows.images.layers.MultiScale`, which says in which order). Masks: a checkerboard, its complement,
    the first half of the channels, its complement, and so on; an actnorm stands before each coupling.

    Args:
        event_shape: ``[H, W, C]``; both sides divisible by 2^levels.
        context_width: the number of columns of context; 0 for none. Every conditioner sees it.
        levels: how often the image is squeezed.
        transforms: the number of couplings in a level.
        hidden: the channels of the conditioners' hidden layers.
        blocks: the residual blocks of a conditioner; with none it has three layers.
        activation: a name of `ACTIVATIONS`.
        slope: the least factor by which one coupling may scale a pixel, in (0, 1); the greatest is 1 / slope.
        reach: how far out a conditioner sees, in standard deviations of a channel as the flow starts; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).

    Returns:
        The chain from the flat event to the flat z.

    Raises:
        DataError: where an option is out of its range, the event is no image, or a side cannot be halved so often.

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803.
    """
    check_slope(slope)
    conditioner = _conditioner(context_width, hidden, blocks, activation, reach, dropout)
    check_transforms(transforms)

    def level(channels: int, size: tuple[int, int]) -> list[Bijection]:
        steps: list[Bijection] = []
        for index in range(transforms):
            mask = (checkerboard if index % 4 < 2 else channel_halves)(channels)
            mask = mask if index % 2 == 0 else ~mask
            steps += [ActNorm(channels), AffineCoupling(mask, partial(conditioner, size), slope)]
        return steps

    return _multi_scale(event_shape, levels, level)


def glow(
    event_shape: Sequence[int],
    context_width: int = 0,
    *,
    levels: int = 2,
    transforms: int = 8,
    hidden: int = 32,
    blocks: int = 0,
    activation: str = "relu",
    slope: float = 0.05,
    reach: float = 10.0,
    dropout: float = 0.0,
) -> list[Bijection]:
    """Actnorm, an invertible 1x1 convolution and an affine coupling, `transforms` times in each level: Glow.

    The convolutions start as permutations, not as rotations: the first couplings see the data's own pixels.

    Args:
        event_shape: ``[H, W, C]``; both sides divisible by 2^levels.
        context_width: as in `image_real_nvp`, as are all options.
        levels: how often the image is squeezed.
        transforms: the number of steps in a level.
        hidden: the channels of the conditioners' hidden layers.
        blocks: the residual blocks of a conditioner.
        activation: a name of `ACTIVATIONS`.
        slope: the least factor by which one coupling may scale a pixel.
        reach: how far out a conditioner sees.
        dropout: the share of hidden values set to zero while fitting.

    Returns:
        The chain from the flat event to the flat z.

    Raises:
        DataError: as `image_real_nvp`.

    References:
        Kingma and Dhariwal, 2018, https://arxiv.org/abs/1807.03039.
    """
    check_slope(slope)
    conditioner = _conditioner(context_width, hidden, blocks, activation, reach, dropout)

    def coupling(mask: Tensor, size: tuple[int, int]) -> Bijection:
        return AffineCoupling(mask, partial(conditioner, size), slope)

    return _steps_of_flow(event_shape, levels, transforms, coupling)


def image_spline(
    event_shape: Sequence[int],
    context_width: int = 0,
    *,
    levels: int = 2,
    transforms: int = 6,
    hidden: int = 32,
    blocks: int = 0,
    activation: str = "relu",
    bins: int = 8,
    box: float = 4.0,
    slope: float = 0.01,
    reach: float = 10.0,
    dropout: float = 0.0,
) -> list[Bijection]:
    """As `glow`, with rational-quadratic splines for the affine maps: a neural spline flow for images.

    Args:
        event_shape: ``[H, W, C]``; both sides divisible by 2^levels.
        context_width: as in `image_real_nvp`, as are all options but three.
        levels: how often the image is squeezed.
        transforms: the number of steps in a level.
        hidden: the channels of the conditioners' hidden layers.
        blocks: the residual blocks of a conditioner.
        activation: a name of `ACTIVATIONS`.
        bins: how many bins a spline has, at least 2.
        box: where a spline ends, in standard deviations of a channel as the flow starts; outside it is the identity.
        slope: the least slope at a knot, in (0, 1), and the least ratio of two bins; the greatest is 1 / slope.
        reach: how far out a conditioner sees.
        dropout: the share of hidden values set to zero while fitting.

    Returns:
        The chain from the flat event to the flat z.

    Raises:
        DataError: as `image_real_nvp`.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, section 5.3.
    """
    check("bins", 2 <= bins <= _MAX_BINS, bins, f"a number from 2 to {_MAX_BINS}")
    check("box", 0 < box < math.inf, box, "a number above zero")
    check_slope(slope)
    conditioner = _conditioner(context_width, hidden, blocks, activation, reach, dropout)

    def coupling(mask: Tensor, size: tuple[int, int]) -> Bijection:
        return SplineCoupling(mask, partial(conditioner, size), bins, box, slope)

    return _steps_of_flow(event_shape, levels, transforms, coupling)


def _steps_of_flow(
    event_shape: Sequence[int], levels: int, transforms: int, coupling: Callable[[Tensor, tuple[int, int]], Bijection]
) -> list[Bijection]:
    """Actnorm, 1x1 convolution, coupling: what Glow calls a step of flow."""
    check_transforms(transforms)

    def level(channels: int, size: tuple[int, int]) -> list[Bijection]:
        steps: list[Bijection] = []
        for index in range(transforms):
            # a new order for each pair of steps, and then its halves swapped, so that every channel moves once in two
            order = torch.randperm(channels) if index % 2 == 0 else torch.arange(channels).roll(channels // 2)
            steps += [ActNorm(channels), InvertibleConvolution(order), coupling(channel_halves(channels), size)]
        return steps

    return _multi_scale(event_shape, levels, level)


def _multi_scale(
    event_shape: Sequence[int], levels: int, level: Callable[[int, tuple[int, int]], list[Bijection]]
) -> list[Bijection]:
    """Levels that each begin with a squeeze; `level` makes the steps for so many channels of that size."""
    if len(event_shape) != 3:
        raise DataError(f"an image flow needs events of shape [H, W, C]; the rows have shape {list(event_shape)}")
    height, width, channels = event_shape
    most = next(n for n in range(64) if height % 2 ** (n + 1) or width % 2 ** (n + 1))
    if most == 0:
        raise DataError(f"an image flow halves both sides, so they must be even; the images are {height} x {width}")
    check(
        "levels",
        1 <= levels <= most,
        levels,
        f"a number from 1 to {most}, as often as {height} x {width} can be halved",
    )
    made: list[list[Bijection]] = []
    shape = (channels, height, width)
    for number in range(levels):
        channels, height, width = 4 * channels, height // 2, width // 2
        made.append([Squeeze(), *level(channels, (height, width))])
        if number < levels - 1:
            channels //= 2
    return [ChannelsFirst(event_shape), MultiScale(made, shape)]


def _conditioner(
    context_width: int, hidden: int, blocks: int, activation: str, reach: float, dropout: float
) -> Callable[[tuple[int, int], tuple[int, int]], Convolutions]:
    """Makes a conditioner from the image's size and its numbers of channels (in, out)."""
    check("hidden", 1 <= hidden <= _MAX_HIDDEN, hidden, f"a number from 1 to {_MAX_HIDDEN}")
    check("blocks", 0 <= blocks <= _MAX_BLOCKS, blocks, f"a number from 0 to {_MAX_BLOCKS}")
    check_network(activation, reach, dropout)

    def make(size: tuple[int, int], channels: tuple[int, int]) -> Convolutions:
        return Convolutions(
            channels,
            size,
            context_width,
            hidden=hidden,
            blocks=blocks,
            activation=partial(nonlinearity, activation, dropout),
            reach=reach,
        )

    return make
