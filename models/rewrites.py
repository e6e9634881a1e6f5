"""Rewrites of an exported graph that keep its meaning and drop nodes: at one row, a node's call outweighs its work.

Each rule looks at one node and either rewires the graph around it or does nothing; dead nodes are removed at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

__all__ = ["simplify"]

Array = npt.NDArray[np.generic]


def simplify(model: ir.Model) -> None:
    """Apply every rule, in graph order, until none finds anything; then remove what is no longer used.

    Args:
        model: changed in place. Inputs, outputs and their names stay.
    """
    while any(rule(model.graph, node) for node in list(model.graph) for rule in _RULES if node.graph is not None):
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
    node.replace_input_with(1, _constant(graph, node, inner[indices]))
    return True


def _gather_of_concat(_: ir.Graph, node: ir.Node) -> bool:
    """Gather(Concat(a, b), columns of a) = a, and the same for b."""
    indices, source = _column_gather(node)
    concat = None if source is None else source.producer()
    if indices is None or concat is None or concat.op_type != "Concat" or concat.attributes.get_int("axis") != 1:
        return False
    start = 0
    for part in concat.inputs:
        width = _columns(part)
        if part is None or width is None:
            return False
        if np.array_equal(indices, np.arange(start, start + width)) and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(part)
            return True
        start += width
    return False


def _unpack_parameters(graph: ir.Graph, node: ir.Node) -> bool:
    """Split a conditioner's output [N, B * T] at once, rather than as [N, B, T] with T single slices squeezed.

    The rows of the last layer's weight and bias are put in the order (T, B) instead.
    """
    reshape = _producer(node, 0)
    gemm = _producer(reshape, 0)
    if node.op_type != "Split" or reshape is None or gemm is None:
        return False
    if reshape.op_type != "Reshape" or gemm.op_type != "Gemm" or gemm.attributes.get_int("transB", 0) != 1:
        return False
    shape, weight, bias = _value(reshape.inputs[1]), _value(gemm.inputs[1]), _value(_input(gemm, 2))
    squeezes = [use.node for output in node.outputs for use in output.uses()]
    if (
        shape is None
        or weight is None
        or bias is None
        or shape.size != 3
        or len(node.outputs) != shape[2]
        or node.attributes.get_int("axis", 0) not in (2, -1)
        or any(squeeze.op_type != "Squeeze" or _last_dimension(squeeze.inputs[0]) != 1 for squeeze in squeezes)
        or any(len(value.uses()) != 1 for value in (reshape.outputs[0], gemm.outputs[0]))
    ):
        return False
    groups, each = int(shape[1]), int(shape[2])
    order = np.arange(groups * each).reshape(groups, each).T.ravel()
    gemm.replace_input_with(1, _constant(graph, gemm, weight[order]))
    gemm.replace_input_with(2, _constant(graph, gemm, bias[order]))
    node.replace_input_with(0, gemm.outputs[0])
    node.replace_input_with(1, _constant(graph, node, np.full(each, groups, np.int64)))
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    for output in node.outputs:
        output.shape = ir.Shape([gemm.outputs[0].shape[0] if gemm.outputs[0].shape else None, groups])
        for use in list(output.uses()):
            use.node.outputs[0].replace_all_uses_with(output)
    return True


def _reshape_to_itself(_: ir.Graph, node: ir.Node) -> bool:
    """Reshape([N, B] -> [-1, B]) = the same."""
    source = _input(node, 0)
    if node.op_type != "Reshape" or source is None or source.shape is None or node.outputs[0].is_graph_output():
        return False
    target = _value(node.inputs[1])
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
        expand, other = _producer(node, position), _input(node, 1 - position)
        if expand is None or expand.op_type != "Expand" or other is None or not _same_shape(node, other):
            continue
        constant = _value(expand.inputs[0])
        if constant is None or constant.size != 1 or (other.producer() is not None and _is(other, "Expand")):
            continue
        if float(constant.reshape(())) == 0.0 and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(other)
        else:
            node.replace_input_with(position, _constant(graph, node, constant.reshape(())))
        return True
    return False


def _clip_of_clip(_: ir.Graph, node: ir.Node) -> bool:
    """Clip(Clip(x, a, b), c, d) = Clip(x, c, d) where [c, d] lies in [a, b]."""
    inner = _producer(node, 0)
    if node.op_type != "Clip" or inner is None or inner.op_type != "Clip":
        return False
    bounds = [_value(_input(clip, position)) for clip in (inner, node) for position in (1, 2)]
    if any(bound is None for bound in bounds):
        return False
    a, b, c, d = (float(bound.reshape(())) for bound in bounds if bound is not None)
    if not a <= c <= d <= b:
        return False
    node.replace_input_with(0, inner.inputs[0])
    return True


_RULES: Final[tuple[Callable[[ir.Graph, ir.Node], bool], ...]] = (
    _gather_of_gather,
    _gather_of_concat,
    _unpack_parameters,
    _reshape_to_itself,
    _add_of_expand,
    _clip_of_clip,
)


def _column_gather(node: ir.Node | None) -> tuple[Array | None, ir.Value | None]:
    """The constant indices and the source of a Gather along axis 1; (None, None) for any other node."""
    if node is None or node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 1:
        return None, None
    indices = _value(node.inputs[1])
    return (indices, node.inputs[0]) if indices is not None and indices.ndim == 1 else (None, None)


def _input(node: ir.Node | None, position: int) -> ir.Value | None:
    return node.inputs[position] if node is not None and position < len(node.inputs) else None


def _producer(node: ir.Node | None, position: int) -> ir.Node | None:
    value = _input(node, position)
    return None if value is None else value.producer()


def _is(value: ir.Value, operator: str) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == operator


def _value(value: ir.Value | None) -> Array | None:
    """What a constant holds; None for anything that depends on the rows."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _columns(value: ir.Value | None) -> int | None:
    """How long axis 1 is: the columns of a table, the channels of an image."""
    if value is None or value.shape is None or value.shape.rank() < 2:
        return None
    second = value.shape[1]
    return second if isinstance(second, int) else None


def _last_dimension(value: ir.Value | None) -> int | None:
    if value is None or value.shape is None or value.shape.rank() == 0:
        return None
    last = value.shape[-1]
    return last if isinstance(last, int) else None


def _same_shape(node: ir.Node, other: ir.Value) -> bool:
    """Whether `other` has the shape of the node's output already, so that nothing needs to be expanded."""
    shape = node.outputs[0].shape
    return shape is not None and other.shape is not None and list(shape) == list(other.shape)


def _constant(graph: ir.Graph, node: ir.Node, array: Array) -> ir.Value:
    """A new initializer next to `node`."""
    number = len(graph.initializers)
    while (name := f"{node.outputs[0].name}_constant_{number}") in graph.initializers:
        number += 1
    value = ir.Value(name=name, const_value=ir.tensor(np.ascontiguousarray(array), name=name))
    graph.register_initializer(value)
    return value
