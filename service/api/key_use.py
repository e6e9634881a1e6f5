"""The use that is made of keys: counted in the metrics, and shared by the workers, so that a budget is that of all."""

from __future__ import annotations

from service.access.keys import Caller, KeyRing
from service.engine.metrics.metrics import Metrics

__all__ = ["KeyUse"]


class KeyUse:
    """The counts of one worker's callers.

    Args:
        ring: the callers.
        metrics: where they are counted.
    """

    def __init__(self, ring: KeyRing, metrics: Metrics) -> None:
        self._ring = ring
        self._metrics = metrics
        self._told: dict[Caller, tuple[int, int]] = {}

    def exchange(self, now: float) -> None:
        """Count what the callers have used since the last call, and take off what other workers have let through.

        Args:
            now: in seconds, on the clock of the budgets.
        """
        callers = self._ring.callers
        told = {}
        for caller in callers:
            requests, rows = self._told.get(caller, (0, 0))
            told[caller] = caller.requests.used, caller.rows.used
            self._metrics.count_key(caller.stored.name, caller.requests.used - requests, caller.rows.used - rows)
        self._told = told
        if self._metrics.counters.regions == 1:
            return
        bounded = [caller for caller in callers if caller.requests.per_minute or caller.rows.per_minute]
        others = self._metrics.others_of_keys() if bounded else {}
        for caller in bounded:
            requests_of_others, rows_of_others = others.get(caller.stored.name, (0.0, 0.0))
            caller.requests.share(requests_of_others, now)
            caller.rows.share(rows_of_others, now)
