from __future__ import annotations

import pytest

from service.api.exposition import exposition
from service.engine.metrics.metrics import METRICS, Metrics
from service.engine.metrics.shared_counters import SharedCounters
from tests.service.scraped import Scraped


def scraped(counters, accept=None):
    return Scraped(exposition(counters, accept).body.decode())


def test_every_metric_is_told_even_before_anything_is_counted():
    found = scraped(SharedCounters())
    assert found.kinds == {metric.name: metric.kind for metric in METRICS}


def test_workers_add_up_and_rows_come_from_batches():
    counters = SharedCounters(2)
    for worker in range(2):
        metrics = Metrics(counters, worker)
        metrics.count_request("POST", "/logprob", 200)
        metrics.set_state("square", 1, "ready")
        metrics.set_provider("square", 1, "CPUExecutionProvider")
        metrics.set_canary("square", 1, passed=worker == 0)
        lane = metrics.lane("square", 1, "forward")
        lane.count_batch(3, 2e-5, 1e-3)
        lane.count_batch(5, 0.5, 100.0)
    found = scraped(counters)
    flow = {"flow": "square", "version": 1}
    lane = {**flow, "direction": "forward"}
    assert found.value("pushforward_requests_total", method="POST", route="/logprob", status=200) == 2
    assert found.value("pushforward_rows_total", **lane) == 16
    assert found.value("pushforward_batch_rows_count", **lane) == 4
    assert found.value("pushforward_batch_rows_bucket", **lane, le="4.0") == 2
    assert found.value("pushforward_batch_rows_bucket", **lane, le="16.0") == 4
    assert found.value("pushforward_engine_seconds_bucket", **lane, le="10.0") == 2
    assert found.value("pushforward_engine_seconds_bucket", **lane, le="+Inf") == 4
    assert found.value("pushforward_engine_seconds_sum", **lane) == pytest.approx(200.002)
    assert found.value("pushforward_queue_seconds_sum", **lane) == pytest.approx(1.00004)
    assert found.value("pushforward_flow_state", **flow, state="ready") == 2
    assert found.value("pushforward_flow_provider", **flow, provider="CPUExecutionProvider") == 2
    assert found.value("pushforward_canary_failed", **flow) == 1
    assert found.value("pushforward_workers") == 2
    assert found.value("process_start_time_seconds") == counters.read().started


def test_openmetrics_is_given_to_who_asks_for_it():
    plain, asked = (
        exposition(SharedCounters(), None),
        exposition(SharedCounters(), "application/openmetrics-text; version=1.0.0"),
    )
    assert plain.media_type.startswith("text/plain")
    assert asked.media_type.startswith("application/openmetrics-text")
    assert asked.body.endswith(b"# EOF\n")
