"""Sums over the columns of a row, merged into one product with a constant vector.

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

__all__ = ["merge_column_sums"]

_LINEAR: Final = frozenset({"Add", "Sub", "Neg", "Mul"})


@dataclass
class _Sum:
    """A value as sum_k weight_k * (the sum over the columns of values_k) + sum_i weight_i * others_i."""

    columns: list[tuple[ir.Value, float]] = field(default_factory=list)
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
    elif _width(node) is not None:
        terms.columns.append((_given(node, 0), weight))
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
        factor = node.inputs[1 - position]
        constant = None if factor is None else factor.const_value
        return float(constant.numpy().reshape(())) if constant is not None and constant.size == 1 else None
    return -1.0 if node.op_type == "Neg" or (node.op_type == "Sub" and position == 1) else 1.0


def _rebuild(graph: ir.Graph, node: ir.Node, terms: _Sum) -> None:
    output = node.outputs[0]
    name = output.name
    weights = np.concatenate([np.full(_columns(value), weight, np.float32) for value, weight in terms.columns])
    vector = ir.Value(name=f"{name}_weights", const_value=ir.tensor(weights[:, None], name=f"{name}_weights"))
    axis = ir.Value(name=f"{name}_axis", const_value=ir.tensor(np.array([1], np.int64), name=f"{name}_axis"))
    graph.register_initializer(vector)
    graph.register_initializer(axis)
    made: list[ir.Node] = []

    def add(operator: str, inputs: list[ir.Value], attributes: dict[str, int] | None = None) -> ir.Value:
        made.append(ir.node(operator, inputs, attributes=attributes or {}))
        value = made[-1].outputs[0]
        value.name = f"{name}_sum_{len(made)}"
        return value

    sources = [value for value, _ in terms.columns]
    rows = sources[0] if len(sources) == 1 else add("Concat", sources, {"axis": 1})
    shift = sum(weight * number for value, weight in terms.others if (number := _number(value)) is not None)
    if shift:
        bias = ir.Value(name=f"{name}_bias", const_value=ir.tensor(np.array([shift], np.float32), name=f"{name}_bias"))
        graph.register_initializer(bias)
        total = add("Squeeze", [add("Gemm", [rows, vector, bias]), axis])
    else:
        total = add("Squeeze", [add("MatMul", [rows, vector]), axis])
    for value, weight in terms.others:
        if _number(value) is not None:
            continue
        scaled = value
        if abs(weight) != 1.0:
            factor = ir.Value(
                name=f"{name}_factor_{len(made)}", const_value=ir.tensor(np.array(abs(weight), np.float32))
            )
            graph.register_initializer(factor)
            scaled = add("Mul", [value, factor])
        total = add("Add" if weight > 0 else "Sub", [total, scaled])
    graph.insert_before(node, made)
    total.type, total.shape = output.type, output.shape
    if output.is_graph_output():
        graph.outputs[graph.outputs.index(output)] = total
        output.name, total.name = f"{name}_before", name
    output.replace_all_uses_with(total)


def _number(value: ir.Value) -> float | None:
    """What a constant adds to every row; None for anything that depends on the rows."""
    constant = value.const_value
    return float(constant.numpy().reshape(())) if constant is not None and constant.size == 1 else None


def _width(node: ir.Node) -> int | None:
    """The number of columns that a ReduceSum adds up; None for any other node, or another axis."""
    if node.op_type != "ReduceSum" or node.attributes.get_int("keepdims", 1) != 0 or len(node.inputs) != 2:
        return None
    source, axes = node.inputs
    known = None if axes is None or axes.const_value is None else axes.const_value.numpy().tolist()
    if source is None or source.shape is None or source.shape.rank() != 2 or known not in ([1], [-1]):
        return None
    last = source.shape[1]
    return last if isinstance(last, int) else None


def _columns(value: ir.Value) -> int:
    last = None if value.shape is None else value.shape[1]
    if not isinstance(last, int):
        raise TypeError(f"the number of columns of {value.name} is not known")  # `_width` has looked
    return last


def _given(node: ir.Node, position: int) -> ir.Value:
    value = node.inputs[position]
    if value is None:
        raise TypeError(f"{node.op_type} has no input {position}")  # `_width` has looked
    return value


def _is_vector(value: ir.Value) -> bool:
    """Whether it holds one number a row."""
    return value.shape is not None and value.shape.rank() == 1
