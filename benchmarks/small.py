"""Small requests in closed loop: rates beside the naive server, and whose answer each connection gets."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.load import PlannedRequest
from benchmarks.measure import MeasurementFailed, run_wrk
from benchmarks.progress import progress_bar
from benchmarks.serving import Server, pushforward
from benchmarks.table import Line, at_least, at_most, record_failures
from benchmarks.work import plan_requests, plan_samples, random_rows, sample_requests

__all__ = ["exactness", "peers", "samples", "single_rows", "workers"]

CONNECTIONS = 64


def plan_of_rows(
    bench: Bench, server: Server, number: int, connections: int = CONNECTIONS, each: int = 1
) -> list[list[PlannedRequest]]:
    """Requests of one row, different on each connection."""
    x = random_rows(connections * each, bench.width, seed=number)
    return plan_requests(server, bench.bundle, [x[i : i + 1] for i in range(len(x))], connections)


def single_rows(bench: Bench, number: int) -> None:
    """log_prob of one row, JSON, at 64 connections and at 1."""
    for connections, least in ((CONNECTIONS, 20), (1, 3)):
        work = f"log_prob, 1 row, JSON, {connections} connection{'s' if connections > 1 else ''}"
        ratio = bench.line(work, "rate / naive", at_least(least), "requests/s")
        p99 = bench.line(work, "p99, ms", at_most(3) if connections > 1 else None)
        loads = [(s, plan_of_rows(bench, s, number, connections, each=64 // connections)) for s in _both(bench)]
        _rates(bench, work, loads, ratio, p99)


def workers(bench: Bench, number: int) -> None:
    """The same at 64 connections with two workers, beside one."""
    work = f"log_prob, 1 row, JSON, {CONNECTIONS} connections, two workers"
    ratio = bench.line(work, "rate / one worker", None, "requests/s")
    p99 = bench.line(work, "p99, ms")
    with record_failures(ratio, p99), pushforward(bench.bundle, "--workers", "2") as two:
        loads = [(s, plan_of_rows(bench, s, number)) for s in (two, bench.ours)]
        _rates(bench, work, loads, ratio, p99)


def samples(bench: Bench, number: int) -> None:
    """One drawn row a request, each with a seed of its own."""
    work = f"sample, n=1, {CONNECTIONS} connections"
    ratio = bench.line(work, "rate / naive", at_least(15), "requests/s")
    p99 = bench.line(work, "p99, ms")
    with record_failures(ratio, p99):
        requests = sample_requests(number * CONNECTIONS, CONNECTIONS)
        loads = [(s, plan_samples(s, bench.bundle, requests, CONNECTIONS)) for s in _both(bench)]
        _rates(bench, work, loads, ratio, p99)


def _both(bench: Bench) -> tuple[Server, Server]:
    return bench.ours, bench.naive


def _rates(
    bench: Bench, work: str, loads: Sequence[tuple[Server, list[list[PlannedRequest]]]], ratio: Line, p99: Line
) -> None:
    """The rate of the first of two servers over that of the second, each under its own load; and its p99."""
    with record_failures(ratio, p99):
        found = []
        for server, plan in loads:
            with progress_bar(f"{work}: {server.name}", bench.pace.seconds):
                found.append(run_wrk(server, plan, bench.pace.seconds))
        ours, theirs = found
        ratio.ratio(ours.rate, theirs.rate)
        p99.add(1e3 * ours.p99)


def exactness(bench: Bench, number: int) -> None:
    """The same single rows under `load.c`, and kinds of requests mixed: every answer is that of its own request."""
    work = f"log_prob, 1 row, JSON, {CONNECTIONS} connections"
    ratio = bench.line(work, "load.c / wrk", None, "requests/s")
    wrong = bench.line(work, "answers that were wrong or missing", at_most(0), "answers")
    with record_failures(ratio, wrong):
        plan = plan_of_rows(bench, bench.ours, number, each=16)
        with progress_bar("the same load by wrk and by load.c", 2 * bench.pace.seconds):
            by_wrk = run_wrk(bench.ours, plan, bench.pace.seconds)
            phase = bench.generator.closed(bench.ours.port, plan, bench.pace.seconds, threads=2)
        ratio.ratio(phase.throughput, by_wrk.rate)
        wrong.add(phase.broken + sum(phase.refused.values()))
    work = f"rows, seeds, 1 to 700 rows mixed, {CONNECTIONS} connections"
    rate = bench.line(work, "requests/s")
    wrong = bench.line(work, "answers that were wrong or missing", at_most(0), "answers")
    with record_failures(rate, wrong):
        mixed = _mixed(bench, number)
        with progress_bar(work, bench.pace.seconds):
            phase = bench.generator.closed(bench.ours.port, mixed, bench.pace.seconds)
        rate.add(phase.throughput)
        wrong.add(phase.broken + sum(phase.refused.values()))


def _mixed(bench: Bench, number: int) -> list[list[PlannedRequest]]:
    one = plan_of_rows(bench, bench.ours, number, each=8)
    drawn = plan_samples(bench.ours, bench.bundle, sample_requests(10_000, 4 * CONNECTIONS), CONNECTIONS)
    sizes = [7, 64, 700]
    x = [
        random_rows(sizes[i // CONNECTIONS], bench.width, seed=1000 * number + i)
        for i in range(len(sizes) * CONNECTIONS)
    ]
    more = plan_requests(bench.ours, bench.bundle, x, CONNECTIONS)
    return [a + b + c for a, b, c in zip(one, drawn, more, strict=True)]


def peers(bench: Bench, number: int) -> None:
    """One row a request beside the other servers that were asked for with `--peer`."""
    work = f"log_prob, 1 row, JSON, {CONNECTIONS} connections"
    for peer in bench.peers:
        line = bench.line(work, f"rate / {peer.server.name}", None, "requests/s")
        with record_failures(line):
            x = random_rows(CONNECTIONS, bench.width, seed=number)
            parts = [x[i : i + 1] for i in range(len(x))]
            due_theirs = plan_requests(peer.server, bench.bundle, parts, CONNECTIONS, peer.kind.request, peer.kind.read)
            # Their answers under load are not compared: some carry an id, and batches change their last digits.
            theirs = [[(request, None) for request, _ in requests] for requests in due_theirs]
            ours = plan_of_rows(bench, bench.ours, number)
            with progress_bar(f"{work}: {peer.server.name}", 2 * bench.pace.seconds):
                line.ratio(_rate(bench, bench.ours, ours), _rate(bench, peer.server, theirs))


def _rate(bench: Bench, server: Server, plan: Sequence[Sequence[PlannedRequest]]) -> float:
    phase = bench.generator.closed(server.port, plan, bench.pace.seconds)
    if phase.broken or phase.refused:
        raise MeasurementFailed(f"{server.name}: {phase.troubles()} {phase.refused or ''}".rstrip())
    return phase.throughput
