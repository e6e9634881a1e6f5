from __future__ import annotations

from service.api import operations
from tests.service.bundles import affine, install, square
from tests.service.scraped import Scraped


def scraped(client):
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return Scraped(answer.text)


def test_requests_by_route_method_and_status(serving):
    client = serving()
    client.post("/models/square/interpolate", json={"points": [[1], [2]]})
    client.post("/models/nobody/interpolate", json={"points": [[1], [2]]})
    client.get("/health/live")
    client.get("/interpolate")
    found = scraped(client)

    def count(method, route, status):
        return found.value("pushforward_requests_total", method=method, route=route, status=status)

    assert count("POST", "/models/{name}/interpolate", 200) == 1
    assert count("POST", "/models/{name}/interpolate", 404) == 1
    assert count("GET", "/health/live", 200) == 1
    assert count("GET", "/interpolate", 405) == 1
    assert found.value("pushforward_rejections_total", code="flow_not_found") == 1
    assert found.value("pushforward_rejections_total", code="method_not_allowed") == 1


def test_a_stranger_makes_no_series(serving):
    client = serving()
    for number in range(20):
        client.get(f"/nothing/{number}")
        client.request(f"METHOD{number}", "/logprob")
        client.get(f"/models/name{number}")
    labels = scraped(client).labels("pushforward_requests_total")
    assert {label["route"] for label in labels} <= {"other", "/logprob", "/models/{name}", "/metrics"}
    assert {label["method"] for label in labels} <= {"other", "GET"}
    assert len(labels) < 6


def test_what_nobody_foresaw_is_counted_once(serving, monkeypatch):
    def fails(*_):
        raise RuntimeError("unforeseen")

    client = serving()
    monkeypatch.setattr(operations.Operations, "models", fails)
    assert client.get("/models").status_code == 500
    found = scraped(client)
    assert found.value("pushforward_requests_total", method="GET", route="/models", status=500) == 1
    assert found.value("pushforward_rejections_total", code="internal_error") == 1


def test_flows_and_canaries(tmp_path, serving, monkeypatch, caplog):
    repository = install(tmp_path, affine("two-moons"), square())
    file = repository.path("square", 1) / "forward.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    client = serving(tmp_path)
    flow = {"flow": "two-moons", "version": 1}
    found = scraped(client)
    assert found.value("pushforward_flow_state", **flow, state="ready") == 1
    assert found.value("pushforward_flow_state", flow="square", version=1, state="failed") == 1
    assert found.value("pushforward_flow_provider", **flow, provider="CPUExecutionProvider") == 1
    assert found.total("pushforward_canary_failed") == 0

    def lies(*_):
        raise RuntimeError("unforeseen")

    with monkeypatch.context() as patched:
        patched.setattr(operations, "probe", lies)
        assert client.get("/health/ready").status_code == 503
    assert scraped(client).value("pushforward_canary_failed", **flow) == 1
    assert client.get("/health/ready").status_code == 200
    assert scraped(client).value("pushforward_canary_failed", **flow) == 0


def test_rows_and_batches_of_every_lane(serving):
    client = serving(chunk_rows=1024)
    lane = {"flow": "two-moons", "version": 2, "direction": "forward"}
    before = scraped(client)
    assert client.post("/logprob", json={"x": [[1, 2]] * 3000}).status_code == 200
    after = scraped(client)

    def grown(name, **labels):
        return after.value(name, **labels) - before.value(name, **labels)

    assert grown("pushforward_rows_total", **lane) == 3000
    assert grown("pushforward_batch_rows_count", **lane) == 3
    assert grown("pushforward_batch_rows_bucket", **lane, le="1024.0") == 3
    assert grown("pushforward_queue_seconds_count", **lane) == 3
    assert grown("pushforward_engine_seconds_count", **lane) == 3
    assert grown("pushforward_engine_seconds_sum", **lane) > 0
