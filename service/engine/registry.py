"""The registry of served flows: bundles are found, verified, loaded, and looked up by name and version.

A bundle that fails is listed with its error, and the others are served. A flow takes no request before its golden rows
have passed through the lanes that will answer. What is served changes in two phases: `prepare` loads what is new, and
`commit` swaps all of it in at once. A flow that is no longer served answers the requests that it has, and is freed
after the last of them. Knows no HTTP.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from service.bundle.catalogue import Catalogue, Key, Version, read_catalogue
from service.bundle.manifest import Manifest
from service.bundle.store import Repository, check_identity, read_bundle, read_manifest
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.engine.isolation.engine import QUARANTINED
from service.engine.isolation.options import Isolation
from service.engine.isolation.quarantine import MAX_ENDS
from service.engine.loading import load_flow
from service.engine.metrics.metrics import Metrics
from service.engine.runtime.graph import Device
from service.engine.snapshot import Entry, Snapshot, State
from service.engine.trials import TrialFailure, Trials
from service.engine.verbs.flow import ServedFlow
from service.errors import (
    BundleError,
    Draining,
    EngineLost,
    NotReady,
    PushforwardError,
)

__all__ = ["Entry", "Registry", "State"]

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 2.0
"""The time after which the next bundle is begun beside one that is not done."""

_MOST_AT_ONCE: Final = 8
"""The most bundles that are tried at once. A ninth waits: each may take the memory of a trial."""


class Registry:
    """The flows of a repository.

    `load`, `prepare` and `commit` may run on another thread than the look-ups, and `quarantine` on any. A look-up takes
    no lock: what is served is replaced whole, under the one lock of those that replace it.

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
        trials: Trials | None = None,
        *,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._repository = repository
        self._trials = trials or Trials()
        self._turn = threading.Condition()
        self._under_way: set[Key] = set()
        self._device = device
        self._default = default
        self._workers = workers
        self._limits = limits
        self._metrics = metrics or Metrics()
        self._given = catalogue
        self._current = Snapshot({}, Catalogue(), default)
        self._isolation = isolation or Isolation()
        self._lock = threading.Lock()
        self._prepared: dict[Key, Entry] = {}
        self._faults: dict[tuple[Key, int], PushforwardError] = {}
        """The loads that are quarantined, also those under way, and why."""
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
    def snapshot(self) -> Snapshot:
        """What is served now: another one after each change."""
        return self._current

    @property
    def default(self) -> str | None:
        """The name of the flow that answers where none is given; None where there is no such flow.

        A default that the repository does not hold counts as none, so that the others are served.
        """
        return self._current.default

    def load(self) -> None:
        """Find every bundle, then load one after the other: the default flow first, new versions before old.

        A bundle that takes longer than `_PATIENCE_SECONDS` goes on beside those that come after it.
        """
        catalogue = read_catalogue(self._repository) if self._given is None else self._given
        entries = {key: _listed(key, catalogue) for key in catalogue.digests}
        with self._lock:
            self._replace(entries, catalogue)
        default = self.default
        for key in sorted(entries, key=lambda key: (key[0] != default, key[0], -key[1])):
            if entries[key].state == "failed":
                continue
            self._begin(key, catalogue)
            self._wait(lambda key=key: key not in self._under_way, _PATIENCE_SECONDS)  # type: ignore[misc]
            self._wait(lambda: len(self._under_way) < _MOST_AT_ONCE)
            if self._closed:
                return
        self._wait(lambda: not self._under_way)
        self._trials.rest()
        self.loaded = not self._closed
        self._load_ended.set()

    def _begin(self, key: Key, catalogue: Catalogue) -> None:
        """Load one bundle on a thread of its own."""
        with self._turn:
            self._under_way.add(key)
        # A daemon: what a bundle does to this process's own loading must not keep the process alive.
        thread = threading.Thread(
            target=self._load_on_thread, args=(key, catalogue), name=f"load-{key[0]}", daemon=True
        )
        thread.start()

    def _wait(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Wait until a condition on the bundles under way holds, the time is over, or the registry is closed."""
        with self._turn:
            self._turn.wait_for(lambda: self._closed or condition(), seconds)

    def _load_on_thread(self, key: Key, catalogue: Catalogue) -> None:
        try:
            entry = self._load(key, catalogue)
        except Draining:
            return
        else:
            failures = {key: entry.error} if entry.state == "failed" and entry.error is not None else {}
            with self._lock:
                entries = {**self._current.by_key(), key: self._as_it_stands(entry)}
                self._replace(entries, self._current.catalogue.with_failures(failures))
        finally:
            with self._turn:
                self._under_way.discard(key)
                self._turn.notify_all()

    def wait_until_loaded(self) -> None:
        """Wait until `load` has tried every version.

        Raises:
            Draining: `close` was called first.
        """
        self._load_ended.wait()
        if self._closed:
            raise Draining("the server is shutting down")

    def close(self) -> None:
        """Load no further bundle, and give up those that are being tried."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        self._load_ended.set()
        self._trials.close()

    def prepare(self, catalogue: Catalogue) -> dict[Key, PushforwardError]:
        """Load the versions that are in a catalogue and not served yet: the first phase of a change.

        What is served stays as it is. Each version is verified, loaded and warmed up, and waits for `commit`.

        Args:
            catalogue: what is to be served.

        Returns:
            The versions that cannot be served, each with its error.
        """
        self.abort()
        failures: dict[Key, PushforwardError] = {}
        for key in sorted(catalogue.digests):
            if key in catalogue.failed or self._answers(self._serving(key), catalogue):
                continue
            if self._closed:
                failures[key] = Draining("the server is shutting down")
                continue
            try:
                entry = self._load(key, catalogue, told=False)
            except Draining as error:
                failures[key] = error
                continue
            with self._lock:
                entry = self._as_it_stands(entry)
                if entry.state == "ready":
                    self._prepared[key] = entry
                elif entry.error is not None:
                    quarantined = entry.state == "quarantined"
                    failures[key] = BundleError(entry.error.detail) if quarantined else entry.error
        self._trials.rest()
        return failures

    def commit(self, catalogue: Catalogue) -> None:
        """Serve what is in a catalogue, from one look-up to the next: the second phase of a change.

        A version stays what it is where the catalogue asks for nothing else of it: a quarantined one, quarantined.

        Args:
            catalogue: that of `prepare`; those of its versions that failed are marked as such.
        """
        with self._lock:
            before = self._current.by_key()
            entries: dict[Key, Entry] = {}
            for key in catalogue.digests:
                choice = (self._prepared.get(key), before.get(key))
                usable = [e for e in choice if e is not None and self._answers(e, catalogue)]
                entries[key] = self._as_it_stands(usable[0]) if usable else _listed(key, catalogue)
            self._prepared = {}
            self._replace(entries, catalogue)
            loads = {(key, entry.load) for key, entry in entries.items()}
            self._faults = {load: error for load, error in self._faults.items() if load in loads}
            for key, entry in before.items():
                if entry.flow is not None and (key not in entries or entries[key].flow is not entry.flow):
                    self._leaving.append((key, weakref.ref(entry.flow)))
                if key not in entries:
                    self._metrics.forget(*key)

    def abort(self) -> None:
        """Drop what `prepare` has loaded."""
        with self._lock:
            dropped, self._prepared = self._prepared, {}
            for key in dropped.keys() - self._current.by_key().keys():
                self._metrics.forget(*key)

    def quarantine(self, key: Key, load: int, error: PushforwardError) -> None:
        """Serve no more what one load of a version has brought. From any thread.

        Other versions are not affected, nor another load of this one, as of a content that is about to replace it.

        Args:
            key: its name and version.
            load: its number. It may be served, prepared, or under way.
            error: the reason.
        """
        with self._lock:
            self._faults[key, load] = error
            entries = self._current.by_key()
            entry = entries.get(key)
            if entry is not None and entry.load == load and entry.flow is not None:
                self._leaving.append((key, weakref.ref(entry.flow)))
                self._replace({**entries, key: self._as_it_stands(entry)}, self._current.catalogue)

    def draining(self) -> list[Key]:
        """The versions that are no longer served, and still answer requests that came before."""
        with self._lock:
            self._leaving = [(key, flow) for key, flow in self._leaving if flow() is not None]
            return sorted({key for key, _ in self._leaving})

    def _serving(self, key: Key) -> Entry | None:
        name, version = key
        return self._current.entries.get(name, {}).get(version)

    def _answers(self, entry: Entry | None, catalogue: Catalogue) -> bool:
        """Whether an entry is what a catalogue asks for, so that the version need not be loaded.

        One in processes of its own is loaded anew whenever that is asked for, on all workers: quarantine is then over.
        """
        if entry is None or entry.key in catalogue.failed or entry.digest != catalogue.digests[entry.key]:
            return False
        if entry.state == "ready" and not self._isolation.covers(entry.name):
            return True
        return entry.state in ("ready", "quarantined") and entry.load == catalogue.load_of(entry.key)

    def _as_it_stands(self, entry: Entry) -> Entry:
        """An entry, or what has become of it since it was loaded. The lock is held."""
        fault = self._faults.get((entry.key, entry.load))
        if fault is None or entry.state != "ready":
            return entry
        return replace(entry, state="quarantined", flow=None, error=fault)

    def _replace(self, entries: Mapping[Key, Entry], catalogue: Catalogue) -> None:
        """Serve other entries. The lock is held."""
        self._current = Snapshot.of(entries, catalogue, self._default)
        for entry in entries.values():
            self._metrics.set_state(entry.name, entry.version, entry.state)

    def _load(self, key: Key, catalogue: Catalogue, *, told: bool = True) -> Entry:
        """Load one version, and count that.

        Args:
            key: its name and version.
            catalogue: that asks for it.
            told: whether to log why it cannot be served; a change logs it once, for all workers.
        """
        entry = self._try_to_load(key, catalogue, told=told)
        self._metrics.count_load(*key, entry.state)
        return entry

    def _try_to_load(self, key: Key, catalogue: Catalogue, *, told: bool) -> Entry:
        name, version = key
        load = catalogue.load_of(key)
        unread = Entry(name, version, "failed", digest=catalogue.digests[key], load=load)
        manifest: Manifest | None = None
        folder = self._repository.root / name / str(version)
        try:
            trial = self._trials.run(folder, chunk_rows=self._limits.chunk_rows)
            bundle = read_bundle(folder)
            manifest = bundle.manifest
            trial.require(bundle)
            check_identity(manifest, name, version)
            if bundle.digest != unread.digest:
                raise BundleError("the bundle is another than was found at first: it changed meanwhile")
            counts = self._metrics.engine(name, version, MAX_ENDS, load) if self._isolation.covers(name) else None
            if counts is not None and counts.is_quarantined():
                return replace(unread, state="quarantined", manifest=manifest, error=EngineLost(QUARANTINED))
            flow = load_flow(
                bundle,
                workers=self._workers,
                limits=self._limits,
                metrics=self._metrics,
                device=self._device,
                isolation=self._isolation,
                quarantine=lambda error: self.quarantine(key, load, error),
                load=load,
                trial=trial,
            )
            if counts is not None and counts.is_quarantined():  # by another worker, before this one followed its counts
                self.quarantine(key, load, EngineLost(QUARANTINED))
        except Draining:
            raise
        except TrialFailure as failure:
            manifest = read_manifest(folder) if failure.read else None
            if told:
                _log_failure(key, failure.error, failure.cause)
            return replace(unread, manifest=manifest, error=_bare(failure.error))
        except PushforwardError as error:
            cause = error.__cause__
            if told:
                _log_failure(
                    key, error, None if cause is None or manifest is None else f"{type(cause).__name__}: {cause}"
                )
            return replace(unread, manifest=manifest, error=_bare(error))
        except Exception:
            _log.exception("%s version %d is not served", name, version)
            return replace(unread, manifest=manifest, error=BundleError("the bundle could not be read"))
        return replace(unread, state="ready", manifest=manifest, flow=flow)

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
            NotReady: the flow is still loading, or it is not served.
        """
        current = self._current
        if not current.entries and not self.loaded:
            raise NotReady("the flows are still loading")
        return current.find(name, version)


def _listed(key: Key, catalogue: Catalogue) -> Entry:
    """The entry of a version that has no flow: it is yet to be loaded, or it has failed."""
    error = catalogue.failed.get(key)
    return Entry(
        *key,
        "loading" if error is None else "failed",
        error=error,
        digest=catalogue.digests[key],
        load=catalogue.load_of(key),
    )


def _bare(error: PushforwardError) -> PushforwardError:
    """An error without its traceback, whose frames hold the graphs of what failed for as long as it is listed."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _log_failure(key: Key, error: PushforwardError, cause: str | None) -> None:
    """Log why a version is not served; the cause is for the log alone."""
    why = "; ".join([error.detail, *map(str, error.unsaid()), *([] if cause is None else [cause])])
    _log.error("%s version %d is not served: %s: %s", *key, error.code, why)
