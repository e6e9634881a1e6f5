"""What nflows and normflows share: both took the couplings and autoregressive steps of the authors of neural splines.

The networks and the affine functions are called as they are; the splines are those of `models.importing.splines`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from models.flows.flow import Bijection
from models.flows.jacobi import jacobi
from models.importing.splines import Knots, linear, quadratic, rational_quadratic
from models.importing.steps import per_row

__all__ = [
    "Autoregressive",
    "Coupling",
    "CumulativeDensity",
    "Kind",
    "Own",
    "Spline",
    "Univariate",
    "context_features",
    "spline_of",
]

Kind = Literal["linear", "quadratic", "rational_quadratic"]


class Univariate(Protocol):
    """A function of each column whose parameters a network gave; two passes of it, never of the network."""

    def __call__(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` and parameters ``[N, D * K]`` -> y ``[N, D]`` and log|det dy/dx| ``[N]``."""
        ...


class Own(nn.Module):
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
class Spline:
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
            return self.of_parts(x, (rows,), inverse=inverse)
        widths, rest = rows[..., : self.bins] * self.scales[0], rows[..., self.bins :]
        if self.kind == "quadratic":
            return self.of_parts(x, (widths, rest * self.scales[1]), inverse=inverse)
        heights, derivatives = rest[..., : self.bins] * self.scales[1], rest[..., self.bins :]
        return self.of_parts(x, (widths, heights, derivatives), inverse=inverse)

    def of_parts(self, x: Tensor, parts: tuple[Tensor, ...], *, inverse: bool) -> tuple[Tensor, Tensor]:
        """The same, with the parameters apart, each ``[N, D, ...]`` or ``[D, ...]``."""
        if self.kind == "linear":
            y, ladj = linear(x, parts[0], self.knots, inverse=inverse)
        elif self.kind == "quadratic":
            y, ladj = quadratic(x, parts[0], parts[1], self.knots, inverse=inverse)
        else:
            widths, heights, derivatives = parts
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


def spline_of(layer: Any, kind: Kind, bins: int, scales: tuple[float, float] = (1.0, 1.0)) -> Spline:  # noqa: ANN401
    """Read a spline's conventions off the layer that holds them."""
    tails = layer.tails
    bound = layer.tail_bound if tails is not None else None
    least = {
        "width": getattr(layer, "min_bin_width", 1e-3),
        "height": getattr(layer, "min_bin_height", 1e-3),
        "derivative": getattr(layer, "min_derivative", 1e-3),
    }
    knots = Knots(0.0, 1.0, **least) if bound is None else Knots(-bound, bound, **least)
    return Spline(kind, bins, tails, knots, scales)


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
        self.spline = spline_of(layer, kind, getattr(layer, names[0]).shape[-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> y."""
        return self.spline.of_parts(x, self._parts(), inverse=False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> x."""
        return self.spline.of_parts(y, self._parts(), inverse=True)

    def _parts(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self.layer, name) for name in self.names)


class Coupling(Bijection):
    """y_b = f(x_b | h(x_a, context)) and y_a = g(x_a), where g is the identity if it is None.

    Args:
        layer: a coupling of nflows or normflows, which share one code: `identity_features` says which columns are
            a, and `transform_net` is h.
        univariate: f.
        unconditional: g.

    References:
        Durkan et al., 2019, https://arxiv.org/abs/1906.04032, equations 4 to 6.
    """

    first: Tensor
    second: Tensor
    order: Tensor

    def __init__(self, layer: Any, univariate: Univariate, unconditional: Bijection | None) -> None:  # noqa: ANN401
        super().__init__()
        self.network = layer.transform_net
        self.univariate, self.unconditional = univariate, unconditional
        first, second = layer.identity_features, layer.transform_features
        self.register_buffer("first", first.clone())
        self.register_buffer("second", second.clone())
        self.register_buffer("order", torch.argsort(torch.cat((first, second))))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D, ...]`` -> y."""
        a, b = x.index_select(1, self.first), x.index_select(1, self.second)
        b, ladj = self.univariate(b, self.network(a, context), inverse=False)
        if self.unconditional is not None:
            a, more = self.unconditional(a)
            ladj = ladj + more
        return torch.cat((a, b), dim=1).index_select(1, self.order), ladj

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D, ...]`` -> x."""
        a, b = y.index_select(1, self.first), y.index_select(1, self.second)
        ladj = per_row(0.0, y)
        if self.unconditional is not None:
            a, ladj = self.unconditional.inverse(a)
        b, more = self.univariate(b, self.network(a, context), inverse=True)
        return torch.cat((a, b), dim=1).index_select(1, self.order), ladj + more


class Autoregressive(Bijection):
    """y_i = f(x_i | h(x_<i, context)).

    Args:
        layer: an autoregressive step of nflows or normflows, which share one code; `autoregressive_net` is h.
        univariate: f.
        width: D; the inverse is exact after as many passes of h (`models.flows.jacobi`).

    References:
        Papamakarios et al., 2017, https://arxiv.org/abs/1705.07057, equations 3 to 5.
    """

    def __init__(self, layer: Any, univariate: Univariate, width: int) -> None:  # noqa: ANN401
        super().__init__()
        self.network = layer.autoregressive_net
        self.univariate, self.width = univariate, width

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y."""
        return self.univariate(x, self.network(x, context), inverse=False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x."""

        def step(x: Tensor) -> tuple[Tensor, Tensor]:
            return self.univariate(y, self.network(x, context), inverse=True)

        return jacobi(step, y, self.width)


def context_features(source: nn.Module) -> int | None:
    """The width of the context that the networks of both libraries say they take; None where none says so.

    They run without a context as well, on rows that they were never fitted to, so that trying tells nothing.
    """
    layers = [layer for name, layer in source.named_modules() if name.endswith("context_layer")]
    return next((layer.in_features for layer in layers if isinstance(layer, nn.Linear)), None)
