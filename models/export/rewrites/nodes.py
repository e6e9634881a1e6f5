"""Small questions about the nodes of a graph, and small changes, for the rules that rewrite one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = [
    "Array",
    "columns",
    "constant_number",
    "constant_value",
    "input_of",
    "last_dimension",
    "made_by",
    "named_like",
    "new_constant",
    "producer_of",
    "put_for",
    "read_once",
]

Array = npt.NDArray[np.generic]


def input_of(node: ir.Node | None, position: int) -> ir.Value | None:
    """An input of a node; None where there is none."""
    return node.inputs[position] if node is not None and position < len(node.inputs) else None


def producer_of(node: ir.Node | None, position: int) -> ir.Node | None:
    """The node that an input of a node comes from; None for inputs of the graph, and for constants."""
    value = input_of(node, position)
    return None if value is None else value.producer()


def made_by(value: ir.Value | None, operator: str) -> bool:
    """Whether a value is the output of such a node."""
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == operator


def constant_value(value: ir.Value | None) -> Array | None:
    """What a constant holds; None for anything that depends on the rows."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def constant_number(value: ir.Value | None) -> float | None:
    """The number of a constant that holds one; None for anything else."""
    array = constant_value(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def read_once(value: ir.Value | None) -> bool:
    """Whether one node reads the value, and nobody else."""
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def named_like(value: ir.Value, node: ir.Node, name: str | None) -> ir.Value:
    """The output of a new node, of the type and shape of `value`."""
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = name, value.type, value.shape
    return node.outputs[0]


def put_for(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put a new node in the place of an old one, whose output it gives."""
    graph.insert_before(old, new)
    before, after = old.outputs[0], new.outputs[0]
    name = before.name
    before.name = f"{name}_before"
    named_like(before, new, name)
    if before.is_graph_output():
        graph.outputs[graph.outputs.index(before)] = after
    before.replace_all_uses_with(after)


def columns(value: ir.Value | None) -> int | None:
    """How long axis 1 is: the columns of a table, the channels of an image."""
    if value is None or value.shape is None or value.shape.rank() < 2:
        return None
    second = value.shape[1]
    return second if isinstance(second, int) else None


def last_dimension(value: ir.Value | None) -> int | None:
    """How long the last axis is."""
    if value is None or value.shape is None or value.shape.rank() == 0:
        return None
    last = value.shape[-1]
    return last if isinstance(last, int) else None


def new_constant(graph: ir.Graph, node: ir.Node, array: Array) -> ir.Value:
    """A new initializer next to `node`."""
    number = len(graph.initializers)
    while (name := f"{node.outputs[0].name}_constant_{number}") in graph.initializers:
        number += 1
    value = ir.Value(name=name, const_value=ir.tensor(np.array(array, order="C"), name=name))
    graph.register_initializer(value)
    return value
