"""Small requests of every shape that people send, beside the plainest: what is fast must not be one spelling.

The flows are the shipped wine (13 columns) and digits (images of 64 values), and one with a context. Each shape is
measured right after the plainest request, and beside the naive server. Clients share the machine with the servers: the
processor time of the server for a request is given beside the rate, and holds on a busy machine too.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from benchmarks.bench import Bench
from benchmarks.flow import make_conditional_bundle
from benchmarks.load import PlannedRequest, plan_by_connection
from benchmarks.measure import MeasurementFailed, cpu_seconds
from benchmarks.progress import progress_bar
from benchmarks.serving import JSON, NPY, ROOT, Request, Server, naive, pushforward
from benchmarks.table import Target, at_least, at_most, record_failures

__all__ = ["SHAPES", "Shape", "shapes"]

CONNECTIONS = 64
EACH = 2
"""Requests of a connection."""

_WINE = "/models/wine"
_ZOO = ROOT / "models" / "zoo"


class Rows:
    """Rows of the shipped flows, and latents, drawn anew for each request."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._rows = {name: np.load(_ZOO / name / "1" / "golden.npz")["x"] for name in ("wine", "digits")}

    def of(self, name: str, count: int = 1) -> Any:
        """So many rows of a flow, with four decimals."""
        rows = self._rows[name]
        chosen = rows[self._random.integers(0, len(rows), count)] + self._random.normal(0, 1e-3, rows.shape[1:])
        return chosen.astype(np.float64).round(4).tolist()

    def normal(self, *shape: int) -> Any:
        """Standard normal numbers, with three decimals."""
        return self._random.normal(size=shape).round(3).tolist()


class Shape(NamedTuple):
    """One shape of request.

    Args:
        name: as the table has it.
        make: rows and a number -> a request.
        target: the rate, of that of the plainest.
    """

    name: str
    make: Callable[[Rows, int], Request]
    target: Target | None


def _post(path: str, **body: Any) -> Request:
    return Request("POST", path, orjson.dumps({name.removesuffix("_"): value for name, value in body.items()}), JSON)


def _spaced(path: str, **body: Any) -> Request:
    return Request("POST", path, orjson.dumps(body, option=orjson.OPT_INDENT_2), JSON)


def _get(path: str) -> Request:
    return Request("GET", path, headers=())


def _npy(path: str, rows: Any) -> Request:
    body = io.BytesIO()
    np.save(body, np.asarray(rows, np.float32), allow_pickle=False)
    return Request("POST", path, body.getvalue(), NPY)


PLAINEST = Shape("1 row", lambda rows, _: _post(f"{_WINE}/logprob", x=rows.of("wine")), None)

SHAPES = (
    Shape("model in the body", lambda rows, _: _post("/logprob", model="wine", x=rows.of("wine")), at_least(0.8)),
    Shape(
        "version too, other order and spacing",
        lambda rows, _: _spaced("/logprob", version=1, x=rows.of("wine"), model="wine"),
        at_least(0.8),
    ),
    Shape(
        "return quantile",
        lambda rows, _: _post(f"{_WINE}/logprob", x=rows.of("wine"), return_=["quantile"]),
        at_least(0.6),
    ),
    Shape("alarm_rate", lambda rows, _: _post(f"{_WINE}/logprob", x=rows.of("wine"), alarm_rate=0.01), at_least(0.6)),
    Shape("return z", lambda rows, _: _post(f"{_WINE}/logprob", x=rows.of("wine"), return_=["z"]), at_least(0.6)),
    Shape(
        "its context",
        lambda rows, _: _post("/models/conditional/logprob", x=rows.normal(1, 13), context=rows.normal(2)),
        at_least(0.6),
    ),
    Shape("npy", lambda rows, _: _npy(f"{_WINE}/logprob", rows.of("wine")), at_least(0.6)),
    Shape("4 rows", lambda rows, _: _post(f"{_WINE}/logprob", x=rows.of("wine", 4)), at_least(0.6)),
    Shape("16 rows", lambda rows, _: _post(f"{_WINE}/logprob", x=rows.of("wine", 16)), at_least(0.3)),
    Shape("an image, 64 values", lambda rows, _: _post("/models/digits/logprob", x=rows.of("digits")), at_least(0.35)),
    Shape("encode", lambda rows, _: _post(f"{_WINE}/encode", x=rows.of("wine")), at_least(0.7)),
    Shape("decode", lambda rows, _: _post(f"{_WINE}/decode", z=rows.normal(1, 13)), at_least(0.7)),
    Shape("sample, n=1", lambda _, at: _get(f"{_WINE}/sample?n=1&seed={at}"), None),
    Shape("sample, temperature", lambda _, at: _get(f"{_WINE}/sample?seed={at}&temperature=0.7"), at_least(0.5)),
    Shape(
        "sample, context",
        lambda rows, at: _post("/models/conditional/sample", seed=at, context=rows.normal(2)),
        at_least(0.5),
    ),
    Shape("sample, n=10", lambda _, at: _get(f"{_WINE}/sample?n=10&seed={at}"), at_least(0.4)),
    Shape(
        "interpolate, 5 rows",
        lambda rows, _: _post(f"{_WINE}/interpolate", points=rows.of("wine", 2), steps=5),
        at_least(0.25),
    ),
    Shape(
        "edit",
        lambda rows, _: _post(f"{_WINE}/edit", x=rows.of("wine"), direction=rows.normal(13), strength=[0.5]),
        at_least(0.25),
    ),
    Shape("trace", lambda rows, _: _post(f"{_WINE}/trace", x=rows.of("wine")), at_least(0.25)),
)

DOCUMENTS = {"GET /models": "/models", "GET /models/wine": "/models/wine", "the OpenAPI document": "/openapi.json"}


def shapes(bench: Bench, number: int) -> None:
    """Every shape at 64 connections, and the first of them at one. The flows are the same for each width of a run."""
    with tempfile.TemporaryDirectory() as folder, _servers(Path(folder)) as (ours, theirs):
        for shape in SHAPES:
            _shape(bench, number, shape, ours, theirs)
        for name, path in DOCUMENTS.items():
            _document(bench, name, path, ours, theirs)
        for shape in (PLAINEST, *SHAPES[:3]):
            _one_connection(bench, number, shape, ours)


@contextmanager
def _servers(folder: Path) -> Iterator[tuple[Server, Server]]:
    """Both servers, on a repository of three flows."""
    for name in ("wine", "digits"):
        shutil.copytree(_ZOO / name, folder / name)
    make_conditional_bundle(folder)
    bundle = folder / "wine" / "1"
    with pushforward(bundle) as ours, naive(bundle, "benchmarks.naive_shapes") as theirs:
        yield ours, theirs


def _shape(bench: Bench, number: int, shape: Shape, ours: Server, theirs: Server) -> None:
    ratio = bench.line(shape.name, "rate / the plainest", shape.target, "requests/s")
    cost = bench.line(shape.name, "processor time / the plainest", None, "us a request")
    beside = bench.line(shape.name, "rate / naive", None, "requests/s")
    with record_failures(ratio, cost, beside), progress_bar(shape.name, 3 * bench.pace.seconds):
        plain = _plan(ours, PLAINEST, number)
        mine = _plan(ours, shape, number)
        naively = [[(request, None) for request, _ in requests] for requests in mine]
        plain_rate, plain_cost = _measured(bench, ours, plain)
        rate, spent = _measured(bench, ours, mine)
        ratio.ratio(rate, plain_rate)
        cost.ratio(spent, plain_cost)
        beside.ratio(rate, _measured(bench, theirs, naively)[0])


def _document(bench: Bench, name: str, path: str, ours: Server, theirs: Server) -> None:
    p99 = bench.line(name, "p99, ms", at_most(5))
    cost = bench.line(name, "processor time, us a request")
    beside = bench.line(name, "rate / naive", None, "requests/s")
    with record_failures(p99, cost, beside), progress_bar(name, 2 * bench.pace.seconds):
        request = _get(path)
        plan: list[list[PlannedRequest]] = [[(request, ours.ask([request])[0])] for _ in range(CONNECTIONS)]
        before = cpu_seconds(ours.pid)
        phase = bench.generator.closed(ours.port, plan, bench.pace.seconds)
        spent = cpu_seconds(ours.pid) - before
        if phase.broken or phase.refused:
            raise MeasurementFailed(f"{name}: {phase.troubles()} {phase.refused or ''}".rstrip())
        p99.add(1e3 * (phase.from_send["p99"] or 0.0))
        cost.add(1e6 * spent / max(1, phase.ok))
        their_plan: list[list[PlannedRequest]] = [[(request, None)] for _ in range(CONNECTIONS)]
        beside.ratio(phase.throughput, _measured(bench, theirs, their_plan)[0])


def _one_connection(bench: Bench, number: int, shape: Shape, ours: Server) -> None:
    work = f"{shape.name}, 1 connection"
    rate = bench.line(work, "requests/s")
    cost = bench.line(work, "processor time, us a request")
    with record_failures(rate, cost), progress_bar(work, bench.pace.seconds):
        plan = _plan(ours, shape, number, connections=1)
        found, spent = _measured(bench, ours, plan)
        rate.add(found)
        cost.add(spent)


def _plan(server: Server, shape: Shape, number: int, connections: int = CONNECTIONS) -> list[list[PlannedRequest]]:
    """Requests of one shape, with the answers that are due: those that the server gives to each alone."""
    rows = Rows(number)
    requests = [shape.make(rows, number * 1000 + at) for at in range(EACH * connections)]
    return plan_by_connection(requests, server.ask(requests), connections)


def _measured(bench: Bench, server: Server, plan: Sequence[Sequence[PlannedRequest]]) -> tuple[float, float]:
    """Requests a second, and the server's processor time for one of them, in microseconds."""
    before = cpu_seconds(server.pid)
    phase = bench.generator.closed(server.port, plan, bench.pace.seconds)
    spent = cpu_seconds(server.pid) - before
    if phase.broken or phase.refused:
        raise MeasurementFailed(f"{server.name}: {phase.troubles()} {phase.refused or ''}".rstrip())
    return phase.throughput, 1e6 * spent / max(1, phase.ok)
