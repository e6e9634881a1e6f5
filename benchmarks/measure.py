"""One figure at a time: requests a second under wrk, rows a second of the engine alone, memory of a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from benchmarks.load import PlannedRequest
from benchmarks.serving import Server

__all__ = [
    "ClosedLoop",
    "MeasurementFailed",
    "cpu_seconds",
    "measure_engine",
    "peak_bytes",
    "reset_peak",
    "resident_bytes",
    "run_wrk",
]

SCRIPT: Final = Path(__file__).with_name("wrk.lua")


class MeasurementFailed(RuntimeError):
    """An answer was wrong, or a request was lost: no figure is worth quoting then."""


@dataclass(frozen=True)
class ClosedLoop:
    """What wrk found: requests a second, and percentiles of the latency in seconds."""

    rate: float
    p50: float
    p99: float


def run_wrk(server: Server, plan: Sequence[Sequence[PlannedRequest]], seconds: int) -> ClosedLoop:
    """Drive a connection for each list of a plan with wrk, on two threads at most.

    The rows of a thread are its own, and each answer must be one that is due to the thread.

    Raises:
        MeasurementFailed: wrk is not installed, an answer was wrong, or a request was lost.
    """
    if shutil.which("wrk") is None:
        raise MeasurementFailed("wrk is not installed; on Debian: apt-get install wrk")
    threads = min(2, len(plan))
    with tempfile.NamedTemporaryFile("wb", suffix=".tsv") as file:
        for requests in plan:
            for request, answer in requests:
                fields = (request.method.encode(), request.path.encode(), request.body, answer or b"")
                file.write(b"\t".join(fields) + b"\n")
        file.flush()
        command = ["wrk", f"-t{threads}", f"-c{len(plan)}", f"-d{seconds}s", "--timeout", "10s", "-s", str(SCRIPT)]
        command += [f"http://127.0.0.1:{server.port}", "--", file.name, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MeasurementFailed(f"wrk failed: {(done.stderr or done.stdout).strip()[:500]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    if result["wrong"] or result["errors"]:
        raise MeasurementFailed(f"{server.name}: {result['wrong']} wrong answers, {result['errors']} errors")
    return ClosedLoop(result["requests"] / result["seconds"], result["p50"], result["p99"])


def measure_engine(bundle: Path, x: npt.NDArray[np.float32], seconds: float, chunk: int = 1024) -> float:
    """Rows per second of raw ONNX Runtime in this process: one session, one thread a core, chunks of rows."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(bundle / "forward.onnx", options, providers=["CPUExecutionProvider"])
    cores = len(os.sched_getaffinity(0))
    done = [0] * cores
    stop = time.perf_counter() + seconds

    def caller(index: int) -> None:
        while time.perf_counter() < stop:
            for start in range(0, len(x), chunk):
                session.run(["log_prob"], {"x": x[start : start + chunk]})
            done[index] += len(x)

    began = time.perf_counter()
    threads = [threading.Thread(target=caller, args=(i,)) for i in range(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - began)


def cpu_seconds(pid: int) -> float:
    """The processor time that a process and its children have used."""
    ticks = 0
    for each in _family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Bytes of memory that a process and its children hold now."""
    return sum(_status(each, "VmRSS") for each in _family(pid))


def peak_bytes(pid: int) -> int:
    """The most that each of them has held since `reset_peak`, in bytes, together."""
    return sum(_status(each, "VmHWM") for each in _family(pid))


def reset_peak(pid: int) -> None:
    """Count peaks from what is held now."""
    for each in _family(pid):
        Path(f"/proc/{each}/clear_refs").write_text("5")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise MeasurementFailed(f"/proc does not say {name} of process {pid}")


def _family(pid: int) -> list[int]:
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    return [pid, *(each for child in children for each in _family(child))]


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except FileNotFoundError:  # the thread has ended
        return []
