"""The flow in principal axes: a few leading coordinates describe an image, and all others are predicted from them.

An encoder moves the leading coordinates by what it reads off the others, a decoder takes what the leading ones say of
the others out of them, and couplings bring the leading ones to the base. What is left of the others is turned to
its own axes, and scaled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.flows.conditioners import Conditioner, check_network, coupling_masks, nonlinearity
from models.flows.couplings import coupling
from models.flows.flow import Bijection
from models.flows.linear import LULinear
from models.flows.options import check, check_transforms
from models.flows.univariate import spline_family
from service.errors import DataError

__all__ = ["Columns", "Decoder", "Encoder", "HalfLinear", "PrincipalAxes", "ResidualAxes", "image_principal"]

_HIDDEN: Final = Conditioner(hidden=(48, 48))
_MAX_LAYERS, _MAX_HIDDEN = 8, 4096


class PrincipalAxes(Bijection):
    """Turn an image so that its first K coordinates are the principal axes, and standardize each: y = (Q^T x - m) / s.

    Q = I - W M W^T, with M^-1 = W^T W / 2 + S and S skew, is orthogonal for any W and S, so that log|det Q| = 0 and
    Q^-1 = Q^T. For W = E - U, with E the first K columns of I, and S the skew part of I - U^T E, it takes E to U: a
    rotation of full width for 2 D K products. U are the K axes of the greatest variance of the first training rows,
    which m and s come from too. The other coordinates stay near single pixels. W is in half precision, as the matrices
    of the networks are: Q is orthogonal all the same.

    Args:
        width: D.
        leading: K, at least 1 and below D.

    References:
        Schreiber and Parlett, 1988, https://doi.org/10.1137/0725014, on block reflectors.
    """

    initial_rows = 4096
    vectors: Tensor
    skew: Tensor
    middle: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, leading: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(width, leading))
        self.register_buffer("skew", torch.zeros(leading, leading))
        self.register_buffer("middle", torch.eye(leading))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> (Q^T x - m) / s."""
        y = x - functional.linear(x @ self.vectors @ self._middle(), self.vectors, self.mean)
        return y / self.deviation, (-self.deviation.log().sum()).expand(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> Q (s y + m)."""
        scaled = y * self.deviation
        turned = (scaled + self.mean) @ self.vectors @ self._middle().T
        return scaled - functional.linear(turned, self.vectors, -self.mean), self.deviation.log().sum().expand(
            y.shape[0]
        )

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Take the axes, the means and the standard deviations of x ``[N, D]``, N above K."""
        exact = x.to(torch.float64)
        vectors, skew = _reflect_to_principal_axes(exact, self.skew.shape[0])
        self.vectors.copy_(vectors)
        self.skew.copy_(skew)
        self.middle.copy_(self._exact_middle())
        turned = exact - exact @ self.vectors.double() @ self._exact_middle() @ self.vectors.double().T
        self.mean.copy_(turned.mean(dim=0))
        deviation = turned.std(dim=0, correction=0)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))
        return super().initialize(x, context)

    def _middle(self) -> Tensor:
        """M as a constant in a graph and in float32; in float64, that of W as it is."""
        exact = self.vectors.dtype == torch.float64 and not torch.compiler.is_exporting()
        return self._exact_middle() if exact else self.middle

    def _exact_middle(self) -> Tensor:
        return _middle_of(self.vectors.to(torch.float64), self.skew.to(torch.float64))


class ResidualAxes(Bijection):
    """A trained turn, as in `PrincipalAxes`, and a trained scale for each coordinate: y = exp(s) Q^T x.

    log|det dy/dx| = sum s. It starts with the principal axes of the first training rows, and follows what the steps
    before it leave over as they learn. It is folded into a `PrincipalAxes`.

    Args:
        width: D.
        leading: K, at least 1 and below D.
    """

    initial_rows = 4096

    def __init__(self, width: int, leading: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(width, leading))
        self.skew = nn.Parameter(torch.zeros(leading, leading))
        self.log_scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> exp(s) Q^T x."""
        vectors, middle = self._turn()
        y = x - x @ vectors @ middle @ vectors.T
        return y * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> Q (exp(-s) y)."""
        vectors, middle = self._turn()
        x = y * (-self.log_scale).exp()
        return x - x @ vectors @ middle.T @ vectors.T, (-self.log_scale.sum()).expand(y.shape[0])

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Take the axes and the scales of x ``[N, D]``, N above K."""
        exact = x.to(torch.float64)
        vectors, skew = _reflect_to_principal_axes(exact, self.skew.shape[0])
        self.vectors.copy_(vectors)
        self.skew.copy_(skew / 2)  # the skew part of it is what counts, twice
        turned = exact - exact @ vectors @ _middle_of(vectors, skew) @ vectors.T
        deviation = turned.std(dim=0, correction=0)
        self.log_scale.copy_(-torch.where(deviation > 0, deviation, 1.0).log())
        return super().initialize(x, context)

    def folded(self) -> Bijection:
        """The same as constants."""
        step = PrincipalAxes(*self.vectors.shape).to(self.vectors.dtype)
        step.vectors.copy_(_in_half(self.vectors))
        step.skew.copy_(self.skew - self.skew.T)
        step.middle.copy_(_middle_of(step.vectors.double(), step.skew.double()))
        step.deviation.copy_((-self.log_scale).exp())
        return step

    def _turn(self) -> tuple[Tensor, Tensor]:
        """W in half precision, and M."""
        vectors = _in_half(self.vectors)
        if self.training:
            vectors = self.vectors + (vectors - self.vectors).detach()
        return vectors, _middle_of(vectors, self.skew - self.skew.T)


class HalfLinear(nn.Linear):
    """A fully connected layer with a matrix in half precision: y = W x + b with W the nearest such to the weights.

    A graph holds W in half the bytes (`models.export.rewrites.halves`), and is the flow that was fitted. While it is
    fitted, a gradient of W is taken for one of the weights.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's own name
        """X ``[N, in]`` -> y ``[N, out]``."""
        matrix = _in_half(self.weight)
        if self.training:
            matrix = self.weight + (matrix - self.weight).detach()
        return functional.linear(input, matrix, self.bias)


class Encoder(Bijection):
    """The leading coordinates, moved by what a network reads off the others: y_a = x_a - f(x_b), y_b = x_b.

    Its log-determinant is 0; it starts as the identity.

    Args:
        leading: K.
        network: f, from D - K inputs to K outputs.

    References:
        Dinh et al., 2015, https://arxiv.org/abs/1410.8516, section 3.2.
    """

    def __init__(self, leading: int, network: nn.Module) -> None:
        super().__init__()
        self.leading, self.network = leading, network

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, D]``."""
        first, others = x[:, : self.leading], x[:, self.leading :]
        return torch.cat((first - self.network(_beside(others, context)), others), dim=1), torch.zeros_like(x[:, 0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x ``[N, D]``."""
        first, others = y[:, : self.leading], y[:, self.leading :]
        return torch.cat((first + self.network(_beside(others, context)), others), dim=1), torch.zeros_like(y[:, 0])


class Decoder(Bijection):
    """What the leading coordinates say of the others, taken out: y_a = x_a, y_b = x_b - g(x_a).

    Its log-determinant is 0; it starts as the identity.

    Args:
        leading: K.
        network: g, from K inputs to D - K outputs.
    """

    def __init__(self, leading: int, network: nn.Module) -> None:
        super().__init__()
        self.leading, self.network = leading, network

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, D]``."""
        first, others = x[:, : self.leading], x[:, self.leading :]
        return torch.cat((first, others - self.network(_beside(first, context))), dim=1), torch.zeros_like(x[:, 0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x ``[N, D]``."""
        first, others = y[:, : self.leading], y[:, self.leading :]
        return torch.cat((first, others + self.network(_beside(first, context))), dim=1), torch.zeros_like(y[:, 0])


class Columns(Bijection):
    """A step of some neighbouring columns; the others stay as they are.

    Args:
        start: the first of them.
        stop: the one behind the last.
        step: of as many columns.
    """

    def __init__(self, start: int, stop: int, step: Bijection) -> None:
        super().__init__()
        self.start, self.stop, self.step = start, stop, step
        self.initial_rows = step.initial_rows
        self.numeric_inverse = step.numeric_inverse

    @property
    def name(self) -> str:
        """That of the step itself."""
        return self.step.name

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, D]``."""
        y, ladj = self.step(x[:, self.start : self.stop], context)
        return self._put(x, y), ladj

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x ``[N, D]``."""
        x, ladj = self.step.inverse(y[:, self.start : self.stop], context)
        return self._put(y, x), ladj

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Initialize the step."""
        return self._put(x, self.step.initialize(x[:, self.start : self.stop], context))

    def folded(self) -> Bijection:
        """The same with the step folded."""
        self.step = self.step.folded()
        return self

    def _put(self, x: Tensor, moved: Tensor) -> Tensor:
        """X ``[N, D]`` with its columns moved."""
        return torch.cat((x[:, : self.start], moved, x[:, self.stop :]), dim=1)


def image_principal(
    event_shape: Sequence[int],
    context_width: int = 0,
    *,
    leading: int = 32,
    encoder: Sequence[int] = (256, 128),
    decoder: Sequence[int] = (256, 384),
    residual: int = 96,
    transforms: int = 4,
    conditioner: Conditioner = _HIDDEN,
    bins: int = 5,
    bound: float = 5.0,
    slope: float = 0.01,
) -> list[Bijection]:
    """An autoencoder that is a flow, for images that a few numbers describe but for noise.

    In principal axes the first K coordinates lead. The encoder makes them a better description by what the others say,
    the decoder predicts the others from it, and what is left is turned and scaled: its greatest axes still say
    something, and the rest is noise. Spline couplings with trained matrices between them take the description to the
    base. z begins with the description; behind it is the noise, its greatest axes first.

    Args:
        event_shape: ``[H, W, C]``, or any other shape.
        context_width: the number of columns of context; 0 for none. Every network sees it.
        leading: K, from 2 to below the number of values of an image; no fewer than the images have properties.
        encoder: the widths of the hidden layers of the network from the others to the leading coordinates.
        decoder: the widths of the hidden layers of the network the other way.
        residual: how many axes of what the decoder leaves over are turned to, at least 1 and below the number of other
            coordinates.
        transforms: the number of spline couplings.
        conditioner: how the networks of the couplings are made; its activation, reach and dropout are those of the
            encoder and of the decoder too.
        bins: how many bins a spline has.
        bound: where a spline ends, in standard deviations of a coordinate as the flow starts.
        slope: the least slope at a knot, in (0, 1), and the least ratio of two bins; the greatest is 1 / slope.

    Returns:
        The chain from the flat event to z.

    Raises:
        DataError: where an option is out of its range.
    """
    width = math.prod(event_shape)
    if width < 3:
        raise DataError(f"image_principal parts the values of an image in two; the images have {width}")
    check("leading", 2 <= leading < width - 1, leading, f"a number from 2 to {width - 2}")
    check("residual", 1 <= residual < width - leading, residual, f"a number from 1 to {width - leading - 1}")
    for name, widths in (("encoder", encoder), ("decoder", decoder)):
        fits = 1 <= len(widths) <= _MAX_LAYERS and all(1 <= hidden <= _MAX_HIDDEN for hidden in widths)
        check(name, fits, list(widths), f"1 to {_MAX_LAYERS} layer widths from 1 to {_MAX_HIDDEN}")
    check_network(conditioner.activation, conditioner.reach, conditioner.dropout)
    check_transforms(transforms)
    others = width - leading
    chain: list[Bijection] = [
        PrincipalAxes(width, leading),
        Encoder(leading, _network(others + context_width, encoder, leading, conditioner)),
        Decoder(leading, _network(leading + context_width, decoder, others, conditioner)),
        Columns(leading, width, ResidualAxes(others, residual)),
    ]
    spline = spline_family(bins, bound, slope)
    for mask in coupling_masks(leading, transforms, "random"):
        chain += [
            Columns(0, leading, coupling(mask, context_width, conditioner, spline)),
            Columns(0, leading, LULinear(leading)),
        ]
    return chain


def _network(inputs: int, hidden: Sequence[int], outputs: int, conditioner: Conditioner) -> nn.Sequential:
    """A network of fully connected layers that starts at zero, and sees its inputs clipped to [-reach, reach]."""
    make = partial(nonlinearity, conditioner.activation, conditioner.dropout)
    layers: list[nn.Module] = []
    for before, after in zip((inputs, *hidden[:-1]), hidden, strict=True):
        layers += [HalfLinear(before, after), make()]
    layers.append(HalfLinear(hidden[-1], outputs))
    network = nn.Sequential(*layers)
    conditioner.initialize(network)
    return network


def _beside(x: Tensor, context: Tensor | None) -> Tensor:
    return x if context is None else torch.cat((x, context), dim=1)


def _reflect_to_principal_axes(x: Tensor, leading: int) -> tuple[Tensor, Tensor]:
    """W ``[D, K]``, of half precision, and S ``[K, K]`` of the turn to K principal axes of x ``[N, D]``, in float64."""
    centred = x - x.mean(dim=0)
    _, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    axes = axes[:, -leading:].flip(1)
    axes = axes * torch.where(axes.diagonal() > 0, -1.0, 1.0)  # I - U^T E far from singular
    vectors = _in_half(torch.eye(len(axes), leading, dtype=x.dtype) - axes)
    return vectors, (axes[:leading] - axes[:leading].T) / 2


def _middle_of(vectors: Tensor, skew: Tensor) -> Tensor:
    """M = (W^T W / 2 + S)^-1."""
    middle: Tensor = torch.linalg.inv(vectors.T @ vectors / 2 + skew)
    return middle


def _in_half(tensor: Tensor) -> Tensor:
    """The nearest numbers of half precision; the dtype stays."""
    return tensor.half().to(tensor.dtype)
