"""The bench of a measurement: the flow, the servers, the load generator, the table, and the times to take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.load import Generator
from benchmarks.peers import RunningPeer
from benchmarks.serving import Server
from benchmarks.table import Line, Table, Target

__all__ = ["FULL", "QUICK", "Bench", "Measurement", "Pace"]


@dataclass(frozen=True)
class Pace:
    """How long to take. Times in seconds.

    Args:
        rounds: how often the short measurements are taken, in turn.
        long_rounds: how often the long ones are, in the first of these rounds.
        seconds: length of a short measurement; whole, as wrk wants it.
        neighbour: length of the 10^6-row client's run.
        overload: length of the stretch with three times the capacity.
        curve: length of one point of the latency curve.
        points: offered loads of that curve, as shares of a server's own capacity.
    """

    rounds: int
    long_rounds: int
    seconds: int
    neighbour: float
    overload: float
    curve: float
    points: tuple[float, ...]


FULL = Pace(
    rounds=5,
    long_rounds=3,
    seconds=3,
    neighbour=30,
    overload=10,
    curve=3,
    points=(0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0),
)
QUICK = Pace(rounds=2, long_rounds=1, seconds=1, neighbour=5, overload=2, curve=0.7, points=(0.2, 0.5, 0.8, 1.0))


@dataclass
class Bench:
    """One flow under test.

    Args:
        width: its columns.
        bundle: the flow's, in a repository of its own.
        ours: Pushforward with its default settings.
        naive: the naive server.
        peers: others, by choice.
        generator: of loads.
        table: lines of all flows.
        pace: see there.
        points: (server, share of its capacity) -> (offered requests a second, p50, p99 in seconds) of each round.
    """

    width: int
    bundle: Path
    ours: Server
    naive: Server
    peers: list[RunningPeer]
    generator: Generator
    table: Table
    pace: Pace
    points: dict[tuple[str, float], list[tuple[float, float, float]]] = field(default_factory=dict)

    def line(self, work: str, figure: str, target: Target | None = None, unit: str = "") -> Line:
        """A line of this flow."""
        return self.table.line(self.width, work, figure, target, unit)

    def curves(self) -> dict[str, list[tuple[float, float, float]]]:
        """Server -> its points, each the medians of the rounds."""
        found: dict[str, list[tuple[float, float, float]]] = {}
        for (server, _), rounds in sorted(self.points.items()):
            rate, p50, p99 = (median(values) for values in zip(*rounds, strict=True))
            found.setdefault(server, []).append((rate, p50, p99))
        return found


@dataclass(frozen=True)
class Measurement:
    """A part of the table that `--only` can name.

    Args:
        name: as it is named there.
        measure: takes one round, and puts its values into the table.
        long: whether it is taken in `Pace.long_rounds` rounds only.
        help: one line.
        own_flows: whether it has flows of its own, so that it is taken beside the first width alone.
    """

    name: str
    measure: Callable[[Bench, int], None]
    long: bool
    help: str
    own_flows: bool = False
