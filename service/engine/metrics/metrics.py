"""The metrics of a server, cheap enough to count for every request: plain numbers that are rendered on demand.

Renders nothing, and knows no HTTP beyond the words that name a request. `service.engine.metrics.shared_counters` keeps
the numbers.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import mul
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np

from service.engine.metrics.shared_counters import Cells, Region, SharedCounters
from service.onnx.signature import Direction
from service.plan import Floats, Outputs

__all__ = [
    "METRICS",
    "NO_COUNTS",
    "WORKER_HANGS",
    "BucketCounts",
    "EngineMetrics",
    "LaneMetrics",
    "LogProbScale",
    "Metric",
    "Metrics",
    "RoundTripMetrics",
]

_LANE: Final = ("flow", "version", "direction")
_SECONDS: Final = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
_FEW_ROWS: Final = 8
"""Up to this number of rows Python sorts into buckets sooner than NumPy."""

_LOAD_ENDS: Final = "engine_load_ends"
"""The key of what is no metric: the crashes and hangs of one load of a flow, and its quarantines."""

_STATES: Final = ("loading", "ready", "failed", "quarantined")


@dataclass(frozen=True, slots=True)
class Metric:
    """The description of one metric.

    Args:
        kind: of Prometheus's.
        name: without the suffix that Prometheus adds to a counter.
        help: the description for users.
        labels: the names of its labels.
        bounds: the upper ends of a histogram's buckets, each of its own bucket; one bucket more has no end.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


REQUESTS: Final = Metric(
    "counter", "pushforward_requests", "Requests that were answered.", labels=("method", "route", "status")
)
REJECTIONS: Final = Metric(
    "counter", "pushforward_rejections", "Requests that were answered with an error.", labels=("code",)
)
KEY_REQUESTS: Final = Metric(
    "counter", "pushforward_key_requests", "Requests that a key was let through with.", labels=("key",)
)
KEY_ROWS: Final = Metric(
    "counter", "pushforward_key_rows", "Rows that a key with a budget of rows has asked for.", labels=("key",)
)
ROWS: Final = Metric("counter", "pushforward_rows", "Rows that were run, canary rows included.", labels=_LANE)
BATCH_ROWS: Final = Metric(
    "histogram",
    "pushforward_batch_rows",
    "Rows of a batch.",
    labels=_LANE,
    bounds=(1, 4, 16, 64, 256, 1024, 4096, 16384),
)
QUEUE_SECONDS: Final = Metric(
    "histogram",
    "pushforward_queue_seconds",
    "How long the oldest row of a batch had waited.",
    labels=_LANE,
    bounds=_SECONDS,
)
ENGINE_SECONDS: Final = Metric(
    "histogram", "pushforward_engine_seconds", "How long a batch ran, in seconds.", labels=_LANE, bounds=_SECONDS
)
LOG_PROB: Final = Metric(
    "histogram",
    "pushforward_log_prob_quantile",
    "Rows by the share of held-out rows with a lower log_prob, canary rows included. The shares are uniform if rows "
    "are like the held-out ones. The sum takes each row at the middle of its bucket.",
    labels=_LANE,
    bounds=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999),
)
ROUND_TRIP: Final = Metric(
    "histogram",
    "pushforward_round_trip_error",
    "Rows by their round-trip error, where it was computed, canary rows included. It is in units of x for rows that "
    "went forward first, and of z for the others.",
    labels=_LANE,
    bounds=(1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0),
)
FLOW_STATE: Final = Metric(
    "gauge",
    "pushforward_flow_state",
    "Workers on which a flow is in this state.",
    labels=("flow", "version", "state"),
)
FLOW_LOADS: Final = Metric(
    "counter",
    "pushforward_flow_loads",
    "How often a worker loaded a flow, or tried to: result is ready, failed or quarantined.",
    labels=("flow", "version", "result"),
)
FLOW_PROVIDER: Final = Metric(
    "gauge",
    "pushforward_flow_provider",
    "Workers on which this execution provider runs a flow. CPUExecutionProvider is the fallback of the others.",
    labels=("flow", "version", "provider"),
)
CANARY_FAILED: Final = Metric(
    "gauge",
    "pushforward_canary_failed",
    "Workers on which the last canary row of a flow did not give its golden answer.",
    labels=("flow", "version"),
)
ENGINE_PROCESSES: Final = Metric(
    "gauge",
    "pushforward_engine_processes",
    "Processes that run a flow apart from the server, and are ready.",
    labels=("flow", "version"),
)
ENGINE_RESTARTS: Final = Metric(
    "counter",
    "pushforward_engine_restarts",
    "Processes of a flow that crashed, or were killed because they hung.",
    labels=("flow", "version", "cause"),
)
ENGINE_QUARANTINES: Final = Metric(
    "counter",
    "pushforward_engine_quarantines",
    "How often a worker has quarantined a flow whose processes crashed or hung too often.",
    labels=("flow", "version"),
)
WORKER_STARTS: Final = Metric(
    "counter",
    "pushforward_worker_starts",
    "How often a worker was started: more than 1 after a crash.",
    labels=("worker",),
)
WORKER_HANGS: Final = Metric(
    "counter",
    "pushforward_worker_hangs",
    "How often a worker was killed since its event loop stood still.",
    labels=("worker",),
)
WORKER_START_TIME: Final = Metric(
    "gauge",
    "pushforward_worker_start_time_seconds",
    "When a worker that runs was started, since the epoch.",
    labels=("worker",),
)
WORKERS: Final = Metric("gauge", "pushforward_workers", "Workers that run.")
START_TIME: Final = Metric("gauge", "process_start_time_seconds", "When the server was started, since the epoch.")

METRICS: Final = (
    REQUESTS,
    REJECTIONS,
    KEY_REQUESTS,
    KEY_ROWS,
    ROWS,
    BATCH_ROWS,
    QUEUE_SECONDS,
    ENGINE_SECONDS,
    LOG_PROB,
    ROUND_TRIP,
    FLOW_STATE,
    FLOW_LOADS,
    FLOW_PROVIDER,
    CANARY_FAILED,
    ENGINE_PROCESSES,
    ENGINE_RESTARTS,
    ENGINE_QUARANTINES,
    WORKERS,
    WORKER_STARTS,
    WORKER_HANGS,
    WORKER_START_TIME,
    START_TIME,
)
"""Every metric, in the order in which they are rendered."""


class BucketCounts(NamedTuple):
    """Values of a histogram, sorted into its buckets.

    Args:
        counts: bucket, and the number of values in it.
        total: the sum of the values.
    """

    counts: Sequence[tuple[int, int]]
    total: float


NO_COUNTS: Final = BucketCounts((), 0.0)
"""No values."""


class LogProbScale(Protocol):
    """Held-out log-densities, as `service.engine.verbs.scores.HeldOut` keeps them."""

    def log_prob_at(self, levels: Sequence[float]) -> Floats:
        """The greatest log_prob whose quantile is at most each of these levels: ``[L]``, in nats."""
        ...


class _LogProbBuckets:
    """The buckets of `LOG_PROB`: the held-out quantiles at its bounds, in nats.

    The sum counts each row as the middle of its bucket. To find its own quantile would take longer than to count it.

    Args:
        held_out: the scale of log_prob.
    """

    def __init__(self, held_out: LogProbScale) -> None:
        ends = held_out.log_prob_at(LOG_PROB.bounds)
        self._ends = ends[:, None]
        self._end_list = ends.tolist()

    def count_few(self, log_prob: list[float]) -> BucketCounts:
        """Sort a few rows into buckets without NumPy. NaN is left out."""
        buckets = [bisect_left(self._end_list, value) for value in log_prob if value == value]
        return BucketCounts([(bucket, 1) for bucket in buckets], sum([_BUCKET_MIDDLES[bucket] for bucket in buckets]))

    def count_many(self, log_prob: Floats) -> BucketCounts:
        """Sort rows into buckets, none of them NaN."""
        # A search takes a branch that no processor predicts, for each row and bound. A comparison takes none.
        buckets = np.add.reduce((self._ends < log_prob).view(np.uint8), axis=0, dtype=np.uint8)
        counts = np.bincount(buckets, minlength=len(_BUCKET_MIDDLES)).tolist()
        return BucketCounts(list(enumerate(counts)), sum(map(mul, counts, _BUCKET_MIDDLES)))


_BUCKET_MIDDLES: Final = [(low + high) / 2 for low, high in pairwise((0.0, *LOG_PROB.bounds, 1.0))]


def _add(cells: Cells, observed: BucketCounts) -> None:
    for bucket, count in observed.counts:
        cells[bucket] += count
    cells[-1] += observed.total


class LaneMetrics:
    """The counts of one direction of one flow. Made by `Metrics.lane`.

    Args:
        region: holds the counts.
        labels: flow, version and direction.
        held_out: the scale of log_prob; None where log_prob is not counted.
    """

    __slots__ = ("_buckets", "_engine", "_log_prob", "_queue", "_rows")

    def __init__(self, region: Region, labels: tuple[str, str, str], held_out: LogProbScale | None) -> None:
        self._buckets = None if held_out is None else _LogProbBuckets(held_out)
        self._log_prob = _histogram(region, LOG_PROB, labels)
        self._rows = _histogram(region, BATCH_ROWS, labels)
        self._queue = _histogram(region, QUEUE_SECONDS, labels)
        self._engine = _histogram(region, ENGINE_SECONDS, labels)

    def bucket_log_prob(self, outputs: Outputs) -> BucketCounts:
        """Sort the log_prob of a batch into buckets, for `count_batch`. Threads need no lock for this.

        Args:
            outputs: of the batch.
        """
        buckets, log_prob = self._buckets, outputs.log_prob
        if buckets is None:
            return NO_COUNTS
        if len(log_prob) <= _FEW_ROWS:
            return buckets.count_few(log_prob.tolist())
        return buckets.count_many(log_prob if outputs.finite else log_prob[~np.isnan(log_prob)])

    def count_batch(self, rows: int, waited: float, ran: float, log_prob: BucketCounts = NO_COUNTS) -> None:
        """Count a batch. Threads that share a lane must hold a lock around this.

        Args:
            rows: of the batch.
            waited: seconds from the arrival of its oldest row to its start.
            ran: seconds in the engine.
            log_prob: from `bucket_log_prob`.
        """
        _add(self._log_prob, log_prob)
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


class RoundTripMetrics:
    """The counts of a flow's round trips, from any thread. Made by `Metrics.round_trips`.

    Args:
        region: holds the counts.
        flow: its name.
        version: its version.
    """

    def __init__(self, region: Region, flow: str, version: str) -> None:
        directions: tuple[Direction, ...] = ("forward", "inverse")
        self._cells = {each: _histogram(region, ROUND_TRIP, (flow, version, each)) for each in directions}
        self._lock = threading.Lock()

    def observe(self, direction: Direction, errors: Floats) -> None:
        """Count the round-trip errors of rows.

        Args:
            direction: of the first half of the round trip.
            errors: ``[N]``, finite.
        """
        counts = np.bincount(np.searchsorted(ROUND_TRIP.bounds, errors)).tolist()
        observed = BucketCounts(list(enumerate(counts)), float(errors.sum(dtype=np.float64)))
        with self._lock:
            _add(self._cells[direction], observed)


class EngineMetrics:
    """The counts of the processes that run one flow. Made by `Metrics.engine`.

    Where a version is loaded anew, the processes of the old load end while those of the new one run: each load has an
    object of this class, and what leads to quarantine is counted for each load.

    Args:
        counters: of all workers.
        region: holds the counts of this one.
        lock: of all objects of this class that count in the region.
        flow: its name.
        version: its version.
        load: the number of its load, the same in all workers.
        ends: the number of crashes that a quarantine stands for.
    """

    def __init__(
        self,
        counters: SharedCounters,
        region: Region,
        lock: threading.Lock,
        flow: str,
        version: str,
        load: int,
        ends: int,
    ) -> None:
        self._counters = counters
        self._lock = lock
        self._ends = ends
        self._count = 0
        self._quarantines = region.cells("counter", (ENGINE_QUARANTINES.name, flow, version))
        self._processes = region.cells("gauge", (ENGINE_PROCESSES.name, flow, version))
        self._restarts = {
            cause: region.cells("counter", (ENGINE_RESTARTS.name, flow, version, cause)) for cause in ("crash", "hang")
        }
        self._load = (_LOAD_ENDS, flow, version, str(load))
        self._own = region.cells("counter", self._load, 2)

    def count_restart(self, cause: Literal["crash", "hang"]) -> None:
        """Count a process that crashed or hung."""
        with self._lock:
            self._restarts[cause][0] += 1
            self._own[0] += 1

    def count_quarantine(self) -> None:
        """Count that the flow is quarantined."""
        with self._lock:
            self._quarantines[0] += 1
            self._own[1] += 1

    def read_others(self) -> int | None:
        """The crashes and hangs in other workers, a quarantine as so many of them; None where there is no other."""
        if self._counters.regions == 1:
            return None
        restarts, quarantines = self._read()
        return int(restarts - self._own[0] + self._ends * (quarantines - self._own[1]))

    def is_quarantined(self) -> bool:
        """Whether a worker has quarantined this load of the flow, be it one that has ended."""
        return self._read()[1] > 0

    def _read(self) -> list[float]:
        """The crashes and hangs of this load in all workers, and its quarantines."""
        return self._counters.read().cells.get(self._load, [0.0, 0.0])  # a region that is full holds no more

    def set_processes(self, count: int) -> None:
        """Set the number of processes that are ready."""
        with self._lock:
            self._processes[0] += count - self._count
            self._count = count


class Metrics:
    """The counts of one worker.

    `count_request` and `count_rejection` are for the thread of the event loop alone.

    Args:
        counters: of all workers of the server; None for a server of one.
        worker: the number of this worker, from 0.
    """

    def __init__(self, counters: SharedCounters | None = None, worker: int = 0) -> None:
        self.counters = counters or SharedCounters()
        self._region = self.counters.claim_region(worker)
        self._requests: dict[tuple[str, str, int], Cells] = {}
        self._rejections: dict[str, Cells] = {}
        self._providers: dict[tuple[str, int], Cells] = {}
        self._engines = threading.Lock()
        self._region.cells("counter", (WORKER_STARTS.name, str(worker)))[0] += 1
        self._region.cells("counter", (WORKER_HANGS.name, str(worker)))
        self._region.cells("gauge", (WORKER_START_TIME.name, str(worker)))[0] = time.time()

    def beat(self) -> None:
        """Say that the event loop turns, to whoever watches this worker."""
        self._region.beat(time.monotonic())

    def count_request(self, method: str, route: str, status: int) -> None:
        """Count a request that is answered.

        Args:
            method: the HTTP method, one of a bounded number.
            route: the template of the path, one of a bounded number; never the path itself.
            status: the HTTP status.
        """
        try:
            self._requests[method, route, status][0] += 1
        except KeyError:
            key = (REQUESTS.name, method, route, str(status))
            cells = self._requests[method, route, status] = self._region.cells("counter", key)
            cells[0] += 1

    def count_rejection(self, code: str) -> None:
        """Count an error that is answered to a client.

        Args:
            code: of the error, one of `service.errors`.
        """
        try:
            self._rejections[code][0] += 1
        except KeyError:
            cells = self._rejections[code] = self._region.cells("counter", (REJECTIONS.name, code))
            cells[0] += 1

    def count_key(self, name: str, requests: int, rows: int) -> None:
        """Count what a key was let through with.

        Args:
            name: of the key, one of a bounded number.
            requests: how many more.
            rows: how many more.
        """
        for metric, count in ((KEY_REQUESTS, requests), (KEY_ROWS, rows)):
            if count:
                self._region.cells("counter", (metric.name, name))[0] += count

    def others_of_keys(self) -> dict[str, tuple[float, float]]:
        """The requests and rows that the other workers have let through, by the name of the key."""
        totals = self.counters.read().cells

        def others(metric: Metric, name: str) -> float:
            key = (metric.name, name)
            return totals.get(key, [0.0])[0] - self._region.cells("counter", key)[0]

        names = {key[1] for key in totals if key[0] == KEY_REQUESTS.name}
        return {name: (others(KEY_REQUESTS, name), others(KEY_ROWS, name)) for name in names}

    def lane(self, flow: str, version: int, direction: str, held_out: LogProbScale | None = None) -> LaneMetrics:
        """The counts of one direction of a flow. Two calls for one lane share the counts.

        Args:
            flow: its name.
            version: its version.
            direction: forward, inverse or trace.
            held_out: the scale of its log_prob; None where log_prob is not counted.
        """
        return LaneMetrics(self._region, (flow, str(version), direction), held_out)

    def round_trips(self, flow: str, version: int) -> RoundTripMetrics:
        """The counts of a flow's round trips."""
        return RoundTripMetrics(self._region, flow, str(version))

    def engine(self, flow: str, version: int, ends: int, load: int = 0) -> EngineMetrics:
        """The counts of the processes that run a flow.

        Args:
            flow: its name.
            version: its version.
            ends: the number of crashes that a quarantine stands for.
            load: the number of its load, the same in all workers.
        """
        return EngineMetrics(
            self.counters, self._region, self._engines, flow=flow, version=str(version), load=load, ends=ends
        )

    def set_state(self, flow: str, version: int, state: str) -> None:
        """Set the state of a flow.

        Args:
            flow: its name.
            version: its version.
            state: loading, ready, failed or quarantined.
        """
        for each in _STATES:
            self._region.cells("gauge", (FLOW_STATE.name, flow, str(version), each))[0] = each == state

    def count_load(self, flow: str, version: int, result: str) -> None:
        """Count that a flow was loaded, or could not be.

        Args:
            flow: its name.
            version: its version.
            result: ready, failed or quarantined.
        """
        self._region.cells("counter", (FLOW_LOADS.name, flow, str(version), result))[0] += 1

    def forget(self, flow: str, version: int) -> None:
        """Clear what is told of a flow that is no longer served. Its counts stay; its processes count until they end.

        Args:
            flow: its name.
            version: its version.
        """
        self._region.clear_gauges(lambda key: key[1:3] == (flow, str(version)) and key[0] != ENGINE_PROCESSES.name)

    def set_provider(self, flow: str, version: int, provider: str) -> None:
        """Set the execution provider that runs a flow, in the place of the one before.

        Args:
            flow: its name.
            version: its version.
            provider: of ONNX Runtime's.
        """
        before = self._providers.get((flow, version))
        if before is not None:
            before[0] = 0
        cells = self._region.cells("gauge", (FLOW_PROVIDER.name, flow, str(version), provider))
        self._providers[flow, version] = cells
        cells[0] = 1

    def set_canary(self, flow: str, version: int, *, passed: bool) -> None:
        """Set whether the last canary row of a flow gave its golden answer.

        Args:
            flow: its name.
            version: its version.
            passed: whether it did.
        """
        self._region.cells("gauge", (CANARY_FAILED.name, flow, str(version)))[0] = not passed


def _histogram(region: Region, metric: Metric, labels: tuple[str, str, str]) -> Cells:
    """The cells of a histogram: one for each bucket, and one for the sum of the values."""
    return region.cells("counter", (metric.name, *labels), len(metric.bounds) + 2)
