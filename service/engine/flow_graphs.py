"""The graphs of a flow, wherever they run: in this process, on a device, or in processes of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from service.bundle.store import Bundle
from service.engine.batching.queues import Limits
from service.engine.isolation.engine import IsolatedEngine
from service.engine.isolation.options import Isolation
from service.engine.isolation.quarantine import MAX_ENDS
from service.engine.lanes import Graph
from service.engine.metrics.metrics import Metrics
from service.engine.runtime.execution import Execution
from service.engine.runtime.graph import CPU_BATCH_SIZES, Device, cpu_execution
from service.errors import EngineFailed, PushforwardError

__all__ = ["FlowGraphs", "isolated_graphs", "open_engine"]


class FlowGraphs(NamedTuple):
    """The graphs of a flow.

    Args:
        forward: x -> z.
        inverse: z -> x.
        execution: of both.
        trace: x -> the event after each step; None for one that is opened here when it is asked for.
        hang_seconds: a batch that takes longer is taken for a hang.
    """

    forward: Graph
    inverse: Graph
    execution: Execution
    trace: Graph | None = None
    hang_seconds: float = math.inf


def open_engine(
    bundle: Bundle,
    isolation: Isolation,
    limits: Limits,
    metrics: Metrics,
    device: Device | None,
    quarantine: Callable[[PushforwardError], None] | None,
    load: int,
) -> IsolatedEngine:
    """Start the processes of an isolated flow, for `service.engine.loading.load_flow`.

    Args:
        bundle: of the flow.
        isolation: the options of its processes.
        limits: of its lanes.
        metrics: counts the processes.
        device: of the settings.
        quarantine: as `load_flow`.
        load: as `load_flow`.

    Raises:
        BundleError: as `load_flow`.
        EngineFailed: the device is required.
        EngineLost: no process can be started.
    """
    if device is not None and device.gpu.options.required:
        raise EngineFailed(f"{device.name} is required, and a flow in processes of its own runs on the CPU")
    counts = metrics.engine(bundle.manifest.name, bundle.manifest.version, MAX_ENDS, load)
    rows = limits.chunk_rows or CPU_BATCH_SIZES[-1]
    return IsolatedEngine(bundle, isolation, rows, counts=counts, quarantined=quarantine)


def isolated_graphs(bundle: Bundle, engine: IsolatedEngine, device: Device | None) -> FlowGraphs:
    """The graphs of a flow that runs in processes of its own.

    Args:
        bundle: of the flow.
        engine: the processes.
        device: of the settings, which does not run it.
    """
    fallback = None if device is None else f"{device.name}: a flow in processes of its own runs on the CPU"
    trace = engine.graph("trace") if bundle.manifest.trace else None
    return FlowGraphs(engine.graph("forward"), engine.graph("inverse"), cpu_execution(bundle.manifest, fallback), trace)
