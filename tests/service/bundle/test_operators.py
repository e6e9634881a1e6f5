from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from service.bundle.operators import ALLOWED_OPERATORS, check_graph
from service.errors import ForbiddenGraph
from tests.service.bundle.conftest import OPSET, make_graph


def external(name: str) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def subgraph() -> onnx.GraphProto:
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [])
    return helper.make_graph([helper.make_node("Identity", ["x"], ["out"])], "branch", [], [out])


def test_a_summary_counts_operators_and_names_the_opset():
    graph = make_graph(
        helper.make_node("Add", ["x", "x"], ["a"]),
        helper.make_node("Add", ["a", "x"], ["b"]),
        helper.make_node("Exp", ["b"], ["z"]),
        initializers=(numpy_helper.from_array(np.zeros(2, np.float32), "w"),),
    )
    summary = check_graph(graph, "forward.onnx")
    assert (summary.opset, dict(summary.operators), summary.nodes) == (OPSET, {"Add": 2, "Exp": 1}, 3)


def test_every_allowed_operator_is_one_of_onnx_and_passes():
    for operator in ALLOWED_OPERATORS:
        assert onnx.defs.has(operator)
        check_graph(make_graph(helper.make_node(operator, ["x"], ["z"])), "forward.onnx")


def test_no_allowed_operator_is_random_or_holds_a_graph():
    for operator in ALLOWED_OPERATORS:
        schema = onnx.defs.get_schema(operator, OPSET + 2)
        assert "Random" not in operator
        kinds = {a.type for a in schema.attributes.values()}
        assert not kinds & {onnx.defs.OpSchema.AttrType.GRAPH, onnx.defs.OpSchema.AttrType.GRAPHS}


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (make_graph(helper.make_node("RandomNormalLike", ["x"], ["z"])), "RandomNormalLike"),
        (make_graph(helper.make_node("Loop", ["x"], ["z"], body=subgraph())), "Loop"),
        (make_graph(helper.make_node("Add", ["x", "x"], ["z"], domain="com.microsoft")), "com.microsoft::Add"),
        (make_graph(helper.make_node("Identity", ["x"], ["z"], body=subgraph())), "subgraph"),
        (make_graph(helper.make_node("Identity", ["x"], ["z"], bodies=[subgraph()])), "subgraph"),
        (make_graph(initializers=(external("w"),)), "outside itself"),
        (make_graph(helper.make_node("Constant", [], ["z"], value=external("w"))), "outside itself"),
        (make_graph(helper.make_node("Constant", [], ["z"], values=[external("w")])), "outside itself"),
    ],
    ids=["random", "loop", "domain", "graph", "graphs", "initializer", "constant", "constants"],
)
def test_what_a_flow_may_not_hold_is_refused(graph, why):
    with pytest.raises(ForbiddenGraph, match=why):
        check_graph(graph, "forward.onnx")


def test_tensor_data_marked_external_without_an_entry_is_refused():
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    tensor.data_location = TensorProto.EXTERNAL
    with pytest.raises(ForbiddenGraph, match="outside itself"):
        check_graph(make_graph(initializers=(tensor,)), "forward.onnx")


def test_sparse_tensors_functions_and_training_are_refused():
    model = onnx.ModelProto.FromString(make_graph())
    sparse = onnx.SparseTensorProto(dims=[2])
    sparse.values.CopyFrom(external("w"))
    with_sparse = onnx.ModelProto.FromString(make_graph())
    with_sparse.graph.sparse_initializer.append(sparse)
    with_attribute = onnx.ModelProto.FromString(make_graph(helper.make_node("Constant", [], ["z"])))
    attribute = with_attribute.graph.node[0].attribute.add(name="sparse_value")
    attribute.type = onnx.AttributeProto.SPARSE_TENSOR
    attribute.sparse_tensor.CopyFrom(sparse)
    function = helper.make_function("local", "f", ["x"], ["z"], [], [helper.make_opsetid("", OPSET)])
    with_function = onnx.ModelProto.FromString(make_graph())
    with_function.functions.append(function)
    model.training_info.add().algorithm.CopyFrom(subgraph())
    for forbidden in (with_sparse, with_attribute, with_function, model):
        with pytest.raises(ForbiddenGraph):
            check_graph(forbidden.SerializeToString(), "forward.onnx")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    try:
        check_graph(data, "forward.onnx")
    except ForbiddenGraph as error:
        assert "forward.onnx" in error.detail  # noqa: PT017  both outcomes are allowed, a crash is not


@given(st.data())
def test_a_damaged_file_never_adds_an_operator_outside_the_list(data):
    graph = bytearray(make_graph(helper.make_node("Add", ["x", "x"], ["z"])))
    for _ in range(data.draw(st.integers(1, 4))):
        graph[data.draw(st.integers(0, len(graph) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        summary = check_graph(bytes(graph), "forward.onnx")
    except ForbiddenGraph:
        return
    assert set(summary.operators) <= ALLOWED_OPERATORS
