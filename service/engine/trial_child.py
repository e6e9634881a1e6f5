"""The child process of a trial: reads, loads and runs bundles under limits, started as `python -m`.

It takes one request a line from the standard input and writes one reply a line to the descriptor that it is told, both
JSON: what it hands back was computed beside a stranger's graph, and is never unpickled. `service.engine.trials` is the
other end.
"""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from service.bundle.operators import run_all_passes
from service.bundle.store import Bundle, read_bundle, read_older_bundle
from service.engine.batching.chunk_size import choose_chunk
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Runner
from service.engine.canary import check_graphs, check_trace, measure_parity
from service.engine.lanes import warm_up
from service.engine.runtime.graph import CpuGraph, open_graphs
from service.engine.verbs.traces import Tracer
from service.errors import BundleError
from service.plan import Floats

__all__ = ["main"]

_GRACE_SECONDS: Final = 10
"""The processor's seconds after the limit at which the system ends a child whose parent no longer watches it."""

_CAUSE_CHARACTERS: Final = 500

Direction = Literal["forward", "inverse", "trace"]


def main(replies: int) -> int:
    """Answer requests until the standard input ends.

    Args:
        replies: the descriptor to write to.

    Returns:
        The exit status.
    """
    logging.disable()  # the parent logs what it is told
    with suppress(OSError):  # where there is no such file, the system has no such choice
        Path("/proc/self/oom_score_adj").write_text("1000")  # of all processes, this one is to go when memory ends
    with os.fdopen(replies, "w", encoding="ascii") as out:
        _reply(out, {"ready": True})
        for line in sys.stdin:
            _reply(out, _answer(json.loads(line)))
    return 0


def _reply(out: Any, content: dict[str, Any]) -> None:  # noqa: ANN401  a text file
    out.write(json.dumps(content) + "\n")
    out.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Try one bundle, and say what was found or why it may not be served."""
    found: dict[str, Any] = {"read": False}
    try:
        _limit(request["seconds"], request["bytes"])
        folder = Path(request["folder"])
        if request["older"]:
            bundle, _ = read_older_bundle(folder, edited=request["edited"])
        else:
            bundle = read_bundle(folder)
        found["read"] = True
        found["sha256"] = bundle.sha256()
        found |= _measure(bundle) if request["parity"] else _load(bundle, request["chunk_rows"])
    except BundleError as error:
        reasons = [[list(reason.loc), reason.reason] for reason in error.errors]
        found["error"] = {"code": error.code, "detail": error.detail, "reasons": reasons}
        if found["read"] and error.__cause__ is not None:  # before, causes are of Python's own readers
            found["error"]["cause"] = _words(error.__cause__)
    except MemoryError:
        found["error"] = {"memory": True}
    except Exception as error:
        detail = "the bundle could not be loaded"
        found["error"] = {"code": BundleError.code, "detail": detail, "reasons": [], "cause": _words(error)}
    return found


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_CAUSE_CHARACTERS]


def _limit(seconds: float, size: int) -> None:
    """Limit what this process may take from now on, beside what it has. Only Linux limits memory."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_below(pages * resource.getpagesize() + size, hard), hard))
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    processor = math.ceil(used.ru_utime + used.ru_stime + seconds) + _GRACE_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (_below(processor, hard), hard))


def _below(limit: int, hard: int) -> int:
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)


def _measure(bundle: Bundle) -> dict[str, Any]:
    """The parity table of a bundle."""
    _run_at_worst(bundle, {"forward": 0, "inverse": 0})
    return {"parity": [[row.quantity, row.batch, row.error, row.tolerance] for row in measure_parity(bundle)]}


def _load(bundle: Bundle, chunk_rows: int) -> dict[str, Any]:
    """The times of the batches of a bundle that gives its golden answers, and can run the largest batch."""
    limits = Limits(chunk_rows=chunk_rows)
    forward, inverse, _ = open_graphs(bundle, None, chunk_rows)
    golden = bundle.golden
    timings = {
        "forward": warm_up(forward, limits, golden.x, golden.context),
        "inverse": warm_up(inverse, limits, golden.latents(), golden.context),
    }
    chunks: dict[Direction, int] = {
        "forward": chunk_rows or choose_chunk(timings["forward"]).rows,
        "inverse": chunk_rows or choose_chunk(timings["inverse"]).rows,
    }
    _run(forward, golden.x, golden.context, chunks["forward"])
    _run(inverse, golden.latents(), golden.context, chunks["inverse"])
    check_graphs(bundle, forward, inverse)
    if bundle.manifest.trace:
        check_trace(bundle)
        rows = Tracer(bundle).chunk_rows
        chunks["trace"] = min(rows, chunk_rows or rows)
        _run(CpuGraph(bundle, "trace"), golden.x, golden.context, chunks["trace"])
    return {
        "timings": {direction: [list(each) for each in found] for direction, found in timings.items()},
        "worst": _run_at_worst(bundle, chunks),
    }


def _run_at_worst(bundle: Bundle, chunks: dict[Direction, int]) -> dict[str, float]:
    """Run the graphs that have Loops with every pass: a row may converge later than the golden ones do.

    Args:
        bundle: that has passed.
        chunks: direction -> the most rows of a batch; 0 for as many as there are golden ones.

    Returns:
        Direction -> seconds of the smallest batch, of those that have Loops.
    """
    golden = bundle.golden
    seconds: dict[str, float] = {}
    for direction, rows in chunks.items():
        data = run_all_passes(bundle.graphs[f"{direction}.onnx"])
        if data is None:
            continue
        graph = CpuGraph(Bundle(bundle.manifest, {**bundle.graphs, f"{direction}.onnx": data}, golden), direction)
        given = golden.latents() if direction == "inverse" else golden.x
        _run(graph, given, golden.context, rows or len(given))
        began = graph.clock()
        _run(graph, given, golden.context, 1)
        seconds[direction] = graph.clock() - began
    return seconds


def _run(graph: Runner, rows: Floats, context: Floats | None, count: int) -> None:
    """Run one batch of copies of the golden rows."""
    batch = np.resize(rows, (count, *rows.shape[1:]))
    try:
        graph(batch, None if context is None else np.resize(context, (count, context.shape[1])))
    except MemoryError:
        raise
    except Exception as error:  # ONNX Runtime raises a dozen unrelated classes
        raise BundleError(f"the flow could not be run on a batch of {count} rows") from error


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
