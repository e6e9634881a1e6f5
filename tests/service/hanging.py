"""A bundle that hangs: whatever a file can say is right, and nothing but a run shows it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.service.bundles import Parts, affine

__all__ = ["hanging"]


def hanging(name: str, passes: int = 4096) -> Parts:
    """A bundle with right answers, whose forward graph also runs a Loop of so many passes of products: for minutes.

    The condition of the Loop ends it at once for the golden rows. Only a row that is far out would see it run on.
    """
    parts = affine(name)
    model = onnx.load_from_string(parts.files["forward.onnx"])
    graph = model.graph
    matrix = np.eye(512, dtype=np.float32)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(passes), "passes"),
            numpy_helper.from_array(np.array(True), "go"),
            numpy_helper.from_array(matrix, "matrix"),
            numpy_helper.from_array(np.float32(1e30), "far"),
            numpy_helper.from_array(np.float32(0), "nothing"),
        ]
    )
    carried = helper.make_tensor_value_info("in", TensorProto.FLOAT, [512, 512])
    products = [
        helper.make_node("MatMul", ["in" if at == 0 else f"p{at}", "matrix"], [f"p{at + 1}"]) for at in range(8)
    ]
    body = helper.make_graph(
        [
            *products,
            helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
            helper.make_node("Greater", ["most", "far"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            carried,
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("p8", TensorProto.FLOAT, [512, 512]),
        ],
    )
    (last,) = (node for node in graph.node if "log_prob" in node.output)
    last.output[0] = "density"
    graph.node.extend(
        [
            helper.make_node("Loop", ["passes", "go", "matrix"], ["looped"], body=body),
            helper.make_node("ReduceMax", ["looped"], ["one"], keepdims=0),
            helper.make_node("Mul", ["one", "nothing"], ["zero"]),
            helper.make_node("Add", ["density", "zero"], ["log_prob"]),
        ]
    )
    onnx.checker.check_model(model)
    return Parts(
        parts.manifest, {**parts.files, "forward.onnx": model.SerializeToString()}, parts.forward, parts.inverse
    )
