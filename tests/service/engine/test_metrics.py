from __future__ import annotations

import timeit

import pytest

from service.engine.metrics import BATCH_ROWS, ENGINE_SECONDS, METRICS, QUEUE_SECONDS, Metrics
from service.engine.tally import Tallies


def test_requests_and_rejections():
    metrics = Metrics()
    for status in (200, 200, 422):
        metrics.request("POST", "/logprob", status)
    metrics.rejection("not_finite")
    cells = metrics.tallies.read().cells
    assert cells["pushforward_requests", "POST", "/logprob", "200"] == [2.0]
    assert cells["pushforward_requests", "POST", "/logprob", "422"] == [1.0]
    assert cells["pushforward_rejections", "not_finite"] == [1.0]


@pytest.mark.parametrize(
    ("metric", "argument"), [(BATCH_ROWS, "rows"), (QUEUE_SECONDS, "waited"), (ENGINE_SECONDS, "ran")]
)
def test_a_bound_is_in_its_own_bucket(metric, argument):
    metrics = Metrics()
    lane = metrics.lane("two-moons", 1, "forward")
    below, above = metric.bounds[0] / 2, metric.bounds[-1] * 2
    for value in (below, *metric.bounds, above):
        lane.batch(**{"rows": 1, "waited": 0.0, "ran": 0.0, argument: value})
    *buckets, total = metrics.tallies.read().cells[metric.name, "two-moons", "1", "forward"]
    assert buckets == [2.0] + [1.0] * len(metric.bounds)
    assert total == pytest.approx(below + sum(metric.bounds) + above)


def test_a_flows_state_is_one_of_all():
    metrics = Metrics()
    for state in ("loading", "ready", None):
        metrics.state("square", 1, state)
        cells = metrics.tallies.read().cells
        found = {key[3]: value for key, (value,) in cells.items() if key[0] == "pushforward_flow_state"}
        assert found == {each: float(each == state) for each in ("loading", "ready", "failed")}


def test_a_worker_that_starts_again_is_counted():
    tallies = Tallies(2)
    for worker in (0, 1, 1):
        Metrics(tallies, worker)
    cells = tallies.read().cells
    assert [cells["pushforward_worker_starts", worker] for worker in "01"] == [[1.0], [2.0]]
    assert cells["pushforward_worker_start_time_seconds", "1"][0] == pytest.approx(tallies.read().started, abs=60)


def test_names_are_those_of_prometheus():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert not metric.name.endswith("_total")
        assert bool(metric.bounds) == (metric.kind == "histogram")
        assert list(metric.bounds) == sorted(set(metric.bounds))


def test_counting_is_cheap():
    """Half a microsecond a request and two a batch, with room for a slow machine."""
    metrics = Metrics()
    lane = metrics.lane("two-moons", 1, "forward")
    request = min(timeit.repeat(lambda: metrics.request("POST", "/logprob", 200), number=10_000, repeat=20)) / 10_000
    batch = min(timeit.repeat(lambda: lane.batch(64, 1e-4, 2e-3), number=10_000, repeat=20)) / 10_000
    assert request < 2e-6
    assert batch < 8e-6
