"""What a server counts about itself, cheap enough to count it for every request: plain numbers, rendered when asked.

Holds no rendering and knows no HTTP beyond the words that name a request. `service.engine.tally` keeps the numbers.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass
from typing import Final, Literal

from service.engine.tally import Cells, Region, Tallies

__all__ = ["METRICS", "LaneMetrics", "Metric", "Metrics"]

_LANE: Final = ("flow", "version", "direction")
_SECONDS: Final = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_STATES: Final = ("loading", "ready", "failed")


@dataclass(frozen=True, slots=True)
class Metric:
    """What one metric is.

    Args:
        kind: as Prometheus has it.
        name: without the suffix that Prometheus adds to a counter.
        help: what it says.
        labels: their names.
        bounds: of a histogram's buckets, each included in its own; one more has no bound.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


REQUESTS: Final = Metric(
    "counter", "pushforward_requests", "Requests that were answered.", ("method", "route", "status")
)
REJECTIONS: Final = Metric("counter", "pushforward_rejections", "Requests that were answered with an error.", ("code",))
ROWS: Final = Metric("counter", "pushforward_rows", "Rows that were run, canary rows included.", _LANE)
BATCH_ROWS: Final = Metric(
    "histogram", "pushforward_batch_rows", "Rows of a batch.", _LANE, (1, 4, 16, 64, 256, 1024, 4096, 16384)
)
QUEUE_SECONDS: Final = Metric(
    "histogram", "pushforward_queue_seconds", "How long the oldest row of a batch had waited.", _LANE, _SECONDS
)
ENGINE_SECONDS: Final = Metric(
    "histogram", "pushforward_engine_seconds", "How long a batch ran, in seconds.", _LANE, _SECONDS
)
FLOW_STATE: Final = Metric(
    "gauge",
    "pushforward_flow_state",
    "Workers on which a flow is in this state.",
    ("flow", "version", "state"),
)
FLOW_PROVIDER: Final = Metric(
    "gauge",
    "pushforward_flow_provider",
    "Workers on which this execution provider runs a flow; CPUExecutionProvider is what others fall back on.",
    ("flow", "version", "provider"),
)
CANARY_FAILED: Final = Metric(
    "gauge",
    "pushforward_canary_failed",
    "Workers on which the last canary row of a flow did not give its golden answer.",
    ("flow", "version"),
)
WORKER_STARTS: Final = Metric(
    "counter", "pushforward_worker_starts", "How often a worker was started: more than 1 after a crash.", ("worker",)
)
WORKER_START_TIME: Final = Metric(
    "gauge",
    "pushforward_worker_start_time_seconds",
    "When a worker that runs was started, since the epoch.",
    ("worker",),
)
WORKERS: Final = Metric("gauge", "pushforward_workers", "Workers that run.")
START_TIME: Final = Metric("gauge", "process_start_time_seconds", "When the server was started, since the epoch.")

METRICS: Final = (
    REQUESTS,
    REJECTIONS,
    ROWS,
    BATCH_ROWS,
    QUEUE_SECONDS,
    ENGINE_SECONDS,
    FLOW_STATE,
    FLOW_PROVIDER,
    CANARY_FAILED,
    WORKERS,
    WORKER_STARTS,
    WORKER_START_TIME,
    START_TIME,
)
"""Every metric, in the order in which they are told."""


class LaneMetrics:
    """What is counted of one direction of one flow. Made by `Metrics.lane`.

    Args:
        region: where.
        labels: flow, version and direction.
    """

    __slots__ = ("_engine", "_queue", "_rows")

    def __init__(self, region: Region, labels: tuple[str, str, str]) -> None:
        self._rows = _histogram(region, BATCH_ROWS, labels)
        self._queue = _histogram(region, QUEUE_SECONDS, labels)
        self._engine = _histogram(region, ENGINE_SECONDS, labels)

    def batch(self, rows: int, waited: float, ran: float) -> None:
        """Count a batch. Threads that share a lane must hold a lock around this.

        Args:
            rows: how many it had.
            waited: seconds from the arrival of its oldest row to its start.
            ran: seconds in the engine.
        """
        cells = self._rows
        cells[bisect_left(_ROW_BOUNDS, rows)] += 1
        cells[-1] += rows
        cells = self._queue
        cells[bisect_left(_SECONDS, waited)] += 1
        cells[-1] += waited
        cells = self._engine
        cells[bisect_left(_SECONDS, ran)] += 1
        cells[-1] += ran


_ROW_BOUNDS: Final = BATCH_ROWS.bounds


class Metrics:
    """The counts of one worker.

    `request` and `rejection` are for the thread of the event loop alone.

    Args:
        tallies: where all workers of the server count; None for a server of one.
        worker: which of them this is.
    """

    def __init__(self, tallies: Tallies | None = None, worker: int = 0) -> None:
        self.tallies = tallies or Tallies()
        self._region = self.tallies.region(worker)
        self._requests: dict[tuple[str, str, int], Cells] = {}
        self._rejections: dict[str, Cells] = {}
        self._region.cells("counter", (WORKER_STARTS.name, str(worker)))[0] += 1
        self._region.cells("gauge", (WORKER_START_TIME.name, str(worker)))[0] = time.time()

    def request(self, method: str, route: str, status: int) -> None:
        """Count a request that is answered.

        Args:
            method: of HTTP, one of a bounded number.
            route: the template of the path, never the path itself: one of a bounded number.
            status: of HTTP.
        """
        try:
            self._requests[method, route, status][0] += 1
        except KeyError:
            key = (REQUESTS.name, method, route, str(status))
            cells = self._requests[method, route, status] = self._region.cells("counter", key)
            cells[0] += 1

    def rejection(self, code: str) -> None:
        """Count an error that goes to a client.

        Args:
            code: of `service.errors`.
        """
        try:
            self._rejections[code][0] += 1
        except KeyError:
            cells = self._rejections[code] = self._region.cells("counter", (REJECTIONS.name, code))
            cells[0] += 1

    def lane(self, flow: str, version: int, direction: str) -> LaneMetrics:
        """The counts of one direction of a flow; the same lane may be asked for again."""
        return LaneMetrics(self._region, (flow, str(version), direction))

    def state(self, flow: str, version: int, state: str | None) -> None:
        """Say in which state a flow is: loading, ready or failed, or None where it is no longer there."""
        for each in _STATES:
            self._region.cells("gauge", (FLOW_STATE.name, flow, str(version), each))[0] = each == state

    def provider(self, flow: str, version: int, provider: str) -> None:
        """Say which execution provider runs a flow now."""
        self._region.cells("gauge", (FLOW_PROVIDER.name, flow, str(version), provider))[0] = 1

    def canary(self, flow: str, version: int, *, passed: bool) -> None:
        """Say whether a flow's canary row came back as it should."""
        self._region.cells("gauge", (CANARY_FAILED.name, flow, str(version)))[0] = not passed


def _histogram(region: Region, metric: Metric, labels: tuple[str, str, str]) -> Cells:
    """A cell for each bucket, and one for the sum of what was observed."""
    return region.cells("counter", (metric.name, *labels), len(metric.bounds) + 2)
