"""The rewrites that drop nodes of an exported graph and keep its meaning: at one row, a node's call outweighs its work.

Each rule looks at one node and either rewires the graph around it or does nothing; dead nodes are removed at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

from models.export.rewrites.folding import FOLDING_RULES
from models.export.rewrites.nodes import (
    Array,
    add_constant,
    column_count,
    constant_value,
    describe_output,
    float_type,
    input_of,
    is_made_by,
    producer_of,
    replace_node,
)

__all__ = ["simplify"]


def simplify(model: ir.Model) -> None:
    """Apply every rule, in graph order, until none finds anything; then remove what is no longer used.

    Args:
        model: changed in place. Inputs, outputs and their names stay.
    """
    # Parts that are joined again are joined first: the other rules would tell them apart.
    for rules in ((_concat_of_split,), _RULES):
        while any(rule(model.graph, node) for node in list(model.graph) for rule in rules if node.graph is not None):
            RemoveUnusedNodesPass()(model)
    RemoveUnusedNodesPass()(model)
    RemoveUnusedOpsetsPass()(model)


def _gather_of_gather(graph: ir.Graph, node: ir.Node) -> bool:
    """Gather(Gather(x, i), j) = Gather(x, i[j]), both of columns."""
    indices, source = _column_gather(node)
    if indices is None or source is None:
        return False
    inner, origin = _column_gather(source.producer())
    if inner is None or origin is None:
        return False
    node.replace_input_with(0, origin)
    node.replace_input_with(1, add_constant(graph, node, inner[indices]))
    return True


def _gather_of_concat(_: ir.Graph, node: ir.Node) -> bool:
    """Gather(Concat(a, b), columns of a) = a, and the same for b."""
    indices, source = _column_gather(node)
    concat = None if source is None else source.producer()
    if indices is None or concat is None or concat.op_type != "Concat" or concat.attributes.get_int("axis") != 1:
        return False
    start = 0
    for part in concat.inputs:
        width = column_count(part)
        if part is None or width is None:
            return False
        if np.array_equal(indices, np.arange(start, start + width)) and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(part)
            return True
        start += width
    return False


def _concat_of_split(_: ir.Graph, node: ir.Node) -> bool:
    """Concat(Split(x)) = x, along the last axis, whatever shapes the parts had in between."""
    output = node.outputs[0]
    if node.op_type != "Concat" or output.shape is None or output.is_graph_output():
        return False
    rank = output.shape.rank()
    parts = [_before_reshapes(value) for value in node.inputs]
    split = None if parts[0] is None else parts[0].producer()
    source = input_of(split, 0)
    if split is None or split.op_type != "Split" or list(split.outputs) != parts or source is None:
        return False
    axes = [each.attributes.get_int("axis", 0) % rank for each in (node, split)]
    pairs = [*zip(node.inputs, parts, strict=True), (output, source)]
    if axes != [rank - 1] * 2 or not all(_same_rows(one, other) for one, other in pairs):
        return False
    output.replace_all_uses_with(source)
    return True


def _squeeze_of_reshape(graph: ir.Graph, node: ir.Node) -> bool:
    """Squeeze(Reshape(x, [-1, B, 1])) = Reshape(x, [-1, B])."""
    reshape, axes = producer_of(node, 0), constant_value(input_of(node, 1))
    shape = constant_value(input_of(reshape, 1))
    if node.op_type != "Squeeze" or reshape is None or reshape.op_type != "Reshape" or axes is None or shape is None:
        return False
    dropped = {int(axis) % shape.size for axis in axes}
    if any(shape[axis] != 1 for axis in dropped):
        return False
    left = np.delete(shape, sorted(dropped))
    attributes = {"allowzero": reshape.attributes.get_int("allowzero", 0)}
    new = ir.node("Reshape", [reshape.inputs[0], add_constant(graph, node, left)], attributes=attributes)
    replace_node(graph, node, new)
    return True


def _reshape_to_itself(_: ir.Graph, node: ir.Node) -> bool:
    """Reshape([N, B] -> [-1, B]) = the same."""
    source = input_of(node, 0)
    if node.op_type != "Reshape" or source is None or source.shape is None or node.outputs[0].is_graph_output():
        return False
    target = constant_value(node.inputs[1])
    known = [d if isinstance(d, int) else -1 for d in source.shape]
    if target is None or known[1:].count(-1) or target.tolist() not in (known, [-1, *known[1:]]):
        return False
    node.outputs[0].replace_all_uses_with(source)
    return True


def _add_of_expand(graph: ir.Graph, node: ir.Node) -> bool:
    """Drop the Expand of a constant that is added or subtracted, and the whole sum where the constant is 0."""
    if node.op_type not in ("Add", "Sub"):
        return False
    for position in (1, 0) if node.op_type == "Add" else (1,):
        expand, other = producer_of(node, position), input_of(node, 1 - position)
        if expand is None or expand.op_type != "Expand" or other is None or not _same_shape(node, other):
            continue
        constant = constant_value(expand.inputs[0])
        if constant is None or constant.size != 1 or (other.producer() is not None and is_made_by(other, "Expand")):
            continue
        if float(constant.reshape(())) == 0.0 and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(other)
        else:
            node.replace_input_with(position, add_constant(graph, node, constant.reshape(())))
        return True
    return False


def _clip_of_clip(_: ir.Graph, node: ir.Node) -> bool:
    """Clip(Clip(x, a, b), c, d) = Clip(x, c, d) where [c, d] lies in [a, b]."""
    inner = producer_of(node, 0)
    if node.op_type != "Clip" or inner is None or inner.op_type != "Clip":
        return False
    bounds = [constant_value(input_of(clip, position)) for clip in (inner, node) for position in (1, 2)]
    if any(bound is None for bound in bounds):
        return False
    a, b, c, d = (float(bound.reshape(())) for bound in bounds if bound is not None)
    if not a <= c <= d <= b:
        return False
    node.replace_input_with(0, inner.inputs[0])
    return True


def _sigmoid(graph: ir.Graph, node: ir.Node) -> bool:
    """Sigmoid(x) = 1 / (1 + Exp(-x)), and Log(Sigmoid(x)) = -Softplus(-x).

    ONNX Runtime's own Sigmoid is right to 1e-8 of 1 only: of what it should give it is off by 2e-4 at -8, and it gives
    0 from -18 on, which a coupling divides by, or takes the logarithm of.
    """
    source = input_of(node, 0)
    if node.op_type != "Sigmoid" or source is None:
        return False

    one = np.array(1.0, float_type(source) or np.float32)

    def chained(old: ir.Node, *operators: str) -> ir.Value:
        """`source` through operators of one input each, and Add for the addition of 1, in front of `old`."""
        value = source
        for operator in operators:
            inputs = [value, add_constant(graph, old, one)] if operator == "Add" else [value]
            new = ir.node(operator, inputs)
            graph.insert_before(old, new)
            value = describe_output(old.outputs[0], new, f"{old.outputs[0].name}_{operator}")
        return value

    for log in [use.node for use in node.outputs[0].uses() if use.node.op_type == "Log"]:
        replace_node(graph, log, ir.node("Neg", [chained(log, "Neg", "Softplus")]))
    replace_node(graph, node, ir.node("Reciprocal", [chained(node, "Neg", "Exp", "Add")]))
    return True


_RULES: Final[tuple[Callable[[ir.Graph, ir.Node], bool], ...]] = (
    _gather_of_gather,
    _gather_of_concat,
    _squeeze_of_reshape,
    _reshape_to_itself,
    _add_of_expand,
    _clip_of_clip,
    _sigmoid,
    *FOLDING_RULES,
)


def _column_gather(node: ir.Node | None) -> tuple[Array | None, ir.Value | None]:
    """The constant indices and the source of a Gather along axis 1; (None, None) for any other node."""
    if node is None or node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1:
        return None, None
    indices = constant_value(node.inputs[1])
    return (indices, node.inputs[0]) if indices is not None and indices.ndim == 1 else (None, None)


def _before_reshapes(value: ir.Value | None) -> ir.Value | None:
    """What a value was before it was reshaped, which leaves its numbers in their order."""
    while any(is_made_by(value, operator) for operator in ("Reshape", "Squeeze", "Unsqueeze")):
        value = None if value is None else input_of(value.producer(), 0)
    return value


def _same_rows(one: ir.Value | None, other: ir.Value | None) -> bool:
    """Whether two values have the same shape beside the number of rows."""
    if one is None or other is None or one.shape is None or other.shape is None:
        return False
    sizes = [list(value.shape)[1:] for value in (one, other) if value.shape is not None]
    return sizes[0] == sizes[1] and all(isinstance(size, int) for size in sizes[0])


def _same_shape(node: ir.Node, other: ir.Value) -> bool:
    """Whether `other` has the shape of the node's output already, so that nothing needs to be expanded."""
    shape = node.outputs[0].shape
    return shape is not None and other.shape is not None and list(shape) == list(other.shape)
