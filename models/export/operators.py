"""The operators of an exported graph that no bundle may hold, or no engine runs, told by the layer that needs them."""

from __future__ import annotations

import ast
import re
from typing import Final

import onnx_ir as ir
import torch

from models.flows.jacobi import DOMAIN
from service.bundle.operators import ALLOWED_OPERATORS
from service.errors import ForbiddenGraph

__all__ = ["layer_of_operator", "refuse_operators"]

_WITHOUT_FLOAT64: Final = frozenset({"Conv", "ConvTranspose"})
"""The operators of the allow-list that ONNX Runtime has no float64 kernel for on the processor, and that are not
lowered (`models.export.rewrites.lowering`)."""

_SCOPES: Final = "pkg.torch.onnx.name_scopes"
_CLASSES: Final = "pkg.torch.onnx.class_hierarchy"
_OURS: Final = re.compile(r"^(flow\.)?(bijections\.\d+\.?)?((layer|module|lazy|graph|transform|bijection|step)(\.|$))*")
"""What stands in front of the path of a user's module: the flow, the step, and what a step holds it by."""


def refuse_operators(model: ir.Model, file: str, dtype: torch.dtype) -> None:
    """Refuse a graph with an operator that cannot be served, before the traces of its layers are taken out.

    Args:
        model: as the exporter wrote it, and the rewrites after it.
        file: of the graph, for the error.
        dtype: of the flow.

    Raises:
        ForbiddenGraph: the operator, and the layer that needs it, are named.
    """
    for node in model.graph:
        operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        if node.domain != DOMAIN and operator not in ALLOWED_OPERATORS:
            raise ForbiddenGraph(
                f"{file} holds the operator {operator!r}, which is not on the allow-list{_layer(node)}"
            )
        if dtype == torch.float64 and operator in _WITHOUT_FLOAT64:
            raise ForbiddenGraph(
                f"{file} holds the operator {operator!r}, which ONNX Runtime does not compute in float64{_layer(node)}"
            )


def layer_of_operator(program: torch.export.ExportedProgram, error: BaseException) -> str:
    """The layer with the operator of torch that the exporter knows no ONNX for, in words that follow the operator.

    Args:
        program: the module as torch traces it.
        error: that of the exporter.

    Returns:
        "" where it is another error, or nothing says which layer it is.
    """
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error))
    if found is None:
        return ""
    for node in program.run_decompositions().graph.nodes:
        modules = list(node.meta.get("nn_module_stack", {}).values())
        if str(node.target).startswith(found[1]) and modules:
            scope, kind = modules[-1]
            return _words(scope, kind if isinstance(kind, str) else kind.__qualname__)
    return ""


def _layer(node: ir.Node) -> str:
    """The layer that a node comes from, in words that follow the operator; "" where the exporter does not say."""
    scopes, classes = (node.metadata_props.get(key) for key in (_SCOPES, _CLASSES))
    if scopes is None or classes is None:
        return ""
    # The last entry is the node itself, and the ones before it are the modules around it.
    modules = list(zip(ast.literal_eval(scopes), ast.literal_eval(classes), strict=True))[:-1]
    return _words(*modules[-1]) if modules else ""


def _words(scope: str, kind: str) -> str:
    """The place of a layer, and its class: in words that follow an operator."""
    path, name = _OURS.sub("", scope), kind.rpartition(".")[2]
    return f": it comes from the layer {path!r}, {name}" if path else f": it comes from {name}"
