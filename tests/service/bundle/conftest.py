"""The least that `service.bundle` accepts: it looks at graphs, and does not run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from service.bundle.bases import NormalBase
from service.bundle.manifest import Calibration, Manifest, Parity, Provenance
from service.bundle.store import Golden, Repository

OPSET = 18

LOG_PROB = [-2.4628770664093453, -3.8691270664093453]
"""log_prob of the golden rows, by the normal base; the calibration is of these two rows."""


def make_manifest(**changes: object) -> Manifest:
    content = {
        "name": "line",
        "version": 1,
        "event_shape": [2],
        "latent_width": 2,
        "base": NormalBase(),
        "opset": OPSET,
        "files": {},
        "calibration": Calibration(
            rows=2,
            mean=sum(LOG_PROB) / 2,
            standard_deviation=(LOG_PROB[0] - LOG_PROB[1]) / 2**0.5,
            quantiles=sorted(LOG_PROB),
        ),
        "parity": Parity(
            tolerance=1e-4, batches=[1, 7], log_prob=0.0, log_abs_det_jacobian=0.0, z=0.0, x=0.0, round_trip=0.0
        ),
        "provenance": Provenance(data="made by a test", created="2026-11-22T00:00:00Z"),
    }
    return Manifest(**(content | changes))


def make_graph(*nodes: onnx.NodeProto, initializers: tuple[onnx.TensorProto, ...] = ()) -> bytes:
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Identity", ["x"], ["z"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2])],
        initializer=list(initializers),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)]).SerializeToString()


@pytest.fixture
def golden() -> Golden:
    x = np.array([[0.5, -1.0], [2.0, 0.25]], np.float32)
    return Golden(x, x.astype(np.float64), np.zeros(2), np.array(LOG_PROB))


@pytest.fixture
def files(golden: Golden) -> dict[str, bytes]:
    return {"forward.onnx": make_graph(), "inverse.onnx": make_graph(), "golden.npz": golden.to_npz()}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def bundle(repository: Repository, files: dict[str, bytes]) -> Path:
    return repository.install(make_manifest(), files)
