"""The couplings and autoregressive steps that nflows and normflows share: those of the authors of neural splines.

The networks and the affine functions are called as they are; the splines are those of `models.importing.splines`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from models.flows.conditional import Autoregressive, ConditionalTransform, Coupling
from models.flows.flow import Bijection
from models.importing.splines import Knots, linear, quadratic, rational_quadratic
from models.importing.steps import per_row
from models.importing.support import box_of

__all__ = [
    "ColumnFunction",
    "CumulativeDensity",
    "Kind",
    "LayerFunction",
    "LibrarySpline",
    "LibraryTransform",
    "autoregressive_step",
    "coupling_step",
    "read_spline",
    "size_scale",
]

Kind = Literal["linear", "quadratic", "rational_quadratic"]


class ColumnFunction(Protocol):
    """A function of each column whose parameters a network gave."""

    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` and parameters ``[N, D * K]`` -> y ``[N, D]`` and log|det dy/dx| ``[N]``."""
        ...


class LayerFunction(nn.Module):
    """A layer's own function of each column, which exports: an affine one.

    Args:
        layer: holds the two methods.
        towards_latent: the name of the one from data to latent; takes inputs and parameters.
        towards_data: the name of the other.
    """

    def __init__(self, layer: nn.Module, towards_latent: str, towards_data: str) -> None:
        super().__init__()
        self.layer, self.towards_latent, self.towards_data = layer, towards_latent, towards_data

    def forward(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, D]`` and log|det dy/dx| ``[N]``."""
        y, ladj = getattr(self.layer, self.towards_data if inverse else self.towards_latent)(x, parameters)
        return y, per_row(ladj, y)


@dataclass(frozen=True, eq=False)
class LibrarySpline:
    """A spline of each column, with the conventions of both libraries.

    Args:
        kind: which one.
        bins: K.
        tails: "linear": the identity outside, reached smoothly; "circular": the same slope at both ends; None for
            no tails.
        knots: the interval, and the least sizes.
        scales: what widths and heights are multiplied by before anything else.
    """

    kind: Kind
    bins: int
    tails: str | list[str] | None
    knots: Knots
    scales: tuple[float, float] = (1.0, 1.0)

    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """X ``[N, D]``, parameters ``[N, D * K']`` -> y ``[N, D]`` and log|det dy/dx| ``[N]``."""
        rows = parameters.reshape(x.shape[0], x.shape[1], -1)
        if x.ndim > 2:  # an image: parameters [N, D * K', H, W]
            rows = parameters.reshape(x.shape[0], x.shape[1], -1, *x.shape[2:]).movedim(2, -1)
        if self.kind == "linear":
            return self.of_parameters(x, (rows,), inverse=inverse)
        widths, rest = rows[..., : self.bins] * self.scales[0], rows[..., self.bins :]
        if self.kind == "quadratic":
            return self.of_parameters(x, (widths, rest * self.scales[1]), inverse=inverse)
        heights, derivatives = rest[..., : self.bins] * self.scales[1], rest[..., self.bins :]
        return self.of_parameters(x, (widths, heights, derivatives), inverse=inverse)

    def of_parameters(self, x: Tensor, parameters: tuple[Tensor, ...], *, inverse: bool) -> tuple[Tensor, Tensor]:
        """The same, with the parameters apart, each ``[N, D, ...]`` or ``[D, ...]``."""
        if self.kind == "linear":
            y, ladj = linear(x, parameters[0], self.knots, inverse=inverse)
        elif self.kind == "quadratic":
            y, ladj = quadratic(x, parameters[0], parameters[1], self.knots, inverse=inverse)
        else:
            widths, heights, derivatives = parameters
            y, ladj = rational_quadratic(x, widths, heights, self._ends(derivatives), self.knots, inverse=inverse)
        return y, ladj.flatten(1).sum(dim=1)

    def _ends(self, derivatives: Tensor) -> Tensor:
        """Add or replace the derivatives at both ends, as the tails ask."""
        if self.tails is None:
            return derivatives
        # its softplus, plus the least derivative, is one: the slope of the identity outside
        one = math.log(math.expm1(1 - self.knots.derivative))
        if self.tails == "linear":
            end = torch.full_like(derivatives[..., :1], one)
            return torch.cat((end, derivatives, end), dim=-1)
        return torch.cat((derivatives, derivatives[..., :1]), dim=-1)


def read_spline(layer: Any, kind: Kind, bins: int, scales: tuple[float, float] = (1.0, 1.0)) -> LibrarySpline:  # noqa: ANN401
    """Read a spline's conventions off the layer that holds them.

    Args:
        layer: of nflows or normflows.
        kind: which spline.
        bins: K.
        scales: what widths and heights are multiplied by before anything else.
    """
    tails = getattr(layer, "tails", None)  # the linear spline of autoregressive steps cannot have any
    bound = layer.tail_bound if tails is not None else None
    least = {
        "width": getattr(layer, "min_bin_width", 1e-3),
        "height": getattr(layer, "min_bin_height", 1e-3),
        "derivative": getattr(layer, "min_derivative", 1e-3),
    }
    knots = Knots(0.0, 1.0, **least) if bound is None else Knots(-bound, bound, **least)
    return LibrarySpline(kind, bins, tails, knots, scales)


class CumulativeDensity(Bijection):
    """A spline of each column whose parameters depend on nothing: the unconditional half of a coupling.

    Args:
        layer: a `Piecewise...CDF` of nflows or normflows.
        kind: which spline.
    """

    def __init__(self, layer: Any, kind: Kind) -> None:  # noqa: ANN401
        super().__init__()
        names = {
            "linear": ("unnormalized_pdf",),
            "quadratic": ("unnormalized_widths", "unnormalized_heights"),
            "rational_quadratic": ("unnormalized_widths", "unnormalized_heights", "unnormalized_derivatives"),
        }[kind]
        self.layer, self.names = layer, names
        self.spline = read_spline(layer, kind, getattr(layer, names[0]).shape[-1])
        if self.spline.tails is None:
            self.domain = self.image = box_of(float(self.spline.knots.low), float(self.spline.knots.high), closed=True)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> y."""
        return self.spline.of_parameters(x, self._raw_parameters(), inverse=False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> x."""
        return self.spline.of_parameters(y, self._raw_parameters(), inverse=True)

    def _raw_parameters(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self.layer, name) for name in self.names)


class LibraryTransform(ConditionalTransform):
    """The network of a layer, and the function of each column that takes its parameters.

    Args:
        network: called with the columns that it is shown, and the context.
        function: moves the others.
    """

    def __init__(self, network: nn.Module, function: ColumnFunction) -> None:
        super().__init__()
        self.network, self.function = network, function

    def forward(
        self, x: Tensor, given: Tensor, context: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        """X ``[N, B, ...]`` and given ``[N, A, ...]`` -> y ``[N, B, ...]`` and the log-determinant ``[N]``."""
        return self.function(x, self.network(given, context), inverse=inverse)


def coupling_step(layer: Any, function: ColumnFunction, unconditional: Bijection | None) -> Coupling:  # noqa: ANN401
    """A coupling of nflows or normflows, which share one code.

    Args:
        layer: its `identity_features` are the columns that condition, and `transform_net` is the conditioner.
        function: what moves the other columns.
        unconditional: what moves the columns that condition; None where they stay, or there are none.
    """
    if not len(layer.identity_features):
        # no column conditions, as in one of a single column: parameters without rows would lose the rank of a gather
        unconditional = None
    mask = torch.zeros(len(layer.identity_features) + len(layer.transform_features), dtype=torch.bool)
    mask[layer.identity_features] = True
    return Coupling(mask, LibraryTransform(layer.transform_net, function), unconditional)


def autoregressive_step(layer: Any, function: ColumnFunction) -> Autoregressive:  # noqa: ANN401
    """An autoregressive step of nflows or normflows, which share one code.

    Args:
        layer: its `autoregressive_net` is the conditioner.
        function: what moves each column.
    """
    network = layer.autoregressive_net
    return Autoregressive(LibraryTransform(network, function), passes=network.initial_layer.in_features)


def size_scale(network: nn.Module) -> float:
    """What both libraries multiply the sizes of bins by: one over the root of the network's width, where it says it."""
    for name in ("hidden_features", "hidden_channels"):
        if hasattr(network, name):
            return 1 / math.sqrt(float(getattr(network, name)))
    return 1.0
