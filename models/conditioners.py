"""What the families of flows share: the nonlinearities of their conditioners, and the checks of their options."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from torch import nn

from service.errors import DataError

__all__ = ["ACTIVATIONS", "check", "one_of"]

ACTIVATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = MappingProxyType(
    {"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU, "tanh": nn.Tanh}
)
"""The nonlinearities of a conditioner."""


def check(name: str, fits: bool, value: object, expected: str) -> None:
    """Raise a DataError that names an option, unless it fits."""
    if not fits:
        raise DataError(f"{name} must be {expected}, not {value!r}")


def one_of(what: str, name: str, known: Iterable[str]) -> None:
    """Raise a DataError with the nearest name and all of them, unless `name` is known."""
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(f"there is no {what} {name!r}; {hint}known: {', '.join(names)}")
