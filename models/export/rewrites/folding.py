"""The rewrites that fold what is done with a layer's output into its weights, a conditioner's last layer most of all.

Each rule looks at one node; `models.export.rewrites.simplify` applies it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx_ir as ir

from models.export.rewrites.nodes import (
    Array,
    add_constant,
    column_count,
    constant_number,
    constant_value,
    describe_output,
    has_one_reader,
    input_of,
    is_made_by,
    last_dimension,
    producer_of,
    replace_node,
)

__all__ = ["FOLDING_RULES"]


def _unpack_parameters(graph: ir.Graph, node: ir.Node) -> bool:
    """Split a conditioner's output [N, B * T] at once, rather than as [N, B, T] with slices that are reshaped again.

    The rows of the last layer's weight and bias are put in the order in which the slices are read instead.
    """
    reshape = producer_of(node, 0)
    gemm = producer_of(reshape, 0)
    if node.op_type != "Split" or reshape is None or gemm is None:
        return False
    if reshape.op_type != "Reshape" or gemm.op_type != "Gemm" or gemm.attributes.get_int("transB", 0) != 1:
        return False
    shape, sizes = constant_value(reshape.inputs[1]), constant_value(input_of(node, 1))
    readers = [use.node for output in node.outputs for use in output.uses()]
    if (
        shape is None
        or sizes is None
        or shape.size != 3
        or node.attributes.get_int("axis", 0) not in (2, -1)
        or not _has_constant_rows(gemm)
        or any(not (_drops_last(reader) or _reshapes_rows(reader)) for reader in readers)
        or any(len(value.uses()) != 1 for value in (reshape.outputs[0], gemm.outputs[0]))
    ):
        return False
    groups, each = int(shape[1]), int(shape[2])
    rows = np.arange(groups * each).reshape(groups, each)
    order = np.concatenate([part.ravel() for part in np.split(rows, np.cumsum(sizes)[:-1], axis=1)])
    _replace_rows(graph, gemm, lambda array: array[order])
    node.replace_input_with(0, gemm.outputs[0])
    node.replace_input_with(1, add_constant(graph, node, groups * sizes))
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    for output, size in zip(node.outputs, sizes, strict=True):
        output.shape = ir.Shape([gemm.outputs[0].shape[0] if gemm.outputs[0].shape else None, groups * int(size)])
        for use in list(output.uses()):
            if use.node.op_type == "Squeeze":
                use.node.outputs[0].replace_all_uses_with(output)
    return True


def _softsign(graph: ir.Graph, node: ir.Node) -> bool:
    """V / (1 + |v / c|) = |c| Softsign(v / |c|), and the division is the conditioner's weight's where v is its output.

    It is how scales and splines bound what a conditioner gives; c is a number, or one for each place of the last axis.
    """
    value, total = input_of(node, 0), producer_of(node, 1)
    if node.op_type != "Div" or value is None or total is None or total.op_type != "Add":
        return False
    absolute, one = (producer_of(total, 0), 1) if is_made_by(input_of(total, 0), "Abs") else (producer_of(total, 1), 0)
    ratio = producer_of(absolute, 0)
    if absolute is None or absolute.op_type != "Abs" or constant_number(input_of(total, one)) != 1.0:
        return False
    limit = constant_value(input_of(ratio, 1))
    if ratio is None or ratio.op_type != "Div" or ratio.inputs[0] is not value or limit is None:
        return False
    bound: Array = np.abs(limit)
    if not bound.all() or (bound.size > 1 and bound.shape != (last_dimension(value),)):
        return False
    if not _divide_rows(graph, value, {node, ratio}, bound):
        divided = ir.node("Div", [value, add_constant(graph, node, bound)])
        graph.insert_before(node, divided)
        value = describe_output(value, divided, f"{node.outputs[0].name}_share")
    sign = ir.node("Softsign", [value])
    graph.insert_before(node, sign)
    share = describe_output(node.outputs[0], sign, f"{node.outputs[0].name}_softsign")
    replace_node(graph, node, ir.node("Mul", [share, add_constant(graph, node, bound)]))
    return True


def _divide_rows(graph: ir.Graph, value: ir.Value, readers: set[ir.Node], divisor: Array) -> bool:
    """Divide `value` by dividing the rows of the weight that it comes from; False where others read it, too."""
    if {use.node for use in value.uses()} != readers or value.is_graph_output():
        return False
    source = value.producer()
    while source is not None and source.op_type == "Reshape" and has_one_reader(source.inputs[0]):
        value, source = source.inputs[0] or value, producer_of(source, 0)
    start, stop, gemm = 0, column_count(value), source
    if source is not None and source.op_type == "Split":
        sizes = constant_value(input_of(source, 1))
        if source.attributes.get_int("axis", 0) != 1 or sizes is None:
            return False
        index, gemm = list(source.outputs).index(value), producer_of(source, 0)
        start, stop = int(sizes[:index].sum()), int(sizes[: index + 1].sum())
        value = source.inputs[0] or value
    if gemm is None or gemm.op_type != "Gemm" or not _has_constant_rows(gemm) or stop is None:
        return False
    if gemm is not source and not has_one_reader(value):
        return False
    rows = np.resize(divisor, stop - start)  # repeated: one for each place of the last axis

    def divided(array: Array) -> Array:
        parts = np.split(array, [start, stop])
        return np.concatenate([parts[0], np.divide(parts[1].T, rows).T, parts[2]])

    _replace_rows(graph, gemm, divided)
    return True


def _product_of_multiple(graph: ir.Graph, node: ir.Node) -> bool:
    """MatMul(c x, W) = MatMul(x, c W) with a constant c, a number or one for each row of W."""
    multiple, matrix = producer_of(node, 0), constant_value(input_of(node, 1))
    if node.op_type != "MatMul" or multiple is None or multiple.op_type != "Mul" or matrix is None:
        return False
    factor = constant_value(input_of(multiple, 1))
    if factor is None or not has_one_reader(multiple.outputs[0]) or constant_value(input_of(multiple, 0)) is not None:
        return False
    if factor.size != 1 and (matrix.ndim != 2 or factor.shape != matrix.shape[:1]):
        return False
    node.replace_input_with(0, multiple.inputs[0])
    node.replace_input_with(1, add_constant(graph, node, np.multiply(matrix, factor.reshape(-1, 1))))
    return True


FOLDING_RULES: Final[tuple[Callable[[ir.Graph, ir.Node], bool], ...]] = (
    _unpack_parameters,
    _softsign,
    _product_of_multiple,
)


def _has_constant_rows(gemm: ir.Node) -> bool:
    """Whether column i of a Gemm is row i of a constant weight, and of a constant bias, if there is one."""
    bias = input_of(gemm, 2)
    shape = None if bias is None or bias.const_value is None else bias.const_value.shape
    return (
        gemm.attributes.get_int("transB", 0) == 1
        and constant_value(gemm.inputs[1]) is not None
        and (bias is None or (shape is not None and shape.rank() == 1 and shape[0] == column_count(gemm.outputs[0])))
    )


def _replace_rows(graph: ir.Graph, gemm: ir.Node, change: Callable[[Array], Array]) -> None:
    """Change the rows of a Gemm's weight, and of its bias."""
    for position in (1, 2):
        array = constant_value(input_of(gemm, position))
        if array is not None:
            gemm.replace_input_with(position, add_constant(graph, gemm, change(array)))


def _drops_last(node: ir.Node) -> bool:
    """Whether the node drops the last axis, of length 1, and no other."""
    axes = constant_value(input_of(node, 1))
    if node.op_type != "Squeeze" or axes is None or node.inputs[0] is None or node.inputs[0].shape is None:
        return False
    last = node.inputs[0].shape.rank() - 1
    return last_dimension(node.inputs[0]) == 1 and axes.tolist() in ([-1], [last])


def _reshapes_rows(node: ir.Node) -> bool:
    """Whether the node gives a row's numbers, in their order, another shape."""
    shape = constant_value(input_of(node, 1))
    return node.op_type == "Reshape" and shape is not None and shape.size > 0 and shape[0] == -1
