"""The export of a flow's two directions, and of its trace, as ONNX graphs: torch.export, rewrites, bytes.

The bytes depend on the weights and the library versions alone: names of files and stack traces, which the exporter
leaves in every node, are taken out.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Final

import onnx_ir as ir
import torch
from onnx_ir.passes.common import CommonSubexpressionEliminationPass, DeduplicateInitializersPass
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn

from models.export.layers import replace_layers
from models.export.operators import layer_of_operator, refuse_operators
from models.export.rewrites.halves import store_halves
from models.export.rewrites.loops import build_loops
from models.export.rewrites.lowering import lower
from models.export.rewrites.nodes import adopt_constants
from models.export.rewrites.reductions import merge_column_sums
from models.export.rewrites.simplify import simplify
from models.export.scalars import EXACT_SCALARS
from models.flows.flow import Flow
from service.bundle.operators import check_graph
from service.errors import ForbiddenGraph
from service.onnx.signature import CONTEXT, TENSORS, Direction

__all__ = ["OPSET", "export_forward_and_trace", "export_graph"]

OPSET: Final = 18
"""The ONNX opset of every graph: the one that torch's exporter writes itself, so that nothing is converted."""

_FOLDED_VALUES: Final = 1 << 24
"""What depends on no row is computed at export, up to so many values: the exporter itself stops at a masked weight."""

_LOGGERS: Final = (
    "torch.onnx",
    "torch.export",
    "torch.export._trace",
    "torch.fx.experimental.symbolic_shapes",
    "onnx_ir",
    "onnxscript",
)
_EXAMPLE_ROWS = 3  # neither 0 nor 1, which torch.export would take for constants


class _OneDirection(nn.Module):
    """A flow whose call is one of its directions: the exporter writes what a module's call computes."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow


class _Forward(_OneDirection):
    """x[, context] -> z, log_abs_det_jacobian, log_prob."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        z, ladj = self.flow(x, context)
        return z, ladj, self.flow.masked(x, self.flow.base_log_prob(z) + ladj)


class _Inverse(_OneDirection):
    """z[, context] -> x, log_abs_det_jacobian, log_prob at x."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return self.flow.inverse_log_prob(z, context)


class _Trace(_OneDirection):
    """x[, context] -> z, log_abs_det_jacobian, log_prob; the event after each step, flat, and their log-determinants.

    A trace alone would compute all of these too.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        values, terms = self.flow.trace(x, context)
        ladj = terms[0]
        for term in terms[1:]:
            ladj = ladj + term
        log_prob = self.flow.masked(x, self.flow.base_log_prob(values[-1]) + ladj)
        stacked = torch.stack([value.flatten(1) for value in values], dim=1)
        return values[-1], ladj, log_prob, stacked, torch.stack(terms, dim=1)


_MODULES: Final[dict[Direction, type[_OneDirection]]] = {"forward": _Forward, "inverse": _Inverse, "trace": _Trace}


def export_graph(flow: Flow, direction: Direction, dtype: torch.dtype = torch.float32) -> bytes:
    """Write one direction of a flow as an ONNX file.

    Args:
        flow: on the CPU, in evaluation mode.
        direction: "forward": x -> z; "inverse": z -> x; "trace": x -> the event after each step.
        dtype: of the flow, float32 or float64.

    Returns:
        The bytes of the file, with the inputs and outputs of `service.onnx.signature.TENSORS` and N dynamic. The same
        weights give the same bytes.

    Raises:
        ForbiddenGraph: where the flow needs an operator outside the allow-list, or one without a kernel of its
            precision, with the layer that needs it; or where it cannot be traced at all: it looks at the values of its
            rows, or fixes their number.
    """
    return _write(_capture(flow, direction, dtype), direction, dtype)


def export_forward_and_trace(flow: Flow, dtype: torch.dtype = torch.float32) -> tuple[bytes, bytes]:
    """Write a flow's forward direction and its trace, which compute the same, from one run of the exporter.

    Args:
        flow: as `export_graph` takes it.
        dtype: as `export_graph` takes it.

    Returns:
        What `export_graph` gives for "forward" and for "trace".

    Raises:
        ForbiddenGraph: as `export_graph`.
    """
    model = _capture(flow, "trace", dtype)
    return _write(model.clone(), "forward", dtype), _write(model, "trace", dtype)


def _capture(flow: Flow, direction: Direction, dtype: torch.dtype) -> ir.Model:
    """The graph of a direction as the exporter gives it, its constants folded; that of a trace has all outputs."""
    names = TENSORS[direction]
    outputs = (*TENSORS["forward"].outputs, *names.outputs[:2]) if direction == "trace" else names.outputs
    event = torch.zeros(_EXAMPLE_ROWS, *(flow.event_shape if direction != "inverse" else (flow.width,)), dtype=dtype)
    inputs = {names.rows: event}
    if flow.context_width:
        inputs[CONTEXT] = torch.zeros(_EXAMPLE_ROWS, flow.context_width, dtype=dtype)
    module = _MODULES[direction](replace_layers(flow)).eval()
    with _quiet(), _default_dtype(dtype):
        with torch.no_grad():
            module(*inputs.values())  # a library that keeps constants of a first call keeps numbers, and no tracer's
        try:
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=_open_rows(inputs),
                input_names=list(inputs),
                output_names=list(outputs),
                opset_version=OPSET,
                external_data=False,
                optimize=False,  # once, below, where larger constants are folded than the exporter would fold
                custom_translation_table=EXACT_SCALARS if dtype == torch.float64 else None,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            cause = _root(error)
            told = str(cause).strip().splitlines()[0] if str(cause).strip() else "nothing more"
            if told.startswith("No ONNX function"):
                traced = torch.export.export(module, tuple(inputs.values()), dynamic_shapes=_open_rows(inputs))
                told = told.partition(". ")[0] + layer_of_operator(traced, cause)
            raise ForbiddenGraph(
                f"{direction}.onnx cannot be written, torch's exporter says: {type(cause).__name__}: {told}"
            ) from error
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program")
        model: ir.Model = program.model
        optimize_ir(
            model,
            input_size_limit=_FOLDED_VALUES,
            output_size_limit=_FOLDED_VALUES,
            should_fold=lambda node: True if node.op_type == "ConstantOfShape" else None,  # by default it is kept
        )
    adopt_constants(model.graph)
    for value, name in zip(model.graph.inputs, inputs, strict=True):
        value.name = name  # the exporter calls one that is given back as it is after its output
    return model


def _write(model: ir.Model, direction: Direction, dtype: torch.dtype) -> bytes:
    """The bytes of one direction: the graph with that direction's outputs alone, rewritten."""
    outputs = {value.name: value for value in model.graph.outputs}
    model.graph.outputs[:] = [outputs[name] for name in TENSORS[direction].outputs]
    simplify(model)
    lower(model)
    refuse_operators(model, f"{direction}.onnx", dtype)
    merge_column_sums(model)
    build_loops(model)
    DeduplicateInitializersPass()(model)
    # Last: two Loops that start alike keep a mark each until they are built.
    CommonSubexpressionEliminationPass()(model)
    store_halves(model)
    _strip(model, f"flow_{direction}")
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    check_graph(data, f"{direction}.onnx")
    return data


def _open_rows(inputs: Mapping[str, Tensor]) -> dict[str, dict[int, Any]]:
    """The shapes of the inputs of a direction: one number of rows, which is open."""
    rows = torch.export.Dim("N", min=1)
    return {name: {0: rows} for name in inputs}


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Let tensors that a flow makes while it runs be of its precision, where it says none."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _root(error: BaseException) -> BaseException:
    """The first cause: what the exporter wraps around it is advice on the exporter."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _strip(model: ir.Model, name: str) -> None:
    """Take out all that says where and how the graph was made: paths of the machine among it."""
    model.metadata_props.clear()
    model.doc_string = None
    model.producer_name, model.producer_version = "pushforward", None
    _strip_graph(model.graph, name)


def _strip_graph(graph: ir.Graph, name: str) -> None:
    """The same for one graph, and for the bodies in it, whose names begin with its own."""
    graph.name, graph.doc_string = name, None
    graph.metadata_props.clear()
    values = [*graph.inputs, *graph.outputs, *graph.initializers.values()]
    for number, node in enumerate(graph):
        node.name, node.doc_string = f"{node.op_type}_{number}", None
        node.metadata_props.clear()
        values.extend(node.outputs)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _strip_graph(attribute.as_graph(), f"{name}_{number}")
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks to itself: missing torchvision, deprecations within torch."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    # where it fails it also prints the graph as far as it came
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
