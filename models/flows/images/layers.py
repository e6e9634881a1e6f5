"""Layers of image flows that move, scale and mix pixels: squeeze, actnorm, 1x1 convolution, and the multi-scale chain.

Between these layers an image is ``[N, C, H, W]``, as convolutions run; couplings are in
`models.flows.images.couplings`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.flows.flow import Bijection
from models.flows.linear import ConstantMatrix
from service.errors import DataError

__all__ = ["ActNorm", "ChannelsFirst", "FixedConvolution", "InvertibleConvolution", "Levels", "MultiScale", "Squeeze"]

_LEAST_DEVIATION = 1e-6  # of a channel, in standard deviations of the whole: under it, it is taken as constant


class ChannelsFirst(Bijection):
    """A flat event as an image with its channels in front: ``[N, H W C]`` <-> ``[N, C, H, W]``. Its log-det is 0.

    Args:
        event_shape: ``[H, W, C]`` of the event that was laid out flat, last axis fastest.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.height, self.width, self.channels = event_shape

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, H W C]`` -> y ``[N, C, H, W]``."""
        y = x.reshape(-1, self.height, self.width, self.channels).permute(0, 3, 1, 2)
        return y, torch.zeros_like(x[:, 0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, C, H, W]`` -> x ``[N, H W C]``."""
        x = y.permute(0, 2, 3, 1).flatten(1)
        return x, torch.zeros_like(x[:, 0])


class Squeeze(Bijection):
    """Each square of f x f pixels becomes one of f^2 times the channels: ``[C, H, W]`` <-> ``[f^2 C, H/f, W/f]``.

    With f = 2, y[4c + 2i + j, h, w] = x[c, 2h + i, 2w + j]. Its log-determinant is 0.

    After it a checkerboard is a choice of channels, those with i + j even: a coupling need not see masked pixels.

    Args:
        factor: f.

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, section 3.6.
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, C, H, W]``, H and W divisible by f -> y ``[N, f^2 C, H/f, W/f]``."""
        return F.pixel_unshuffle(x, self.factor), torch.zeros_like(x[:, 0, 0, 0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, f^2 C, H/f, W/f]`` -> x ``[N, C, H, W]``."""
        return F.pixel_shuffle(y, self.factor), torch.zeros_like(y[:, 0, 0, 0])


class ActNorm(Bijection):
    """Shift and scale each channel: y_c = (x_c + b_c) exp(s_c), log|det dy/dx| = H W sum_c s_c.

    Initialized so that each channel of the first training rows comes out with mean 0 and standard deviation 1; from
    then on b and s are weights like any other.

    Args:
        channels: C.

    References:
        Kingma and Dhariwal, 2018, https://arxiv.org/abs/1807.03039, section 3.1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, C, H, W]`` -> y of the same shape."""
        return (x + self.shift) * self.log_scale.exp(), _every_pixel(x, self.log_scale.sum())

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, C, H, W]`` -> x of the same shape."""
        return y * (-self.log_scale).exp() - self.shift, _every_pixel(y, -self.log_scale.sum())

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Give each channel of x ``[N, C, H, W]`` mean 0 and standard deviation 1 (divisor N H W)."""
        exact = x.to(torch.float64)
        deviation = exact.std(dim=(0, 2, 3), correction=0, keepdim=True)[0]
        # a channel that does not vary at all, as in black images, is left at its size
        deviation = torch.where(deviation > _LEAST_DEVIATION * exact.std(correction=0), deviation, 1.0)
        self.shift.copy_(-exact.mean(dim=(0, 2, 3), keepdim=True)[0])
        self.log_scale.copy_(-deviation.log())
        return super().initialize(x, context)


class FixedConvolution(ConstantMatrix):
    """Mix the channels of each pixel by a constant matrix: y[:, h, w] = W x[:, h, w], log|det dy/dx| = H W log|det W|.

    Args:
        matrix: W ``[C, C]``, not singular.

    Raises:
        ValueError: where the matrix has no inverse.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, C, H, W]`` -> y of the same shape."""
        return _mixed(x, self.matrix), _every_pixel(x, self.inverse_and_log_det()[1])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, C, H, W]`` -> x of the same shape."""
        matrix, log_det = self.inverse_and_log_det()
        return _mixed(y, matrix), _every_pixel(y, -log_det)


class InvertibleConvolution(Bijection):
    """Mix the channels of each pixel: y[:, h, w] = W x[:, h, w], log|det dy/dx| = H W log|det W|.

    W = P L (U + diag(exp(s))), with P a fixed permutation, L unit lower and U strictly upper triangular: log|det W| is
    the sum of s. It starts as P, so that the flow's first pixels are the data's own, and not mixtures of them. It is
    folded into a `FixedConvolution`.

    Args:
        order: ``[C]``, a permutation: y_c = x_order[c] as it starts.

    References:
        Kingma and Dhariwal, 2018, https://arxiv.org/abs/1807.03039, section 3.2; there W starts as a rotation.
    """

    permutation: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        channels = len(order)
        self.register_buffer("permutation", torch.eye(channels)[order])
        self.lower = nn.Parameter(torch.zeros(channels, channels))
        self.upper = nn.Parameter(torch.zeros(channels, channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, C, H, W]`` -> y of the same shape."""
        return _mixed(x, self._matrix(x.dtype)), _every_pixel(x, self.log_scale.sum())

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, C, H, W]`` -> x of the same shape."""
        matrix = torch.linalg.inv(self._matrix(torch.float64)).to(y.dtype)
        return _mixed(y, matrix), _every_pixel(y, -self.log_scale.sum())

    def folded(self) -> FixedConvolution:
        """The same with W as a constant."""
        # rounded first, so that the reference has the matrix of the graph
        return FixedConvolution(self._matrix(torch.float64).to(self.lower.dtype))

    def _matrix(self, dtype: torch.dtype) -> Tensor:
        lower = self.lower.to(dtype).tril(-1) + torch.eye(len(self.log_scale), dtype=dtype)
        upper = self.upper.to(dtype).triu(1) + self.log_scale.to(dtype).exp().diag()
        return self.permutation.to(dtype) @ lower @ upper


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    return F.conv2d(x, matrix[:, :, None, None])


def _every_pixel(x: Tensor, log_det: Tensor) -> Tensor:
    """The log-determinant ``[N]`` of what does the same to each pixel of x ``[N, C, H, W]``."""
    return (x.shape[2] * x.shape[3] * log_det).expand(x.shape[0])


class Levels(Bijection):
    """A chain in levels; after each but the last, some of the channels leave for z: ``[N, C, ...]`` -> ``[N, D]``.

    After a level the first channels go on, and the last ones leave. z = (what leaves after level 1, ..., after level
    L - 1, all channels after level L), each laid out with channels first and the last axis fastest. The log-determinant
    is the sum over all steps.

    Args:
        levels: the steps of each level, from data to latent.
        leaving: the shape ``[C, ...]`` of what leaves after each level; after the last one, of all that is left.
    """

    def __init__(self, levels: Sequence[Sequence[Bijection]], leaving: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(nn.ModuleList(level) for level in levels)
        self.shapes = [tuple(shape) for shape in leaving]
        self.numeric_inverse = any(step.numeric_inverse for level in levels for step in level)

    @property
    def steps(self) -> list[list[Bijection]]:
        """The steps of each level, from data to latent."""
        return [[cast("Bijection", step) for step in cast("nn.ModuleList", level)] for level in self.levels]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, C, ...]`` -> z ``[N, D]``."""
        latents, terms = [], []
        for number, level in enumerate(self.steps):
            for step in level:
                x, ladj = step(x, context)
                terms.append(ladj)
            x, leaving = self._part(x, number)
            latents.append(leaving)
        return torch.cat(latents, dim=1), sum(terms[1:], start=terms[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Z ``[N, D]`` -> x ``[N, C, ...]``."""
        parts = torch.split(y, [math.prod(shape) for shape in self.shapes], dim=1)
        latents = [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        x, terms = latents.pop(), []
        for level in reversed(self.steps):
            for step in reversed(level):
                x, ladj = step.inverse(x, context)
                terms.append(ladj)
            if latents:
                x = torch.cat((x, latents.pop()), dim=1)
        return x, sum(terms[1:], start=terms[0])

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Initialize every step in turn."""
        latents = []
        for number, level in enumerate(self.steps):
            for step in level:
                x = step.initialize(x, context)
            x, leaving = self._part(x, number)
            latents.append(leaving)
        return torch.cat(latents, dim=1)

    def folded(self) -> Levels:
        """This, with every step folded in place."""
        self.levels = nn.ModuleList(nn.ModuleList(step.folded() for step in level) for level in self.steps)
        return self

    def _part(self, x: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """What goes on after a level, and what leaves, flat; after the last one all of it leaves."""
        if number == len(self.shapes) - 1:
            return x, x.flatten(1)
        kept = x.shape[1] - self.shapes[number][0]
        return x[:, :kept], x[:, kept:].flatten(1)


class MultiScale(Levels):
    """Levels of an image; after each but the last, half of the channels leave for z: ``[N, C, H, W]`` -> ``[N, D]``.

    z = (the second half of the channels after level 1, ..., after level L - 1, all channels after level L), each laid
    out with channels first, then rows, then columns. The log-determinant is the sum over all steps.

    Args:
        levels: the steps of each level, from data to latent; an even number of channels comes out of each.
        shape: ``[C, H, W]`` of what comes in.

    Raises:
        DataError: where a level halves an odd number of rows or columns, or leaves an odd number of channels.

    References:
        Dinh et al., 2017, https://arxiv.org/abs/1605.08803, section 3.6, equations 14 to 16.
    """

    def __init__(self, levels: Sequence[Sequence[Bijection]], shape: Sequence[int]) -> None:
        super().__init__(levels, _leaving(levels, shape))


def _leaving(levels: Sequence[Sequence[Bijection]], shape: Sequence[int]) -> list[tuple[int, int, int]]:
    """The shapes of what leaves an image ``[C, H, W]`` after each level."""
    shapes = []
    channels, height, width = shape
    for number, level in enumerate(levels):
        for factor in (step.factor for step in level if isinstance(step, Squeeze)):
            if height % factor or width % factor:
                raise DataError(
                    f"{height} x {width} pixels cannot be cut into squares of {factor} x {factor}, as level "
                    f"{number + 1} does"
                )
            channels, height, width = factor**2 * channels, height // factor, width // factor
        if number < len(levels) - 1:
            if channels % 2:
                raise DataError(f"half of {channels} channels cannot leave after level {number + 1}: it is odd")
            channels //= 2
        shapes.append((channels, height, width))
    return shapes
