"""The requests of the measurements and the answers due to them.

The answer that is due is the server's own when it gets the request alone, checked first against ONNX Runtime in this
process.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import orjson

from benchmarks.load import PlannedRequest, plan_by_connection
from benchmarks.measure import MeasurementFailed
from benchmarks.serving import JSON, NPY, Request, Server

__all__ = [
    "Make",
    "Read",
    "Rows",
    "from_json",
    "from_npy",
    "json_request",
    "npy_request",
    "plan_requests",
    "plan_samples",
    "random_rows",
    "sample_requests",
]

Rows = npt.NDArray[np.float32]
Make = Callable[[Rows], Request]
Read = Callable[[bytes], Rows]

TOLERANCE = 1e-3
"""Of abs(answer - reference) / (1 + abs(reference)); rows of a standard normal are at least that far apart."""


def random_rows(count: int, width: int, seed: int) -> Rows:
    """Rows [count, width] of a standard normal."""
    return np.random.default_rng(seed).standard_normal((count, width), np.float32)


def json_request(x: Rows, path: str = "/logprob", headers: tuple[tuple[str, str], ...] = ()) -> Request:
    return Request("POST", path, orjson.dumps({"x": x}, option=orjson.OPT_SERIALIZE_NUMPY), JSON + headers)


def npy_request(x: Rows, path: str = "/logprob", headers: tuple[tuple[str, str], ...] = ()) -> Request:
    body = io.BytesIO()
    np.save(body, x, allow_pickle=False)
    return Request("POST", path, body.getvalue(), NPY + headers)


def sample_requests(first: int, count: int) -> list[Request]:
    """One row of each seed."""
    return [Request("GET", f"/sample?n=1&seed={seed}", headers=()) for seed in range(first, first + count)]


def from_json(body: bytes) -> Rows:
    return np.asarray(orjson.loads(body)["log_prob"], np.float32)


def from_npy(body: bytes) -> Rows:
    return np.asarray(np.load(io.BytesIO(body), allow_pickle=False), np.float32)


def plan_requests(
    server: Server,
    bundle: Path,
    x: Sequence[Rows],
    connections: int,
    make: Make = json_request,
    read: Read = from_json,
) -> list[list[PlannedRequest]]:
    """Requests for the log_prob of rows, dealt out to connections, with the answer that is due to each.

    Args:
        server: is asked for each alone.
        bundle: its log_prob is the reference.
        x: the rows of each request.
        connections: each gets requests of its own.
        make: rows -> request.
        read: body -> log_prob.

    Raises:
        NotAnswered: the server does not answer such a request.
        MeasurementFailed: it answers with another density.
    """
    requests = [make(part) for part in x]
    answers = server.ask(requests)
    found = np.concatenate([read(answer) for answer in answers])
    _agree(server, found, _reference(bundle, np.concatenate(list(x))))
    return plan_by_connection(requests, answers, connections)


def plan_samples(
    server: Server, bundle: Path, requests: Sequence[Request], connections: int
) -> list[list[PlannedRequest]]:
    """The same for samples: each answer's log_prob must be that of its rows."""
    answers = server.ask(requests)
    drawn = np.concatenate([np.asarray(orjson.loads(answer)["x"], np.float32) for answer in answers])
    _agree(server, np.concatenate([from_json(answer) for answer in answers]), _reference(bundle, drawn))
    if len(np.unique(drawn, axis=0)) != len(drawn):
        raise MeasurementFailed(f"{server.name}: two seeds gave the same row")
    return plan_by_connection(requests, answers, connections)


def _reference(bundle: Path, x: Rows) -> Rows:
    session = onnxruntime.InferenceSession(bundle / "forward.onnx", providers=["CPUExecutionProvider"])
    parts = [session.run(["log_prob"], {"x": x[i : i + 1024]})[0] for i in range(0, len(x), 1024)]
    return np.concatenate(parts)


def _agree(server: Server, found: Rows, reference: Rows) -> None:
    if found.shape != reference.shape:
        raise MeasurementFailed(f"{server.name}: answers have {found.shape} densities, not {reference.shape}")
    error = float(np.max(np.abs(found - reference) / (1 + np.abs(reference))))
    if not error <= TOLERANCE:
        raise MeasurementFailed(f"{server.name}: log_prob differs from ONNX Runtime's by {error:.2g}, relatively")
