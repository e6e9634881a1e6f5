"""The registry of served flows: bundles are found, verified, warmed up, and looked up by name and version.

A bundle that fails is listed with its error, and the others are served. A flow takes no request before its golden rows
have passed through the lanes that will answer. Knows no HTTP.
"""

from __future__ import annotations

import logging
import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from service.bundle.manifest import Manifest
from service.bundle.store import Bundle, Repository, check_identity, read_bundle, read_manifest
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.engine.canary import check_golden
from service.engine.isolation.engine import IsolatedEngine
from service.engine.isolation.options import Isolation
from service.engine.isolation.quarantine import MAX_ENDS
from service.engine.lanes import Graph, open_lane, open_tracer, warm_up
from service.engine.metrics.metrics import Metrics
from service.engine.runtime.cpu import usable_cpus
from service.engine.runtime.execution import Execution
from service.engine.runtime.graph import CPU_BATCH_SIZES, CpuGraph, Device, DeviceGraph, cpu_execution, open_graphs
from service.engine.trials import Trial, TrialFailure, Trials
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.scores import HeldOut
from service.errors import (
    BundleError,
    Draining,
    EngineFailed,
    FlowNotFound,
    NotReady,
    PushforwardError,
    VersionNotFound,
)
from service.plan import run_now

__all__ = ["Entry", "Registry", "State", "load_flow"]

_log = logging.getLogger(__name__)

_HANG_MARGIN: Final = 20
"""A batch may take this many times as long as when it was measured, before it is taken for a hang."""

State = Literal["loading", "ready", "failed", "quarantined"]

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
        state: loading, ready, failed or quarantined.
        manifest: once it has been read.
        flow: once it is ready.
        error: the reason why it is not served.
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
    isolation: Isolation | None = None,
    quarantine: Callable[[PushforwardError], None] | None = None,
    trial: Trial | None = None,
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
        graphs = _Graphs(*open_graphs(bundle, device, limits.chunk_rows))
        if device is not None:
            graphs = graphs._replace(hang_seconds=device.hang_seconds)
        flow = _open_flow(bundle, graphs, workers, limits, metrics, trial)
        if device is not None and isinstance(graphs.forward, DeviceGraph):
            _follow_device(flow, device, metrics)
        return flow
    engine = _open_engine(bundle, isolation, limits, metrics, device=device, quarantine=quarantine)
    apart = workers.apart(isolation.processes)

    def stop() -> None:
        engine.stop()
        apart.close(0)

    def release() -> None:
        engine.close()
        apart.close(0)

    try:
        graphs = _isolated_graphs(bundle, engine, device)._replace(hang_seconds=isolation.hang_seconds)
        flow = _open_flow(bundle, graphs, apart, limits, metrics, trial)
    except BaseException:
        release()
        raise
    flow.on_close(release)
    weakref.finalize(
        flow, workers.defer, stop
    ).atexit = False  # where nobody closes it: after the last plan that has it
    return flow


def _follow_device(flow: ServedFlow, device: Device, metrics: Metrics) -> None:
    """Tell that a flow runs on the CPU once its device is lost.

    Args:
        flow: on the device.
        device: of the flow.
        metrics: tell it too.
    """
    followed = weakref.ref(flow)

    def move(reason: str) -> None:
        flow = followed()
        if flow is not None:
            flow.execution = cpu_execution(flow.manifest, f"{device.name}: {reason}")
            metrics.set_provider(flow.manifest.name, flow.manifest.version, flow.execution.provider)

    forget = device.listen(move)
    flow.on_close(forget)
    weakref.finalize(flow, forget).atexit = False


class _Graphs(NamedTuple):
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


def _open_engine(
    bundle: Bundle,
    isolation: Isolation,
    limits: Limits,
    metrics: Metrics,
    device: Device | None,
    quarantine: Callable[[PushforwardError], None] | None,
) -> IsolatedEngine:
    """Start the processes of an isolated flow.

    Args:
        bundle: of the flow.
        isolation: the options of its processes.
        limits: of its lanes.
        metrics: counts the processes.
        device: of the settings.
        quarantine: as `load_flow`.

    Raises:
        BundleError: as `load_flow`.
        EngineFailed: the device is required.
        EngineLost: no process can be started.
    """
    if device is not None and device.gpu.options.required:
        raise EngineFailed(f"{device.name} is required, and a flow in processes of its own runs on the CPU")
    counts = metrics.engine(bundle.manifest.name, bundle.manifest.version, MAX_ENDS)
    rows = limits.chunk_rows or CPU_BATCH_SIZES[-1]
    return IsolatedEngine(bundle, isolation, rows, counts=counts, quarantined=quarantine)


def _isolated_graphs(bundle: Bundle, engine: IsolatedEngine, device: Device | None) -> _Graphs:
    fallback = None if device is None else f"{device.name}: a flow in processes of its own runs on the CPU"
    trace = engine.graph("trace") if bundle.manifest.trace else None
    return _Graphs(engine.graph("forward"), engine.graph("inverse"), cpu_execution(bundle.manifest, fallback), trace)


def _open_flow(
    bundle: Bundle,
    graphs: _Graphs,
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
    try:
        forward_timings = known.get("forward") or warm_up(forward, limits, golden.x, golden.context)
        inverse_timings = known.get("inverse") or warm_up(inverse, limits, golden.latents(), golden.context)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        raise BundleError("the flow could not be run on its golden rows") from error
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
        open_lane(
            workers,
            forward,
            limits,
            timings=forward_timings,
            metrics=forward_metrics,
            inline=trial.worst.get("forward", 0.0) <= _MOST_INLINE_SECONDS,
        ),
        open_lane(
            workers,
            inverse,
            limits,
            timings=inverse_timings,
            metrics=inverse_metrics,
            inline=trial.worst.get("inverse", 0.0) <= _MOST_INLINE_SECONDS,
        ),
    )
    tracer = open_tracer(bundle, trace, workers, limits, metrics) if bundle.manifest.trace else None
    flow = ServedFlow(bundle.manifest, golden, *lanes, execution, metrics.round_trips(name, version), tracer)
    try:
        run_now(check_golden(flow))
    except BundleError:
        raise
    except PushforwardError as error:
        raise BundleError("the flow could not be run on its golden rows") from error
    metrics.set_provider(name, version, execution.provider)
    return flow


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
        isolation: the flows that run in processes of their own; None for none.
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
        isolation: Isolation | None = None,
        trials: Trials | None = None,
    ) -> None:
        self._repository = repository
        self._device = device
        self._isolation = isolation
        self._trials = trials or Trials()
        self._turn = threading.Condition()
        self._under_way: set[tuple[str, int]] = set()
        self._faults: dict[tuple[str, int], PushforwardError] = {}
        self._lock = threading.Lock()
        self._default = default
        self._workers = workers
        self._limits = limits
        self._metrics = metrics or Metrics()
        self._entries: dict[str, dict[int, Entry]] = {}
        self._found: dict[tuple[str | None, int | None], ServedFlow] = {}
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
        threading.Thread(target=self._load_on_thread, args=(name, version), name=f"load-{name}", daemon=True).start()

    def _wait(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until a condition on the bundles under way holds, the time is over, or the registry is closed."""
        with self._turn:
            self._turn.wait_for(lambda: self._closed or condition(), seconds)

    def _put(self, entry: Entry) -> None:
        """Put an entry in the place of the old one, or what has become of it while it was loaded."""
        with self._lock:
            fault = self._faults.get((entry.name, entry.version))
            if entry.state == "ready" and fault is not None:
                entry = Entry(entry.name, entry.version, "quarantined", manifest=entry.manifest, error=fault)
            self._entries[entry.name][entry.version] = entry
            self._found = {}  # a new dict: a look-up on another thread adds its result to the old one
            self._metrics.set_state(entry.name, entry.version, entry.state)

    def quarantine(self, name: str, version: int, error: PushforwardError) -> None:
        """Serve a version no more. From any thread; other versions and other flows are not affected.

        Args:
            name: of the flow.
            version: that is served, or is loaded just now.
            error: the reason.
        """
        self._faults[name, version] = error
        entry = self._entries[name][version]
        if entry.state == "ready":
            self._put(entry)

    def close(self) -> None:
        """Load no further bundle, and give up those that are being tried."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        self._trials.close()

    def _load_on_thread(self, name: str, version: int) -> None:
        try:
            entry = self._load(name, version)
        except Draining:
            return
        else:
            self._put(entry)
        finally:
            with self._turn:
                self._under_way.discard((name, version))
                self._turn.notify_all()

    def free(self) -> None:
        """End the processes of all flows. No run may be under way any more."""
        for entry in self.entries():
            if entry.flow is not None:
                entry.flow.close()

    def _load(self, name: str, version: int) -> Entry:
        manifest: Manifest | None = None
        self._faults.pop((name, version), None)
        folder = self._repository.root / name / str(version)
        try:
            trial = self._trials.run(folder, chunk_rows=self._limits.chunk_rows)
            bundle = read_bundle(folder)
            manifest = bundle.manifest
            trial.require(bundle)
            check_identity(manifest, name, version)
            flow = load_flow(
                bundle,
                workers=self._workers,
                limits=self._limits,
                metrics=self._metrics,
                device=self._device,
                isolation=self._isolation,
                quarantine=lambda error: self.quarantine(name, version, error),
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
