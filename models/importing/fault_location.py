"""The fault of a flow that cannot be exported: the layer that has it, and the known way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import nn

from models.export.exported_graph import ExportedGraph, GraphFails
from models.export.graph import export_graph
from models.flows.conditional import ConditionalTransform
from models.flows.flow import Bijection, Flow
from models.flows.preprocess import Flatten
from models.importing.adapted import Unsupported
from models.importing.descriptions import layer_name
from models.importing.support import place_rows
from service.bundle.bases import NormalBase
from service.bundle.precision import DTYPES, Precision
from service.errors import ForbiddenGraph
from service.onnx.signature import Direction

__all__ = ["locate_fault"]

_WAYS_OUT: Final = (
    (
        ("NonZero", "DataDependent", "data-dependent", "nonzero"),
        "It looks at the values of its rows: choose by torch.where instead of a boolean mask or an `if`",
    ),
    (
        ("linalg", "triangular", "Inverse", "Det", "lu_", "qr"),
        "No graph can solve linear systems: compute the matrix and its inverse once, and keep them as buffers",
    ),
    (
        ("ConstraintViolation", "specializ", "Constraints violated", "batch"),
        "It fixes the number of rows: take it from x.shape[0], not from len(x) or a constant",
    ),
    (("Random", "Bernoulli"), "It is random: a density is not"),
    (("fake tensor", "autograd"), "It takes a derivative by differentiation: write it as a formula"),
    (("Einsum",), "Write the sum as a matrix product"),
    (("Loop", "If", "Scan"), "A graph has no loops but those of autoregressive inverses: unroll it"),
)
_ROWS: Final = 3
_OTHERWISE: Final = "Give the layer a form without it, or replace the layer"


def locate_fault(flow: Flow, error: ForbiddenGraph | GraphFails) -> Unsupported:
    """Export each step alone, and say which is the first that fails, why, and what to do about it.

    Args:
        flow: in its precision and in evaluation mode.
        error: what the export of the whole flow, or the first run of its graph, ended with.
    """
    ran = isinstance(error, GraphFails)
    context = torch.zeros(3, flow.context_width, dtype=flow.dtype) if flow.context_width else None
    with torch.no_grad():
        context = flow.scaled_context(context)
        middle = torch.full((3, *flow.event_shape), 0.5, dtype=flow.dtype)
        steps = [step for step in flow.bijections if isinstance(step, Bijection)]
        value = place_rows(steps, flow.base, middle, context)
        for number, step in enumerate(flow.bijections):
            shape, value = value.shape[1:], step(value, context)[0]
            chain = [step, *([Flatten(value.shape[1:])] if value.ndim > 2 else [])]
            width = 0 if context is None else context.shape[1]
            found = _failure(chain, shape, width, run=ran, precision=flow.precision)
            if found is not None:
                return Unsupported(
                    f"{_layer_of(step)}, step {number + 1} of {len(flow.bijections)} from data to latent, cannot be "
                    f"exported: {found}. {_OTHERWISE if ran else _way_out(found)}"
                )
    way_out = _OTHERWISE if ran else _way_out(error.detail)
    return Unsupported(f"the flow cannot be exported: {error.detail}. {way_out}")


def _failure(
    chain: Sequence[nn.Module], shape: Sequence[int], context_width: int, *, run: bool, precision: Precision
) -> str | None:
    steps = [step for step in chain if isinstance(step, Bijection)]
    alone, dtype = Flow(shape, steps, NormalBase(), None, context_width, precision=precision), DTYPES[precision]
    directions: tuple[Direction, ...] = ("forward", "inverse")
    for direction in directions:
        try:
            graph = export_graph(alone, direction, alone.dtype)
            if run:
                rows = np.zeros((_ROWS, *(shape if direction == "forward" else (alone.width,))), dtype) + dtype.type(
                    0.5
                )
                context = np.zeros((_ROWS, context_width), dtype) if context_width else None
                ExportedGraph(graph, direction, precision)(rows, context, 1)
        except GraphFails as error:
            return error.detail
        except ForbiddenGraph as error:
            # the exporter goes on with advice on itself
            return error.detail.partition(". ")[0]
    return None


def _layer_of(step: nn.Module) -> str:
    """The library's layer that a step was made of."""
    for name in ("step", "bijection", "transform"):
        if isinstance(inner := getattr(step, name, None), Bijection | ConditionalTransform):
            return _layer_of(inner)
    held = [getattr(step, name, None) for name in ("layer", "module", "lazy", "graph", "flow")]
    layer = next((layer for layer in held if isinstance(layer, nn.Module)), step)
    return layer_name(layer)


def _way_out(found: str) -> str:
    return next((way for marks, way in _WAYS_OUT if any(mark in found for mark in marks)), _OTHERWISE)
