"""The conditioners of table flows: the networks that give a step its parameters, and which columns they are shown.

A conditioner is shown its columns clipped to [-reach, reach], so that far outside the data its answer stays what it is
at its edge: there rounding errors are not blown up, and the tails are the base's. Its last layer starts at zero, and so
every step as the identity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn

from models.flows.options import check, one_of

__all__ = [
    "ACTIVATIONS",
    "DEFAULT_CONDITIONER",
    "Conditioner",
    "check_network",
    "column_orders",
    "coupling_masks",
    "nonlinearity",
]

ACTIVATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = MappingProxyType(
    {"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU, "tanh": nn.Tanh}
)
"""The nonlinearities of a conditioner."""

_MAX_LAYERS, _MAX_HIDDEN = 32, 65536


@dataclass(frozen=True, slots=True)
class Conditioner:
    """The options of the conditioners of a table flow, each an option of every family that takes a `Conditioner`.

    Args:
        hidden: the widths of the hidden layers.
        activation: a name of `ACTIVATIONS`.
        reach: how far out a conditioner sees, in standard deviations of a column as the flow starts; above zero.
        dropout: the share of hidden values set to zero while fitting, in [0, 1).

    Raises:
        DataError: where one of them is out of its range.
    """

    hidden: Sequence[int] = (128, 128)
    activation: str = "relu"
    reach: float = 10.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check(
            "hidden",
            1 <= len(self.hidden) <= _MAX_LAYERS and all(1 <= h <= _MAX_HIDDEN for h in self.hidden),
            list(self.hidden),
            f"1 to {_MAX_LAYERS} layer widths from 1 to {_MAX_HIDDEN}",
        )
        check_network(self.activation, self.reach, self.dropout)

    @property
    def layers(self) -> dict[str, Any]:
        """The arguments by which zuko makes a network."""
        return {
            "hidden_features": tuple(self.hidden),
            "activation": partial(nonlinearity, self.activation, self.dropout),
        }

    def initialize(self, network: nn.Sequential) -> None:
        """Clip what a network sees, and start it at zero; in place."""
        for parameter in network[-1].parameters():
            nn.init.zeros_(parameter)
        network.insert(0, nn.Hardtanh(-self.reach, self.reach))


def check_network(activation: str, reach: float, dropout: float) -> None:
    """Hold the options that the conditioners of tables and of images share against their ranges.

    Args:
        activation: a name of `ACTIVATIONS`.
        reach: how far out a conditioner sees.
        dropout: the share of hidden values set to zero while fitting.

    Raises:
        DataError: where one of them is out of its range.
    """
    check("reach", 0 < reach < math.inf, reach, "a number above zero")
    check("dropout", 0 <= dropout < 1, dropout, "a number from 0, and below 1")
    one_of("activation", activation, ACTIVATIONS)


DEFAULT_CONDITIONER: Final = Conditioner()
"""What a family takes where nothing is said."""


def nonlinearity(name: str, dropout: float) -> nn.Module:
    """One of `ACTIVATIONS`, followed by dropout where there is any."""
    activation = ACTIVATIONS[name]()
    return nn.Sequential(activation, nn.Dropout(dropout)) if dropout > 0 else activation


def coupling_masks(width: int, transforms: int, masks: str) -> Iterator[Tensor]:
    """Which columns condition in each coupling: bool ``[width]``.

    Args:
        width: the number of columns, at least 2.
        transforms: the number of couplings.
        masks: "alternating": odd columns, even columns, and so on; "random": a new half for each pair of couplings,
            so that every column is moved once in two.

    Raises:
        DataError: where there is no such kind of mask.
    """
    one_of("masks", masks, ("alternating", "random"))
    half = torch.arange(width) % 2 == 1
    for index in range(transforms):
        if index % 2 == 0 and masks == "random":
            half = torch.randperm(width) % 2 == 1
        yield half if index % 2 == 0 else ~half


def column_orders(width: int, transforms: int, kind: str) -> Iterator[Tensor]:
    """The place of each column in each autoregressive step: int64 ``[width]``.

    Args:
        width: the number of columns.
        transforms: the number of steps.
        kind: "alternating": first to last, last to first, and so on; "random": a new order for each pair of steps,
            and the same one backwards; "none": all columns share one place, so that none sees another.

    Raises:
        DataError: where there is no such kind of order.
    """
    one_of("orders", kind, ("alternating", "random", "none"))
    if kind == "none":
        yield from [torch.zeros(width, dtype=torch.int64)] * transforms
        return
    order = torch.arange(width)
    for index in range(transforms):
        if index % 2 == 0 and kind == "random":
            order = torch.randperm(width)
        yield order if index % 2 == 0 else width - 1 - order
