"""What is due to a request is the server's answer to it alone, once that agrees with ONNX Runtime."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
import pytest

from benchmarks import measure, work
from benchmarks.measure import MeasurementFailed
from benchmarks.serving import NotAnswered, Request, Server
from tests.benchmarks.echo import Call, echo

BUNDLE = Path(__file__).parents[2] / "models" / "zoo" / "wine" / "1"
WIDTH = 13


@pytest.fixture(scope="module")
def log_prob():
    session = onnxruntime.InferenceSession(BUNDLE / "forward.onnx", providers=["CPUExecutionProvider"])
    return lambda x: session.run(["log_prob"], {"x": np.asarray(x, np.float32)})[0]


def answering(density):
    def behave(call: Call) -> None:
        call.answer(orjson.dumps({"log_prob": density(orjson.loads(call.body)["x"]).tolist()}))

    return behave


def parts(count: int) -> list[work.Rows]:
    x = work.random_rows(count, WIDTH, seed=1)
    return [x[i : i + 1] for i in range(count)]


def test_requests_are_dealt_out_each_to_one_connection(log_prob):
    with echo(answering(log_prob)) as server:
        plan = work.plan_requests(Server("echo", server.port, 0), BUNDLE, parts(6), 2)
    assert [len(own) for own in plan] == [3, 3]
    pairs = [pair for own in plan for pair in own]
    assert len({request.body for request, _ in pairs}) == 6
    for request, answer in pairs:
        assert answer is not None
        np.testing.assert_array_equal(work.from_json(answer), log_prob(orjson.loads(request.body)["x"]))


@pytest.mark.parametrize(
    "density",
    [lambda true, x: true(x) * 1.01, lambda true, x: true(np.zeros_like(x)), lambda true, x: np.repeat(true(x), 2)],
    ids=["near", "of another row", "of too many rows"],
)
def test_another_density_is_noticed(log_prob, density):
    with echo(answering(lambda x: density(log_prob, x))) as server, pytest.raises(MeasurementFailed):
        work.plan_requests(Server("echo", server.port, 0), BUNDLE, parts(3), 1)


def test_two_seeds_with_one_row_are_noticed(log_prob):
    x = work.random_rows(1, WIDTH, seed=1)
    body = orjson.dumps({"x": x.tolist(), "log_prob": log_prob(x).tolist()})
    with echo(lambda call: call.answer(body)) as server:
        asked = Server("echo", server.port, 0)
        assert work.plan_samples(asked, BUNDLE, work.sample_requests(0, 1), 1)
        with pytest.raises(MeasurementFailed, match="two seeds"):
            work.plan_samples(asked, BUNDLE, work.sample_requests(0, 2), 1)


def test_another_status_is_no_answer():
    with echo(lambda call: call.answer(b"{}", 415)) as server, pytest.raises(NotAnswered, match=r"\(415\)"):
        work.plan_requests(Server("echo", server.port, 0), BUNDLE, parts(1), 1)


def test_a_connection_that_is_cut_is_no_answer():
    with echo(lambda call: call.reset()) as server, pytest.raises(NotAnswered):
        work.plan_requests(Server("echo", server.port, 0), BUNDLE, parts(1), 1)


def test_npy_goes_and_comes_back():
    x = work.random_rows(3, WIDTH, seed=1)
    request = work.npy_request(x, headers=(("Pushforward-Timeout-Ms", "100"),))
    np.testing.assert_array_equal(work.from_npy(request.body), x)
    head, body = request.raw(80).split(b"\r\n\r\n", 1)
    assert body == request.body
    assert b"Content-Length: %d" % len(body) in head.split(b"\r\n")
    assert b"Pushforward-Timeout-Ms: 100" in head.split(b"\r\n")


def test_a_get_says_no_length():
    assert Request("GET", "/x", headers=()).raw(80) == b"GET /x HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n"


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_s_script_notices_a_wrong_answer(log_prob):
    with echo(answering(log_prob)) as server:
        plan = work.plan_requests(Server("echo", server.port, 0), BUNDLE, parts(2), 2)
        assert measure.run_wrk(Server("echo", server.port, 0), plan, 1).rate > 10
        swapped = [[(plan[0][0][0], plan[1][0][1])], [(plan[1][0][0], plan[0][0][1])]]
        with pytest.raises(MeasurementFailed, match="wrong answers"):
            measure.run_wrk(Server("echo", server.port, 0), swapped, 1)


def test_a_process_s_peak_is_counted_from_when_it_is_forgotten():
    measure.reset_peak(os.getpid())
    before = measure.resident_bytes(os.getpid())
    held = np.ones(50 << 17)  # 50 MiB
    del held
    assert 45 << 20 < measure.peak_bytes(os.getpid()) - before < 80 << 20
    measure.reset_peak(os.getpid())
    assert measure.peak_bytes(os.getpid()) - before < 20 << 20
