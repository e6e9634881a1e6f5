"""The loading of a flow: its graphs are opened, warmed up and timed, and its golden rows pass through its lanes.

What computes a flow goes after it: sessions, and the processes of an isolated flow. Knows no repository.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

from service.bundle.store import Bundle, read_bundle
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.engine.canary import check_golden, check_trace
from service.engine.flow_graphs import FlowGraphs, isolated_graphs, open_engine
from service.engine.isolation.options import Isolation
from service.engine.lanes import open_lane, open_tracer, warm_up
from service.engine.metrics.metrics import Metrics
from service.engine.runtime.cpu import usable_cpus
from service.engine.runtime.graph import CpuGraph, Device, DeviceGraph, cpu_execution, open_graphs
from service.engine.trials import Trial, TrialLimits, Trials, try_in_child
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.scores import HeldOut
from service.errors import BundleError, Draining, PushforwardError
from service.plan import run_now

__all__ = ["load_flow", "load_folder", "try_folder"]

_log = logging.getLogger(__name__)

_HANG_MARGIN: Final = 20
"""A batch may take this many times as long as when it was measured, before it is taken for a hang."""

_MOST_INLINE_SECONDS: Final = 0.03
"""The longest time of a smallest batch, with every pass of its Loops, that may come to run on the event loop."""


def load_flow(
    bundle: Bundle,
    workers: Workers | None = None,
    limits: Limits | None = None,
    metrics: Metrics | None = None,
    device: Device | None = None,
    isolation: Isolation | None = None,
    quarantine: Callable[[PushforwardError], None] | None = None,
    load: int = 0,
    trial: Trial | None = None,
) -> ServedFlow:
    """Load the flow of a bundle, warm it up, and check its golden rows.

    What computes it goes after the flow itself, and after the last of the plans that hold it.

    Args:
        bundle: from `service.bundle.store.read_bundle`.
        workers: the threads that run it; None for threads of its own, which end with the process.
        limits: of each of its lanes. Where `chunk_rows` is 0, it is measured for each.
        metrics: counts its batches; None to count nothing.
        device: of its computation; None for the CPU.
        isolation: the flows that run in processes of their own, on the CPU; None for none.
        quarantine: takes the reason, on a thread of the engine, once such processes crash or hang too often.
        load: the number of this load of the version, for the counts of its processes.
        trial: of the bundle, with the times of its batches on the CPU; None to measure them.

    Raises:
        BundleError: a graph cannot be loaded, or does not give the golden answers.
        EngineFailed: the device cannot run it, and is required.
        EngineLost: no process can be started for it.

    Example::

        flow = load_flow(read_bundle(Path("repository/two-moons/1")))
        densities = run_now(flow.log_prob(x))
    """
    workers = workers or Workers(usable_cpus())
    limits = limits or Limits()
    metrics = metrics or Metrics()
    trial = trial or Trial()
    if isolation is None or not isolation.covers(bundle.manifest.name):
        graphs = FlowGraphs(*open_graphs(bundle, device, limits.chunk_rows))
        if device is not None:
            graphs = graphs._replace(hang_seconds=device.hang_seconds)
        flow = _open_flow(bundle, graphs, workers, limits, metrics, trial)
        if device is not None and isinstance(graphs.forward, DeviceGraph):
            _follow(device, flow, metrics)
        return flow
    engine = open_engine(bundle, isolation, limits, metrics, device=device, quarantine=quarantine, load=load)
    try:
        apart = workers.apart(isolation.processes, engine.close)
    except Draining:
        engine.close()
        raise
    try:
        graphs = isolated_graphs(bundle, engine, device)._replace(hang_seconds=isolation.hang_seconds)
        return _open_flow(bundle, graphs, apart, limits, metrics, trial)
    except BaseException:
        apart.close(0)
        raise


def load_folder(folder: Path, limits: TrialLimits | None = None) -> tuple[Bundle, ServedFlow]:
    """Try a bundle in a child under limits, then read and load it here: for a command that runs a stranger's bundle.

    Args:
        folder: of the bundle.
        limits: of the trial.

    Returns:
        The bundle and its flow.

    Raises:
        BundleError: the bundle may not be served.
        EngineFailed: no child could be started.
    """
    bundle, trial = try_folder(folder, limits)
    return bundle, load_flow(bundle, trial=trial)


def try_folder(folder: Path, limits: TrialLimits | None = None) -> tuple[Bundle, Trial]:
    """Try a bundle in a child under limits, and read it here: for a command that installs it, and runs nothing.

    Args:
        folder: of the bundle.
        limits: of the trial.

    Raises:
        BundleError: the bundle may not be served.
        EngineFailed: no child could be started.
    """
    with Trials(limits) as trials:
        trial = try_in_child(folder, trials)
    bundle = read_bundle(folder)
    trial.require(bundle)
    return bundle, trial


def _follow(device: Device, flow: ServedFlow, metrics: Metrics) -> None:
    """Tell that a flow runs on the CPU once its device is lost. The device does not keep the flow.

    Args:
        device: of the flow.
        flow: that runs there.
        metrics: tell it too.
    """
    known = weakref.ref(flow)

    def move_to_cpu(reason: str) -> None:
        moved = known()
        if moved is not None:
            moved.execution = cpu_execution(moved.manifest, f"{device.name}: {reason}")
            metrics.set_provider(moved.manifest.name, moved.manifest.version, moved.execution.provider)

    weakref.finalize(flow, device.listen(move_to_cpu)).atexit = False


def _open_flow(
    bundle: Bundle,
    graphs: FlowGraphs,
    workers: Workers,
    limits: Limits,
    metrics: Metrics,
    trial: Trial,
) -> ServedFlow:
    """Warm the graphs of a flow up, open its lanes, and check its golden rows.

    Args:
        bundle: of the flow.
        graphs: of the bundle.
        workers: the threads that run them.
        limits: of each lane.
        metrics: counts the batches.
        trial: of the bundle.

    Raises:
        BundleError: as `load_flow`.
    """
    name, version = bundle.manifest.name, bundle.manifest.version
    forward, inverse, execution, trace, hang_seconds = graphs
    golden = bundle.golden
    known = trial.timings if isinstance(forward, CpuGraph) else {}
    directions = {"forward": (forward, golden.x), "inverse": (inverse, golden.latents())}
    try:
        timings = {
            direction: known.get(direction) or warm_up(graph, limits, rows, golden.context)
            for direction, (graph, rows) in directions.items()
        }
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        raise BundleError("the flow could not be run on its golden rows") from error
    longest = max(timing.seconds for each in timings.values() for timing in each)
    if longest > hang_seconds / _HANG_MARGIN:
        text = (
            "a batch of %s version %d took %.3g s; raise --engine-hang-seconds (%g): a busy machine makes a hang of it"
        )
        _log.warning(text, name, version, longest, hang_seconds)
    if bundle.manifest.trace:
        check_trace(bundle, trace)
    held_out = HeldOut(bundle.manifest.calibration, bundle.manifest.dtype)
    forward_lane, inverse_lane = (
        open_lane(
            workers,
            graph,
            limits,
            timings=timings[direction],
            metrics=metrics.lane(name, version, direction, held_out=held_out),
            inline=trial.worst.get(direction, 0.0) <= _MOST_INLINE_SECONDS,
        )
        for direction, (graph, _) in directions.items()
    )
    tracer = open_tracer(bundle, trace, workers, limits, metrics) if bundle.manifest.trace else None
    flow = ServedFlow(
        bundle.manifest, golden, forward_lane, inverse_lane, execution, metrics.round_trips(name, version), tracer
    )
    for lane in (forward_lane, inverse_lane, *(() if tracer is None else (tracer,))):
        # Every plan under way holds its flow. The lanes go after the last of them.
        weakref.finalize(flow, workers.release, lane).atexit = False
    try:
        run_now(check_golden(flow))
    except BundleError:
        raise
    except PushforwardError as error:
        raise BundleError("the flow could not be run on its golden rows") from error
    metrics.set_provider(name, version, execution.provider)
    return flow
