"""Builds and runs `load.c`, the generator that knows which request an answer belongs to.

wrk gives the closed-loop figures, because readers know it; it does not tell a script which connection an answer came
by. This generator does, keeps arrivals to their own times, and tells every way in which an answer can be missing.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serving import Request

__all__ = ["Generator", "NoCompiler", "Phase", "PlannedRequest", "build_generator", "plan_by_connection", "write_plan"]

SOURCE: Final = Path(__file__).with_name("load.c")
_UNKNOWN: Final = 2**64 - 1

PlannedRequest = tuple[Request, bytes | None]
"""A request, and the body that is due to it; None where any body of status 200 will do."""


class NoCompiler(RuntimeError):
    """There is no C compiler to build the generator with."""


@dataclass(frozen=True)
class Phase:
    """What became of the requests that arrived in one stretch of time. load.c says what each count means.

    Latencies are in seconds; ``{"p50", "p90", "p99", "p999", "max"}``, each None where there was no answer.
    """

    seconds: float
    rate: float
    last: float
    arrivals: int
    ok: int
    late: int
    wrong: int
    resets: int
    early: int
    hangs: int
    malformed: int
    unreached: int
    given_up: int
    unsent: int
    closings: int
    unadvised: int
    refused: dict[str, int]
    from_arrival: dict[str, float | None]
    from_send: dict[str, float | None]
    refused_from_arrival: dict[str, float | None]

    @property
    def broken(self) -> int:
        """Requests without an honest answer: a wrong body, a reset, an early close, a hang, bytes that are no HTTP."""
        return self.wrong + self.resets + self.early + self.hangs + self.malformed + self.unreached

    @property
    def goodput(self) -> float:
        """Right answers a second, of requests that arrived in this phase, within their deadline."""
        return (self.ok - self.late) / self.seconds

    @property
    def throughput(self) -> float:
        """Right answers a second, of a closed loop, up to the last of them."""
        return self.ok / max(self.seconds, self.last)

    def troubles(self) -> str:
        """What is broken, in words."""
        names = ("wrong", "resets", "early", "hangs", "malformed", "unreached")
        return ", ".join(f"{getattr(self, name)} {name}" for name in names if getattr(self, name))


@dataclass(frozen=True)
class Generator:
    """The compiled program."""

    binary: Path

    def closed(
        self,
        port: int,
        plan: Sequence[Sequence[PlannedRequest]],
        seconds: float,
        *,
        threads: int = 1,
        limit: float = 10,
    ) -> Phase:
        """Each connection sends its next request when it has its answer.

        Args:
            port: of the server, on 127.0.0.1.
            plan: a list of requests for each connection, sent in turn, over and over.
            seconds: after which no request is sent.
            threads: of the generator.
            limit: an answer that takes longer, in seconds, hangs.
        """
        return self._run(port, plan, ["--closed", f"{seconds:g}"], threads, limit)[0]

    def open(
        self,
        port: int,
        plan: Sequence[Sequence[PlannedRequest]],
        phases: Sequence[tuple[float, float]],
        *,
        seed: int = 0,
        deadline: float | None = None,
        patience: float | None = None,
        threads: int = 1,
        limit: float = 10,
    ) -> tuple[Phase, ...]:
        """Requests arrive as a Poisson process, whatever the answers do.

        Args:
            port: as above.
            plan: as above; an arrival takes the connection that has been idle longest, or waits for one.
            phases: (seconds, arrivals a second), one after the other.
            seed: of the arrivals.
            deadline: the seconds after its arrival from which on an answer is late.
            patience: the seconds after which an arrival without a connection is given up.
            threads: as above.
            limit: as above.
        """
        text = ",".join(f"{seconds:g}:{rate:.9g}" for seconds, rate in phases)
        options = ["--open", text, "--seed", str(seed)]
        if deadline is not None:
            options += ["--deadline", f"{deadline:g}"]
        if patience is not None:
            options += ["--patience", f"{patience:g}"]
        return self._run(port, plan, options, threads, limit)

    def _run(
        self, port: int, plan: Sequence[Sequence[PlannedRequest]], options: list[str], threads: int, limit: float
    ) -> tuple[Phase, ...]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "plan"
            write_plan(path, port, plan)
            command = [str(self.binary), "--port", str(port), "--threads", str(threads), "--limit", f"{limit:g}"]
            done = subprocess.run([*command, *options, str(path)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the generator failed: {done.stderr.strip()}")
        found: dict[str, Any] = json.loads(done.stdout)
        return tuple(Phase(**phase) for phase in found["phases"])


def build_generator(folder: Path) -> Generator:
    """Compile load.c into a folder.

    Raises:
        NoCompiler: there is none, or it cannot compile this.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoCompiler("there is no C compiler (cc) to build the load generator with; on Debian: apt-get install gcc")
    binary = folder / "load"
    command = [compiler, "-O2", "-std=c11", "-pthread", str(SOURCE), "-o", str(binary), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NoCompiler(f"cc cannot build the load generator (it needs Linux): {done.stderr.strip()[:2000]}")
    return Generator(binary)


def plan_by_connection(
    requests: Sequence[Request], answers: Sequence[bytes], connections: int
) -> list[list[PlannedRequest]]:
    """Distribute requests and the answers due to them over connections, so that no two send the same."""
    pairs: list[PlannedRequest] = list(zip(requests, answers, strict=True))
    return [pairs[i::connections] for i in range(connections)]


def write_plan(path: Path, port: int, plan: Sequence[Sequence[PlannedRequest]]) -> None:
    """Write what load.c reads; its head says how. A pair that several connections send is written once."""
    numbers: dict[int, int] = {}
    pairs: list[PlannedRequest] = []
    for pair in (pair for requests in plan for pair in requests):
        if numbers.setdefault(id(pair), len(pairs)) == len(pairs):
            pairs.append(pair)
    raw = [(request.raw(port), due) for request, due in pairs]
    with path.open("wb") as file:
        file.write(b"PFLOAD1\n" + struct.pack("<Q", len(raw)))
        for sent, due in raw:
            file.write(struct.pack("<QQ", len(sent), _UNKNOWN if due is None else len(due)))
        file.write(struct.pack("<Q", len(plan)))
        for requests in plan:
            file.write(struct.pack(f"<Q{len(requests)}Q", len(requests), *(numbers[id(pair)] for pair in requests)))
        for sent, due in raw:
            file.write(sent)
            file.write(due or b"")
