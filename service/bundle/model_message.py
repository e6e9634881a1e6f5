"""The message of an ONNX model: the part of onnx.proto that the checks of a bundle read.

The parser is Google's protobuf, which ONNX Runtime requires. The schema is part of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, so that serving does not need the `onnx` package. What it leaves
out is kept when a message is written again.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["ModelMessage"]

_BYTES, _STRING, _INT64, _INT32, _FLOAT = 12, 9, 3, 5, 2  # FieldDescriptorProto.Type
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
        ("input", 11, "Value", _REPEATED),
        ("output", 12, "Value", _REPEATED),
        ("sparse_initializer", 15, _BYTES, _REPEATED),
    ],
    "Value": [("name", 1, _STRING, _OPTIONAL), ("type", 2, "Type", _OPTIONAL)],
    "Type": [("tensor_type", 1, "TensorType", _OPTIONAL)],
    "TensorType": [("shape", 2, "Shape", _OPTIONAL)],
    "Shape": [("dim", 1, "Dimension", _REPEATED)],
    "Dimension": [("dim_value", 1, _INT64, _OPTIONAL)],
    "Node": [
        ("input", 1, _STRING, _REPEATED),
        ("output", 2, _STRING, _REPEATED),
        ("op_type", 4, _STRING, _OPTIONAL),
        ("attribute", 5, "Attribute", _REPEATED),
        ("domain", 7, _STRING, _OPTIONAL),
    ],
    "Attribute": [
        ("name", 1, _STRING, _OPTIONAL),
        ("i", 3, _INT64, _OPTIONAL),
        ("s", 4, _BYTES, _OPTIONAL),
        ("t", 5, "Tensor", _OPTIONAL),
        ("g", 6, "Graph", _OPTIONAL),
        ("floats", 7, _FLOAT, _REPEATED),
        ("ints", 8, _INT64, _REPEATED),
        ("tensors", 10, "Tensor", _REPEATED),
        ("graphs", 11, _BYTES, _REPEATED),
        ("sparse_tensor", 22, _BYTES, _OPTIONAL),
        ("sparse_tensors", 23, _BYTES, _REPEATED),
    ],
    "Tensor": [
        ("dims", 1, _INT64, _REPEATED),
        ("data_type", 2, _INT32, _OPTIONAL),
        ("int32_data", 5, _INT32, _REPEATED),
        ("int64_data", 7, _INT64, _REPEATED),
        ("name", 8, _STRING, _OPTIONAL),
        ("raw_data", 9, _BYTES, _OPTIONAL),
        ("external_data", 13, _BYTES, _REPEATED),
        ("data_location", 14, _INT64, _OPTIONAL),
    ],
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


ModelMessage: Final = _model_class()
