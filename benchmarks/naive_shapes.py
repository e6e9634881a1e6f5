"""The naive peer for requests of every shape: what `benchmarks.naive` is, for each verb and all flows of a repository.

Run by `python -m benchmarks`: uvicorn benchmarks.naive_shapes:app, with a bundle's folder in BENCHMARK_BUNDLE. Its flow
is the default one.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

Float32 = npt.NDArray[np.float32]

BUNDLE = Path(os.environ["BENCHMARK_BUNDLE"])

app = FastAPI()


class Flow:
    """One flow: its graphs, and what its manifest says."""

    def __init__(self, folder: Path) -> None:
        self.manifest: dict[str, Any] = json.loads((folder / "flow.json").read_text())
        self.forward, self.inverse = (
            onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
            for name in ("forward", "inverse")
        )
        trace = folder / "trace.onnx"
        self.tracer = (
            onnxruntime.InferenceSession(trace, providers=["CPUExecutionProvider"]) if trace.is_file() else None
        )
        self.width = self.inverse.get_inputs()[0].shape[1]
        self.shape = tuple(self.forward.get_inputs()[0].shape[1:])
        self.quantiles = np.sort(np.asarray(self.manifest["calibration"]["quantiles"]))

    def encode(self, x: Any, context: Any = None) -> list[Float32]:
        rows = np.asarray(x, np.float32).reshape(-1, *self.shape)
        return self._run(self.forward, "x", rows, context)

    def decode(self, z: Any, context: Any = None) -> list[Float32]:
        return self._run(self.inverse, "z", np.asarray(z, np.float32).reshape(-1, self.width), context)

    def _run(self, session: Any, name: str, rows: Float32, context: Any) -> list[Float32]:
        feeds = {name: rows}
        if context is not None:
            feeds["context"] = np.broadcast_to(np.asarray(context, np.float32), (len(rows), len(context)))
        found: list[Float32] = session.run(["x" if name == "z" else "z", "log_abs_det_jacobian", "log_prob"], feeds)
        return found


FLOWS = {folder.parent.name: Flow(folder) for folder in sorted(BUNDLE.parent.parent.glob("*/1"))}
DEFAULT = BUNDLE.parent.name


class Rows(BaseModel):
    x: list[Any]
    model: str | None = None
    version: int | None = None
    context: list[float] | None = None
    returns: list[str] = []
    alarm_rate: float | None = None


class Latents(BaseModel):
    z: list[list[float]]


class Draw(BaseModel):
    n: int = 1
    seed: int = 0
    temperature: float = 1.0
    context: list[float] | None = None


class Points(BaseModel):
    points: list[list[float]]
    steps: int = 11


class Moves(BaseModel):
    x: list[list[float]]
    direction: list[float]
    strength: list[float]


def flow_of(name: str | None) -> Flow:
    return FLOWS[name or DEFAULT]


@app.post("/logprob")
@app.post("/models/{name}/logprob")
async def log_prob(request: Request, name: str | None = None) -> Response:
    if request.headers.get("content-type") == "application/x-npy":
        _, _, density = flow_of(name).encode(np.load(io.BytesIO(await request.body())))
        written = io.BytesIO()
        np.save(written, density)
        return Response(written.getvalue(), media_type="application/x-npy")
    body = await request.json()
    return Response(json.dumps(density_of(Rows(**body, returns=body.pop("return", [])), name)))


def density_of(rows: Rows, name: str | None) -> dict[str, Any]:
    flow = flow_of(name or rows.model)
    z, _, density = flow.encode(rows.x, rows.context)
    answer: dict[str, Any] = {"log_prob": density.tolist()}
    ranks = np.searchsorted(flow.quantiles, density) / len(flow.quantiles)
    if "z" in rows.returns:
        answer["z"] = z.tolist()
    if "quantile" in rows.returns:
        answer["quantile"] = ranks.tolist()
    if rows.alarm_rate is not None:
        answer["anomaly"] = (ranks <= rows.alarm_rate).tolist()
    return answer


@app.post("/models/{name}/encode")
def encode(name: str, rows: Rows) -> dict[str, Any]:
    z, ladj, density = flow_of(name).encode(rows.x, rows.context)
    return {"z": z.tolist(), "log_abs_det_jacobian": ladj.tolist(), "log_prob": density.tolist()}


@app.post("/models/{name}/decode")
def decode(name: str, latents: Latents) -> dict[str, Any]:
    x, ladj, density = flow_of(name).decode(latents.z)
    return {"x": x.tolist(), "log_abs_det_jacobian": ladj.tolist(), "log_prob": density.tolist()}


def drawn(name: str | None, draw: Draw) -> dict[str, Any]:
    flow = flow_of(name)
    z = np.random.default_rng(draw.seed).standard_normal((draw.n, flow.width), np.float32) * draw.temperature
    x, _, density = flow.decode(z, draw.context)
    return {"x": x.tolist(), "log_prob": density.tolist()}


@app.get("/sample")
@app.get("/models/{name}/sample")
def sample(name: str | None = None, n: int = 1, seed: int = 0, temperature: float = 1.0) -> dict[str, Any]:
    return drawn(name, Draw(n=n, seed=seed, temperature=temperature))


@app.post("/models/{name}/sample")
def sample_body(name: str, draw: Draw) -> dict[str, Any]:
    return drawn(name, draw)


@app.post("/models/{name}/interpolate")
def interpolate(name: str, asked: Points) -> dict[str, Any]:
    flow = flow_of(name)
    z = flow.encode(asked.points)[0]
    t = np.linspace(0, 1, asked.steps, dtype=np.float32)[:, None]
    start, end = z[0], z[-1]
    norms = np.linalg.norm(start), np.linalg.norm(end)
    angle = np.arccos(np.clip(start @ end / (norms[0] * norms[1]), -1, 1))
    walk = (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)
    x, _, density = flow.decode(walk)
    back = flow.encode(x)[0]
    error = np.abs(back - walk).max(axis=1)
    return {"z": walk.tolist(), "x": x.tolist(), "log_prob": density.tolist(), "round_trip_error": error.tolist()}


@app.post("/models/{name}/edit")
def edit(name: str, asked: Moves) -> dict[str, Any]:
    flow = flow_of(name)
    z = flow.encode(asked.x)[0]
    moved = [z + strength * np.asarray(asked.direction, np.float32) for strength in asked.strength]
    x, _, density = flow.decode(np.concatenate(moved))
    return {"x": x.tolist(), "z": np.concatenate(moved).tolist(), "log_prob": density.tolist()}


@app.post("/models/{name}/trace")
def trace(name: str, rows: Rows) -> dict[str, Any]:
    flow = flow_of(name)
    if flow.tracer is None:
        return {}
    x = np.asarray(rows.x, np.float32).reshape(-1, *flow.shape)
    found = flow.tracer.run(None, {"x": x})
    return {output.name: values.tolist() for output, values in zip(flow.tracer.get_outputs(), found, strict=True)}


@app.get("/models")
def models() -> dict[str, Any]:
    return {"models": [{"name": name, "event_shape": flow.shape} for name, flow in FLOWS.items()]}


@app.get("/models/{name}")
def model(name: str) -> dict[str, Any]:
    return flow_of(name).manifest


@app.get("/health/ready")
def ready() -> dict[str, str]:
    return {"status": "ready"}
