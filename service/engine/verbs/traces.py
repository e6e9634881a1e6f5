"""Traces of the chain: the event after each step, from x to z, and the log-determinant of each step.

    log p(x) = log p_Z(z) + sum_k log|det df_k|,  z = f_S(... f_1(x))

A trace is looked at more than it is served, and its graph holds the weights again: it is tried when the flow is loaded,
and kept in memory only from the first request on. It runs on the processor, wherever the flow itself runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np

from service.bundle.store import Bundle
from service.engine.runtime.graph import CpuGraph
from service.engine.verbs.checks import check_outputs
from service.engine.verbs.flow import ServedFlow
from service.errors import NotFinite, NotTraceable
from service.plan import Floats, Outputs, Plan, Run

__all__ = ["Graph", "Trace", "TraceStep", "Tracer", "trace", "trace_steps"]

Graph = Callable[[Floats, Floats | None], Outputs]
"""Runs a batch of rows and their context."""

_CHUNK_VALUES: Final = 1 << 20
_CHUNK_ROWS: Final = 1024


class TraceStep(NamedTuple):
    """One step of the chain.

    Args:
        name: of the step; ``"x"`` for what goes in.
        value: ``[N, ...]``, the event after it.
        log_abs_det_jacobian: ``[N]``, its own, in nats; 0 for what goes in.
    """

    name: str
    value: Floats
    log_abs_det_jacobian: Floats


class Trace(NamedTuple):
    """The answer of `trace`: the steps from x to z, and log_prob ``[N]`` in nats."""

    steps: tuple[TraceStep, ...]
    log_prob: Floats


class Tracer:
    """trace.onnx as a runner that opens its graph when it is first called; safe to call from several threads at once.

    Args:
        bundle: with a trace.
        graph: runs trace.onnx elsewhere; None to open it here.
    """

    def __init__(self, bundle: Bundle, graph: Graph | None = None) -> None:
        self.width = len(bundle.manifest.trace) * bundle.manifest.latent_width
        self.chunk_rows = max(1, min(_CHUNK_ROWS, _CHUNK_VALUES // self.width))
        """The number of rows that should run together: fewer where there are many steps, as each holds them all."""
        graphs = {name: data for name, data in bundle.graphs.items() if name == "trace.onnx" and graph is None}
        self._bundle = Bundle(bundle.manifest, graphs, bundle.golden)
        self._lock = threading.Lock()
        self._graph = graph

    def __call__(self, rows: Floats, context: Floats | None) -> Outputs:
        """Run one batch, as `CpuGraph` does: values ``[N, S, D]``, log-determinants ``[N, S]`` and log_prob ``[N]``."""
        with self._lock:
            if self._graph is None:
                self._graph = CpuGraph(self._bundle, "trace")
        return self._graph(rows, context)


def trace(flow: ServedFlow, x: Floats, context: Floats | None = None) -> Plan[Trace]:
    """Follow rows through the chain.

    Args:
        flow: with a trace in its bundle.
        x: ``[N, *event]``. A row outside the support is traced from the nearest point inside, as it is encoded.
        context: ``[N, C]`` or ``[1, C]`` for all rows; None for a flow without.

    Raises:
        NotTraceable: the bundle holds no trace.onnx.
        WrongShape, NotFinite: as `ServedFlow.log_prob`.
    """
    if flow.tracer is None:
        raise NotTraceable(
            f"{flow.manifest.name} version {flow.manifest.version} was exported without its chain; "
            "export it anew, with trace.onnx in the bundle"
        )
    outputs = yield Run(flow.tracer, x, flow.context_for(context, len(x)))
    check_outputs(outputs, "x", NotFinite)
    return Trace(tuple(trace_steps(flow, x, outputs)), outputs.log_prob)


def trace_steps(flow: ServedFlow, x: Floats, outputs: Outputs) -> list[TraceStep]:
    """The steps of rows, out of what the tracer gave.

    Args:
        flow: whose chain.
        x: ``[N, *event]``.
        outputs: of the run of these.
    """
    steps = [TraceStep("x", x, np.zeros(len(x), x.dtype))]
    for at, step in enumerate(flow.manifest.trace):
        value = np.ascontiguousarray(outputs.value[:, at]).reshape(len(x), *step.shape)
        steps.append(TraceStep(step.name, value, np.ascontiguousarray(outputs.log_abs_det_jacobian[:, at])))
    return steps
