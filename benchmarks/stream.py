"""`python -m benchmarks.stream`: ten million rows of the shipped two-moons as one Arrow stream.

Its rate beside raw ONNX Runtime's on the same rows, what it costs the server in memory, and whether a stream that broke
at a random row and was asked for again is the unbroken one. Needs pyarrow.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Final

import click
import numpy as np
import onnxruntime
import pyarrow as pa

from benchmarks.measure import MeasurementFailed, peak_bytes, reset_peak, resident_bytes
from benchmarks.serving import Server, pushforward
from benchmarks.table import Table, at_least, at_most, record_failures
from benchmarks.work import Rows
from service.bundle.store import Repository, read_bundle
from service.engine.sampling.noise import BaseNoise

BUNDLE: Final = Repository(Path(__file__).parents[1] / "models" / "zoo").path("two-moons")
CHUNK: Final = 1024
SEED: Final = 7
ARROW: Final = {"Accept": "application/vnd.apache.arrow.stream"}


@click.command()
@click.option("--rows", type=click.IntRange(min=100_000), default=10_000_000, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
def main(rows: int, rounds: int) -> None:
    """Print ratios with their spread. The client shares the cores with the server."""
    table = Table()
    work = f"sample, {rows:,} rows, Arrow, one stream"
    rate = table.line(2, work, "rate / raw ONNX Runtime", at_least(0.7), "rows/s")
    spent = table.line(2, work, "processor time a row / raw", None, "us")
    grown = table.line(2, work, "growth of the server's memory, MiB", at_most(100))
    same = table.line(2, work, "broken and resumed = unbroken", at_least(1))
    with record_failures(rate, grown, same), pushforward(BUNDLE) as server:
        consume_stream(server, 200_000)
        for number in range(rounds):
            before = resident_bytes(server.pid)
            reset_peak(server.pid)
            began, used = time.perf_counter(), processor_seconds(server.pid)
            consume_stream(server, rows)
            seconds, used = time.perf_counter() - began, processor_seconds(server.pid) - used
            grown.add((peak_bytes(server.pid) - before) / (1 << 20))
            raw, raw_used = measure_engine(min(rows, 2_000_000))
            rate.ratio(rows / seconds, raw)
            spent.ratio(1e6 * used / rows, raw_used)
            if number == 0:
                same.add(float(digest(read_batches(server, rows)) == digest(read_with_resume(server, rows))))
    click.echo(f"{len(os.sched_getaffinity(0))} cores, ONNX Runtime {onnxruntime.__version__}\n\n{table.markdown()}")


@contextmanager
def open_stream(server: Server, rows: int, offset: int = 0) -> Iterator[http.client.HTTPResponse]:
    """The answer, of which nothing has been read, on a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)) as connection:
        connection.request("GET", f"/sample?n={rows}&seed={SEED}&offset={offset}", headers=ARROW)
        with closing(connection.getresponse()) as answer:
            if answer.status != 200:
                raise MeasurementFailed(f"status {answer.status}: {answer.read(500)!r}")
            yield answer


def consume_stream(server: Server, rows: int) -> None:
    """Read a stream and throw it away."""
    room = memoryview(bytearray(1 << 20))
    with open_stream(server, rows) as answer:
        while answer.readinto(room):
            pass


def read_batches(server: Server, rows: int, offset: int = 0) -> Generator[Rows, None, None]:
    """The rows of each record batch, x and log_prob: [N, D + 1]."""
    with open_stream(server, rows, offset) as answer, pa.ipc.open_stream(answer) as reader:
        for batch in reader:
            yield np.stack([column.to_numpy() for column in batch.columns], axis=1)


def read_with_resume(server: Server, rows: int) -> Iterator[Rows]:
    """The same from a connection that is given up on its way, and another that goes on at the row that is missing."""
    missing = Random(rows).randrange(rows // 4, 3 * rows // 4)
    left = missing
    with closing(read_batches(server, rows)) as batches:
        for batch in batches:
            yield batch[:left]
            left -= len(batch[:left])
            if not left:
                break
    yield from read_batches(server, rows - missing, missing)


def digest(pieces: Iterator[Rows]) -> str:
    """SHA-256 of all rows."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece.tobytes())
    return whole.hexdigest()


def measure_engine(rows: int) -> tuple[float, float]:
    """Raw ONNX Runtime on the same latents: one session, one thread a core, chunks of rows. Rows a second; us a row."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(BUNDLE / "inverse.onnx", options, providers=["CPUExecutionProvider"])
    z = BaseNoise(read_bundle(BUNDLE).manifest.base, 2, SEED, 0, rows)[0:rows]
    cores = len(os.sched_getaffinity(0))

    def caller(first: int) -> None:
        for start in range(first * CHUNK, rows, cores * CHUNK):
            session.run(["x", "log_prob"], {"z": z[start : start + CHUNK]})

    began, used = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=caller, args=(core,)) for core in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows / (time.perf_counter() - began), 1e6 * (time.process_time() - used) / rows


def processor_seconds(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
