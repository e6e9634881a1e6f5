"""A mix of requests for hours: good, bad and cancelled ones, and what the server has gained of them."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Final

import orjson

from benchmarks.serving import Server
from tests.faults.bodies import MIB, settle
from tests.faults.raw import post, read_answer
from tests.faults.resident import descriptors, resident, threads
from tests.faults.scenario import Effort, Outcome, Scenario, Start

__all__ = ["SCENARIOS"]

CONNECTIONS: Final = 16
REQUESTS: Final = 1_000_000
WARM: Final = 0.1
"""The share of the requests that come before the first reading."""
CANCELLED: Final = 0.05
BAD: Final = 0.01


def requests(random_: random.Random, width: int) -> Iterator[tuple[bytes, int | None]]:
    """Requests without end, with the status that is due; None for one whose client goes away."""
    while True:
        choice = random_.random()
        rows = [[random_.gauss(0, 1) for _ in range(width)] for _ in range(random_.choice((1, 1, 1, 4, 30)))]
        good = post("/logprob", orjson.dumps({"x": rows}))
        if choice < CANCELLED:
            yield good[: random_.randrange(1, len(good))] if random_.random() < 0.5 else good, None
        elif choice < CANCELLED + BAD:
            yield post("/logprob", orjson.dumps({"x": [[None] * width]})), 400
        elif choice < 0.8:
            yield good, 200
        else:
            seed = random_.randrange(1 << 31)
            yield f"GET /sample?n=2&seed={seed} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 200


def client(port: int, seed: int, count: int, width: int) -> dict[str, int]:
    """Send requests on one connection, and count the answers that were not due."""
    odd: dict[str, int] = {}
    mix, connection = requests(random.Random(seed), width), socket.create_connection(("127.0.0.1", port), 60)
    try:
        for _ in range(count):
            data, due = next(mix)
            connection.sendall(data)
            if due is None:
                connection.close()
                connection = socket.create_connection(("127.0.0.1", port), 60)
                continue
            found, _ = read_answer(connection)
            if found not in {due, 422 if due == 400 else due}:
                odd[str(found)] = odd.get(str(found), 0) + 1
                connection.close()
                connection = socket.create_connection(("127.0.0.1", port), 60)
    finally:
        connection.close()
    return odd


def soak(start: Start, effort: Effort) -> Outcome:
    """Send the mix, and read memory, descriptors and threads after a tenth of it and at the end."""
    total = effort.count(REQUESTS, least=20_000)
    with start() as server:
        effort.tell(f"{round(WARM * total):,} requests")
        _run(server.port, effort.seed, round(WARM * total))
        before = _settled(server)
        effort.tell(f"{round((1 - WARM) * total):,} more")
        odd = _run(server.port, effort.seed + 1, round((1 - WARM) * total))
        after = _settled(server)
    grown, opened, begun = (b - a for a, b in zip(before, after, strict=True))
    held = not odd and grown <= 10 * MIB and opened <= 0 and begun <= 0
    text = f"{total:,} requests: memory {grown / MIB:+.1f} MiB, descriptors {opened:+d}, threads {begun:+d}"
    return Outcome(held, text + (f"; not due: {odd}" if odd else ""))


def _settled(server: Server) -> tuple[int, int, int]:
    """Resident memory, descriptors and threads, once a server is idle."""
    settle(server.port)
    return resident(server.pid), descriptors(server.pid), threads(server.pid)


def _run(port: int, seed: int, count: int) -> dict[str, int]:
    each, total = count // CONNECTIONS, {}
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        seeds = range(seed * CONNECTIONS, (seed + 1) * CONNECTIONS)
        for odd in pool.map(lambda one: client(port, one, each, 13), seeds):
            for status, times in odd.items():
                total[status] = total.get(status, 0) + times
    with closing(socket.create_connection(("127.0.0.1", port), 60)):
        pass  # the server still accepts
    return total


SCENARIOS = (
    Scenario(
        name="soak",
        done=f"{REQUESTS:,} mixed requests, {CANCELLED:.0%} cancelled, {BAD:.0%} bad",
        to_hold="after the first tenth: memory +10 MiB, descriptors and threads as before; each answer the one due",
        measure=soak,
    ),
)
