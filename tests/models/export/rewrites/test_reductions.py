"""Column sums merged into a product: the answers stay the same, and no row depends on its place."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest

from models.export.rewrites.reductions import merge_column_sums
from tests.models.export.rewrites.small_graphs import parse, run

CONSTANTS = {
    "axis": np.array([1]),
    "last": np.array([-1]),
    "rows": np.array([0]),
    "half": np.array(-0.5, np.float32),
    "shift": np.array([2.0], np.float32),
}
TWO_SUMS = "a = ReduceSum<keepdims: int = 0>(x, axis) e = Exp(x) b = ReduceSum<keepdims: int = 0>(e, last) "


def model(text: str, outputs: str) -> ir.Model:
    return parse(text, outputs, columns=13, constants=CONSTANTS)


@pytest.mark.parametrize(
    ("text", "outputs", "left"),
    [
        ("y = ReduceSum<keepdims: int = 0>(x, axis)", "float[N] y", ["MatMul", "Squeeze"]),
        (TWO_SUMS + "y = Add(a, b)", "float[N] y", ["Exp", "Concat", "MatMul", "Squeeze"]),
        (TWO_SUMS + "c = Neg(b) y = Sub(c, a)", "float[N] y", ["Exp", "Concat", "MatMul", "Squeeze"]),
        (TWO_SUMS + "c = Sub(shift, b) y = Add(c, a)", "float[N] y", ["Exp", "Concat", "Gemm", "Squeeze"]),
        (
            TWO_SUMS + "c = Sub(b, shift) d = Add(c, shift) y = Add(a, d)",
            "float[N] y",
            ["Exp", "Concat", "MatMul", "Squeeze"],
        ),
        (TWO_SUMS + "c = Mul(b, half) y = Sub(a, c)", "float[N] y", ["Exp", "Concat", "MatMul", "Squeeze"]),
        # a sum that is an output, and part of another
        (
            TWO_SUMS + "c = Mul(a, half) y = Add(c, b)",
            "float[N] b, float[N] y",
            ["Exp", "MatMul", "Squeeze", "MatMul", "Squeeze", "Add"],
        ),
        # what is no sum over columns
        ("y = ReduceSum<keepdims: int = 0>(x, rows)", "float[13] y", ["ReduceSum"]),
        ("b = ReduceSum<keepdims: int = 1>(x, axis) y = Div(x, b)", "float[N, 13] y", ["ReduceSum", "Div"]),
        ("y = ReduceMax<keepdims: int = 0>(x, axis)", "float[N] y", ["ReduceMax"]),
        # a count: no product takes integers
        (
            "k = Cast<to: int = 7>(x) s = ReduceSum<keepdims: int = 0>(k, axis) y = Cast<to: int = 1>(s)",
            "float[N] y",
            ["Cast", "ReduceSum", "Cast"],
        ),
        (TWO_SUMS + "y = Mul(a, b)", "float[N] y", ["Exp", "MatMul", "Squeeze", "MatMul", "Squeeze", "Mul"]),
        (
            TWO_SUMS + "c = Exp(a) y = Add(c, b)",
            "float[N] y",
            ["Exp", "MatMul", "Squeeze", "Exp", "MatMul", "Squeeze", "Add"],
        ),
    ],
)
def test_sums_are_merged_and_the_answers_stay(text: str, outputs: str, left: list[str]):
    rows = np.random.default_rng(1).normal(size=(6, 13)).astype(np.float32)
    expected, after = run(model(text, outputs), rows), model(text, outputs)
    merge_column_sums(after)
    for a, b in zip(run(after, rows), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert sorted(node.op_type for node in after.graph) == sorted(left)
    assert [output.name for output in after.graph.outputs] == re.findall(r" (\w+)(?:,|$)", outputs)


def differing(graph: ir.Model) -> int:
    """How many answers change when every row moves on by one, two or three places."""
    rows = np.random.default_rng(2).normal(size=(400, 13)).astype(np.float32) * 100
    (before,) = run(graph, rows)
    return sum(int((np.roll(run(graph, np.roll(rows, k, axis=0))[0], -k) != before).sum()) for k in (1, 2, 3))


def test_a_row_keeps_its_bits_wherever_it_lies():
    before, after = (model("y = ReduceSum<keepdims: int = 0>(x, axis)", "float[N] y") for _ in range(2))
    assert differing(before) > 0, "ReduceSum does not need to be replaced any more"
    merge_column_sums(after)
    assert differing(after) == 0


def test_a_sum_over_columns_of_unknown_shape_stays():
    graph = model("e = Exp(x) y = ReduceSum<keepdims: int = 0>(e, axis)", "float[N] y")
    exp = next(node for node in graph.graph if node.op_type == "Exp")
    exp.outputs[0].shape = None
    merge_column_sums(graph)
    assert [node.op_type for node in graph.graph] == ["Exp", "ReduceSum"]
