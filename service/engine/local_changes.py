"""The changes of what a server of one process serves, made on its registry."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from service.bundle.store import Repository
from service.engine.changes import Change, Outcome, keep_aliases, next_catalogue, settle, tell
from service.engine.registry import Registry
from service.errors import PushforwardError

__all__ = ["LocalChanges"]

_log = logging.getLogger(__name__)


class LocalChanges:
    """Changes of a server of one process.

    Args:
        registry: serves the flows.
        repository: that is served.
    """

    def __init__(self, registry: Registry, repository: Repository) -> None:
        self._registry = registry
        self._repository = repository
        self._one_at_a_time = threading.Lock()
        self._tried = 0

    def apply(self, change: Change) -> Outcome:
        """Apply a change, as `Changes.apply` does."""
        registry = self._registry
        registry.wait_until_loaded()
        with self._one_at_a_time:
            current = registry.catalogue
            wanted = next_catalogue(replace(current, number=self._tried), change, self._repository)
            self._tried = wanted.number
            failures = registry.prepare(wanted)
            try:
                settled = settle(current, wanted, change, failures)
            except PushforwardError as error:
                registry.abort()
                _log.error("%s; what was served before still is", error.detail)
                raise
            settled = keep_aliases(settled, change, self._repository)
            registry.commit(settled)
        outcome = Outcome.of(change, settled, failures)
        tell(current, change, outcome)
        return outcome
