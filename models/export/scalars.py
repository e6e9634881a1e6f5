"""The translation of Python's numbers into constants of float64: torch's exporter rounds them to float32 on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import BOOL, INT64, opset18
from onnxscript.function_libs.torch_lib.tensor_typing import TTensor as TensorType

__all__ = ["EXACT_SCALARS"]

op: Final[Any] = opset18  # its types leave no room for tensors of any dtype

_UNSAID: Final = -1  # what the exporter hands on for a dtype that is not given


def _scalar_tensor(
    s: float,
    dtype: int = _UNSAID,
    layout: str = "",  # noqa: ARG001  the arguments are those of aten.scalar_tensor
    device: str = "",  # noqa: ARG001
    pin_memory: bool = False,  # noqa: ARG001
) -> Any:  # noqa: ANN401  onnxscript has no types
    return _constant(s, dtype)


def _full(
    size: INT64,
    fill_value: float,
    dtype: int = _UNSAID,
    layout: str = "",  # noqa: ARG001  the arguments are those of aten.full
    device: str = "",  # noqa: ARG001
    pin_memory: bool = False,  # noqa: ARG001
) -> Any:  # noqa: ANN401
    return op.Expand(_constant(fill_value, dtype), op.Cast(size, to=ir.DataType.INT64.value))


def _full_like(
    self: TensorType,
    fill_value: float,
    dtype: int = _UNSAID,  # noqa: ARG001  the arguments are those of aten.full_like
    layout: str = "",  # noqa: ARG001
    device: str = "",  # noqa: ARG001
    pin_memory: bool = False,  # noqa: ARG001
    memory_format: str = "",  # noqa: ARG001
) -> Any:  # noqa: ANN401
    return op.Expand(_like(fill_value, self), op.Shape(self))


def _ones(
    size: INT64,
    dtype: int = _UNSAID,
    layout: str = "",  # noqa: ARG001  the arguments are those of aten.ones
    device: str = "",  # noqa: ARG001
    pin_memory: bool = False,  # noqa: ARG001
) -> Any:  # noqa: ANN401
    return op.Expand(_constant(1.0, dtype), op.Cast(size, to=ir.DataType.INT64.value))


def _hardtanh(self: TensorType, min_val: float = -1.0, max_val: float = 1.0) -> Any:  # noqa: ANN401
    return op.Clip(self, _like(min_val, self), _like(max_val, self))


def _masked_fill(self: TensorType, mask: BOOL, value: float) -> Any:  # noqa: ANN401
    return op.Where(mask, _like(value, self), self)


def _softplus(self: TensorType, beta: float = 1.0, threshold: float = 20.0) -> Any:  # noqa: ANN401
    scaled = op.Mul(self, _like(beta, self))
    soft = op.Div(op.Softplus(scaled), _like(beta, self))
    return op.Where(op.Greater(scaled, _like(threshold, self)), self, soft)


def _like(number: float, tensor: Any) -> Any:  # noqa: ANN401
    return op.CastLike(_constant(number, _UNSAID), tensor)


def _constant(number: float, dtype: int) -> Any:  # noqa: ANN401
    kind = ir.DataType.DOUBLE if dtype == _UNSAID else ir.DataType(dtype)
    return op.Constant(value=ir.tensor(np.array(number, kind.numpy())))


EXACT_SCALARS: Final[dict[Callable[..., Any], Callable[..., Any]]] = {
    torch.ops.aten.scalar_tensor.default: _scalar_tensor,
    torch.ops.aten.full.default: _full,
    torch.ops.aten.full_like.default: _full_like,
    torch.ops.aten.hardtanh.default: _hardtanh,
    torch.ops.aten.masked_fill.Scalar: _masked_fill,
    torch.ops.aten.ones.default: _ones,
    torch.ops.aten.softplus.default: _softplus,
}
"""The operators of torch that take a number -> what writes them without rounding it."""
