"""Overload: several times what the server can do, as a Poisson process, with deadlines."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.load import NoCompiler, build_generator
from benchmarks.work import json_request, npy_request, random_rows
from tests.faults.bodies import MIB
from tests.faults.raw import probe
from tests.faults.resident import peak_of
from tests.faults.scenario import Effort, NotPossible, Outcome, Scenario, Start, Without

__all__ = ["SCENARIOS"]

ROWS: Final = 512
CONNECTIONS: Final = 512
MEMORY: Final = 64 * MIB


def overload(start: Start, effort: Effort, *, times: int, deadline: float, share: float) -> Outcome:
    """Measure the capacity in closed loop, then send several times as much.

    Args:
        start: of the server.
        effort: seconds and seed.
        times: the capacity.
        deadline: of each request, in seconds.
        share: of the capacity that goodput must reach.

    Raises:
        NotPossible: there is no compiler for the generator.
    """
    headers = (("Pushforward-Timeout-Ms", f"{1e3 * deadline:.0f}"),)
    request = json_request if start.subject == "plain" else npy_request  # which a plain app does not read
    plan = [[(request(random_rows(ROWS, 13, seed=i), headers=headers), None)] for i in range(CONNECTIONS)]
    with tempfile.TemporaryDirectory() as folder, start() as server:
        try:
            generator = build_generator(Path(folder))
        except NoCompiler as error:
            raise NotPossible(str(error)) from error
        effort.tell("capacity")
        capacity = generator.closed(server.port, plan[:64], effort.seconds(10.0)).throughput
        if not capacity:
            return Outcome(held=False, seen="no request was answered")
        effort.tell(f"{times} x {capacity:,.0f} requests a second")
        phases = [(effort.seconds(60.0), times * capacity)]
        with peak_of(server.pid) as peak:
            (over,) = generator.open(
                server.port, plan, phases, seed=effort.seed, deadline=deadline, patience=deadline / 10
            )
        _, after = probe(server.port)
    goodput, p99 = over.goodput / capacity, over.from_arrival["p99"]
    others = {status: count for status, count in over.refused.items() if status != "429"}
    good = goodput >= share and p99 is not None and p99 <= deadline
    held = good and not others and not over.broken and peak.growth <= MEMORY and after <= 1.0
    late = "none was admitted" if p99 is None else f"admitted p99 {1e3 * p99:.0f} ms"
    seen = f"goodput {goodput:.2f} of capacity, {late}, memory {peak.growth / MIB:+.0f} MiB, then {after:.2f} s"
    return Outcome(held, seen + (f"; {others}" if others else "") + (f"; {over.troubles()}" if over.broken else ""))


SCENARIOS = tuple(
    Scenario(
        name=f"overload-{times}x-{1e3 * deadline:.0f}ms",
        done=f"{times} x capacity for 60 s, Poisson, deadline {1e3 * deadline:.0f} ms, {CONNECTIONS} connections",
        to_hold=f"goodput {share} of capacity; admitted p99 within the deadline; 200 and 429 only; memory +64 MiB",
        measure=partial(overload, times=times, deadline=deadline, share=share),
        without=Without("the age that counts from the last turn of the loop", removal="turns"),
    )
    for times in (3, 5)
    for deadline, share in ((0.1, 0.8), (1.0, 0.9))
)
