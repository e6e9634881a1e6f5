"""The trace of a flow: trace.onnx, its steps' names and shapes, and what it must show before a bundle holds it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from models.export.exported_graph import ExportedGraph
from models.export.float32_errors import Float32Errors, answer_trace
from models.export.gate import BATCHES, LATENT_TOLERANCE, compare
from models.export.invariance import check_invariance
from models.export.parts import answer_in_parts
from models.export.probes import Probes
from models.flows.flow import Flow
from service.bundle.manifest import Step
from service.bundle.parity import TOLERANCE, log_det_unit

__all__ = ["check_trace", "trace_steps"]


def trace_steps(flow: Flow, names: Sequence[str]) -> list[Step]:
    """The name of each step of the chain, and the shape of the event after it.

    Args:
        flow: as it is exported, which is folded.
        names: its `steps` as they were before.
    """
    x = torch.zeros(1, *flow.event_shape, dtype=flow.dtype)
    context = torch.zeros(1, flow.context_width, dtype=flow.dtype) if flow.context_width else None
    with torch.no_grad():
        values, _ = flow.trace(x, context)
    return [Step(name=name, shape=list(y.shape[1:])) for name, y in zip(names, values, strict=True)]


def check_trace(exact: Flow, graph: ExportedGraph, probes: Probes) -> None:
    """Hold a trace against the flow in float64, in every batch size of `models.export.gate.BATCHES`.

    The event after each step and each step's log-determinant are those of the flow, the terms sum to the whole, and
    a row has the same bits at every place of every batch.

    Args:
        exact: the flow in float64.
        graph: x -> values ``[N, S, D]``, log_abs_det_jacobians ``[N, S]``, log_prob ``[N]``.
        probes: the rows.

    Raises:
        ParityFailed: naming the quantity, the step's place among the columns, the row and both values.
    """
    rows = torch.from_numpy(probes.x.astype(np.float64))
    context = None if probes.context is None else torch.from_numpy(probes.context.astype(np.float64))

    def answer(rows: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        values, terms = exact.trace(rows, context)
        ladj = exact(rows, context)[1]
        log_prob = exact.masked(rows, exact.base_log_prob(values[-1]) + ladj)
        return torch.stack([y.flatten(1) for y in values], dim=1), torch.stack(terms, dim=1), ladj, log_prob

    value, each, ladj, log_prob = (part.numpy() for part in answer_in_parts(answer, rows, context))
    size = 1.0 + np.abs(value).max(axis=2, keepdims=True)
    unit = log_det_unit(log_prob, exact.width)
    own = Float32Errors(exact, answer_trace, probes.x, probes.context)
    for batch in BATCHES:
        actual = graph(probes.x, probes.context, batch)
        check = partial(compare, probes=probes, where=f"of trace.onnx in batches of {batch}", own=own)
        check(actual.value, value, what="values", quantity="value", bound=LATENT_TOLERANCE, unit=size)
        found = actual.log_abs_det_jacobian
        check(
            found,
            each,
            what="log_abs_det_jacobians",
            quantity="log_abs_det_jacobian",
            bound=TOLERANCE,
            unit=unit[:, None],
        )
        check(
            found.sum(axis=1),
            ladj,
            what="the sum of log_abs_det_jacobians",
            quantity="sum",
            bound=TOLERANCE,
            unit=unit,
        )
        check(actual.log_prob, log_prob, what="log_prob", bound=TOLERANCE, edge=own.at_an_edge)
    check_invariance(graph, probes.x, probes.context)
