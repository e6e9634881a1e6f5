"""`make bench`: Pushforward beside a naive FastAPI server and raw ONNX Runtime, on the same flow, in one run."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import onnxruntime
from tqdm import tqdm

from benchmarks import large, load, overload, peers, serving, shapes, small
from benchmarks.bench import FULL, QUICK, Bench, Measurement, Pace
from benchmarks.flow import make_bundle
from benchmarks.table import Table

MEASUREMENTS: Final = (
    Measurement("rows", small.single_rows, False, "one row a request, beside the naive server"),
    Measurement("workers", small.workers, False, "one row a request, with two workers beside one"),
    Measurement("samples", small.samples, False, "one drawn row a request, beside the naive server"),
    Measurement("exact", small.exactness, False, "whether each connection gets its own answers; load.c beside wrk"),
    Measurement("shapes", shapes.shapes, True, "small requests of every shape beside the plainest", own_flows=True),
    Measurement("peers", small.peers, False, "one row a request, beside each --peer"),
    Measurement("bulk", large.bulk, False, "10,000 rows a request, beside raw ONNX Runtime"),
    Measurement("neighbour", large.neighbour, True, "one row a request beside a client that sends 10^6"),
    Measurement("overload", overload.overload, True, "three times the capacity, with deadlines"),
    Measurement("curve", overload.curve, True, "latency over the offered load, for the picture"),
)


@click.command(epilog="What --only can name: " + "; ".join(f"{m.name}: {m.help}" for m in MEASUREMENTS) + ".")
@click.option("--quick", is_flag=True, help="About a minute: the flow of 16 columns, short, fewer rounds.")
@click.option("--width", "widths", type=click.IntRange(min=2), multiple=True, help="Columns; 16, 2 and 64 if none.")
@click.option("--only", type=click.Choice([m.name for m in MEASUREMENTS]), multiple=True, help="Measure only these.")
@click.option("--rounds", type=click.IntRange(min=1), help="How often each is measured, in turn.")
@click.option("--peer", "peer_names", metavar="NAME[=PYTHON]", multiple=True, help="Another server beside ours.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for benchmarks.png and benchmarks.json.")
def main(
    quick: bool,
    widths: Sequence[int],
    only: Sequence[str],
    rounds: int | None,
    peer_names: Sequence[str],
    out: Path | None,
) -> None:
    """Print ratios with their spread. The client shares the cores with the servers: only ratios are worth quoting."""
    pace = QUICK if quick else FULL
    chosen = [m for m in MEASUREMENTS if not only or m.name in only]
    table, curves = Table(), {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            others = [peers.parse(text) for text in peer_names]
            for peer, python in others:
                peers.check(peer, python)
            generator = load.build_generator(folder)
        except (peers.PeerMissing, load.NoCompiler) as error:
            raise click.ClickException(str(error)) from error
        for number, width in enumerate(dict.fromkeys(widths or ((16,) if quick else (16, 2, 64)))):
            with ExitStack() as stack:
                bench = _start(stack, folder, width, others, generator, table, pace)
                measured = [m for m in chosen if number == 0 or not m.own_flows]
                _measure(bench, measured, rounds or pace.rounds, min(rounds or pace.rounds, pace.long_rounds))
                curves[width] = bench.curves()
    click.echo(_about() + "\n\n" + table.markdown())
    if out is not None:
        _write(out, table, curves)
    if table.wrong:
        sys.exit(1)


def _start(
    stack: ExitStack,
    folder: Path,
    width: int,
    others: Sequence[tuple[peers.Peer, str]],
    generator: load.Generator,
    table: Table,
    pace: Pace,
) -> Bench:
    tqdm.write(f"D = {width}: exporting the flow and starting the servers", file=sys.stderr)
    bundle = make_bundle(folder / str(width), width)
    ours = stack.enter_context(serving.pushforward(bundle))
    naive = stack.enter_context(serving.naive(bundle))
    running = [stack.enter_context(peers.running(peer, python, bundle)) for peer, python in others]
    return Bench(width, bundle, ours, naive, running, generator, table, pace)


def _measure(bench: Bench, chosen: Sequence[Measurement], rounds: int, long_rounds: int) -> None:
    turns = [(i, m) for i in range(rounds) for m in chosen if not m.long or i < long_rounds]
    with tqdm(turns, unit="turn", position=0, leave=False) as shown:
        for number, measurement in shown:
            shown.set_description(f"D = {bench.width}, round {number + 1}: {measurement.name}")
            measurement.measure(bench, number)


def _about() -> str:
    cores = len(os.sched_getaffinity(0))
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, ONNX Runtime {onnxruntime.__version__}"
    return f"{cores} cores, {versions}; 8 couplings, conditioners 128-128, D columns."


def _write(out: Path, table: Table, curves: dict[int, Any]) -> None:
    from benchmarks.picture import draw  # matplotlib is slow to import

    out.mkdir(parents=True, exist_ok=True)
    (out / "benchmarks.json").write_text(
        json.dumps({"about": _about(), "lines": [line.as_json() for line in table.lines], "curves": curves}, indent=1)
    )
    draw(out / "benchmarks.png", table.lines, curves)
    click.echo(f"\nwritten: {out / 'benchmarks.json'}, {out / 'benchmarks.png'}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that servers end with this process
    main()
