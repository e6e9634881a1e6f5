"""The precision of a flow: what its graphs compute in, and so the dtype of its rows and of its answers.

Must not import onnxruntime or torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

import numpy as np

__all__ = ["DTYPES", "FloatType", "Precision"]

Precision: TypeAlias = Literal["float32", "float64"]
"""The name of a precision, as a manifest has it."""

FloatType: TypeAlias = np.dtype[np.floating[Any]]
"""The dtype of a precision."""

DTYPES: Final[Mapping[Precision, FloatType]] = MappingProxyType(
    {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
)
"""Precision -> its dtype."""
