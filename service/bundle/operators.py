"""What an ONNX graph may hold: an allow-list, checked before ONNX Runtime sees a byte.

A bundle is data from a stranger. A graph can read files (external data), loop for ever, or be random; none of
these has a place in a flow. The parser is Google's protobuf, which ONNX Runtime brings; the schema is the part
of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) that these checks read, so that serving
does not carry the `onnx` package.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from service.errors import ForbiddenGraph

__all__ = ["ALLOWED_OPERATORS", "GraphSummary", "check_graph"]

ALLOWED_OPERATORS: Final[frozenset[str]] = frozenset(
    """
    Abs Add And ArgMax ArgMin Cast Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum DepthToSpace Div Elu
    Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm Greater GreaterOrEqual HardSigmoid
    Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max Min Mod Mul Neg Not Or Pow Reciprocal
    ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round
    ScatterElements ScatterND Shape Sigmoid Sign Sin Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum
    Tan Tanh Transpose Unsqueeze Where Xor
    """.split()  # noqa: SIM905  a hundred quoted names in a column are harder to read
)
"""Operators of the default domain: elementwise, linear, shape and selection. No control flow, nothing random."""

_BYTES, _STRING, _INT64 = 12, 9, 3  # FieldDescriptorProto.Type
_OPTIONAL, _REPEATED = 1, 3  # FieldDescriptorProto.Label

# message -> (field, number, type or message, label)
_SCHEMA: dict[str, list[tuple[str, int, int | str, int]]] = {
    "Model": [
        ("graph", 7, "Graph", _OPTIONAL),
        ("opset_import", 8, "OperatorSet", _REPEATED),
        ("training_info", 20, _BYTES, _REPEATED),
        ("functions", 25, _BYTES, _REPEATED),
    ],
    "OperatorSet": [("domain", 1, _STRING, _OPTIONAL), ("version", 2, _INT64, _OPTIONAL)],
    "Graph": [
        ("node", 1, "Node", _REPEATED),
        ("initializer", 5, "Tensor", _REPEATED),
        ("sparse_initializer", 15, _BYTES, _REPEATED),
    ],
    "Node": [
        ("op_type", 4, _STRING, _OPTIONAL),
        ("attribute", 5, "Attribute", _REPEATED),
        ("domain", 7, _STRING, _OPTIONAL),
    ],
    "Attribute": [
        ("t", 5, "Tensor", _OPTIONAL),
        ("g", 6, _BYTES, _OPTIONAL),
        ("tensors", 10, "Tensor", _REPEATED),
        ("graphs", 11, _BYTES, _REPEATED),
        ("sparse_tensor", 22, _BYTES, _OPTIONAL),
        ("sparse_tensors", 23, _BYTES, _REPEATED),
    ],
    "Tensor": [("external_data", 13, _BYTES, _REPEATED), ("data_location", 14, _INT64, _OPTIONAL)],
}


def _model_class() -> Any:  # noqa: ANN401  a class that protobuf makes at run time has no static type
    package = "pushforward.onnx"
    file = descriptor_pb2.FileDescriptorProto(name="pushforward_onnx.proto", package=package, syntax="proto2")
    for message, fields in _SCHEMA.items():
        descriptor = file.message_type.add(name=message)
        for name, number, kind, label in fields:
            if isinstance(kind, str):
                descriptor.field.add(name=name, number=number, type=11, type_name=f".{package}.{kind}", label=label)
            else:
                descriptor.field.add(name=name, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Model"))


_Model: Final = _model_class()


@dataclass(frozen=True, slots=True)
class GraphSummary:
    """What a graph is made of.

    Args:
        opset: the version of the default operator set.
        operators: operator -> how many nodes.
    """

    opset: int
    operators: Counter[str]

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return self.operators.total()


def check_graph(data: bytes, file: str) -> GraphSummary:
    """Hold an ONNX file against the allow-list.

    Args:
        data: the file's bytes.
        file: its name within the bundle, for the error.

    Raises:
        ForbiddenGraph: where `data` is no ONNX model, or holds an operator outside `ALLOWED_OPERATORS`, a subgraph,
            a local function, training information, a sparse tensor, or a tensor whose values lie in another file.
    """
    try:
        model = _Model.FromString(data)
    except DecodeError as error:
        raise ForbiddenGraph(f"{file} is not an ONNX model") from error
    if not model.graph.node:
        raise ForbiddenGraph(f"{file} is not an ONNX model: it has no nodes")
    if model.functions or model.training_info:
        raise ForbiddenGraph(f"{file} holds local functions or training information")
    if model.graph.sparse_initializer:
        raise ForbiddenGraph(f"{file} holds sparse tensors")
    tensors = list(model.graph.initializer)
    operators: Counter[str] = Counter()
    for node in model.graph.node:
        operator = f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        if operator not in ALLOWED_OPERATORS:
            raise ForbiddenGraph(f"{file} holds the operator {operator[:100]!r}, which is not on the allow-list")
        operators[operator] += 1
        for attribute in node.attribute:
            if attribute.g or attribute.graphs or attribute.sparse_tensor or attribute.sparse_tensors:
                raise ForbiddenGraph(f"{file} holds a subgraph or a sparse tensor in a node {operator!r}")
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            tensors.extend(attribute.tensors)
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        raise ForbiddenGraph(f"{file} points at tensor data outside itself")
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return GraphSummary(opset, operators)
