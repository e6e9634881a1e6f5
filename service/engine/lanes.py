"""The lanes of a flow: its graphs warmed up and timed, and put behind queues with the batches that suit them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from service.bundle.store import Bundle
from service.engine.batching.chunk_size import Timing, choose_chunk, time_batches
from service.engine.batching.queues import Limits
from service.engine.batching.workers import QueuedLane, Workers
from service.engine.metrics.metrics import LaneMetrics, Metrics
from service.engine.runtime.graph import CpuGraph
from service.engine.verbs.traces import Tracer
from service.plan import Floats, Outputs

__all__ = ["Graph", "open_lane", "open_tracer", "warm_up"]


class Graph(Protocol):
    """One direction of a flow: `CpuGraph`, `DeviceGraph` or `IsolatedGraph`."""

    width: int

    @property
    def sizes(self) -> Sequence[int]:
        """The sizes of batches that are timed."""
        ...

    @property
    def clock(self) -> Callable[[], float]:
        """The clock that times them."""
        ...

    def __call__(self, rows: Floats, context: Floats | None) -> Outputs:
        """Run one batch."""
        ...


def warm_up(graph: Graph, limits: Limits, rows: Floats, context: Floats | None) -> list[Timing]:
    """Warm a graph up with copies of the golden rows, and time its batches.

    Args:
        graph: of one direction.
        limits: of its lane.
        rows: ``[G, ...]``, the golden rows.
        context: ``[G, C]``, or None.

    Returns:
        The times of its batches.
    """

    def prepare(size: int) -> Callable[[], object]:
        batch = np.resize(rows, (size, *rows.shape[1:]))
        batch_context = None if context is None else np.resize(context, (size, context.shape[1]))
        return lambda: graph(batch, batch_context)

    chunk = limits.chunk_rows
    sizes = [*(size for size in graph.sizes if size < chunk), chunk] if chunk else graph.sizes
    return time_batches(prepare, sizes, graph.clock)


def open_lane(
    workers: Workers,
    graph: Graph,
    limits: Limits,
    timings: Sequence[Timing],
    metrics: LaneMetrics,
    *,
    inline: bool,
) -> QueuedLane:
    """Open a lane with the batch size and the times that were measured.

    Args:
        workers: the threads that serve it.
        graph: computes its batches.
        limits: of its queue. Where `chunk_rows` is 0, the timings decide.
        timings: from `warm_up`.
        metrics: counts its batches.
        inline: whether its smallest batches are always quick enough for the thread that brings rows.
    """
    chunk = choose_chunk(timings)
    limits = limits if limits.chunk_rows else replace(limits, chunk_rows=chunk.rows)
    lane = workers.lane(graph, limits, metrics, inline=inline and isinstance(graph, CpuGraph))
    for timing in (chunk, timings[0]):
        lane.queue.record(timing.rows, timing.seconds)
    return lane


def open_tracer(bundle: Bundle, graph: Graph | None, workers: Workers, limits: Limits, metrics: Metrics) -> QueuedLane:
    """Open a lane for the trace. Its graph has been checked, and is opened again at the first request.

    Args:
        bundle: with a trace.
        graph: runs it elsewhere; None to open it here.
        workers: the threads that serve it.
        limits: of its queue.
        metrics: counts its batches.
    """
    tracer = Tracer(bundle, graph)
    chunk = min(tracer.chunk_rows, limits.chunk_rows or tracer.chunk_rows)
    trace_metrics = metrics.lane(bundle.manifest.name, bundle.manifest.version, "trace")
    return workers.lane(tracer, replace(limits, chunk_rows=chunk), trace_metrics, inline=graph is None)
