"""The registry of served flows: bundles are found, verified, warmed up, and looked up by name and version.

A bundle that fails is listed with its error, and the others are served. A flow takes no request before its golden rows
have passed through the lanes that will answer. Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from service.bundle.manifest import Manifest
from service.bundle.store import Bundle, Repository, check_identity, read_bundle, read_manifest
from service.engine.batching.chunk_size import Timing, choose_chunk, time_batches
from service.engine.batching.queues import Limits
from service.engine.batching.workers import QueuedLane, Workers
from service.engine.canary import check_golden, check_trace
from service.engine.metrics.metrics import LaneMetrics, Metrics
from service.engine.runtime.cpu import usable_cpus
from service.engine.runtime.graph import CpuGraph, Device, DeviceGraph, open_graphs
from service.engine.trials import Trial, TrialFailure, Trials
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.scores import HeldOut
from service.engine.verbs.traces import Tracer
from service.errors import BundleError, Draining, FlowNotFound, NotReady, PushforwardError, VersionNotFound
from service.plan import Floats, run_now

__all__ = ["Entry", "Registry", "State", "load_flow", "warm_up"]

_log = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed"]

_PATIENCE_SECONDS: Final = 2.0
"""The time after which the next bundle is begun beside one that is not done."""

_MOST_INLINE_SECONDS: Final = 0.03
"""The longest time of a smallest batch, with every pass of its Loops, that may come to run on the event loop."""

_MOST_AT_ONCE: Final = 8
"""The most bundles that are tried at once. A ninth waits: each may take the memory of a trial."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The current state of one version of one flow.

    Args:
        name: of the flow.
        version: a positive integer.
        state: loading, ready or failed.
        manifest: once it has been read.
        flow: once it is ready.
        error: the reason of its failure.
    """

    name: str
    version: int
    state: State
    manifest: Manifest | None = None
    flow: ServedFlow | None = None
    error: PushforwardError | None = None


def load_flow(
    bundle: Bundle,
    workers: Workers | None = None,
    limits: Limits | None = None,
    metrics: Metrics | None = None,
    device: Device | None = None,
    trial: Trial | None = None,
) -> ServedFlow:
    """Load the flow of a bundle, warm it up, and check its golden rows.

    Args:
        bundle: from `service.bundle.store.read_bundle`.
        workers: the threads that run it; None for threads of its own, which end with the process.
        limits: of each of its lanes. Where `chunk_rows` is 0, it is measured for each.
        metrics: counts its batches; None to count nothing.
        device: of its computation; None for the CPU.
        trial: of the bundle, with the times of its batches on the CPU; None to measure them.

    Raises:
        BundleError: a graph cannot be loaded, or does not give the golden answers.
        EngineFailed: the device cannot run it, and is required.

    Example::

        flow = load_flow(read_bundle(Path("repository/two-moons/1")))
        densities = run_now(flow.log_prob(x))
    """
    workers = workers or Workers(usable_cpus())
    limits = limits or Limits()
    metrics = metrics or Metrics()
    name, version = bundle.manifest.name, bundle.manifest.version
    forward, inverse, execution = open_graphs(bundle, device, limits.chunk_rows)
    golden = bundle.golden
    trial = trial or Trial()
    known = trial.timings if isinstance(forward, CpuGraph) else {}
    try:
        forward_timings = known.get("forward") or warm_up(forward, limits, golden.x, golden.context)
        inverse_timings = known.get("inverse") or warm_up(inverse, limits, golden.latents(), golden.context)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        raise BundleError("the flow could not be run on its golden rows") from error
    held_out = HeldOut(bundle.manifest.calibration, bundle.manifest.dtype)
    forward_metrics = metrics.lane(name, version, "forward", held_out=held_out)
    inverse_metrics = metrics.lane(name, version, "inverse", held_out=held_out)
    lanes = (
        _open_lane(
            workers,
            forward,
            limits,
            timings=forward_timings,
            metrics=forward_metrics,
            inline=trial.worst.get("forward", 0.0) <= _MOST_INLINE_SECONDS,
        ),
        _open_lane(
            workers,
            inverse,
            limits,
            timings=inverse_timings,
            metrics=inverse_metrics,
            inline=trial.worst.get("inverse", 0.0) <= _MOST_INLINE_SECONDS,
        ),
    )
    tracer = _open_tracer(bundle, workers, limits, metrics) if bundle.manifest.trace else None
    flow = ServedFlow(bundle.manifest, golden, *lanes, execution, metrics.round_trips(name, version), tracer)
    try:
        run_now(check_golden(flow))
    except BundleError:
        raise
    except PushforwardError as error:
        raise BundleError("the flow could not be run on its golden rows") from error
    metrics.set_provider(name, version, execution.provider)
    return flow


def warm_up(graph: CpuGraph | DeviceGraph, limits: Limits, rows: Floats, context: Floats | None) -> list[Timing]:
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


def _open_lane(
    workers: Workers,
    graph: CpuGraph | DeviceGraph,
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


def _open_tracer(bundle: Bundle, workers: Workers, limits: Limits, metrics: Metrics) -> QueuedLane:
    """Open a lane for the trace. The graph is checked now, and opened again at the first request.

    Args:
        bundle: with a trace.
        workers: the threads that serve it.
        limits: of its queue.
        metrics: counts its batches.

    Raises:
        BundleError: as `load_flow`.
    """
    check_trace(bundle)
    tracer = Tracer(bundle)
    chunk = min(tracer.chunk_rows, limits.chunk_rows or tracer.chunk_rows)
    trace_metrics = metrics.lane(bundle.manifest.name, bundle.manifest.version, "trace")
    return workers.lane(tracer, replace(limits, chunk_rows=chunk), trace_metrics)


class Registry:
    """The flows of a repository.

    `load` may run on another thread than the look-ups: an entry is replaced whole.

    Args:
        repository: the folder of the bundles.
        default: the flow that answers where no name is given; None, or one that is not there, for the only flow, if
            there is only one.
        workers: the threads that run all flows.
        limits: of each lane.
        metrics: counts the batches and the states of flows; None to count nothing.
        device: of the computations; None for the CPU.
        trials: try each bundle in a child before it is loaded.
    """

    def __init__(
        self,
        repository: Repository,
        default: str | None,
        workers: Workers,
        limits: Limits,
        metrics: Metrics | None = None,
        device: Device | None = None,
        trials: Trials | None = None,
    ) -> None:
        self._repository = repository
        self._trials = trials or Trials()
        self._device = device
        self._default = default
        self._workers = workers
        self._limits = limits
        self._metrics = metrics or Metrics()
        self._entries: dict[str, dict[int, Entry]] = {}
        self._found: dict[tuple[str | None, int | None], ServedFlow] = {}
        self._turn = threading.Condition()
        self._under_way: set[tuple[str, int]] = set()
        self._closed = False
        self.loaded = False

    @property
    def default(self) -> str | None:
        """The name of the flow that answers where none is given; None where there is no such flow.

        A default that the repository does not hold counts as none, so that the others are served.
        """
        if self._default is not None and (self._default in self._entries or not self._entries):
            return self._default
        return next(iter(self._entries)) if len(self._entries) == 1 else None

    def load(self) -> None:
        """Find every bundle, then load one after the other: the default flow first, new versions before old.

        A bundle that takes longer than `_PATIENCE_SECONDS` goes on beside those that come after it.
        """
        names = self._repository.names()
        self._entries = {n: {v: Entry(n, v, "loading") for v in self._repository.versions(n)} for n in names}
        for entry in self.entries():
            self._metrics.set_state(entry.name, entry.version, entry.state)
        for name in sorted(names, key=lambda name: name != self.default):
            for version in sorted(self._entries[name], reverse=True):
                self._begin(name, version)
                self._wait(lambda key=(name, version): key not in self._under_way, _PATIENCE_SECONDS)  # type: ignore[misc]
                self._wait(lambda: len(self._under_way) < _MOST_AT_ONCE)
                if self._closed:
                    return
        self._wait(lambda: not self._under_way)
        self._trials.rest()
        self.loaded = not self._closed

    def _begin(self, name: str, version: int) -> None:
        """Load one bundle on a thread of its own."""
        with self._turn:
            self._under_way.add((name, version))
        # A daemon: what a bundle does to this process's own loading must not keep the process alive.
        threading.Thread(target=self._load_entry, args=(name, version), name=f"load-{name}", daemon=True).start()

    def _wait(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until a condition on the bundles under way holds, the time is over, or the registry is closed."""
        with self._turn:
            self._turn.wait_for(lambda: self._closed or condition(), seconds)

    def close(self) -> None:
        """Load no further bundle, and give up those that are being tried."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        self._trials.close()

    def _load_entry(self, name: str, version: int) -> None:
        try:
            entry = self._load(name, version)
        except Draining:
            return
        else:
            self._entries[name][version] = entry
            self._found = {}  # a new dict: a look-up on another thread adds its result to the old one
            self._metrics.set_state(name, version, entry.state)
        finally:
            with self._turn:
                self._under_way.discard((name, version))
                self._turn.notify_all()

    def _load(self, name: str, version: int) -> Entry:
        manifest: Manifest | None = None
        folder = self._repository.root / name / str(version)
        try:
            trial = self._trials.run(folder, chunk_rows=self._limits.chunk_rows)
            bundle = read_bundle(folder)
            manifest = bundle.manifest
            check_identity(manifest, name, version)
            flow = load_flow(
                bundle,
                workers=self._workers,
                limits=self._limits,
                metrics=self._metrics,
                device=self._device,
                trial=trial,
            )
        except Draining:
            raise
        except TrialFailure as failure:
            manifest = read_manifest(folder) if failure.read else None
            return self._failed(name, version, failure.error, manifest, failure.cause)
        except PushforwardError as error:
            cause = error.__cause__
            words = None if cause is None or manifest is None else f"{type(cause).__name__}: {cause}"
            return self._failed(name, version, error, manifest, words)
        except Exception:
            _log.exception("%s version %d is not served", name, version)
            return Entry(name, version, "failed", manifest=manifest, error=BundleError("the bundle could not be read"))
        return Entry(name, version, "ready", manifest=manifest, flow=flow)

    @staticmethod
    def _failed(
        name: str, version: int, error: PushforwardError, manifest: Manifest | None, cause: str | None = None
    ) -> Entry:
        """The entry of a bundle that is not served, after the reason was logged; the cause is for the log alone."""
        why = "; ".join([error.detail, *map(str, error.unsaid()), *([] if cause is None else [cause])])
        _log.error("%s version %d is not served: %s: %s", name, version, error.code, why)
        return Entry(name, version, "failed", manifest=manifest, error=error)

    def entries(self, name: str | None = None) -> list[Entry]:
        """Every version of every flow, or of one, names and versions ascending.

        Raises:
            FlowNotFound: there is no flow of that name.
        """
        if name is not None:
            return [entry for _, entry in sorted(self._versions(name).items())]
        return [entry for found in sorted(self._entries) for _, entry in sorted(self._entries[found].items())]

    def entry(self, name: str | None = None, version: int | None = None) -> Entry:
        """The current state of one version of a flow.

        Args:
            name: None for the default flow.
            version: None for the newest that is ready, or else the newest.

        Raises:
            FlowNotFound: there is no such flow, or no default.
            VersionNotFound: the flow has no such version.
        """
        name = self.default if name is None else name
        if name is None:
            absent = "" if self._default is None else f": {self._default!r} is not in the repository"
            raise FlowNotFound(f"no flow is named and there is no default{absent}; there are {sorted(self._entries)}")
        versions = self._versions(name)
        if version is not None:
            if version not in versions:
                raise VersionNotFound(f"flow {name!r} has no version {version}; it has {sorted(versions)}")
            return versions[version]
        newest = max(versions)
        return versions[max((v for v, e in versions.items() if e.state == "ready"), default=newest)]

    def find(self, name: str | None = None, version: int | None = None) -> ServedFlow:
        """The flow that answers.

        Args:
            name: None for the default flow.
            version: None for the newest that is ready.

        Raises:
            FlowNotFound: as `entry`.
            VersionNotFound: as `entry`.
            NotReady: the flow is still loading, or it failed.
        """
        found = self._found
        if (known := found.get((name, version))) is not None:
            return known
        if not self._entries and not self.loaded:
            raise NotReady("the flows are still loading")
        entry = self.entry(name, version)
        if entry.flow is None:
            why = "is still loading" if entry.error is None else f"is not served: {entry.error.detail}"
            raise NotReady(f"flow {entry.name!r} version {entry.version} {why}")
        found[name, version] = entry.flow
        return entry.flow

    def _versions(self, name: str) -> dict[int, Entry]:
        if name not in self._entries:
            raise FlowNotFound(f"there is no flow {name[:64]!r}; there are {sorted(self._entries)}")
        return self._entries[name]
