"""The calls about the server itself: its flows, whether it lives, whether it is ready, and what it has counted."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Callable
from typing import Any, Final

import orjson

from service.api.driver import Driver
from service.api.native.backend import path_version
from service.bundle.calibration import thin
from service.engine.canary import probe
from service.engine.metrics.metrics import Metrics
from service.engine.registry import Entry, Registry
from service.engine.snapshot import Snapshot
from service.engine.verbs.flow import ServedFlow
from service.errors import Draining, NotReady, PushforwardError, Reason, release_frames
from service.exchange import Reply

__all__ = ["Operations"]

_log = logging.getLogger(__name__)

_BRIEF: Final = (
    "description",
    "event_shape",
    "latent_width",
    "context_width",
    "precision",
    "features",
    "context_features",
    "base",
    "support",
    "constraints",
    "variational",
)
"""What a list of flows says out of each manifest."""

_SHOWN_QUANTILES: Final = 1001
"""So many of a calibration's quantiles are shown at most; the bundle may hold more."""


class Operations:
    """The calls about the server itself.

    Args:
        registry: what is served.
        driver: runs the canaries.
        probe_seconds: a canary row that takes longer counts as failed.
        metrics: what is counted.
    """

    def __init__(self, registry: Registry, driver: Driver, probe_seconds: float, metrics: Metrics) -> None:
        self._registry = registry
        self._driver = driver
        self._probe_seconds = probe_seconds
        self._metrics = metrics
        self._probing: asyncio.Task[list[Reason]] | None = None
        self._of: weakref.ref[Snapshot] | None = None  # it would keep flows that are to be freed
        self._written: dict[object, Reply] = {}
        self.draining = False

    def models(self) -> Reply:
        """GET /models."""
        return self._once("", lambda: _json({"default": self._registry.default, "models": self._listed()}))

    def model(self, name: str, version: str | None = None) -> Reply:
        """GET /models/{name} and /models/{name}/versions/{version}."""
        entry = self._registry.entry(name, path_version(version))
        return self._once(entry.key, lambda: _json(self._describe(entry, whole=True)))

    def _listed(self) -> list[dict[str, Any]]:
        return [self._describe(entry, whole=False) for entry in self._registry.entries()]

    def _once(self, key: object, write: Callable[[], Reply]) -> Reply:
        """What is written once for each snapshot of the registry."""
        snapshot = self._registry.snapshot
        if self._of is None or self._of() is not snapshot:
            self._of, self._written = weakref.ref(snapshot), {}
        found = self._written.get(key)
        if found is None:
            found = self._written[key] = write()
        return found

    def live(self) -> Reply:
        """GET /health/live: that this answers is the answer."""
        return _json({"live": True})

    async def ready(self) -> Reply:
        """GET /health/ready: a canary row through every served flow's engine.

        A version that failed to load, or is quarantined, is not served. It does not make the server unready, unless no
        version of the default flow is left, or of any flow.

        Raises:
            Draining: the server is shutting down.
            NotReady: flows are still loading, nothing can be served, or a canary did not give its golden answer;
                each such flow is named.
        """
        if self.draining:
            raise Draining("the server is shutting down")
        entries = self._registry.entries()
        if not self._registry.loaded:
            waiting = [entry for entry in entries if entry.state == "loading"]
            raise NotReady("flows are still loading", tuple(_reason(e.name, e.version, "loading") for e in waiting))
        default = self._registry.default
        served = {entry.name for entry in entries if entry.state == "ready"}
        if not served or (default is not None and default not in served):
            failed = tuple(_reason(e.name, e.version, _why(e)) for e in entries if e.error is not None)
            what = f"the default flow {default!r} is not served" if served else "no flow is served"
            raise NotReady(what, failed)
        # Probes that come while one runs share its answer: whoever may ask may not multiply the work.
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe([e.flow for e in entries if e.flow is not None]))
        failures = await asyncio.shield(self._probing)
        if failures:
            raise NotReady("a canary row did not come back as it should", tuple(failures))
        return _json({"ready": True, "flows": [_standing(entry) for entry in entries]})

    async def _probe(self, flows: list[ServedFlow]) -> list[Reason]:
        failures = []
        for flow in flows:
            name, version = flow.manifest.name, flow.manifest.version
            why = await self._canary(flow)
            self._metrics.set_canary(name, version, passed=why is None)
            if why is not None:
                failures.append(_reason(name, version, why))
        return failures

    async def _canary(self, flow: ServedFlow) -> str | None:
        """Why a flow's canary row did not come back as it should; None where it did."""
        try:
            await asyncio.wait_for(self._driver.run(probe(flow)), self._probe_seconds)
        except TimeoutError:
            return f"no answer within {self._probe_seconds:g} seconds"
        except PushforwardError as error:
            release_frames(error)
            return error.detail
        except Exception:
            _log.exception("the canary of %s version %d failed", flow.manifest.name, flow.manifest.version)
            return "the canary row could not be run"
        return None

    async def metrics(self, accept: str | None) -> Reply:
        """GET /metrics: what all workers have counted, those that are no more included.

        Args:
            accept: the header.
        """
        return await asyncio.to_thread(self._exposition, accept)

    def _exposition(self, accept: str | None) -> Reply:
        from service.api.exposition import exposition

        return exposition(self._metrics.counters, accept)

    def _describe(self, entry: Entry, *, whole: bool) -> dict[str, Any]:
        error, manifest = entry.error, entry.manifest
        described: dict[str, Any] = {
            "name": entry.name,
            "version": entry.version,
            "versions": [each.version for each in self._registry.entries(entry.name)],
            "state": entry.state,
            "default": entry is self._default_entry(),
            "error": None if error is None else {"code": error.code, "detail": error.detail},
        }
        if manifest is not None:
            shown = thin(manifest.calibration, _SHOWN_QUANTILES)
            document = manifest.model_copy(update={"calibration": shown}).model_dump()
            described |= {key: document[key] for key in _BRIEF if key in document} | {
                "directions": sorted(manifest.directions)
            }
            described["trace"] = [step.name for step in manifest.trace]
            described |= {"manifest": document, "calibration": document["calibration"]} if whole else {}
        return described

    def _default_entry(self) -> Entry | None:
        """What answers where no name is given."""
        name = self._registry.default
        known = {entry.name for entry in self._registry.entries()}
        return self._registry.entry(name) if name in known else None


def _json(document: dict[str, Any]) -> Reply:
    return Reply(orjson.dumps(document))


def _standing(entry: Entry) -> dict[str, Any]:
    """One flow of an answer of readiness, and how it is run: a flow that fell back from its device is ready."""
    execution = None if entry.flow is None else entry.flow.execution
    standing = {"name": entry.name, "version": entry.version, "state": entry.state}
    return standing | ({} if execution is None else execution._asdict())


def _reason(name: str, version: int, why: str) -> Reason:
    return Reason(("models", name, "versions", version), why)


def _why(entry: Entry) -> str:
    return "failed" if entry.error is None else f"{entry.error.code}: {entry.error.detail}"
