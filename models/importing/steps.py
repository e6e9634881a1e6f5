"""The steps that flows of several libraries are made of, written so that a graph can hold them.

A library's own code is called wherever it exports: its networks, and what it does with their outputs. What does not
export is written anew: splits by assignment to indices, permutations by sorting, solves of triangular systems.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.flows.flow import Bijection
from models.flows.linear import FixedLinear
from models.importing.adapted import Unsupported
from models.importing.descriptions import layer_name

__all__ = [
    "Affine",
    "ConditionalAffine",
    "ContextFree",
    "Embedding",
    "LibraryLayer",
    "Permutation",
    "Translation",
    "linear_step",
    "per_row",
]


def per_row(ladj: Tensor | float, like: Tensor) -> Tensor:
    """A log-determinant as ``[N]``: libraries also give one number for all rows, or ``[1]``."""
    zeros = like.flatten(1)[:, 0] * 0
    return zeros + (ladj.to(like.dtype).reshape(-1) if isinstance(ladj, Tensor) else ladj)


class LibraryLayer(Bijection):
    """A layer of a library, called as it is: its code exports.

    Args:
        layer: has two methods that give a value and a log-determinant.
        towards_latent: the name of the one from data to latent; it is given the context where it takes a second
            argument.
        towards_data: the name of the other.
    """

    def __init__(self, layer: nn.Module, towards_latent: str = "forward", towards_data: str = "inverse") -> None:
        super().__init__()
        self.layer = layer
        self.towards_latent, self.towards_data = towards_latent, towards_data

    @property
    def name(self) -> str:
        """The layer's own name."""
        return layer_name(self.layer)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, ...]`` -> y."""
        return self._call(self.towards_latent, x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, ...]`` -> x."""
        return self._call(self.towards_data, y, context)

    def _call(self, name: str, value: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        method = getattr(self.layer, name)
        # an underscore's worth of layers take no context: a call with one would fail
        given = (context,) if context is not None and _takes_two(method) else ()
        call: Callable[..., tuple[Tensor, Tensor]] = self.layer if name == "forward" else method
        result, ladj = call(value, *given)
        return result, per_row(ladj, value)


def _takes_two(method: Callable[..., Any]) -> bool:
    kinds = [parameter.kind for parameter in inspect.signature(method).parameters.values()]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Parameter.VAR_POSITIONAL in kinds or sum(kind in positional for kind in kinds) > 1


class Permutation(Bijection):
    """Columns in another order: y_i = x_order[i]; volume stays.

    Args:
        order: ``[D]``, a permutation of 0 to D - 1.
        axis: the axis of the columns, 1 for the first after the rows.
    """

    order: Tensor
    back: Tensor

    def __init__(self, order: Tensor, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("order", order.detach().clone().long())
        self.register_buffer("back", torch.argsort(self.order))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D, ...]`` -> y."""
        return x.index_select(self.axis, self.order), per_row(0.0, x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D, ...]`` -> x."""
        return y.index_select(self.axis, self.back), per_row(0.0, y)


class Translation(Bijection):
    """A shift: y = x + b; volume stays.

    Args:
        offset: b, of a shape that broadcasts to that of a row.
    """

    offset: Tensor

    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset.detach().clone())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, ...]`` -> y."""
        return x + self.offset, per_row(0.0, x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, ...]`` -> x."""
        return y - self.offset, per_row(0.0, y)


class Affine(Bijection):
    """A scale and a shift for each column: y = (x - shift) / scale.

    log|det dy/dx| = -sum log scale.

    Args:
        shift: ``[D]``.
        log_scale: ``[D]``.
    """

    shift: Tensor
    log_scale: Tensor

    def __init__(self, shift: Tensor, log_scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift.detach().clone().flatten())
        self.register_buffer("log_scale", log_scale.detach().clone().flatten())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> y."""
        return (x - self.shift) * torch.exp(-self.log_scale), per_row(-self.log_scale.sum(), x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> x."""
        return y * torch.exp(self.log_scale) + self.shift, per_row(self.log_scale.sum(), y)


class ConditionalAffine(Bijection):
    """A scale and a shift that a network makes of the context: y = (x - m(c)) exp(-s(c)).

    Args:
        network: context ``[N, C]`` -> m and s side by side, ``[N, 2 D]``; None for the context itself.
    """

    def __init__(self, network: nn.Module | None) -> None:
        super().__init__()
        self.network = nn.Identity() if network is None else network

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y."""
        mean, log_scale = self.network(context).chunk(2, dim=-1)
        return (x - mean) * torch.exp(-log_scale), -log_scale.sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, D]`` -> x."""
        mean, log_scale = self.network(context).chunk(2, dim=-1)
        return y * torch.exp(log_scale) + mean, log_scale.sum(dim=1)


class ContextFree(Bijection):
    """A step that is not shown the context of its flow: the context is for others, and its network takes none.

    Args:
        step: the step.
    """

    def __init__(self, step: Bijection) -> None:
        super().__init__()
        self.step = step
        self.numeric_inverse = step.numeric_inverse
        self.domain, self.image = step.domain, step.image

    @property
    def name(self) -> str:
        """What the step is called."""
        return self.step.name

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, ...]`` -> y."""
        y, ladj = self.step(x)
        return y, ladj

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, ...]`` -> x."""
        return self.step.inverse(y)

    def folded(self) -> Bijection:
        """The folded step, without the context too."""
        return ContextFree(self.step.folded())


class Embedding(Bijection):
    """What a context goes through before any step sees it: a network, that nothing has to undo.

    Args:
        network: context ``[N, C]`` -> ``[N, E]``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Context ``[N, C]`` -> ``[N, E]``; the log-determinant does not count, and is zero."""
        return self.network(x), per_row(0.0, x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Raise: a context is given, never generated.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(
            f"the embedding of the context, {layer_name(self.network)}, has no inverse: it is no step of a flow. Put "
            "it before the flow's steps, where the context enters"
        )


def linear_step(function: Callable[[Tensor], Any], width: int) -> FixedLinear:
    """The step that a linear function is, from what it makes of the unit vectors and of zero.

    No graph has an operator for the triangular solves by which libraries undo their factors: one constant matrix has
    the same values.

    Args:
        function: x ``[N, D]`` in float64 -> y, or y and more.
        width: D.

    Raises:
        ValueError: where the function cannot be undone.
    """
    with torch.no_grad():
        offset = _first(function(torch.zeros(1, width, dtype=torch.float64)))
        matrix = _first(function(torch.eye(width, dtype=torch.float64))) - offset
    return FixedLinear(matrix, offset[0])


def _first(result: Any) -> Tensor:  # noqa: ANN401  what a library returns: a tensor, or a tuple or list around one
    while not isinstance(result, Tensor):
        result = result[0]
    return result
