"""`python -m benchmarks.graphs`: the exported graphs beside ones that are written by hand, of the same flow.

By hand is what somebody who knows ONNX writes for this one flow, from its weights, with columns and operators that suit
it. Both run as the server runs them: one thread, the same options.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from benchmarks.by_hand import Direction, HandWrittenGraph
from benchmarks.flow import FAMILIES, make_flow
from benchmarks.measure import MeasurementFailed
from benchmarks.table import Table, at_most, record_failures
from models.export.graph import export_graph
from service.onnx.session import open_on_cpu
from service.onnx.signature import TENSORS

BATCHES: Final = {4: 1.3, 256: 1.1, 1000: 1.1}
"""Rows of a batch -> by what factor the exported graph may take longer. A single row is served in a batch of 4."""
TOLERANCE: Final = 1e-5
ONE_PASS: Final[dict[str, tuple[Direction, ...]]] = {"maf": ("forward",)}
"""Family -> the directions that have a graph by hand, where it is not both: back there is a Loop."""

Float32 = npt.NDArray[np.float32]


@click.command()
@click.option("--width", "widths", type=click.IntRange(min=2), multiple=True, help="Columns; 16, 2 and 64 if none.")
@click.option("--family", "families", type=click.Choice(list(FAMILIES)), multiple=True, help="All if none.")
@click.option("--rounds", type=click.IntRange(min=1), default=21, show_default=True)
def main(widths: Sequence[int], families: Sequence[str], rounds: int) -> None:
    """Print nodes and times, exported over written by hand, with their spread."""
    table = Table()
    for family in dict.fromkeys(families or FAMILIES):
        for width in dict.fromkeys(widths or (16, 2, 64)):
            for direction in ONE_PASS.get(family, ("forward", "inverse")):
                measure(table, family, width, direction, rounds)
    click.echo(f"ONNX Runtime {onnxruntime.__version__}, one thread\n\n{table.markdown()}")


def measure(table: Table, family: str, width: int, direction: Direction, rounds: int) -> None:
    """Both graphs of one direction, in turn, on the same rows."""
    flow = make_flow(width, family).eval().requires_grad_(requires_grad=False)
    graphs = [export_graph(flow, direction), HandWrittenGraph(flow, direction).graph()]
    nodes = [len(onnx.load_from_string(graph).graph.node) for graph in graphs]
    table.line(width, f"{family} {direction}", "nodes / by hand").ratio(*nodes)
    ours, theirs = (open_on_cpu(graph, "float32") for graph in graphs)
    for batch, bound in BATCHES.items():
        line = table.line(width, f"{family} {direction}, {batch} rows", "time / by hand", at_most(bound), "us")
        rows = np.random.default_rng(batch).normal(size=(batch, width)).astype(np.float32)
        feed = {TENSORS[direction].rows: rows}
        with record_failures(line):
            check_equal_outputs(ours.run(None, feed), theirs.run(None, feed))
            runs = max(10, 20_000 // (batch + 20))
            for number in range(rounds):
                pair = [ours, theirs] if number % 2 else [theirs, ours]
                taken = {session: time_run(session, feed, runs) for session in pair}
                line.ratio(1e6 * taken[ours], 1e6 * taken[theirs])


def check_equal_outputs(ours: Sequence[Float32], theirs: Sequence[Float32]) -> None:
    """Hold two graphs' answers against each other."""
    for mine, other in zip(ours, theirs, strict=True):
        error = float((np.abs(mine - other) / (1 + np.abs(other))).max())
        if mine.shape != other.shape or not error <= TOLERANCE:
            raise MeasurementFailed(f"the two graphs differ by {error:.2g}")


def time_run(session: Any, feed: dict[str, Float32], runs: int) -> float:
    """The median processor time of a run, all of it in the calling thread: what else runs here counts little."""
    taken = []
    for _ in range(runs):
        began = time.thread_time()
        session.run(None, feed)
        taken.append(time.thread_time() - began)
    return float(np.median(taken))


if __name__ == "__main__":
    main()
