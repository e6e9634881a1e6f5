"""The sums over the columns of a row, merged into one product with a constant vector.

A flow's log-determinant is a sum of sums, one a coupling. ONNX Runtime adds up a row of ReduceSum in an order that
depends on where in memory the row begins, so that its last digits would depend on its place in the batch; a matrix
product does not, and one for all couplings is cheaper than a sum for each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from models.export.rewrites.nodes import (
    column_count,
    constant_number,
    constant_value,
    float_type,
    register_constant,
    replace_value,
    required_input,
)

__all__ = ["merge_column_sums"]

_LINEAR: Final = frozenset({"Add", "Sub", "Neg", "Mul"})


@dataclass
class _Sum:
    """A value as sum_k weight_k * (the sum over the width_k columns of value_k) + sum_i weight_i * other_i."""

    columns: list[tuple[ir.Value, int, float]] = field(default_factory=list)
    others: list[tuple[ir.Value, float]] = field(default_factory=list)


def merge_column_sums(model: ir.Model) -> None:
    """Replace every ReduceSum over the columns of a row, with the additions that join them, by one MatMul.

    a + Σ_j u[:, j] - Σ_j v[:, j]  becomes  a + concat(u, v) @ (1, ..., 1, -1, ..., -1); where there is a constant
    to be added, one Gemm adds it as well.

    Args:
        model: changed in place. Inputs, outputs and their names stay.
    """
    for node in list(model.graph):
        if node.graph is None or not _is_root(node):
            continue
        terms = _Sum()
        _collect(node.outputs[0], 1.0, terms, root=True)
        if terms.columns:
            _rebuild(model.graph, node, terms)
            RemoveUnusedNodesPass()(model)


def _is_root(node: ir.Node) -> bool:
    """Whether no larger sum of the same kind takes this node in."""
    if node.op_type == "ReduceSum":
        inside = _width(node) is not None
    else:
        inside = node.op_type in _LINEAR and _is_vector(node.outputs[0])
    if not inside:
        return False
    output = node.outputs[0]
    uses = list(output.uses())
    if output.is_graph_output() or len(uses) != 1:
        return True
    user = uses[0].node
    return not (user.op_type in _LINEAR and _is_vector(user.outputs[0]) and _scale(user, uses[0].idx) is not None)


def _collect(value: ir.Value, weight: float, terms: _Sum, *, root: bool = False) -> None:
    """Take a value apart; what has other uses, or is no sum, is a term of its own."""
    node = value.producer()
    alone = root or (len(value.uses()) == 1 and not value.is_graph_output())
    if node is None or not alone:
        terms.others.append((value, weight))
    elif (width := _width(node)) is not None:
        terms.columns.append((required_input(node, 0), width, weight))
    elif node.op_type in _LINEAR and _is_vector(value) and any(_scale(node, i) is not None for i in (0, 1)):
        for position, operand in enumerate(node.inputs):
            scale = _scale(node, position)
            if operand is not None and scale is not None:
                _collect(operand, weight * scale, terms)
    else:
        terms.others.append((value, weight))


def _scale(node: ir.Node, position: int) -> float | None:
    """What an operand of a linear node counts for in its output; None for the constant factor of a product."""
    if node.op_type == "Mul":
        return constant_number(node.inputs[1 - position])
    return -1.0 if node.op_type == "Neg" or (node.op_type == "Sub" and position == 1) else 1.0


def _rebuild(graph: ir.Graph, node: ir.Node, terms: _Sum) -> None:
    output = node.outputs[0]
    name, precision = output.name, float_type(output) or np.dtype(np.float32)
    weights = np.concatenate([np.full(width, weight, precision) for _, width, weight in terms.columns])
    vector = register_constant(graph, f"{name}_weights", weights[:, None])
    axis = register_constant(graph, f"{name}_axis", np.array([1], np.int64))
    made: list[ir.Node] = []

    def add(operator: str, inputs: list[ir.Value], attributes: dict[str, int] | None = None) -> ir.Value:
        made.append(ir.node(operator, inputs, attributes=attributes or {}))
        value = made[-1].outputs[0]
        value.name = f"{name}_sum_{len(made)}"
        return value

    sources = [value for value, _, _ in terms.columns]
    rows = sources[0] if len(sources) == 1 else add("Concat", sources, {"axis": 1})
    shift = sum(weight * number for value, weight in terms.others if (number := constant_number(value)) is not None)
    if shift:
        bias = register_constant(graph, f"{name}_bias", np.array([shift], precision))
        total = add("Squeeze", [add("Gemm", [rows, vector, bias]), axis])
    else:
        total = add("Squeeze", [add("MatMul", [rows, vector]), axis])
    for value, weight in terms.others:
        if constant_number(value) is not None:
            continue
        scaled = value
        if abs(weight) != 1.0:
            factor = register_constant(graph, f"{name}_factor_{len(made)}", np.array(abs(weight), precision))
            scaled = add("Mul", [value, factor])
        total = add("Add" if weight > 0 else "Sub", [total, scaled])
    graph.insert_before(node, made)
    replace_value(graph, output, total)


def _width(node: ir.Node) -> int | None:
    """The number of columns that a ReduceSum of floats adds up; None for any other node, or another axis."""
    if node.op_type != "ReduceSum" or node.attributes.get_int("keepdims", 1) != 0 or len(node.inputs) != 2:
        return None
    source, axes = node.inputs
    known = constant_value(axes)
    if source is None or source.shape is None or source.shape.rank() != 2 or known is None:
        return None
    if source.dtype is not None and not source.dtype.is_floating_point():
        return None  # a count: no product takes integers
    return column_count(source) if known.tolist() in ([1], [-1]) else None


def _is_vector(value: ir.Value) -> bool:
    """Whether it holds one number a row."""
    return value.shape is not None and value.shape.rank() == 1
