"""Large requests: rows a second beside raw ONNX Runtime, and what a client with 10^6 rows does to its neighbours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.bench import Bench
from benchmarks.load import Phase, PlannedRequest
from benchmarks.measure import MeasurementFailed, measure_engine, peak_bytes, reset_peak, resident_bytes
from benchmarks.progress import progress_bar
from benchmarks.serving import Server, pushforward
from benchmarks.small import CONNECTIONS, plan_of_rows
from benchmarks.table import at_least, at_most, record_failures
from benchmarks.work import Make, Read, from_json, from_npy, json_request, npy_request, plan_requests, random_rows

__all__ = ["bulk", "neighbour"]

BULK_ROWS = 10_000
BULK_CONNECTIONS = 2  # as many as the raw engine has threads, on two cores
HUGE_VALUES = 16_000_000
SHARE_OF_CAPACITY = 0.25


def bulk(bench: Bench, number: int) -> None:
    """10,000 rows in one request, npy and JSON, beside the engine alone and, in JSON, the naive server."""
    raw: list[float] = []

    def engine_alone() -> float:
        if not raw:
            with progress_bar("raw ONNX Runtime", bench.pace.seconds):
                raw.append(
                    measure_engine(bench.bundle, random_rows(BULK_ROWS, bench.width, seed=2), bench.pace.seconds)
                )
        return raw[0]

    def rate(server: Server, work: str, make: Make = json_request, read: Read = from_json) -> float:
        x = [random_rows(BULK_ROWS, bench.width, seed=100 * number + i) for i in range(BULK_CONNECTIONS)]
        plan = plan_requests(server, bench.bundle, x, BULK_CONNECTIONS, make, read)
        with progress_bar(f"{work}: {server.name}", bench.pace.seconds):
            phase = bench.generator.closed(server.port, plan, bench.pace.seconds, limit=60)
        return BULK_ROWS * _unbroken(server, phase).throughput

    for name, make, read, least in (("npy", npy_request, from_npy, 0.90), ("JSON", json_request, from_json, 0.65)):
        work = f"log_prob, {BULK_ROWS:,} rows, {name}"
        line = bench.line(work, "rate / raw ONNX Runtime", at_least(least), "rows/s")
        with record_failures(line):
            ours = rate(bench.ours, work, make, read)
            line.ratio(ours, engine_alone())
            if name == "JSON":
                beside = bench.line(work, "rate / naive", None, "rows/s")
                beside.ratio(ours, rate(bench.naive, work))


def neighbour(bench: Bench, number: int) -> None:
    """Single rows alone, and beside one client that sends 10^6-row requests; and the server's memory."""
    count = min(10**6, HUGE_VALUES // bench.width)
    work = f"log_prob, 1 row, beside {count:,}-row requests (npy)"
    closed = bench.line(work, f"p99 / alone, {CONNECTIONS} connections", at_most(5), "ms")
    opened = bench.line(work, "p99 / alone, Poisson, 1/4 of capacity", at_most(5), "ms")
    large = f"log_prob, {count:,} rows, npy, one client"
    x = random_rows(count, bench.width, seed=number)
    request = npy_request(x)
    bound = (len(request.body) + (64 << 20)) / (1 << 20)
    grown = bench.line(large, "growth of the server's memory, MiB", at_most(bound), "MiB")
    rate = bench.line(large, "rate beside 1-row requests / raw", None, "rows/s")
    options = ("--max-body-bytes", str(len(request.body) + 1024), "--max-work", str(2 * x.size))
    with record_failures(closed, opened, grown, rate), pushforward(bench.bundle, *options) as server:
        one = plan_of_rows(bench, server, number)
        alone = _small(bench, server, one, bench.pace.seconds, number, None)
        before = resident_bytes(server.pid)
        reset_peak(server.pid)
        plan = plan_requests(server, bench.bundle, [x], 1, npy_request, from_npy)
        with progress_bar(work, bench.pace.neighbour), _beside(bench, server, plan) as client:
            seconds = bench.pace.neighbour / 2 - 0.5
            beside = _small(bench, server, one, seconds, number, alone.rate)
        grown.add((peak_bytes(server.pid) - before) / (1 << 20))
        raw = measure_engine(bench.bundle, x[: 10 * BULK_ROWS], bench.pace.seconds)
        rate.ratio(count * _unbroken(server, client.phase).throughput, raw)
        closed.ratio(beside.closed, alone.closed)
        opened.ratio(beside.opened, alone.opened)


@dataclass
class _Client:
    """The 10^6-row client's result, or what ended it."""

    phases: list[Phase] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    @property
    def phase(self) -> Phase:
        if self.failures:
            raise self.failures[0]
        return self.phases[0]


@contextmanager
def _beside(bench: Bench, server: Server, plan: list[list[PlannedRequest]]) -> Iterator[_Client]:
    client = _Client()

    def run() -> None:
        try:
            client.phases.append(bench.generator.closed(server.port, plan, bench.pace.neighbour, limit=60))
        except BaseException as error:
            client.failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield client
    finally:
        thread.join()


@dataclass(frozen=True)
class _Small:
    rate: float
    closed: float
    opened: float


def _small(
    bench: Bench, server: Server, plan: list[list[PlannedRequest]], seconds: float, number: int, rate: float | None
) -> _Small:
    """p99 of single rows in closed loop, then in open loop at a share of the rate that they have alone, in ms."""
    closed = _unbroken(server, bench.generator.closed(server.port, plan, seconds, limit=60))
    rate = rate or closed.throughput
    opened = bench.generator.open(server.port, plan, [(seconds, SHARE_OF_CAPACITY * rate)], seed=number, limit=60)
    return _Small(rate, _p99(closed), _p99(_unbroken(server, opened[0])))


def _p99(phase: Phase) -> float:
    p99 = phase.from_arrival["p99"]
    if p99 is None:
        raise MeasurementFailed("no request was answered")
    return 1e3 * p99


def _unbroken(server: Server, phase: Phase) -> Phase:
    if phase.broken or phase.refused:
        raise MeasurementFailed(f"{server.name}: {phase.troubles()} {phase.refused or ''}".rstrip())
    return phase
