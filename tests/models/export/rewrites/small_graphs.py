"""Small graphs for the rewrites: parsed from text with named constants, and run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

__all__ = ["parse", "run"]


def parse(text: str, outputs: str, *, columns: int, constants: Mapping[str, np.ndarray]) -> ir.Model:
    """The graph that `text` says of a float32 x of so many columns, with those of the constants that it names."""
    parsed = onnx.parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 18]> g (float[N, {columns}] x) => ({outputs}) {{ {text} }}'
    )
    for name, array in constants.items():
        if any(name in node.input for node in parsed.graph.node):
            parsed.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(parsed, data_prop=True))


def run(graph: ir.Model, rows: np.ndarray) -> list[np.ndarray]:
    """The graph's outputs, after a full check of it."""
    proto = ir.to_proto(graph)
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows})
