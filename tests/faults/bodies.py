"""Crafted bodies: refused ones that cost more than they should, alone and many at once."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pyarrow as pa

from tests.faults.raw import Result, post, probe, send
from tests.faults.resident import peak_of, resident
from tests.faults.scenario import Effort, Outcome, Scenario, Start, Without
from tests.service.bad_bodies import repeated

__all__ = ["BODIES", "SCENARIOS"]

MIB: Final = 1 << 20
FACTOR: Final = 12
"""Bytes that a byte of a body may take."""
CONSTANT: Final = 32 * MIB
"""Bytes that any request may take beside them."""
LEFT: Final = 20 * MIB
"""Bytes by which a refusal may leave more resident memory than there was."""
HELD: Final = 0.1
"""Seconds that the event loop may be held; a probe beside it may take so long and what a busy machine adds."""
BUSY: Final = 0.4


def keys(size: int) -> bytes:
    """A JSON object of many short keys."""
    return b'{"x":[[0]]' + b"".join(b',"k%d":0' % i for i in range(size // 12)) + b"}"


def column_names(size: int) -> bytes:
    """A CSV heading of many short names, and a row."""
    names = b",".join(b"n%d" % i for i in range(size // 9))
    return names + b"\n" + b"0\n"


def empty_batches(size: int) -> bytes:
    """An Arrow stream of batches without a row."""
    schema = pa.schema([(f"x{i}", pa.float32()) for i in range(13)])
    one, two = io.BytesIO(), io.BytesIO()
    batch = pa.record_batch([pa.array([], pa.float32())] * 13, schema)
    for file, count in ((one, 1), (two, 2)):
        with pa.ipc.new_stream(file, schema) as writer:
            for _ in range(count):
                writer.write_batch(batch)
    each = len(two.getvalue()) - len(one.getvalue())
    message = two.getvalue()[-8 - each : -8]
    return two.getvalue()[:-8] + message * (size // each) + two.getvalue()[-8:]


BODIES: Final[dict[str, tuple[str, Callable[[int], bytes]]]] = {
    "JSON of {}": ("application/json", lambda size: repeated(b'{"x":[', b"{},", b"{}]}", size)),
    "JSON of strings": ("application/json", lambda size: repeated(b'{"x":[', b'"a",', b'"a"]}', size)),
    "JSON of keys": ("application/json", keys),
    "JSON of []": ("application/json", lambda size: repeated(b'{"x":[', b"[],", b"[]]}", size)),
    "JSON of null": ("application/json", lambda size: repeated(b'{"x":[[', b"null,", b"null]]}", size)),
    "JSON, deep": ("application/json", lambda size: b'{"x":' + b"[" * (size // 2) + b"]" * (size // 2) + b"}"),
    "NDJSON of blank lines": ("application/x-ndjson", lambda size: b"\n" * size),
    "NDJSON of []": ("application/x-ndjson", lambda size: b"[]\n" * (size // 3)),
    "NDJSON of {}": ("application/x-ndjson", lambda size: b"{}\n" * (size // 3)),
    "CSV of names": ("text/csv", column_names),
    "CSV of blank lines": ("text/csv", lambda size: b"\n" * size),
    "CSV of commas": ("text/csv", lambda size: b"," * size),
    "Arrow of empty batches": ("application/vnd.apache.arrow.stream", empty_batches),
}
"""Name -> media type, and the body of about so many bytes."""


def alone(start: Start, effort: Effort) -> Outcome:
    """Send each body alone: its memory, what is left afterwards, and the longest wait of a probe beside it."""
    size = effort.count(8 * MIB, least=MIB)
    found = []
    for name in BODIES:
        effort.tell(name)
        found.append(_one(start, name, size))
    fallen = [seen for held, seen in found if not held]
    return Outcome(not fallen, "; ".join(fallen) or f"{len(found)} kinds, all within the bounds")


def _one(start: Start, name: str, size: int) -> tuple[bool, str]:
    media_type, make = BODIES[name]
    data = post("/logprob", make(size), media_type)
    with start() as server:
        settle(server.port)
        before = resident(server.pid)
        with peak_of(server.pid) as peak, Prober(server.port) as prober:
            status, _ = send(server.port, data, 120)
        settle(server.port)
        left = resident(server.pid) - before
    held = is_refusal(status) and peak.growth <= FACTOR * len(data) + CONSTANT and left <= LEFT
    text = f"{peak.growth / len(data):.0f} bytes a byte, {left / MIB:.0f} MiB left, probe {prober.longest:.1f} s"
    return held and prober.longest <= HELD + BUSY, f"{name}: {status}, {text}"


def together(start: Start, effort: Effort) -> Outcome:
    """Send 50 bodies at once, of every kind in turn."""
    size, names = effort.count(4 * MIB, least=MIB // 2), list(BODIES)
    kinds = [BODIES[names[i % len(names)]] for i in range(50)]
    data = [post("/logprob", make(size), media_type) for media_type, make in kinds]
    with start() as server:
        with peak_of(server.pid) as peak, Prober(server.port) as prober, ThreadPoolExecutor(50) as pool:
            statuses = list(pool.map(lambda one: send(server.port, one, 120)[0], data))
        settle(server.port)
        after, _ = probe(server.port)
    odd = sorted({str(status) for status in statuses if not is_refusal(status)})
    bound = 384 * MIB
    held = not odd and isinstance(after, int) and peak.growth <= bound and prober.longest <= 1.0
    text = f"+{peak.growth / MIB:.0f} MiB, probe at most {prober.longest:.2f} s"
    return Outcome(held, text + (f", answered {', '.join(odd)}" if odd else ""))


def is_refusal(status: Result) -> bool:
    """Whether a body was refused for what it is, or by a server that is full."""
    return isinstance(status, int) and (400 <= status < 500 or status == 503)


def settle(port: int) -> None:
    """Wait until a server answers a probe at once, three times in a row: a plain one has no such path, and says so."""
    good, end = 0, time.monotonic() + 120
    while good < 3 and time.monotonic() < end:
        status, took = probe(port)
        good = good + 1 if isinstance(status, int) and took < 0.2 else 0
        time.sleep(0.05)


class Prober:
    """Asks for /health/live again and again, and keeps the longest wait, in seconds."""

    def __init__(self, port: int) -> None:
        self.longest = 0.0
        self._port = port
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Prober:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._ended.wait(0.02):
            self.longest = max(self.longest, probe(self._port)[1])


SCENARIOS = (
    Scenario(
        name="bodies",
        done="a crafted body of 8 MiB of each of 13 kinds, one at a time",
        to_hold=(
            f"refused; at most {FACTOR} bytes a byte and {CONSTANT // MIB} MiB; back within {LEFT // MIB} MiB; "
            "no probe waits for it"
        ),
        measure=alone,
        without=Without("the reading in blocks", removal="blocks"),
    ),
    Scenario(
        name="many-bodies",
        done="50 of them at once, 4 MiB each",
        to_hold="each refused; at most 384 MiB in all; the probe waits at most 1 s",
        measure=together,
        without=Without(
            "the reading in blocks and the budget of bodies",
            options=("--max-decode-bytes", str(1 << 40)),
            removal="blocks",
        ),
    ),
)
