"""The registry of served flows: bundles are found, verified, warmed up, and looked up by name and version.

A bundle that fails is listed with its error, and the others are served. A flow takes no request before its golden rows
have passed through the lanes that will answer. What is served changes in two phases: `prepare` loads what is new, and
`commit` swaps all of it in at once. A flow that is no longer served answers the requests that it has, and is freed
after the last of them. Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from service.bundle.catalogue import Catalogue, Key, Version, read_catalogue
from service.bundle.manifest import Manifest
from service.bundle.store import Bundle, Repository, check_identity, read_bundle
from service.engine.batching.chunk_size import Timing, choose_chunk, time_batches
from service.engine.batching.queues import Limits
from service.engine.batching.workers import QueuedLane, Workers
from service.engine.canary import check_golden, check_trace
from service.engine.flow_graphs import FlowGraph, FlowGraphs, isolated_graphs, open_engine
from service.engine.isolation.options import Isolation
from service.engine.metrics.metrics import LaneMetrics, Metrics
from service.engine.runtime.cpu import usable_cpus
from service.engine.runtime.graph import CpuGraph, Device, DeviceGraph, cpu_execution, open_graphs
from service.engine.snapshot import Entry, Snapshot, State
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.scores import HeldOut
from service.engine.verbs.traces import Tracer
from service.errors import (
    BundleError,
    Draining,
    NotReady,
    PushforwardError,
)
from service.plan import Floats, run_now

__all__ = ["Entry", "Registry", "State", "load_flow"]

_log = logging.getLogger(__name__)

_HANG_MARGIN: Final = 20
"""A batch may take this many times as long as when it was measured, before it is taken for a hang."""


def load_flow(
    bundle: Bundle,
    workers: Workers | None = None,
    limits: Limits | None = None,
    metrics: Metrics | None = None,
    device: Device | None = None,
    isolation: Isolation | None = None,
    quarantine: Callable[[PushforwardError], None] | None = None,
) -> ServedFlow:
    """Load the flow of a bundle, warm it up, and check its golden rows.

    Args:
        bundle: from `service.bundle.store.read_bundle`.
        workers: the threads that run it; None for threads of its own, which end with the process.
        limits: of each of its lanes. Where `chunk_rows` is 0, it is measured for each.
        metrics: counts its batches; None to count nothing.
        device: of its computation; None for the CPU.
        isolation: the flows that run in processes of their own, on the CPU; None for none.
        quarantine: takes the reason, on a thread of the engine, once such processes crash or hang too often.

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
    if isolation is None or not isolation.covers(bundle.manifest.name):
        graphs = FlowGraphs(*open_graphs(bundle, device, limits.chunk_rows))
        if device is not None:
            graphs = graphs._replace(hang_seconds=device.hang_seconds)
        flow = _open_flow(bundle, graphs, workers, limits, metrics)
        if device is not None and isinstance(graphs.forward, DeviceGraph):
            known = weakref.ref(flow)  # a device outlives its flows
            flow.on_close(device.listen(lambda reason: _move_to_cpu(known(), metrics, f"{device.name}: {reason}")))
        return flow
    engine = open_engine(bundle, isolation, limits, metrics, device=device, quarantine=quarantine)
    apart = workers.apart(isolation.processes)

    def release() -> None:
        engine.close()
        apart.close(0)

    try:
        graphs = isolated_graphs(bundle, engine, device)._replace(hang_seconds=isolation.hang_seconds)
        flow = _open_flow(bundle, graphs, apart, limits, metrics)
    except BaseException:
        release()
        raise
    flow.on_close(release)
    return flow


def _move_to_cpu(flow: ServedFlow | None, metrics: Metrics, reason: str) -> None:
    """Tell that a flow runs on the CPU from now on.

    Args:
        flow: of a device that is lost; None where it is served no more.
        metrics: tell it too.
        reason: of the loss.
    """
    if flow is None:
        return
    flow.execution = cpu_execution(flow.manifest, reason)
    metrics.set_provider(flow.manifest.name, flow.manifest.version, flow.execution.provider)


def _open_flow(
    bundle: Bundle,
    graphs: FlowGraphs,
    workers: Workers,
    limits: Limits,
    metrics: Metrics,
) -> ServedFlow:
    """Warm the graphs of a flow up, open its lanes, and check its golden rows.

    Args:
        bundle: of the flow.
        graphs: of the bundle.
        workers: the threads that run them.
        limits: of each lane.
        metrics: counts the batches.

    Raises:
        BundleError: as `load_flow`.
    """
    name, version = bundle.manifest.name, bundle.manifest.version
    forward, inverse, execution, trace, hang_seconds = graphs
    golden = bundle.golden
    try:
        forward_timings = _warm_up(forward, limits, golden.x, golden.context)
        inverse_timings = _warm_up(inverse, limits, golden.latents(), golden.context)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        _log.exception("%s version %d fails on its golden rows", name, version)
        raise BundleError("the flow could not be run on its golden rows") from error
    if bundle.manifest.trace:
        check_trace(bundle, trace)
    longest = max(timing.seconds for timing in (*forward_timings, *inverse_timings))
    if longest > hang_seconds / _HANG_MARGIN:
        text = (
            "a batch of %s version %d took %.3g s; raise --engine-hang-seconds (%g): a busy machine makes a hang of it"
        )
        _log.warning(text, name, version, longest, hang_seconds)
    held_out = HeldOut(bundle.manifest.calibration, bundle.manifest.dtype)
    forward_metrics = metrics.lane(name, version, "forward", held_out=held_out)
    inverse_metrics = metrics.lane(name, version, "inverse", held_out=held_out)
    lanes = (
        _open_lane(workers, forward, limits, timings=forward_timings, metrics=forward_metrics),
        _open_lane(workers, inverse, limits, timings=inverse_timings, metrics=inverse_metrics),
    )
    tracer = _open_tracer(bundle, trace, workers, limits, metrics) if bundle.manifest.trace else None
    flow = ServedFlow(bundle.manifest, golden, *lanes, execution, metrics.round_trips(name, version), tracer)
    for lane in (*lanes, *(() if tracer is None else (tracer,))):
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


def _warm_up(graph: FlowGraph, limits: Limits, rows: Floats, context: Floats | None) -> list[Timing]:
    """Warm a graph up with copies of the golden rows, and time its batches.

    Args:
        graph: of one direction.
        limits: of its lane.
        rows: ``[G, ...]``, the golden rows.
        context: ``[G, C]``, or None.
    """

    def prepare(size: int) -> Callable[[], object]:
        batch = np.resize(rows, (size, *rows.shape[1:]))
        batch_context = None if context is None else np.resize(context, (size, context.shape[1]))
        return lambda: graph(batch, batch_context)

    chunk = limits.chunk_rows
    sizes = [*(size for size in graph.sizes if size < chunk), chunk] if chunk else graph.sizes
    return time_batches(prepare, sizes, graph.clock)


def _open_lane(
    workers: Workers, graph: FlowGraph, limits: Limits, timings: Sequence[Timing], metrics: LaneMetrics
) -> QueuedLane:
    """Open a lane with the batch size and the times that were measured.

    Args:
        workers: the threads that serve it.
        graph: computes its batches.
        limits: of its queue. Where `chunk_rows` is 0, the timings decide.
        timings: from `_warm_up`.
        metrics: counts its batches.
    """
    chunk = choose_chunk(timings)
    limits = limits if limits.chunk_rows else replace(limits, chunk_rows=chunk.rows)
    lane = workers.lane(graph, limits, metrics, inline=isinstance(graph, CpuGraph))
    for timing in (chunk, timings[0]):
        lane.queue.record(timing.rows, timing.seconds)
    return lane


def _open_tracer(
    bundle: Bundle, graph: FlowGraph | None, workers: Workers, limits: Limits, metrics: Metrics
) -> QueuedLane:
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


class Registry:
    """The flows of a repository.

    `load`, `prepare` and `commit` may run on another thread than the look-ups.

    Args:
        repository: the folder of the bundles.
        default: the flow that answers where no name is given; None, or one that is not there, for the only flow, if
            there is only one.
        workers: the threads that run all flows.
        limits: of each lane.
        metrics: counts the batches and the states of flows; None to count nothing.
        device: of the computations; None for the CPU.
        isolation: the flows that run in processes of their own; None for none.
        catalogue: what to serve; None for all that `load` finds in the repository.
    """

    def __init__(
        self,
        repository: Repository,
        default: str | None,
        workers: Workers,
        limits: Limits,
        metrics: Metrics | None = None,
        device: Device | None = None,
        isolation: Isolation | None = None,
        *,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._repository = repository
        self._device = device
        self._isolation = isolation
        self._faults: dict[tuple[Key, str], PushforwardError] = {}
        self._lock = threading.Lock()
        self._default = default
        self._workers = workers
        self._limits = limits
        self._metrics = metrics or Metrics()
        self._given = catalogue
        self._current = Snapshot({}, Catalogue(), default)
        self._prepared: dict[Key, Entry] = {}
        self._leaving: list[tuple[Key, weakref.ref[ServedFlow]]] = []
        self._closed = False
        self._load_ended = threading.Event()
        self.loaded = False
        """Whether `load` has tried every version."""

    @property
    def catalogue(self) -> Catalogue:
        """What is served."""
        return self._current.catalogue

    @property
    def default(self) -> str | None:
        """The name of the flow that answers where none is given; None where there is no such flow.

        A default that the repository does not hold counts as none, so that the others are served.
        """
        return self._current.default

    def load(self) -> None:
        """Find every bundle, then load one after the other: the default flow first, new versions before old."""
        catalogue = read_catalogue(self._repository) if self._given is None else self._given
        entries = {key: _listed(key, catalogue) for key in catalogue.digests}
        self._replace(Snapshot.of(entries, catalogue, self._default))
        default = self.default
        for key in sorted(entries, key=lambda key: (key[0] != default, key[0], -key[1])):
            if self._closed:
                return
            if entries[key].state == "failed":
                continue
            self._put(self._load(key, catalogue.digests[key]))
        self.loaded = True
        self._load_ended.set()

    def wait_until_loaded(self) -> None:
        """Wait until `load` has tried every version.

        Raises:
            Draining: `close` was called first.
        """
        self._load_ended.wait()
        if self._closed:
            raise Draining("the server is shutting down")

    def _put(self, entry: Entry) -> None:
        """Put an entry in the place of the old one, or what has become of it while it was loaded."""
        with self._lock:
            entry = self._unless_quarantined(entry)
            entries = {each.key: each for each in self.entries()} | {entry.key: entry}
            failures = {entry.key: entry.error} if entry.state == "failed" and entry.error is not None else {}
            self._replace(Snapshot.of(entries, self._current.catalogue.with_failures(failures), self._default))

    def _unless_quarantined(self, entry: Entry) -> Entry:
        """The entry, or what has become of it while it was loaded."""
        fault = self._faults.get((entry.key, entry.digest))
        if entry.state != "ready" or fault is None:
            return entry
        return replace(entry, state="quarantined", flow=None, error=fault)

    def quarantine(self, key: Key, digest: str, error: PushforwardError) -> None:
        """Serve a version no more. From any thread; other versions and other flows are not affected.

        Args:
            key: its name and version: it is served, or is loaded just now.
            digest: of its manifest, which tells it from another bundle in its place.
            error: the reason.
        """
        with self._lock:
            self._faults[key, digest] = error
            current = self._current
            entries = {entry.key: entry for entry in self.entries()}
            if key in entries and entries[key].digest == digest:
                entries[key] = self._unless_quarantined(entries[key])
                self._replace(Snapshot.of(entries, current.catalogue, self._default))

    def close(self) -> None:
        """Load no further bundle."""
        self._closed = True
        self._load_ended.set()

    def free(self) -> None:
        """End the processes of all flows. No run may be under way any more."""
        flows = [entry.flow for entry in (*self.entries(), *self._prepared.values())]
        for flow in (*flows, *(leaving() for _, leaving in self._leaving)):
            if flow is not None:
                flow.close()

    def prepare(self, catalogue: Catalogue) -> dict[Key, PushforwardError]:
        """Load the versions that are in a catalogue and not served yet: the first phase of a change.

        What is served stays as it is. Each version is verified, loaded and warmed up, and waits for `commit`.

        Args:
            catalogue: what is to be served.

        Returns:
            The versions that cannot be served, each with its error.
        """
        self._prepared = {}
        failures: dict[Key, PushforwardError] = {}
        for key, digest in sorted(catalogue.digests.items()):
            if key in catalogue.failed or self._serves(key, digest):
                continue
            if self._closed:
                failures[key] = Draining("the server is shutting down")
                continue
            entry = self._load(key, digest, told=False)
            if entry.error is None:
                self._prepared[key] = entry
            else:
                failures[key] = entry.error
        return failures

    def commit(self, catalogue: Catalogue) -> None:
        """Serve what is in a catalogue, from one look-up to the next: the second phase of a change.

        Args:
            catalogue: that of `prepare`; those of its versions that failed are marked as such.
        """
        with self._lock:
            before = {entry.key: entry for entry in self.entries()}
            entries: dict[Key, Entry] = {}
            for key, digest in catalogue.digests.items():
                entry = self._prepared.get(key) or before.get(key)
                loaded = entry is not None and entry.digest == digest and entry.state in ("ready", "quarantined")
                usable = loaded and key not in catalogue.failed
                entries[key] = (
                    _listed(key, catalogue) if entry is None or not usable else self._unless_quarantined(entry)
                )
            self._prepared = {}
            self._replace(Snapshot.of(entries, catalogue, self._default))
        for key, entry in before.items():
            if entry.flow is not None and entries.get(key) is not entry:
                self._leaving.append((key, weakref.ref(entry.flow)))
            if key not in entries:
                self._metrics.forget(*key)

    def abort(self) -> None:
        """Drop what `prepare` has loaded."""
        self._prepared = {}

    def draining(self) -> list[Key]:
        """The versions that are no longer served, and still answer requests that came before."""
        self._leaving = [(key, flow) for key, flow in self._leaving if flow() is not None]
        return sorted({key for key, _ in self._leaving})

    def _serves(self, key: Key, digest: str) -> bool:
        entry = self._current.entries.get(key[0], {}).get(key[1])
        return entry is not None and entry.digest == digest and entry.state in ("ready", "quarantined")

    def _replace(self, current: Snapshot) -> None:
        self._current = current
        for entry in self.entries():
            self._metrics.set_state(entry.name, entry.version, entry.state)

    def _load(self, key: Key, digest: str, *, told: bool = True) -> Entry:
        """Load one version, and count that.

        Args:
            key: its name and version.
            digest: of the manifest that was found.
            told: whether to log why it cannot be served; a change logs it once, for all workers.
        """
        entry = self._try_to_load(key, digest, told=told)
        self._metrics.count_load(*key, entry.state)
        return entry

    def _try_to_load(self, key: Key, digest: str, *, told: bool) -> Entry:
        name, version = key
        manifest: Manifest | None = None
        self._faults.pop((key, digest), None)
        try:
            bundle = read_bundle(self._repository.path(name, version))
            manifest = bundle.manifest
            check_identity(manifest, name, version)
            if bundle.digest != digest:
                raise BundleError("the bundle is another than was found at first: it changed meanwhile")
            flow = load_flow(
                bundle,
                workers=self._workers,
                limits=self._limits,
                metrics=self._metrics,
                device=self._device,
                isolation=self._isolation,
                quarantine=lambda error: self.quarantine(key, digest, error),
            )
        except PushforwardError as error:
            if told:
                why = "; ".join([error.detail, *map(str, error.unsaid())])
                _log.error("%s version %d is not served: %s: %s", name, version, error.code, why)
            return Entry(name, version, "failed", manifest=manifest, error=_bare(error), digest=digest)
        except Exception:
            _log.exception("%s version %d is not served", name, version)
            unread = BundleError("the bundle could not be read")
            return Entry(name, version, "failed", manifest=manifest, error=unread, digest=digest)
        return Entry(name, version, "ready", manifest=manifest, flow=flow, digest=digest)

    def entries(self, name: str | None = None) -> list[Entry]:
        """Every version of every flow, or of one, names and versions ascending.

        Raises:
            FlowNotFound: there is no flow of that name.
        """
        return self._current.list(name)

    def entry(self, name: str | None = None, version: Version | None = None) -> Entry:
        """The current state of one version of a flow.

        Args:
            name: None for the default flow.
            version: its number, or an alias; None for the newest that is ready, or else the newest.

        Raises:
            FlowNotFound: there is no such flow, or no default.
            VersionNotFound: the flow has no such version.
        """
        return self._current.entry(name, version)

    def find(self, name: str | None = None, version: Version | None = None) -> ServedFlow:
        """The flow that answers.

        Args:
            name: None for the default flow.
            version: its number, or an alias; None for the newest that is ready.

        Raises:
            FlowNotFound: as `entry`.
            VersionNotFound: as `entry`.
            NotReady: the flow is still loading, or it failed.
        """
        current = self._current
        if not current.entries and not self.loaded:
            raise NotReady("the flows are still loading")
        return current.find(name, version)


def _listed(key: Key, catalogue: Catalogue) -> Entry:
    """The entry of a version that has no flow: it is yet to be loaded, or it has failed."""
    error = catalogue.failed.get(key)
    return Entry(*key, "loading" if error is None else "failed", error=error, digest=catalogue.digests[key])


def _bare(error: PushforwardError) -> PushforwardError:
    """An error without its traceback, whose frames hold the graphs of what failed for as long as it is listed."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
