"""The layers of images that libraries share: as this project's own layers, or as a step where it has none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from models.flows.flow import Bijection
from models.flows.images.layers import ActNorm, Levels, Squeeze
from models.flows.inverted import Inverted
from models.importing.steps import per_row

__all__ = ["ChannelSwap", "Checkerboard", "act_norm", "data_shape"]


def act_norm(shift: Tensor, log_scale: Tensor) -> ActNorm:
    """A shift and a scale of each channel: y = (x + shift) exp(log_scale).

    Args:
        shift: a number for each of C channels.
        log_scale: the same.
    """
    layer = ActNorm(shift.numel()).double()
    with torch.no_grad():
        layer.shift.copy_(shift.detach().reshape(-1, 1, 1))
        layer.log_scale.copy_(log_scale.detach().reshape(-1, 1, 1))
    return layer


class ChannelSwap(Bijection):
    """The two halves of the channels, swapped; of an odd number the first is the greater, as `torch.chunk` cuts."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, C, ...]`` = (first, second) -> (second, first)."""
        cut = (x.shape[1] + 1) // 2
        return torch.cat((x[:, cut:], x[:, :cut]), dim=1), per_row(0.0, x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, C, ...]`` = (second, first) -> (first, second)."""
        cut = y.shape[1] // 2
        return torch.cat((y[:, cut:], y[:, :cut]), dim=1), per_row(0.0, y)


class Checkerboard(Bijection):
    """A checkerboard cut into its two colours, one behind the other: ``[C, ..., W]`` <-> ``[2 C, ..., W / 2]``.

    A number is odd where its places (channel, row, column, from 0) add up to an odd number.

    Args:
        odd_first: whether the odd numbers are the first half of the channels.
    """

    def __init__(self, *, odd_first: bool) -> None:
        super().__init__()
        self.odd_first = odd_first

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, C, ..., W]``, W even -> y ``[N, 2 C, ..., W / 2]``."""
        pairs = x.reshape(-1, *x.shape[1:-1], x.shape[-1] // 2, 2)
        swapped = _odd_rows(x.shape[1:-1])
        odd = torch.where(swapped, pairs[..., 0], pairs[..., 1])
        even = torch.where(swapped, pairs[..., 1], pairs[..., 0])
        return torch.cat((odd, even) if self.odd_first else (even, odd), dim=1), per_row(0.0, x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, 2 C, ..., W / 2]`` -> x ``[N, C, ..., W]``."""
        cut = y.shape[1] // 2
        odd, even = y[:, :cut], y[:, cut:]
        if not self.odd_first:
            odd, even = even, odd
        swapped = _odd_rows(odd.shape[1:-1])
        pairs = torch.stack((torch.where(swapped, odd, even), torch.where(swapped, even, odd)), dim=-1)
        return pairs.reshape(-1, *odd.shape[1:-1], 2 * odd.shape[-1]), per_row(0.0, y)


def _odd_rows(shape: Sequence[int]) -> Tensor:
    """Which rows of the last axis begin with an odd number: bool ``[*shape, 1]``."""
    places = torch.zeros(*shape, 1, dtype=torch.int64)
    for axis, size in enumerate(shape):
        places = places + torch.arange(size).reshape(-1, *[1] * (len(shape) - axis))
    return places % 2 == 1


def data_shape(steps: Iterable[Bijection], latent: Sequence[int]) -> tuple[int, ...]:
    """The shape of a row of data whose latent has a shape: only squeezes, checkerboards and levels change it.

    Args:
        steps: from data to latent.
        latent: the shape of a row of what the last of them gives; of `Levels` it does not count.
    """
    value = torch.zeros(1, *latent)
    for step in reversed(list(steps)):
        if isinstance(step, Levels):
            value = _whole(step)
        elif isinstance(step.bijection if isinstance(step, Inverted) else step, Squeeze | Checkerboard):
            value = step.inverse(value)[0]
    return tuple(value.shape[1:])


def _whole(levels: Levels) -> Tensor:
    """A row of zeros as it enters the levels."""
    value: Tensor | None = None
    for level, shape in zip(reversed(levels.steps), reversed(levels.shapes), strict=True):
        leaving = torch.zeros(1, *shape)
        value = leaving if value is None else torch.cat((value, leaving), dim=1)
        value = torch.zeros(1, *data_shape(level, value.shape[1:]))
    if value is None:
        raise ValueError("levels without a level")
    return value
