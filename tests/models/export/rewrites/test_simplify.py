"""Each rule on a graph of a few nodes: it fires where it may, and the answers stay the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from models.export.rewrites.simplify import simplify
from tests.models.export.rewrites.small_graphs import parse, run

WEIGHT = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
CONSTANTS = {
    "odd": np.array([1, 3]),
    "kept": np.array([True, False, True, False]),
    "even": np.array([0, 2]),
    "back": np.array([2, 0, 3, 1]),
    "some": np.array([3, 0]),
    "mixed": np.array([1, 2]),
    "weight": WEIGHT,
    "bias": np.arange(6, dtype=np.float32),
    "three_pairs": np.array([-1, 3, 2]),
    "ones": np.array([1, 1]),
    "last": np.array([-1]),
    "as_it_is": np.array([-1, 4]),
    "in_two": np.array([-1, 2]),
    "zero": np.array(0.0, np.float32),
    "one": np.array(1.0, np.float32),
    "two": np.array(2.0, np.float32),
    "minus": np.array(-1.0, np.float32),
    "axis": np.array([1]),
    "one_plane": np.array([-1, 1, 2, 2]),
    "first_two": np.array([0, 1]),
    "first": np.array([0]),
    "limit": np.array(-2.5, np.float32),
    "limits": np.array([-2.5, 2.5, 2.0], np.float32),
    "halves": np.array([3, 3]),
    "two_and_one": np.array([2, 1]),
    "two_triples": np.array([-1, 2, 3]),
    "two_pairs": np.array([-1, 2, 2]),
    "fours": np.array([-1, 4, 1]),
    "pairs": np.array([-1, 2, 1]),
    "matrix": WEIGHT[:4],
    "row": np.array([1.0, 2.0, 4.0, 8.0], np.float32),
    "pillar": np.array([[-2.5], [2.0]], np.float32),
}


ROWS = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def model(text: str, outputs: str = "float[N] y") -> ir.Model:
    return parse(text, outputs, columns=4, constants=CONSTANTS)


def simplified(text: str, outputs: str) -> list[str]:
    """The operators that are left, after a check that the answers are the same."""
    before, after = run(model(text, outputs), ROWS), model(text, outputs)
    simplify(after)
    for a, b in zip(run(after, ROWS), before, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    return [node.op_type for node in after.graph]


PAIR = "float[N, 2] y"
FOUR = "float[N, 4] y"
BOUNDED = (
    "h = Gemm<transB: int = 1>(x, weight, bias) s, t = Split<axis: int = 1>(h, halves) "
    "a = Div(t, {limit}) b = Abs(a) c = Add(b, {one}) d = Div(t, c) y = Add(s, d)"
)


@pytest.mark.parametrize(
    ("text", "outputs", "left"),
    [
        # Gather of Gather
        ("a = Gather<axis: int = 1>(x, back) y = Gather<axis: int = 1>(a, odd)", PAIR, ["Gather"]),
        ("a = Gather<axis: int = 0>(x, odd) y = Gather<axis: int = 0>(a, last)", "float[M, 4] y", ["Gather", "Gather"]),
        # Gather of Concat
        (
            (
                "p = Reshape(x, one_plane) e = Exp(p) c = Concat<axis: int = 1>(p, e, p) "
                "y = Gather<axis: int = 1>(c, first_two)"
            ),
            "float[N, 2, 2, 2] y",
            ["Reshape", "Exp", "Concat", "Gather"],  # two channels, though the planes are two pixels wide
        ),
        (
            (
                "p = Reshape(x, one_plane) e = Exp(p) c = Concat<axis: int = 1>(e, p) "
                "d = Gather<axis: int = 1>(c, first) y = Neg(d)"
            ),
            "float[N, 1, 2, 2] y",
            ["Reshape", "Exp", "Neg"],
        ),
        (
            (
                "a = Gather<axis: int = 1>(x, odd) b = Exp(a) c = Concat<axis: int = 1>(a, b) d = Gather<axis: int = 1>"
                "(c, back) e = Gather<axis: int = 1>(d, odd) y = Exp(e)"
            ),
            PAIR,
            ["Gather", "Exp"],
        ),
        (
            (
                "a = Gather<axis: int = 1>(x, odd) b = Exp(a) c = Concat<axis: int = 1>(a, b) "
                "e = Gather<axis: int = 1>(c, mixed) y = Exp(e)"
            ),
            PAIR,
            ["Gather", "Exp", "Concat", "Gather", "Exp"],
        ),
        (
            "p = Compress<axis: int = 1>(x, kept) c = Concat<axis: int = 1>(p, x) y = Gather<axis: int = 1>(c, odd)",
            PAIR,
            ["Compress", "Concat", "Gather"],  # how wide the first part is, the graph does not say
        ),
        (
            (
                "a = Gather<axis: int = 1>(x, odd) b = Exp(a) c = Concat<axis: int = 0>(a, b) "
                "e = Gather<axis: int = 1>(c, first_two) y = Exp(e)"
            ),
            "float[M, 2] y",
            ["Gather", "Exp", "Concat", "Gather", "Exp"],  # rows below rows: no part is all of its columns
        ),
        # a conditioner's parameters
        (
            (
                "h = Gemm<transB: int = 1>(x, weight, bias) r = Reshape(h, three_pairs) "
                "s, t = Split<axis: int = 2>(r, ones) "
                "u = Squeeze(s, last) v = Squeeze(t, last) w = Exp(v) y = Add(u, w)"
            ),
            "float[N, 3] y",
            ["Gemm", "Split", "Exp", "Add"],
        ),
        (
            (
                "h = Gemm<transB: int = 1>(x, weight, bias) r = Reshape(h, three_pairs) "
                "s, t = Split<axis: int = 2>(r, ones) "
                "u = Squeeze(s, last) v = Squeeze(t, last) w = Exp(v) y = Add(u, w) z = Identity(h)"
            ),
            "float[N, 3] y, float[N, 6] z",
            ["Gemm", "Reshape", "Split", "Squeeze", "Squeeze", "Exp", "Add", "Identity"],
        ),
        (
            (
                "h = Gemm<transB: int = 1>(x, weight) r = Reshape(h, three_pairs) "
                "s, t = Split<axis: int = 2>(r, ones) "
                "u = Squeeze(s, last) v = Squeeze(t, last) w = Exp(v) y = Add(u, w)"
            ),
            "float[N, 3] y",
            ["Gemm", "Split", "Exp", "Add"],
        ),
        (
            (
                "h = Gemm<transB: int = 1>(x, weight, bias) r = Reshape(h, two_triples) "
                "s, t = Split<axis: int = 2>(r, two_and_one) u = Reshape(s, two_pairs) v = Squeeze(t, last) "
                "w = Unsqueeze(v, last) y = Add(u, w)"
            ),
            "float[N, 2, 2] y",
            ["Gemm", "Split", "Reshape", "Unsqueeze", "Add"],
        ),
        (
            (
                "h = Gemm<transB: int = 1>(x, weight, bias) r = Reshape(h, two_triples) "
                "s, t = Split<axis: int = 2>(r, two_and_one) u = Exp(s) v = Squeeze(t, last) "
                "w = Unsqueeze(v, last) y = Add(u, w)"
            ),
            "float[N, 2, 2] y",
            ["Gemm", "Reshape", "Split", "Exp", "Squeeze", "Unsqueeze", "Add"],  # a slice is read as it is
        ),
        # the soft bound of a conditioner's output
        (BOUNDED.format(limit="limit", one="one"), "float[N, 3] y", ["Gemm", "Split", "Softsign", "Mul", "Add"]),
        (
            BOUNDED.format(limit="limit", one="two"),
            "float[N, 3] y",
            ["Gemm", "Split", "Div", "Abs", "Add", "Div", "Add"],
        ),
        (
            BOUNDED.format(limit="limits", one="one"),
            "float[N, 3] y",
            ["Gemm", "Split", "Softsign", "Mul", "Add"],
        ),
        (
            (
                "h = Gemm<transB: int = 1>(x, weight, bias) t = Reshape(h, two_triples) "
                "a = Div(t, limits) b = Abs(a) c = Add(b, one) y = Div(t, c)"
            ),
            "float[N, 2, 3] y",
            ["Gemm", "Reshape", "Softsign", "Mul"],
        ),
        # parts that are put together again
        (
            (
                "a = Exp(x) b = Reshape(a, two_pairs) s, t = Split<axis: int = 2>(b, ones) "
                "u = Squeeze(s, last) v = Reshape(u, pairs) c = Concat<axis: int = -1>(v, t) y = Exp(c)"
            ),
            "float[N, 2, 2] y",
            ["Exp", "Reshape", "Exp"],
        ),
        (
            (
                "a = Exp(x) b = Reshape(a, two_pairs) s, t = Split<axis: int = 2>(b, ones) "
                "c = Concat<axis: int = -1>(t, s) y = Exp(c)"
            ),
            "float[N, 2, 2] y",
            ["Exp", "Reshape", "Split", "Concat", "Exp"],
        ),
        (
            BOUNDED.format(limit="limit", one="one") + " z = Exp(t)",
            "float[N, 3] y, float[N, 3] z",
            ["Gemm", "Split", "Div", "Softsign", "Mul", "Add", "Exp"],  # its weight is another's, too
        ),
        ("a = Div(x, limit) b = Abs(a) c = Add(one, b) y = Div(x, c)", FOUR, ["Div", "Softsign", "Mul"]),
        (
            "e = Exp(x) a = Div(e, limit) b = Abs(a) c = Add(b, one) y = Div(x, c)",
            FOUR,
            ["Exp", "Div", "Abs", "Add", "Div"],
        ),
        (
            "r = Reshape(x, two_pairs) a = Div(r, pillar) b = Abs(a) c = Add(b, one) y = Div(r, c)",
            "float[N, 2, 2] y",
            ["Reshape", "Div", "Abs", "Add", "Div"],  # a limit for each place of an axis that is not the last
        ),
        # a multiple within a product
        ("a = Mul(x, two) y = MatMul(a, matrix)", FOUR, ["MatMul"]),
        ("a = Mul(x, two) b = MatMul(a, matrix) y = Add(a, b)", FOUR, ["Mul", "MatMul", "Add"]),
        ("a = Mul(x, x) y = MatMul(a, matrix)", FOUR, ["Mul", "MatMul"]),
        ("a = Mul(x, row) y = MatMul(a, matrix)", FOUR, ["MatMul"]),
        # Squeeze of Reshape
        ("a = Reshape(x, fours) y = Squeeze(a, last)", FOUR, ["Reshape"]),
        ("a = Reshape(x, pairs) b = Squeeze(a, last) y = Exp(b)", "float[M, 2] y", ["Reshape", "Exp"]),
        # Reshape to what it is
        ("a = Exp(x) b = Reshape(a, as_it_is) y = Exp(b)", FOUR, ["Exp", "Exp"]),
        ("a = Exp(x) b = Reshape(a, in_two) y = Exp(b)", "float[M, 2] y", ["Exp", "Reshape", "Exp"]),
        # a clip within another
        ("a = Clip(x, minus, two) y = Clip(a, zero, one)", FOUR, ["Clip"]),
        ("a = Clip(x, zero, one) y = Clip(a, minus, two)", FOUR, ["Clip", "Clip"]),
        ("a = Clip(x, zero, two) y = Clip(a, minus, one)", FOUR, ["Clip", "Clip"]),
        ("a = Clip(x, minus) y = Clip(a, zero, one)", FOUR, ["Clip", "Clip"]),
        # a sigmoid in small numbers
        ("y = Sigmoid(x)", FOUR, ["Neg", "Exp", "Add", "Reciprocal"]),
        ("a = Sigmoid(x) y = Log(a)", FOUR, ["Neg", "Softplus", "Neg"]),
        (
            "a = Sigmoid(x) b = Log(a) y = Mul(a, b)",
            FOUR,
            ["Neg", "Exp", "Add", "Reciprocal", "Neg", "Softplus", "Neg", "Mul"],
        ),
        # sums with an expanded constant
        (
            "a = ReduceSum<keepdims: int = 0>(x, axis) s = Shape(a) e = Expand(two, s) y = Add(a, e)",
            "float[N] y",
            ["ReduceSum", "Add"],
        ),
        (
            "a = ReduceSum<keepdims: int = 0>(x, axis) s = Shape(a) e = Expand(two, s) y = Sub(a, e)",
            "float[N] y",
            ["ReduceSum", "Sub"],
        ),
        (
            "a = ReduceSum<keepdims: int = 0>(x, axis) s = Shape(a) e = Expand(two, s) y = Sub(e, a)",
            "float[N] y",
            ["ReduceSum", "Shape", "Expand", "Sub"],
        ),
        (
            "a = ReduceSum<keepdims: int = 1>(x, axis) s = Shape(x) e = Expand(two, s) y = Add(a, e)",
            FOUR,
            ["ReduceSum", "Shape", "Expand", "Add"],  # which makes the one column four
        ),
        ("a = Neg(two) y = Add(x, a)", FOUR, ["Neg", "Add"]),
        (
            "a = ReduceSum<keepdims: int = 0>(x, axis) s = Shape(a) e = Expand(zero, s) b = Add(e, a) y = Exp(b)",
            "float[N] y",
            ["ReduceSum", "Exp"],
        ),
    ],
)
def test_a_rule_drops_what_it_may_and_keeps_the_answers(text: str, outputs: str, left: list[str]) -> None:
    assert simplified(text, outputs) == left


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("y = Sigmoid(x)", lambda x: 1.0 / (1.0 + np.exp(-x))),
        ("a = Sigmoid(x) y = Log(a)", lambda x: -np.logaddexp(0.0, -x)),
        ("a = Sigmoid(x) y = Div(x, a)", lambda x: x * (1.0 + np.exp(-x))),
    ],
)
def test_a_sigmoid_is_right_where_it_is_small(text: str, exact: Callable[[np.ndarray], np.ndarray]) -> None:
    after = model(text, FOUR)
    simplify(after)
    rows = np.array([[-80.0, -30.0, -17.0, -8.0], [-3.0, 0.5, 8.0, 80.0]], np.float32)
    np.testing.assert_allclose(run(after, rows)[0], exact(rows.astype(np.float64)), rtol=1e-6)


def test_a_graph_output_keeps_its_name() -> None:
    after = model("a = Exp(x) b = Concat<axis: int = 1>(a, a) y = Gather<axis: int = 1>(b, back)", FOUR)
    simplify(after)
    assert [output.name for output in after.graph.outputs] == ["y"]
