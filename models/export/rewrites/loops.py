"""The Loops of an exported graph, built from the marks that `models.flows.jacobi` left in it.

They are built after every other rewrite, from a graph that is flat until then. The nodes between two marks become a
body; what does not depend on the passes stays outside, where it is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from models.export.rewrites.nodes import float_type, register_constant, replace_value, required_input
from models.flows.jacobi import DOMAIN, END, START

__all__ = ["build_loops"]


def build_loops(model: ir.Model) -> None:
    """Replace each pair of marks, with the nodes between them, by one Loop.

    The Loop carries x ``[N, D]``, log|det| ``[N]``, and whether a row moves still ``[N]``. A row comes to rest with the
    pass in which every column has |new - x| <= tolerance * (1 + |x|), where the mark says the tolerance. From then on
    it keeps its x and its log|det|, so that its digits do not depend on how long its neighbours take. The Loop ends
    when all rows rest, or after the mark's number of passes.

    Args:
        model: changed in place. `models.export.rewrites.simplify` and `models.export.rewrites.reductions` come before:
            they do not look into bodies.
    """
    for node in list(model.graph):
        if (node.domain, node.op_type) == (DOMAIN, END):
            _build(model.graph, node)
    model.opset_imports.pop(DOMAIN, None)


def _build(graph: ir.Graph, end: ir.Node) -> None:
    x, begin = required_input(end, 0), required_input(end, 0).producer()
    if begin is None or begin.op_type != START:
        raise TypeError(f"the passes that {end.name} ends have no beginning")
    start, inside = required_input(begin, 0), _between(graph, x, end)
    name = f"{end.outputs[0].name}_loop"
    outer = _Nodes(graph, name)
    rows = outer.add("Shape", [start], {"start": 0, "end": 1})
    loop = ir.node(
        "Loop",
        [
            outer.constant("passes", np.array(end.attributes["passes"].as_int())),
            outer.constant("go", np.array(True)),
            start,
            outer.add("ConstantOfShape", [rows], {"value": ir.tensor(np.array([0], _precision(end)))}),
            outer.add("ConstantOfShape", [rows], {"value": ir.tensor(np.array([True]))}),
        ],
        {"body": _body(graph, end, inside, f"{name}_body")},
        num_outputs=3,
    )
    for value, part in zip(loop.outputs, ("x", "ladj", "moves"), strict=True):
        value.name = f"{name}_{part}"
    graph.insert_before(end, [*outer.nodes, loop])
    for old, new in zip(end.outputs, loop.outputs[:2], strict=True):
        replace_value(graph, old, new)
    graph.remove([end, begin], safe=True)


def _body(graph: ir.Graph, end: ir.Node, inside: Sequence[ir.Node], name: str) -> ir.Graph:
    """One pass: the nodes of the step, taken out of the main graph, and those that let a row come to rest."""
    added = _Nodes(graph, name)
    at, event, single = required_input(end, 0), required_input(end, 0).shape, required_input(end, 2).shape
    precision = _precision(end)
    kind = ir.DataType.from_numpy(precision)
    number = _carried(f"{name}_number", ir.DataType.INT64, ir.Shape([]))
    going = _carried(f"{name}_go", ir.DataType.BOOL, ir.Shape([]))
    x = _carried(f"{name}_x", kind, event)
    ladj = _carried(f"{name}_ladj", kind, single)
    moves = _carried(f"{name}_moves", ir.DataType.BOOL, single)
    at.replace_all_uses_with(x)
    new_x, new_ladj = required_input(end, 1), required_input(end, 2)  # only now: a step may give its x back

    axis = added.constant("axis", np.array([1]))
    size = added.add("Add", [added.add("Abs", [x]), added.constant("one", np.array(1.0, precision))])
    change = added.add("Abs", [added.add("Div", [added.add("Sub", [new_x, x]), size])])
    greatest = added.add("ReduceMax", [change, axis], {"keepdims": 0})
    bound = added.constant("tolerance", np.array(end.attributes["tolerance"].as_float(), precision))
    new_moves = added.add("And", [moves, added.add("Greater", [greatest, bound])])
    any_moves = added.add(
        "ReduceMax", [added.add("Cast", [new_moves], {"to": ir.DataType.INT32.value})], {"keepdims": 0}
    )
    outputs = [
        added.add("Cast", [any_moves], {"to": ir.DataType.BOOL.value}),
        added.add("Where", [added.add("Unsqueeze", [moves, axis]), new_x, x]),
        added.add("Where", [moves, new_ladj, ladj]),
        new_moves,
    ]
    for output, like in zip(outputs, (going, x, ladj, moves), strict=True):
        output.type, output.shape = like.type, like.shape
    graph.remove(inside)
    return ir.Graph(
        [number, going, x, ladj, moves],
        outputs,
        nodes=[*inside, *added.nodes],
        opset_imports=graph.opset_imports,
        name=name,
    )


def _precision(end: ir.Node) -> np.dtype[np.floating]:
    """The dtype of what a step computes."""
    return float_type(required_input(end, 1)) or np.dtype(np.float32)


def _between(graph: ir.Graph, x: ir.Value, end: ir.Node) -> list[ir.Node]:
    """The nodes before `end` that depend on x, in order."""
    reached, inside = {x}, []
    for node in graph:
        if node is end:
            break
        if not reached.isdisjoint(node.inputs):
            inside.append(node)
            reached.update(node.outputs)
    return inside


class _Nodes:
    """New nodes, in order, that are not in a graph yet; their constants are initializers of the main graph."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.nodes: list[ir.Node] = []
        self._graph = graph
        self._prefix = prefix

    def add(self, operator: str, inputs: Sequence[ir.Value], attributes: dict[str, Any] | None = None) -> ir.Value:
        """Append a node of one output, and return that output."""
        self.nodes.append(ir.node(operator, inputs, attributes=attributes or {}))
        value = self.nodes[-1].outputs[0]
        value.name = f"{self._prefix}_{len(self.nodes)}"
        return value

    def constant(self, name: str, array: npt.NDArray[Any]) -> ir.Value:
        """Register an initializer of the main graph."""
        return register_constant(self._graph, f"{self._prefix}_{name}", array)


def _carried(name: str, kind: ir.DataType, shape: ir.Shape | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(kind), shape=shape)
