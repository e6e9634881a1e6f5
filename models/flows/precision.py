"""The precision of a flow in torch: the dtype that its graphs will compute in, and numbers rounded to it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch

from service.bundle.precision import DTYPES, Precision

__all__ = ["TORCH_DTYPES", "next_number", "round_number"]

TORCH_DTYPES: Final[Mapping[Precision, torch.dtype]] = MappingProxyType(
    {"float32": torch.float32, "float64": torch.float64}
)
"""Precision -> its dtype in torch."""


def round_number(value: float, precision: Precision) -> float:
    """The number of a precision nearest to `value`: a bound that a graph and its float64 reference agree on."""
    return float(DTYPES[precision].type(value))


def next_number(value: float, towards: float, precision: Precision) -> float:
    """The number of a precision after `value`; in a graph of float32 a float64 neighbour would round back."""
    start = torch.tensor(value, dtype=TORCH_DTYPES[precision])
    return float(torch.nextafter(start, torch.tensor(towards, dtype=start.dtype)))
