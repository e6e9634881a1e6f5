"""The cost of a process of its own for a batch: `python -m benchmarks.isolation`, on the shipped flow wine.

Each round times the graph in this process and the same graph in a process of its own, one after the other, for each
size of batch. The figures are medians over the rounds of the lower quartile of each.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from service.bundle.store import read_bundle
from service.engine.isolation.engine import IsolatedEngine
from service.engine.isolation.options import Isolation
from service.engine.isolation.quarantine import MAX_ENDS
from service.engine.metrics.metrics import Metrics
from service.engine.runtime.graph import CpuGraph

_SIZES: Final = (1, 16, 512)
_ROUNDS: Final = 9
_ROUND_SECONDS: Final = 0.1
_NICE: Final = 5
"""As the engine's threads and processes have it."""

_FLOW: Final = Path(__file__).parents[1] / "models" / "zoo" / "wine" / "1"


def main() -> None:
    """Print the table."""
    bundle = read_bundle(_FLOW)
    engine = IsolatedEngine(bundle, Isolation(None, processes=1), max(_SIZES), Metrics().engine("wine", 1, MAX_ENDS))
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
    here, apart = CpuGraph(bundle, "forward"), engine.graph("forward")
    print("rows  in the server, us  apart, us  more, us  more, %")
    for size in _SIZES:
        rows = np.resize(bundle.golden.x, (size, *bundle.golden.x.shape[1:]))
        rounds = [tuple(_lower_quartile(partial(graph, rows, None)) for graph in (here, apart)) for _ in range(_ROUNDS)]
        inside, outside = (1e6 * statistics.median(times) for times in zip(*rounds, strict=True))
        more = outside - inside
        print(f"{size:4d}  {inside:17.0f}  {outside:9.0f}  {more:8.0f}  {100 * more / inside:7.0f}")
    engine.close()


def _lower_quartile(run: Callable[[], object]) -> float:
    """The lower quartile of the times of a call, in seconds: on a busy machine many calls wait for a processor."""
    times = []
    end = time.perf_counter() + _ROUND_SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return float(np.quantile(times, 0.25))


if __name__ == "__main__":
    main()
