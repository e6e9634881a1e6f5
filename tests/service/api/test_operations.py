from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import onnxruntime as ort
import pytest

from service.api.native.schemas import Flow
from service.api.operations import Operations
from service.bundle.variational import Variational
from service.engine.metrics.metrics import Metrics
from service.engine.runtime import graph as runtime
from service.engine.runtime.devices import CUDA_PROVIDER
from service.errors import Draining, NotReady
from tests.service.bundles import affine, install, square


def test_models_lists_every_version_and_says_which_answers(client):
    document = client.get("/models").json()
    assert document["default"] == "two-moons"
    listed = {(m["name"], m["version"]): m for m in document["models"]}
    assert set(listed) == {
        ("conditional", 1),
        ("coupling", 1),
        ("image", 1),
        ("square", 1),
        ("two-moons", 1),
        ("two-moons", 2),
    }
    assert [key for key, model in listed.items() if model["default"]] == [("two-moons", 2)]
    assert all(model["state"] == "ready" and model["error"] is None for model in listed.values())
    assert listed["two-moons", 1]["versions"] == [1, 2]
    assert listed["square", 1]["support"]["high"] == 4.0
    assert set(listed["square", 1]) <= set(Flow.model_fields)
    assert "manifest" not in listed["square", 1]
    assert [feature["name"] for feature in listed["conditional", 1]["context_features"]] == ["dose", "kind=b"]
    assert listed["square", 1]["context_features"] == []


def test_models_tell_the_evidence_of_a_flow_that_was_fitted_to_a_density(tmp_path, serving):
    evidence = Variational(
        elbo=None, log_evidence=1.5, log_evidence_se=0.1, log_evidence_ais=None, log_evidence_ais_se=None,
        ess_share=0.5, pareto_k=0.3, restarts=1, verdict="modes_missing",
    )  # fmt: skip
    install(tmp_path, affine("fitted", variational=evidence), affine("other"))
    client = serving(tmp_path, default_flow="other")
    listed = {model["name"]: model for model in client.get("/models").json()["models"]}
    assert listed["fitted"]["variational"] == evidence.model_dump()
    assert "variational" not in listed["other"]


@pytest.mark.parametrize(("path", "version"), [("/models/two-moons", 2), ("/models/two-moons/versions/1", 1)])
def test_one_flow_with_its_manifest(client, parts, path, version):
    document = client.get(path).json()
    assert (document["name"], document["version"], document["default"]) == ("two-moons", version, version == 2)
    manifest = parts["two-moons"].manifest
    assert document["manifest"]["event_shape"] == document["event_shape"] == manifest.event_shape
    entries = {(entry["name"], entry["version"]): entry for entry in client.get("/models").json()["models"]}
    assert entries["two-moons", version].items() <= document.items()
    assert document["calibration"] == manifest.calibration.model_dump()
    assert document["directions"] == []


def test_health(client):
    assert client.get("/health/live").json() == {"live": True}
    ready = client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["ready"] is True
    assert {flow["state"] for flow in ready.json()["flows"]} == {"ready"}


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
def test_ready_says_what_runs_a_flow_and_what_it_fell_back_from(tmp_path, serving, caplog, device):
    if CUDA_PROVIDER in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    install(tmp_path, square())
    (flow,) = serving(tmp_path, default_flow="square", device=device).get("/health/ready").json()["flows"]
    assert (flow["state"], flow["provider"], flow["batch_invariant"]) == ("ready", "CPUExecutionProvider", False)
    assert (flow["fallback"] or "").partition(":")[0] == device.partition(":")[0].replace("cpu", "")
    assert ("square version 1 runs on the CPU, not on cuda:1" in caplog.text) == (device != "cpu")


def test_a_flow_whose_required_device_is_missing_is_not_served(tmp_path, serving, caplog):
    if CUDA_PROVIDER in ort.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    install(tmp_path, square())
    answer = serving(tmp_path, default_flow="square", device="cuda", device_required=True).get("/health/ready")
    assert "has no CUDA; the extra `gpu` brings one that has" in str(not_ready(answer))


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics", "/models", "/models/square"])
def test_head_is_answered(client, path):
    assert client.request("HEAD", path).status_code == 200


def not_ready(answer):
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()


def test_ready_notices_an_engine_that_answers_wrongly(serving, monkeypatch):
    client = serving()
    honest = runtime.CpuGraph.__call__

    def lies(self, rows, context):
        outputs = honest(self, rows, context)
        return outputs._replace(log_prob=outputs.log_prob + 1) if self.width == 1 else outputs

    assert client.get("/health/ready").status_code == 200
    monkeypatch.setattr(runtime.CpuGraph, "__call__", lies)
    document = not_ready(client.get("/health/ready"))
    assert document["code"] == "not_ready"
    assert [reason["loc"] for reason in document["errors"]] == [["models", "square", "versions", 1]]
    assert client.get("/health/live").status_code == 200
    monkeypatch.setattr(runtime.CpuGraph, "__call__", honest)
    assert client.get("/health/ready").status_code == 200


def test_ready_notices_an_engine_that_fails_or_hangs(serving, monkeypatch, caplog):
    client = serving(probe_seconds=0.05)

    def fails(*_):
        raise RuntimeError("at /a/path")

    honest = runtime.CpuGraph.__call__
    monkeypatch.setattr(runtime.CpuGraph, "__call__", fails)
    document = not_ready(client.get("/health/ready"))
    assert len(document["errors"]) == 6
    assert "/a/path" not in str(document)

    gate = threading.Event()

    def hangs(self, rows, context):
        gate.wait(30)
        return honest(self, rows, context)

    monkeypatch.setattr(runtime.CpuGraph, "__call__", hangs)
    assert "no answer within 0.05 seconds" in str(not_ready(client.get("/health/ready")))
    assert client.get("/health/live").status_code == 200
    gate.set()


def test_ready_passes_by_a_full_queue(serving):
    client = serving(max_queued_rows=1)
    assert client.get("/health/ready").status_code == 200


def corrupt(repository, name, version):
    file = repository.path(name, version) / "forward.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")


def test_a_bundle_that_failed_is_listed_and_its_neighbours_are_ready(tmp_path, serving, caplog):
    repository = install(tmp_path, affine("two-moons"), affine("two-moons", 2), square())
    corrupt(repository, "two-moons", 2)
    corrupt(repository, "square", 1)
    client = serving(tmp_path)
    assert client.get("/health/ready").status_code == 200
    models = {(m["name"], m["version"]): m for m in client.get("/models").json()["models"]}
    assert models["square", 1]["state"] == "failed"
    assert models["square", 1]["error"]["code"] == "digest_mismatch"
    assert str(tmp_path) not in str(models)
    assert client.post("/logprob", json={"x": [[1, 2]]}).json()["version"] == 1
    document = not_ready(client.post("/models/square/logprob", json={"x": [[1]]}))
    assert "flow 'square' version 1 is not served" in document["detail"]


def test_without_its_default_flow_the_server_is_not_ready(tmp_path, serving, caplog):
    repository = install(tmp_path, affine("two-moons"), square())
    corrupt(repository, "two-moons", 1)
    document = not_ready(serving(tmp_path).get("/health/ready"))
    assert "the default flow 'two-moons' is not served" in document["detail"]
    assert document["errors"][0]["loc"] == ["models", "two-moons", "versions", 1]


class NotLoaded:
    loaded = False

    def entries(self):
        return []


def test_while_flows_load_the_server_is_not_ready():
    async def ask():
        with ThreadPoolExecutor(1) as helpers:
            return await Operations(NotLoaded(), helpers, 1, Metrics()).ready()

    with pytest.raises(NotReady, match="still loading"):
        asyncio.run(ask())


def test_a_draining_server_is_not_ready(serving):
    client = serving()
    client.app.state.operations.draining = True
    assert not_ready(client.get("/health/ready"))["code"] == Draining.code
    assert client.post("/logprob", json={"x": [[1, 2]]}).status_code == 200


def test_probes_that_come_together_share_one_answer(serving, monkeypatch):
    client = serving()
    honest, runs = runtime.CpuGraph.__call__, []
    started, gate = threading.Event(), threading.Event()

    def counted(self, rows, context):
        runs.append(1)
        started.set()
        gate.wait(30)
        return honest(self, rows, context)

    monkeypatch.setattr(runtime.CpuGraph, "__call__", counted)

    async def together():
        asks = [asyncio.create_task(client.app.state.operations.ready()) for _ in range(20)]
        await asyncio.to_thread(started.wait, 30)
        gate.set()
        return await asyncio.gather(*asks)

    replies = client.run(together())
    assert len(replies) == 20
    assert len(runs) == 12  # six versions, two directions
