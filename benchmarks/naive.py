"""The naive peer, a server of one afternoon: FastAPI, a pydantic body, one ONNX Runtime run per request.

Run by `python -m benchmarks`: uvicorn benchmarks.naive:app, with the bundle's folder in BENCHMARK_BUNDLE.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

BUNDLE = Path(os.environ["BENCHMARK_BUNDLE"])

app = FastAPI()
forward = onnxruntime.InferenceSession(BUNDLE / "forward.onnx", providers=["CPUExecutionProvider"])
inverse = onnxruntime.InferenceSession(BUNDLE / "inverse.onnx", providers=["CPUExecutionProvider"])
width = inverse.get_inputs()[0].shape[1]


class Rows(BaseModel):
    x: list[list[float]]


class LogProb(BaseModel):
    log_prob: list[float]


class Samples(BaseModel):
    x: list[list[float]]
    log_prob: list[float]


@app.post("/logprob")
def log_prob(rows: Rows) -> LogProb:
    x = np.asarray(rows.x, np.float32)
    return LogProb(log_prob=forward.run(["log_prob"], {"x": x})[0].tolist())


@app.get("/sample")
def sample(n: int = 1, seed: int = 0) -> Samples:
    z = np.random.default_rng(seed).standard_normal((n, width), np.float32)
    x, density = inverse.run(["x", "log_prob"], {"z": z})
    return Samples(x=x.tolist(), log_prob=density.tolist())


@app.get("/health/ready")
def ready() -> dict[str, str]:
    return {"status": "ready"}
