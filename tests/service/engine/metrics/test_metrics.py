from __future__ import annotations

import sys

import numpy as np
import pytest

from service.bundle.calibration import calibrate
from service.engine.metrics.metrics import (
    BATCH_ROWS,
    ENGINE_SECONDS,
    LOG_PROB,
    METRICS,
    QUEUE_SECONDS,
    ROUND_TRIP,
    Metrics,
)
from service.engine.metrics.shared_counters import SharedCounters
from service.engine.verbs.scores import HeldOut
from service.plan import Outputs


def test_requests_and_rejections():
    metrics = Metrics()
    for status in (200, 200, 422):
        metrics.count_request("POST", "/logprob", status)
    metrics.count_rejection("not_finite")
    cells = metrics.counters.read().cells
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
        lane.count_batch(**{"rows": 1, "waited": 0.0, "ran": 0.0, argument: value})
    *buckets, total = metrics.counters.read().cells[metric.name, "two-moons", "1", "forward"]
    assert buckets == [2.0] + [1.0] * len(metric.bounds)
    assert total == pytest.approx(below + sum(metric.bounds) + above)


def ran(log_prob):
    return Outputs(log_prob[:, None], log_prob, log_prob)


def test_a_held_out_row_is_counted_at_its_own_level():
    held_out = np.arange(100, dtype=np.float32)
    metrics = Metrics()
    lane = metrics.lane("two-moons", 1, "forward", HeldOut(calibrate(held_out)))
    for rows in (held_out, *held_out[:, None]):
        lane.count_batch(len(rows), 0.0, 0.0, lane.bucket_log_prob(ran(rows)))
    *buckets, _ = metrics.counters.read().cells[LOG_PROB.name, "two-moons", "1", "forward"]
    levels = np.arange(100) / 100
    assert buckets == (2 * np.bincount(np.searchsorted(LOG_PROB.bounds, levels), minlength=12)).tolist()


@pytest.mark.parametrize("count", [1, 8, 9, 500])
def test_log_prob_is_counted_by_its_held_out_quantile(count):
    held_out = np.linspace(-10, 0, 1000, dtype=np.float32)
    metrics = Metrics()
    lane = metrics.lane("two-moons", 1, "forward", HeldOut(calibrate(held_out)))
    rows = np.random.default_rng(count).uniform(-12, 1, count).astype(np.float32)
    rows[0] = -np.inf
    lane.count_batch(count, 0.0, 0.0, lane.bucket_log_prob(ran(np.append(rows, np.float32("nan")))))
    *buckets, total = metrics.counters.read().cells[LOG_PROB.name, "two-moons", "1", "forward"]
    levels = [(held_out < row).mean() for row in rows]
    assert buckets == np.bincount(np.searchsorted(LOG_PROB.bounds, levels), minlength=12).tolist()
    assert total == pytest.approx(sum(levels), abs=count / 8)


def test_a_lane_without_a_scale_counts_no_log_prob():
    metrics = Metrics()
    lane = metrics.lane("two-moons", 1, "forward")
    lane.count_batch(3, 0.0, 0.0, lane.bucket_log_prob(ran(np.zeros(3, np.float32))))
    assert not any(metrics.counters.read().cells[LOG_PROB.name, "two-moons", "1", "forward"])


def test_round_trips_are_counted_by_direction():
    metrics = Metrics()
    trips = metrics.round_trips("two-moons", 1)
    trips.observe("forward", np.float32([0, 5e-8, 3e-7, 9]))
    trips.observe("inverse", np.float32([0.5]))
    cells = metrics.counters.read().cells
    assert cells[ROUND_TRIP.name, "two-moons", "1", "forward"] == pytest.approx([1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 9])
    assert cells[ROUND_TRIP.name, "two-moons", "1", "inverse"] == [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0.5]


def test_a_flows_state_is_one_of_all():
    metrics = Metrics()
    for state in ("loading", "ready", None):
        metrics.set_state("square", 1, state)
        cells = metrics.counters.read().cells
        found = {key[3]: value for key, (value,) in cells.items() if key[0] == "pushforward_flow_state"}
        assert found == {each: float(each == state) for each in ("loading", "ready", "failed", "quarantined")}


def test_a_worker_that_starts_again_is_counted():
    counters = SharedCounters(2)
    for worker in (0, 1, 1):
        Metrics(counters, worker)
    cells = counters.read().cells
    assert [cells["pushforward_worker_starts", worker] for worker in "01"] == [[1.0], [2.0]]
    assert cells["pushforward_worker_start_time_seconds", "1"][0] == pytest.approx(counters.read().started, abs=60)


def test_names_are_those_of_prometheus():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert not metric.name.endswith("_total")
        assert bool(metric.bounds) == (metric.kind == "histogram")
        assert list(metric.bounds) == sorted(set(metric.bounds))


def test_counting_is_cheap():
    """A request is counted without a further call of a Python function, a batch with one."""
    metrics = Metrics()
    lane = metrics.lane("two-moons", 1, "forward")
    metrics.count_request("POST", "/logprob", 200)
    assert python_calls(lambda: metrics.count_request("POST", "/logprob", 200)) == 1
    assert python_calls(lambda: lane.count_batch(64, 1e-4, 2e-3)) <= 2


def python_calls(function):
    """The number of calls of Python functions that a function makes."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls - 1  # without the function itself


def test_the_processes_of_an_engine_are_counted():
    metrics = Metrics()
    engine = metrics.engine("two-moons", 1, 3)
    engine.set_processes(2)
    for cause in ("crash", "hang", "crash"):
        engine.count_restart(cause)
    cells = metrics.counters.read().cells
    assert cells["pushforward_engine_processes", "two-moons", "1"] == [2.0]
    assert cells["pushforward_engine_restarts", "two-moons", "1", "crash"] == [2.0]
    assert cells["pushforward_engine_restarts", "two-moons", "1", "hang"] == [1.0]
    assert engine.read_others() is None


def test_what_other_workers_counted_of_an_engine_is_read():
    counters = SharedCounters(3)
    engines = [Metrics(counters, worker).engine("two-moons", 1, 3) for worker in range(3)]
    assert [engine.read_others() for engine in engines] == [0, 0, 0]
    for _ in range(2):
        engines[0].count_restart("crash")
    engines[1].count_restart("hang")
    assert [engine.read_others() for engine in engines] == [1, 2, 3]
    engines[2].count_quarantine()
    assert [engine.read_others() for engine in engines] == [4, 5, 3]


def test_the_processes_of_two_loads_of_one_version_are_told_apart():
    """The old content drains while the new one runs."""
    metrics = Metrics(SharedCounters(2))
    old, new = (metrics.engine("two-moons", 1, 3, load) for load in (0, 4))
    old.set_processes(2)
    new.set_processes(1)
    assert processes(metrics) == 3
    metrics.forget("two-moons", 1)
    old.set_processes(0)
    assert processes(metrics) == 1
    other = Metrics(metrics.counters, 1)
    for engine in (other.engine("two-moons", 1, 3), old):
        engine.count_restart("crash")
        engine.count_quarantine()
    assert old.read_others() == 4
    assert new.read_others() == 0
    assert [old.is_quarantined(), new.is_quarantined()] == [True, False]
    assert metrics.counters.read().cells["pushforward_engine_quarantines", "two-moons", "1"] == [2.0]


def processes(metrics):
    return metrics.counters.read().cells["pushforward_engine_processes", "two-moons", "1"][0]
