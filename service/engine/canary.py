"""The canary: golden rows pass through a flow's lanes, and must give the answers computed in float64 at export.

A flow is checked before it takes a request, by readiness for as long as it is served, and by `pushforward check`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.bundle.parity import GoldenErrors, golden_errors, traced_golden_errors
from service.bundle.store import Bundle, Golden
from service.engine.runtime.graph import CpuGraph
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.round_trips import greatest_difference
from service.engine.verbs.traces import Graph
from service.errors import BundleError, ParityFailed, Reason
from service.plan import Floats, Outputs, Plan, Run

__all__ = ["ParityRow", "check_golden", "check_trace", "measure_parity", "probe"]


@dataclass(frozen=True, slots=True)
class ParityRow:
    """One line of a parity table.

    Args:
        quantity: the output and its direction.
        batch: the number of rows that ran together.
        error: the greatest error, relative to one plus the size of the expected value.
        tolerance: the bound on the error.
    """

    quantity: str
    batch: int
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within its bound."""
        return self.error <= self.tolerance


def check_golden(flow: ServedFlow) -> Plan[None]:
    """Run every golden row through both lanes.

    Raises:
        ParityFailed: an answer is not the golden one. Each quantity that is wrong is named.
    """
    yield from _check(flow, flow.golden, bounded=True)


def probe(flow: ServedFlow) -> Plan[None]:
    """Run one golden row through both lanes, past the bound of a full queue, to see whether the engine is right.

    Raises:
        ParityFailed: as `check_golden`.
    """
    inside = np.flatnonzero(np.isfinite(flow.golden.log_prob))
    row = int(inside[0]) if len(inside) else 0
    yield from _check(flow, _select(flow.golden, np.array([row])), bounded=False)


def measure_parity(bundle: Bundle, batches: tuple[int, ...] = (1, 7, 1000)) -> list[ParityRow]:
    """Measure the errors of a bundle's graphs on its golden rows, at several batch sizes.

    Args:
        bundle: from `service.bundle.store.read_bundle`.
        batches: the batch sizes. The golden rows are repeated up to each of them, and run in batches of it.

    Returns:
        A row for each quantity and batch.

    Raises:
        BundleError: a graph cannot be loaded.
    """
    forward, inverse = CpuGraph(bundle, "forward"), CpuGraph(bundle, "inverse")
    traced = CpuGraph(bundle, "trace") if bundle.manifest.trace else None
    rows = []
    for batch in batches:
        count = len(bundle.golden.x)
        tiled = _select(bundle.golden, np.arange(-(-max(batch, count) // batch) * batch) % count)
        forward_outputs = _run_in_batches(forward, tiled.x, tiled.context, batch)
        inverse_outputs = _run_in_batches(inverse, tiled.latents(), tiled.context, batch)
        rows += _compare(tiled, forward_outputs, inverse_outputs, batch)
        if traced is not None:
            rows += _compare_trace(tiled, _run_in_batches(traced, tiled.x, tiled.context, batch), batch)
    return rows


def check_trace(bundle: Bundle, graph: Graph | None = None) -> None:
    """Run every golden row through trace.onnx.

    Args:
        bundle: with a trace.
        graph: runs it elsewhere; None to open it here.

    Raises:
        ParityFailed: its last step is not the golden z. Each quantity that is wrong is named.
        BundleError: the graph cannot be loaded or run, or is not that of the manifest.
    """
    golden = bundle.golden
    graph = graph or CpuGraph(bundle, "trace")
    try:
        traced = graph(golden.x, golden.context)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        raise BundleError("trace.onnx could not be run on the golden rows") from error
    _raise_if_failed(_compare_trace(golden, traced, len(golden.x)))


def _check(flow: ServedFlow, golden: Golden, *, bounded: bool) -> Plan[None]:
    forward = yield Run(flow.forward, golden.x, golden.context, bounded=bounded)
    inverse = yield Run(flow.inverse, golden.latents(), golden.context, bounded=bounded)
    inside = np.isfinite(golden.log_prob)
    if flow.round_trips is not None and inside.any():
        flow.round_trips.observe("forward", greatest_difference(inverse.value[inside], golden.x[inside]))
    _raise_if_failed(_compare(golden, forward, inverse, len(golden.x)))


def _raise_if_failed(rows: list[ParityRow]) -> None:
    failed = [row for row in rows if not row.passed]
    if failed:
        raise ParityFailed(
            "the graphs do not give the answers of the golden rows",
            tuple(Reason(("golden", f.quantity), f"error {f.error:.3g}, bound {f.tolerance:.3g}") for f in failed),
        )


def _compare(golden: Golden, forward: Outputs, inverse: Outputs, batch: int) -> list[ParityRow]:
    return _greatest(golden_errors(golden, forward, inverse), batch)


def _compare_trace(golden: Golden, traced: Outputs, batch: int) -> list[ParityRow]:
    return _greatest(traced_golden_errors(golden, traced), batch)


def _greatest(found: list[GoldenErrors], batch: int) -> list[ParityRow]:
    return [ParityRow(each.quantity, batch, float(each.errors.max()), each.tolerance) for each in found]


def _select(golden: Golden, rows: npt.NDArray[np.intp]) -> Golden:
    return Golden(
        x=golden.x[rows],
        z=golden.z[rows],
        log_abs_det_jacobian=golden.log_abs_det_jacobian[rows],
        log_prob=golden.log_prob[rows],
        context=None if golden.context is None else golden.context[rows],
    )


def _run_in_batches(graph: CpuGraph, rows: Floats, context: Floats | None, batch: int) -> Outputs:
    runs = [
        graph(rows[at : at + batch], None if context is None else context[at : at + batch])
        for at in range(0, len(rows), batch)
    ]
    value, ladj, log_prob = (np.concatenate(arrays) for arrays in zip(*(run.arrays for run in runs), strict=True))
    return Outputs(value, ladj, log_prob)
