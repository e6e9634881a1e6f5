"""The nodes and values of a graph: what the rewrites ask of them, and the small changes that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = [
    "Array",
    "add_constant",
    "adopt_constants",
    "column_count",
    "constant_number",
    "constant_value",
    "describe_output",
    "float_type",
    "has_one_reader",
    "input_of",
    "is_made_by",
    "last_dimension",
    "producer_of",
    "register_constant",
    "replace_node",
    "replace_value",
    "required_input",
]

Array = npt.NDArray[np.generic]

_FLOATS: Final[Mapping[ir.DataType | None, type[np.floating]]] = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.DOUBLE: np.float64,
}


def input_of(node: ir.Node | None, position: int) -> ir.Value | None:
    """An input of a node; None where there is none."""
    return node.inputs[position] if node is not None and position < len(node.inputs) else None


def required_input(node: ir.Node, position: int) -> ir.Value:
    """An input of a node that has it.

    Raises:
        TypeError: it has none there.
    """
    value = input_of(node, position)
    if value is None:
        raise TypeError(f"{node.op_type} has no input {position}")
    return value


def producer_of(node: ir.Node | None, position: int) -> ir.Node | None:
    """The node that an input of a node comes from; None for inputs of the graph, and for constants."""
    value = input_of(node, position)
    return None if value is None else value.producer()


def is_made_by(value: ir.Value | None, operator: str) -> bool:
    """Whether a value is the output of a node with this operator."""
    producer = None if value is None else value.producer()
    return producer is not None and producer.op_type == operator


def constant_value(value: ir.Value | None) -> Array | None:
    """What a constant holds; None for anything that depends on the rows."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def constant_number(value: ir.Value | None) -> float | None:
    """The number of a constant that holds one; None for anything else."""
    array = constant_value(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def float_type(value: ir.Value | None) -> np.dtype[np.floating] | None:
    """The dtype of a value of float32 or float64; None for any other, and where it is not known."""
    known = None if value is None else value.dtype
    return None if known not in _FLOATS else np.dtype(_FLOATS[known])


def has_one_reader(value: ir.Value | None) -> bool:
    """Whether one node reads the value, and nothing else does."""
    return value is not None and len(value.uses()) == 1 and not value.is_graph_output()


def describe_output(value: ir.Value, node: ir.Node, name: str | None) -> ir.Value:
    """Describe the output of a new node.

    Args:
        value: the value whose type and shape it has.
        node: the new node.
        name: its name.

    Returns:
        The output.
    """
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = name, value.type, value.shape
    return node.outputs[0]


def replace_value(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Put a value in the place of another: all who read the old one read the new one.

    Args:
        graph: whose outputs keep their names.
        old: the value that is read no more.
        new: takes over its type and shape, and its name where it is an output of the graph.
    """
    new.type, new.shape = old.type, old.shape
    if old.is_graph_output():
        graph.outputs[graph.outputs.index(old)] = new
        old.name, new.name = f"{old.name}_before", old.name
    old.replace_all_uses_with(new)


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Put a new node in the place of an old one, with its output's name.

    Args:
        graph: of the old node.
        old: has one output.
        new: gives that output.
    """
    graph.insert_before(old, new)
    before, after, name = old.outputs[0], new.outputs[0], old.outputs[0].name
    replace_value(graph, before, after)
    before.name, after.name = f"{name}_before", name


def column_count(value: ir.Value | None) -> int | None:
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


def register_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """Add an initializer to a graph.

    Args:
        graph: the main graph: bodies read its initializers.
        name: no other value's.
        array: its content.

    Returns:
        The new value.
    """
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def adopt_constants(graph: ir.Graph) -> None:
    """Register the constants that nodes read and a graph does not hold.

    onnxscript's fusion of Min and Max into Clip leaves its second pair of bounds of a value behind: it gives both pairs
    one name.

    Args:
        graph: flat; changed in place.
    """
    held = set(graph.inputs)
    for node in graph:
        for value in node.inputs:
            if value is None or value in held or value.producer() is not None or value.is_initializer():
                continue
            number, name = 0, value.name or "constant"
            while value.name in graph.initializers or not value.name:
                value.name, number = f"{name}_{number}", number + 1
            graph.register_initializer(value)


def add_constant(graph: ir.Graph, node: ir.Node, array: Array) -> ir.Value:
    """Add an initializer for `node`, under a name that is free."""
    number = len(graph.initializers)
    while (name := f"{node.outputs[0].name}_constant_{number}") in graph.initializers:
        number += 1
    return register_constant(graph, name, np.array(array, order="C"))
