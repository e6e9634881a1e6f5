"""The lowering of operators: each means what ONNX's own reference says, in shapes that a full check takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx.reference import ReferenceEvaluator
from scipy.special import erf

from models.export.rewrites.lowering import lower

CONSTANTS = {
    "scale": np.array([0.5, -1.5, 2.0]),
    "shift": np.array([0.1, 0.2, -0.3]),
    "mean": np.array([0.3, -0.7, 0.1]),
    "variance": np.array([0.5, 1.5, 2.5]),
    "whole": np.arange(1.0, 13.0).reshape(3, 4) / 7,
    "row": np.array([0.5, -0.25, 1.5, 2.0]),
    "slope": np.array([0.1, 0.3, -0.5, 1.0]),
    "last": np.array([-1]),
    "second": np.array([1]),
    "third": np.array([2]),
    "rows": np.array([0]),
    "twice": np.array([1, 2, 3]),
    "once": np.array([1, 1, 1]),
    "often": np.array([1, 64, 4]),
    "too_often": np.array([1, 257, 1]),
}
SHAPE = (5, 3, 4)

ALWAYS = [
    "y = BatchNormalization(x, scale, shift, mean, variance)",
    "y = BatchNormalization<epsilon: float = 0.25>(x, scale, shift, mean, variance)",
    "y = Celu(x)",
    "y = Celu<alpha: float = 0.5>(x)",
    "y = HardSwish(x)",
    "y = InstanceNormalization(x, scale, shift)",
    "y = InstanceNormalization<epsilon: float = 0.25>(x, scale, shift)",
    "y = LayerNormalization(x, row)",
    "y = LayerNormalization<epsilon: float = 0.25>(x, row, slope)",
    "y = LayerNormalization<axis: int = 1>(x, whole, whole)",
    "y = Mish(x)",
    "y = PRelu(x, slope)",
    "y = ReduceL2(x, last)",
    "y = ReduceL2<keepdims: int = 0>(x, last)",
    "a = ReduceL2<keepdims: int = 0>(x, third) y = Exp(a)",
    "y = ReduceMean(x, last)",
    "y = ReduceMean<keepdims: int = 0>(x, third)",
    "y = Selu(x)",
    "y = Selu<alpha: float = 0.5, gamma: float = 2.0>(x)",
    "y = Shrink(x)",
    "y = Shrink<bias: float = 0.25, lambd: float = 0.75>(x)",
    "y = ThresholdedRelu(x)",
    "y = ThresholdedRelu<alpha: float = 0.25>(x)",
    "y = Tile(x, twice)",
    "y = Tile(x, once)",
    "y = Tile(x, often)",
]
IN_FLOAT64 = [
    "y = Atan(x)",
    "y = Cos(x)",
    "y = Elu(x)",
    "y = Elu<alpha: float = 0.5>(x)",
    "y = Erf(x)",
    "y = HardSigmoid(x)",
    "y = HardSigmoid<alpha: float = 0.5, beta: float = 0.25>(x)",
    "y = LeakyRelu(x)",
    "y = LeakyRelu<alpha: float = 0.5>(x)",
    "y = Softplus(x)",
    "y = Softsign(x)",
    "y = Tan(x)",
]
KEPT = [("ReduceMean", "second"), ("ReduceL2", "rows"), ("Tile", "too_often")]


def parse(text: str, dtype: type[np.floating]) -> onnx.ModelProto:
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    parsed = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 18]> g ({kind}[N, 3, 4] x) => ({kind}[] y) {{ {text} }}'
    )
    for name, array in CONSTANTS.items():
        if any(name in node.input for node in parsed.graph.node):
            typed = array if array.dtype == np.int64 else array.astype(dtype)
            parsed.graph.initializer.append(onnx.numpy_helper.from_array(typed, name))
    return onnx.shape_inference.infer_shapes(parsed, data_prop=True)


def lowered(proto: onnx.ModelProto) -> onnx.ModelProto:
    model = ir.from_proto(proto)
    lower(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    return after


def inputs(dtype: type[np.floating]) -> np.ndarray:
    x = 2 * np.random.default_rng(3).normal(size=SHAPE)
    x[0, 0] = 0.0, 1.0, -1.0, 0.5  # where pieces meet
    return x.astype(dtype)


@pytest.mark.parametrize(
    ("text", "dtype"),
    [(text, dtype) for text in ALWAYS for dtype in (np.float32, np.float64)]
    + [(text, np.float64) for text in IN_FLOAT64],
)
def test_what_is_written_means_the_same(text: str, dtype: type[np.floating]):
    before = parse(text, dtype)
    after = lowered(before)
    operators = {node.op_type for node in before.graph.node} - {"Exp"}
    assert not operators & {node.op_type for node in after.graph.node}
    (expected,) = ReferenceEvaluator(before).run(None, {"x": inputs(dtype)})
    session = ort.InferenceSession(after.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": inputs(dtype)})
    assert found.shape == expected.shape
    tolerance = 1e-7 if dtype is np.float64 else 1e-5  # the reference rounds defaults of attributes to float32
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("operator", "function"),
    [
        ("Atan", np.arctan),
        ("Cos", np.cos),
        ("Erf", erf),
        ("Softplus", lambda x: np.logaddexp(x, 0)),
        ("Softsign", lambda x: x / (1 + abs(x))),
        ("Tan", np.tan),
    ],
)
def test_float64_is_kept(operator: str, function: Callable[[np.ndarray], np.ndarray]):
    after = lowered(parse(f"y = {operator}(x)", np.float64))
    session = ort.InferenceSession(after.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.concatenate([inputs(np.float64), 5 * inputs(np.float64)])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], function(x), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(("operator", "axes"), KEPT)
def test_a_reduction_over_other_axes_or_a_value_too_often_stays(operator: str, axes: str):
    after = lowered(parse(f"y = {operator}(x, {axes})", np.float32))
    assert [node.op_type for node in after.graph.node] == [operator]


@pytest.mark.parametrize("text", ALWAYS)
def test_shapes_between_are_those_that_are_inferred(text: str):
    after = lowered(parse(text, np.float32))
    told = {info.name: sizes(info) for info in after.graph.value_info}
    del after.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(after, data_prop=True).graph.value_info
    for name, found in {info.name: sizes(info) for info in inferred}.items():
        assert len(told[name]) == len(found), name
        assert all(a == b for a, b in zip(told[name], found, strict=True) if a and b), name
    assert all(size >= 0 for one in told.values() for size in one)


def sizes(info: onnx.ValueInfoProto) -> list[int]:
    """The sizes of a value; 0 for one that is open."""
    return [dim.dim_value for dim in info.type.tensor_type.shape.dim]
