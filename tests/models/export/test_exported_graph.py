from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest

from models.export.exported_graph import ExportedGraph, GraphFails
from service.errors import DataError, ParityFailed

ROWS = np.arange(10, dtype=np.float32).reshape(5, 2)
SUM = "a = ReduceSum<keepdims: int = 0>(x, axis)"


def graph(body: str, ladj: str = "N") -> ExportedGraph:
    """z = x, and what `body` says of the other two outputs."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["" : 18]>
        g (float[N, 2] x) => (float[N, 2] z, float[{ladj}] log_abs_det_jacobian, float[N] log_prob)
        <int64[1] axis = {{1}}, float[3] three = {{1, 2, 3}}, int64[2] fixed = {{5, 2}},
         int64[2] wrong = {{11, 2}}> {{ {body} }}"""
    )
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
    return ExportedGraph(model.SerializeToString(), "forward")


SOUND = f"z = Identity(x) {SUM} log_abs_det_jacobian = Neg(a) log_prob = Identity(a)"


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7])
def test_rows_come_back_in_order_whatever_the_batch(batch: int) -> None:
    answers = graph(SOUND)(ROWS, None, batch)
    assert np.array_equal(answers.value, ROWS)
    assert np.array_equal(answers.log_prob, ROWS.sum(axis=1))
    assert np.array_equal(answers.log_abs_det_jacobian, -ROWS.sum(axis=1))
    assert answers.log_prob.dtype == np.float64


def test_an_output_that_does_not_follow_the_batch_is_named() -> None:
    frozen = graph(f"z = Identity(x) {SUM} log_prob = Neg(a) log_abs_det_jacobian = Identity(three)", "3")
    with pytest.raises(ParityFailed, match=r"log_abs_det_jacobian of shape \[3\] for a batch of 2"):
        frozen(ROWS, None, 2)
    assert frozen(ROWS, None, 3).log_prob.shape == (5,)


def test_a_run_that_fails_names_the_batch() -> None:
    frozen = graph(f"z = Reshape(x, fixed) {SUM} log_prob = Neg(a) log_abs_det_jacobian = Identity(a)")
    assert np.array_equal(frozen(ROWS, None, 5).value, ROWS)
    with pytest.raises(ParityFailed, match=r"forward\.onnx fails on a batch of 7\. .* by x\.shape\[0\]"):
        frozen(ROWS, None, 7)


def test_a_run_that_fails_names_its_node_and_blames_no_batch_that_fails_at_every_size() -> None:
    broken = graph(f"z = Reshape(x, wrong) {SUM} log_prob = Neg(a) log_abs_det_jacobian = Identity(a)")
    with pytest.raises(GraphFails, match=r"forward\.onnx fails on a batch of 7\. at the node Reshape_0: ") as raised:
        broken(ROWS, None, 7)
    assert "frozen" not in raised.value.detail


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(ParityFailed, match=r"cannot load forward\.onnx"):
        ExportedGraph(b"not a graph", "forward")


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.onnx.session", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DataError, match=r"^exporting needs ONNX Runtime: install the extra `cpu` or `gpu`"):
        ExportedGraph(b"", "forward")


def test_a_graph_that_does_not_load_names_its_node() -> None:
    with pytest.raises(GraphFails, match=r"cannot load forward\.onnx: at the node MatMul_0: "):
        graph(f"z = MatMul(x, three) {SUM} log_prob = Neg(a) log_abs_det_jacobian = Identity(a)")
