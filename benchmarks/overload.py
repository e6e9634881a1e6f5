"""Overload: goodput, deadlines, refusals and recovery at more load than the server can serve.

Also the latency of single rows over the offered load.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.load import PlannedRequest
from benchmarks.measure import MeasurementFailed
from benchmarks.progress import progress_bar
from benchmarks.serving import Request
from benchmarks.small import CONNECTIONS, plan_of_rows
from benchmarks.table import Line, at_least, at_most, record_failures
from benchmarks.work import Rows, from_json, from_npy, json_request, npy_request, plan_requests, random_rows

__all__ = ["curve", "overload"]

DEADLINE = 0.1  # seconds
PATIENCE = DEADLINE / 10
"""Longer no request waits for a connection: a client's own queue, first in first out, would make every answer late."""
TIMES_CAPACITY = 3
CALM = 0.3  # of the capacity, before and after
RECOVERY = 1.0  # seconds after which all must be as before
MANY = 512
"""Connections, so that the server and not the client has the queue."""


def overload(bench: Bench, number: int) -> None:
    """Three times the capacity: of requests of 512 rows, where the engine is what is short, and of single rows."""
    header = (("Pushforward-Timeout-Ms", f"{1e3 * DEADLINE:.0f}"),)

    def many(x: Rows) -> Request:
        return npy_request(x, headers=header)

    def one(x: Rows) -> Request:
        return json_request(x, headers=header)

    for count, name, make, read in ((512, "npy", many, from_npy), (1, "JSON", one, from_json)):
        work = f"{TIMES_CAPACITY} x capacity, {count} row{'s' if count > 1 else ''}, {name}"
        goodput = bench.line(work, "goodput / capacity", at_least(0.8), "requests/s")
        p99 = bench.line(work, f"p99 of what was admitted, ms of {1e3 * DEADLINE:.0f}", at_most(1e3 * DEADLINE))
        refused = bench.line(work, "p99 of the refusals, ms")
        odd = bench.line(work, "neither 200 nor 429 with Retry-After", at_most(0))
        share = bench.line(work, "never sent, share: no connection was free", at_most(0.01) if count > 1 else None)
        after = bench.line(work, f"p99 {RECOVERY:.0f} s after / before", at_most(2), "ms")
        with record_failures(goodput, p99, refused, odd, share, after):
            x = [random_rows(count, bench.width, seed=1000 * number + i) for i in range(MANY)]
            plan = plan_requests(bench.ours, bench.bundle, x, MANY, make, read)
            _round(bench, number, work, plan, (goodput, p99, refused, odd, share, after))


def _round(bench: Bench, number: int, work: str, plan: list[list[PlannedRequest]], lines: tuple[Line, ...]) -> None:
    goodput, p99, refused, odd, share, after = lines
    pace = bench.pace
    calm = max(1.0, pace.seconds)
    with progress_bar(work, pace.seconds + 2 * calm + pace.overload + RECOVERY):
        closed = bench.generator.closed(bench.ours.port, plan[:CONNECTIONS], pace.seconds)
        if closed.broken or not closed.throughput:
            raise MeasurementFailed(f"capacity: {closed.troubles() or 'no request was answered'}")
        capacity = closed.throughput
        phases = [
            (calm, CALM * capacity),
            (pace.overload, TIMES_CAPACITY * capacity),
            (RECOVERY, CALM * capacity),
            (calm, CALM * capacity),
        ]
        before, over, during, late = bench.generator.open(
            bench.ours.port, plan, phases, seed=number, deadline=DEADLINE, patience=PATIENCE
        )
    if before.broken or not before.ok:
        raise MeasurementFailed(f"before the overload: {before.troubles() or 'no request was answered'}")
    goodput.ratio(over.goodput, capacity)
    if over.from_arrival["p99"] is not None:
        p99.add(1e3 * over.from_arrival["p99"])
    if over.refused_from_arrival["p99"] is not None:
        refused.add(1e3 * over.refused_from_arrival["p99"])
    known = {"429"}
    other = sum(n for phase in (over, during, late) for status, n in phase.refused.items() if status not in known)
    odd.add(other + sum(phase.broken + phase.unadvised for phase in (over, during, late)))
    if odd.values[-1]:
        samples = (
            f"{phase.troubles()} {phase.refused} {phase.unadvised} without Retry-After"
            for phase in (over, during, late)
        )
        odd.notes.append(f"round {number + 1}: in the overload, the second after, and then: {' | '.join(samples)}")
    share.add((over.given_up + over.unsent) / max(1, over.arrivals))
    after.ratio(_p99(late.from_arrival["p99"]), _p99(before.from_arrival["p99"]))


def _p99(seconds: float | None) -> float:
    return float("inf") if seconds is None else 1e3 * seconds


def curve(bench: Bench, number: int) -> None:
    """p50 and p99 of single rows over the offered load, for the picture; each server up to its own capacity."""
    for server in (bench.ours, bench.naive):
        plan = plan_of_rows(bench, server, number)
        with progress_bar(f"latency over load: {server.name}", (1 + len(bench.pace.points)) * bench.pace.curve):
            capacity = bench.generator.closed(server.port, plan, bench.pace.curve).throughput
            for share in bench.pace.points:
                phase = bench.generator.open(server.port, plan, [(bench.pace.curve, share * capacity)], seed=number)[0]
                p50, p99 = phase.from_arrival["p50"], phase.from_arrival["p99"]
                if p50 is not None and p99 is not None:
                    bench.points.setdefault((server.name, share), []).append((share * capacity, p50, p99))
