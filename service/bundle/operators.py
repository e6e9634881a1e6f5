"""The allow-list of ONNX operators, checked before ONNX Runtime reads a graph.

A bundle is data from a stranger. A graph can read files (external data), loop for ever, or be random, and a flow needs
none of these. The one exception is a form of Loop: the passes of an autoregressive step. What the graph makes of these
operators is for `service.bundle.shapes` to check.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from service.bundle.model_message import ModelMessage
from service.bundle.shapes import check_shapes
from service.errors import ForbiddenGraph

__all__ = ["ALLOWED_OPERATORS", "MAX_LOOPS", "MAX_PASSES", "GraphSummary", "check_graph", "run_all_passes"]

ALLOWED_OPERATORS: Final[frozenset[str]] = frozenset(
    """
    Abs Add And ArgMax ArgMin Atan Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos CumSum
    DepthToSpace Div Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm Greater
    GreaterOrEqual HardSigmoid Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max Min Mod
    Mul Neg Not Or Pad Pow Reciprocal ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Relu Reshape Round ScatterElements ScatterND Shape Sigmoid Sign Sin Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh Transpose Unsqueeze Where Xor
    """.split()  # noqa: SIM905  a hundred quoted names in a column are harder to read
)
"""Operators of the default domain: elementwise, linear, shape and selection. No control flow, nothing random.

`check_graph` also allows `Loop` in one form, which it describes."""

MAX_PASSES: Final = 4096
"""The most passes of a Loop, and so the most columns of an autoregressive step."""
MAX_LOOPS: Final = 512
"""The most Loops of a graph: one or two for each autoregressive step."""

_ONNX_INT64, _ONNX_INT64_BYTES = 7, 8  # TensorProto.DataType
_BEFORE_CARRIED = 2  # inputs of a Loop and of its body before the carried values: passes and condition


@dataclass(frozen=True, slots=True)
class GraphSummary:
    """The opset, the operators and the Loops of a graph.

    Args:
        opset: the version of the default operator set.
        operators: operator -> number of nodes, those in the bodies of Loops included.
        passes: the most passes of each Loop.
    """

    opset: int
    operators: Counter[str]
    passes: tuple[int, ...] = ()

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return self.operators.total()


def check_graph(data: bytes, file: str) -> GraphSummary:
    """Check an ONNX file against the allow-list.

    A Loop is allowed where the file holds its number of passes, at most `MAX_PASSES`. Its first input is an int64
    initializer, which no caller can feed, and its condition can only end it sooner. Its body holds operators of the
    list and no graph, and returns the carried values and nothing else. So every node runs at most `MAX_PASSES` times,
    and a graph does at most that many times the work of its nodes written out once.

    Args:
        data: the file's bytes.
        file: its name within the bundle, for the error.

    Returns:
        The opset, the operators and the Loops of the graph.

    Raises:
        ForbiddenGraph: `data` is no ONNX model, or holds an operator outside `ALLOWED_OPERATORS`, a Loop of another
            form or more than `MAX_LOOPS`, any other subgraph, a local function, training information, a sparse tensor,
            or a tensor whose values lie in another file; or a shape is computed from rows, or too large
            (`service.bundle.shapes.check_shapes`).
    """
    try:
        model = ModelMessage.FromString(data)
    except DecodeError as error:
        raise ForbiddenGraph(f"{file} is not an ONNX model") from error
    if not model.graph.node:
        raise ForbiddenGraph(f"{file} is not an ONNX model: it has no nodes")
    if model.functions or model.training_info:
        raise ForbiddenGraph(f"{file} holds local functions or training information")
    operators: Counter[str] = Counter()
    loops = _check_nodes(model.graph, file, operators)
    if len(loops) > MAX_LOOPS:
        raise ForbiddenGraph(f"{file} holds {len(loops)} Loops; at most {MAX_LOOPS} are allowed")
    passes = tuple(_read_passes(model.graph, loop, file) for loop in loops)
    for loop in loops:
        if _check_nodes(_read_body(loop, file), file, operators):
            raise ForbiddenGraph(f"{file} holds a Loop in the body of another")
    check_shapes(model.graph, file)
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    return GraphSummary(opset, operators, passes)


def run_all_passes(data: bytes) -> bytes | None:
    """The same graph with Loops that run every pass, whatever their condition says: what a graph costs at worst.

    Args:
        data: of a graph that `check_graph` has passed.

    Returns:
        The bytes of that graph; None where it has no Loop, and costs the same for any rows.
    """
    model = ModelMessage.FromString(data)
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    for loop in loops:
        body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
        kept = f"{body.output[0].name} kept"
        body.node.add(op_type="Identity", input=[body.input[1].name], output=[kept])
        body.output[0].name = kept
    whole: bytes = model.SerializeToString()
    return whole if loops else None


def _check_nodes(graph: Any, file: str, operators: Counter[str]) -> list[Any]:  # noqa: ANN401  see `service.bundle.model_message`
    """Check the nodes and tensors of one graph against the list, count its operators, and return its Loops."""
    if graph.sparse_initializer:
        raise ForbiddenGraph(f"{file} holds sparse tensors")
    tensors = list(graph.initializer)
    loops = []
    for node in graph.node:
        operator = f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        if operator == "Loop":
            loops.append(node)
        elif operator not in ALLOWED_OPERATORS:
            raise ForbiddenGraph(f"{file} holds the operator {operator[:100]!r}, which is not on the allow-list")
        operators[operator] += 1
        for attribute in node.attribute:
            graph_here = attribute.HasField("g") and operator != "Loop"
            if graph_here or attribute.graphs or attribute.sparse_tensor or attribute.sparse_tensors:
                raise ForbiddenGraph(f"{file} holds a subgraph or a sparse tensor in a node {operator!r}")
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            tensors.extend(attribute.tensors)
    if any(tensor.external_data or tensor.data_location for tensor in tensors):
        raise ForbiddenGraph(f"{file} points at tensor data outside itself")
    return loops


def _read_passes(graph: Any, loop: Any, file: str) -> int:  # noqa: ANN401  see `service.bundle.model_message`
    """The most passes of a Loop, which is a constant of the graph that holds it."""
    name = loop.input[0] if loop.input else ""
    found = [tensor for tensor in graph.initializer if name and tensor.name == name]
    if len(found) != 1 or name in (value.name for value in graph.input):
        raise ForbiddenGraph(f"{file} holds a Loop whose number of passes is no constant")
    tensor = found[0]
    fits = tensor.data_type == _ONNX_INT64 and list(tensor.dims) in ([], [1])
    if fits and len(tensor.raw_data) == _ONNX_INT64_BYTES and not tensor.int64_data:
        passes = int.from_bytes(tensor.raw_data, "little", signed=True)
    elif fits and len(tensor.int64_data) == 1 and not tensor.raw_data:
        passes = tensor.int64_data[0]
    else:
        raise ForbiddenGraph(f"{file} holds a Loop whose number of passes is not one int64")
    if not 1 <= passes <= MAX_PASSES:
        raise ForbiddenGraph(f"{file} holds a Loop of {passes} passes; it may have 1 to {MAX_PASSES}")
    return int(passes)


def _read_body(loop: Any, file: str) -> Any:  # noqa: ANN401  see `service.bundle.model_message`
    """The body of a Loop that returns the carried values, and nothing else."""
    bodies = [attribute.g for attribute in loop.attribute if attribute.name == "body" and attribute.HasField("g")]
    if len(bodies) != 1 or len(loop.attribute) != 1:
        raise ForbiddenGraph(f"{file} holds a Loop without one body, or with more")
    body, carried = bodies[0], len(loop.input) - _BEFORE_CARRIED
    if carried < 1 or not loop.input[1]:
        raise ForbiddenGraph(f"{file} holds a Loop without a condition, or that carries nothing")
    if (len(body.input), len(body.output), len(loop.output)) != (_BEFORE_CARRIED + carried, 1 + carried, carried):
        raise ForbiddenGraph(f"{file} holds a Loop that gives something else than what it carries")
    return body
