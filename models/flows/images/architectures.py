"""Image flows by name: the multi-scale chains that a recipe's `[flow]` table may ask for.

Each is called with the event's shape ``[H, W, C]``, takes the event flat, and gives z flat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor

from models.flows.flow import Bijection
from models.flows.images.couplings import (
    ConvolutionalConditioner,
    affine_coupling,
    channel_halves,
    checkerboard,
    spline_coupling,
)
from models.flows.images.layers import ActNorm, ChannelsFirst, InvertibleConvolution, MultiScale, Squeeze
from models.flows.options import check, check_bound, check_slope, check_transforms
from service.errors import DataError

__all__ = ["glow", "image_real_nvp", "image_spline"]

_MAX_BINS: Final = 256
_CONDITIONER: Final = ConvolutionalConditioner()


def image_real_nvp(
    event_shape: Sequence[int],
    context_width: int = 0,
    *,
    levels: int = 2,
    transforms: int = 8,
    conditioner: ConvolutionalConditioner = _CONDITIONER,
    slope: float = 0.05,
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
        conditioner: how the conditioners are made.
        slope: the least factor by which one coupling may scale a pixel, in (0, 1); the greatest is 1 / slope.

    Returns:
        The chain from the flat event to the flat z.

    Raises:
        DataError: where an option is out of its range, the event is no image, or a side cannot be halved so often.

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803.
    """
    check_slope(slope)
    check_transforms(transforms)

    def level(channels: int, size: tuple[int, int]) -> list[Bijection]:
        steps: list[Bijection] = []
        for index in range(transforms):
            mask = (checkerboard if index % 4 < 2 else channel_halves)(channels)
            mask = mask if index % 2 == 0 else ~mask
            steps += [
                ActNorm(channels),
                affine_coupling(mask, partial(conditioner.network, size, context_width), slope),
            ]
        return steps

    return _multi_scale(event_shape, levels, level)


def glow(
    event_shape: Sequence[int],
    context_width: int = 0,
    *,
    levels: int = 2,
    transforms: int = 8,
    conditioner: ConvolutionalConditioner = _CONDITIONER,
    slope: float = 0.05,
) -> list[Bijection]:
    """Actnorm, an invertible 1x1 convolution and an affine coupling, `transforms` times in each level: Glow.

    The convolutions start as permutations, not as rotations: the first couplings see the data's own pixels.

    Args:
        event_shape: ``[H, W, C]``; both sides divisible by 2^levels.
        context_width: the number of columns of context; 0 for none. Every conditioner sees it.
        levels: how often the image is squeezed.
        transforms: the number of steps in a level.
        conditioner: how the conditioners are made.
        slope: the least factor by which one coupling may scale a pixel.

    Returns:
        The chain from the flat event to the flat z.

    Raises:
        DataError: where an option is out of its range, the event is no image, or a side cannot be halved so often.

    References:
        Kingma and Dhariwal, 2018, https://arxiv.org/abs/1807.03039.
    """
    check_slope(slope)

    def coupling(mask: Tensor, size: tuple[int, int]) -> Bijection:
        return affine_coupling(mask, partial(conditioner.network, size, context_width), slope)

    return _steps_of_flow(event_shape, levels, transforms, coupling)


def image_spline(
    event_shape: Sequence[int],
    context_width: int = 0,
    *,
    levels: int = 2,
    transforms: int = 6,
    conditioner: ConvolutionalConditioner = _CONDITIONER,
    bins: int = 8,
    box: float = 4.0,
    slope: float = 0.01,
) -> list[Bijection]:
    """As `glow`, with rational-quadratic splines for the affine maps: a neural spline flow for images.

    Args:
        event_shape: ``[H, W, C]``; both sides divisible by 2^levels.
        context_width: the number of columns of context; 0 for none. Every conditioner sees it.
        levels: how often the image is squeezed.
        transforms: the number of steps in a level.
        conditioner: how the conditioners are made.
        bins: how many bins a spline has, at least 2.
        box: where a spline ends, in standard deviations of a channel as the flow starts; outside it is the identity.
        slope: the least slope at a knot, in (0, 1), and the least ratio of two bins; the greatest is 1 / slope.

    Returns:
        The chain from the flat event to the flat z.

    Raises:
        DataError: where an option is out of its range, the event is no image, or a side cannot be halved so often.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, section 5.3.
    """
    check("bins", 2 <= bins <= _MAX_BINS, bins, f"a number from 2 to {_MAX_BINS}")
    check_bound("box", box)
    check_slope(slope)

    def coupling(mask: Tensor, size: tuple[int, int]) -> Bijection:
        network = partial(conditioner.network, size, context_width)
        return spline_coupling(mask, network, bins=bins, box=box, slope=slope)

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
