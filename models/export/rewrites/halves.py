"""The storage of weights in half precision, where it loses nothing: a float16 constant, and a Cast before its readers.

A family that rounds its large matrices when it is folded (`models.flows.images.principal`) has graphs of half the size.
ONNX Runtime casts a constant once, when it loads the graph: what is computed, and how fast, stays the same.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from models.export.rewrites.nodes import constant_value, register_constant

__all__ = ["store_halves"]

_LEAST_VALUES: Final = 4096
"""A smaller constant is not worth a node."""


def store_halves(model: ir.Model) -> None:
    """Store each large float32 constant of which every value is a float16 as that, in place.

    Args:
        model: flat but for bodies of Loops, which read the constants of the graph around them.
    """
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        array = constant_value(value)
        if array is None or array.dtype != np.float32 or array.size < _LEAST_VALUES or value.is_graph_output():
            continue
        with np.errstate(over="ignore"):  # beyond a float16's range: infinite, and so not equal
            half = array.astype(np.float16)
        if not (half.astype(np.float32) == array).all():
            continue
        cast = ir.node("Cast", [register_constant(graph, f"{name}_half", half)], attributes={"to": ir.DataType.FLOAT})
        whole = cast.outputs[0]
        whole.name, whole.type, whole.shape = f"{name}_float", value.type, value.shape
        value.replace_all_uses_with(whole)
        del graph.initializers[name]
        graph.insert_before(graph[0], cast)
