"""The verbs over HTTP: log_prob, encode and decode, and the errors and budgets of all."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.api.native.verbs import Verbs
from service.errors import QueueFull
from service.exchange import Exchange

PREFIXES = ["", "/models/two-moons", "/models/two-moons/versions/1"]


def test_logprob(client, parts):
    x = [[0.5, 0.25], [1.0, -0.5]]
    answer = client.post("/logprob", json={"x": x})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert list(document) == ["model", "version", "log_prob"]
    assert (document["model"], document["version"]) == ("two-moons", 2)
    np.testing.assert_allclose(document["log_prob"], parts["two-moons"].log_prob(x), rtol=1e-5)


def test_logprob_with_everything(client):
    names = ["z", "log_abs_det_jacobian", "base_log_prob", "quantile", "typicality", "bits_per_dim", "round_trip_error"]
    document = client.post("/logprob", json={"x": [[1, 2]], "return": names, "alarm_rate": 0.1}).json()
    assert list(document) == ["model", "version", "log_prob", *names, "anomaly"]
    assert np.shape(document["z"]) == (1, 2)
    assert document["anomaly"] == [document["quantile"][0] < 0.1]


def test_every_verb_says_how_far_its_rows_come_back_where_asked(client):
    ask = {"return": ["round_trip_error"]}
    x, z = {"x": [[0.5, 0.25], [1, 2]]}, {"z": [[0.5, 0.25], [1, 2]]}
    answers = [
        client.post("/logprob", json=x | ask),
        client.post("/encode", json=x | ask),
        client.post("/decode", json=z | ask),
        client.post("/edit", json=x | {"direction": [1, 0], "strength": [0.5]} | ask),
        client.post("/sample", json={"n": 2, "seed": 1} | ask),
        client.get("/sample", params={"n": 2, "seed": 1, "return": "round_trip_error"}),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert list(answer.json())[-1] == "round_trip_error"
        assert 0 <= np.max(answer.json()["round_trip_error"]) < 1e-6
    assert answers[0].json()["round_trip_error"] == answers[1].json()["round_trip_error"]
    assert "round_trip_error" not in client.post("/encode", json=x).json()
    unknown = client.post("/encode", json=x | {"return": ["z"]})
    assert (unknown.status_code, unknown.json()["errors"][0]["loc"]) == (422, ["body", "return", 0])


def test_a_single_event_is_one_row_and_the_answer_keeps_the_axis(client):
    one = client.post("/encode", json={"x": [0.5, 0.25]}).json()
    assert one == client.post("/encode", json={"x": [[0.5, 0.25]]}).json()
    assert np.shape(one["z"]) == (1, 2)


def test_an_image_is_taken_whole_or_flat(client):
    image = np.arange(6.0).reshape(2, 3, 1) / 10
    answers = [
        client.post("/models/image/logprob", json={"x": x}).json()
        for x in (image.tolist(), [image.tolist()], image.ravel().tolist(), [image.ravel().tolist()])
    ]
    assert answers[0]["log_prob"]
    assert all(answer == answers[0] for answer in answers)
    decoded = client.post("/models/image/decode", json={"z": [[0] * 6]}).json()
    assert np.shape(decoded["x"]) == (1, 2, 3, 1)


def test_out_of_support_is_null_and_said(client):
    document = client.post(
        "/models/square/logprob", json={"x": [[0.25], [-1], [5]], "return": ["z", "quantile"]}
    ).json()
    assert document["log_prob"][0] == pytest.approx(-math.log(2))
    assert document["log_prob"][1:] == [None, None]
    assert document["in_support"] == [True, False, False]
    assert "in_support" not in client.post("/models/square/logprob", json={"x": [[0.25]]}).json()


def test_encode_and_decode_undo_each_other(client):
    x = [[0.1, -0.2, 0.3], [1.0, 2.0, 3.0]]
    context = [[0.5, -0.5], [1.0, 0.0]]
    there = client.post("/models/conditional/encode", json={"x": x, "context": context}).json()
    back = client.post("/models/conditional/decode", json={"z": there["z"], "context": context}).json()
    assert list(there) == ["model", "version", "z", "log_abs_det_jacobian", "log_prob"]
    assert list(back) == ["model", "version", "x", "log_abs_det_jacobian", "log_prob"]
    np.testing.assert_allclose(back["x"], x, rtol=1e-5, atol=1e-6)
    one = client.post("/models/conditional/encode", json={"x": x, "context": context[0]}).json()
    assert one["z"][0] == there["z"][0]


def test_same_seed_same_rows_and_same_row_same_bits_under_load(client):
    x = np.random.default_rng(0).normal(size=(40, 5)).round(3)
    whole = client.post("/models/coupling/logprob", json={"x": x.tolist()}).json()["log_prob"]
    drawn = client.get("/models/coupling/sample", params={"n": 40, "seed": 5}).json()["x"]

    def ask(row):
        one = client.post("/models/coupling/logprob", json={"x": x[row].tolist()}).json()["log_prob"]
        sample = client.get("/models/coupling/sample", params={"seed": 5, "offset": row, "n": 1 + row % 3}).json()["x"]
        return one == whole[row : row + 1] and sample[: 40 - row] == drawn[row : row + 1 + row % 3]

    with ThreadPoolExecutor(16) as callers:
        assert all(callers.map(ask, [row % 40 for row in range(400)]))


def test_a_large_request_gives_the_bits_of_small_ones(client):
    x = np.random.default_rng(1).normal(size=(5000, 5)).astype(np.float32)
    whole = client.post("/models/coupling/encode", json={"x": x.tolist()}).json()
    small = client.post("/models/coupling/encode", json={"x": x[4321:4328].tolist()}).json()
    assert whole["z"][4321:4328] == small["z"]
    assert whole["log_prob"][4321:4328] == small["log_prob"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_call_exists_under_every_prefix(client, prefix):
    calls = {
        "/logprob": {"x": [[1, 2]]},
        "/sample": {"seed": 1},
        "/interpolate": {"points": [[1, 2], [2, 1]], "steps": 2},
        "/encode": {"x": [[1, 2]]},
        "/decode": {"z": [[1, 2]]},
    }
    for path, body in calls.items():
        answer = client.post(prefix + path, json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == (1 if prefix.endswith("versions/1") else 2)
    assert client.get(prefix + "/sample").status_code == 200


def test_the_flow_may_be_named_in_the_body_or_the_query(client):
    assert client.post("/logprob", json={"x": [[1]], "model": "square"}).json()["model"] == "square"
    assert client.post("/logprob", json={"x": [[1, 1]], "version": 1}).json()["version"] == 1
    assert client.get("/sample", params={"model": "square"}).json()["model"] == "square"
    assert client.get("/sample", params={"model": "two-moons", "version": 1}).json()["version"] == 1


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/x-www-form-urlencoded"}])
def test_what_curl_sends_is_read(client, headers):
    assert client.post("/logprob", content=b'{"x": [[1, 2]]}', headers=headers).status_code == 200


BAD = [
    # status, code, method, path, what is sent, loc of the first reason (None for none), row, column
    (400, "malformed_body", "POST", "/logprob", {"content": b""}, None, None, None),
    (400, "malformed_body", "POST", "/logprob", {"content": b'{"x": [[1, 2]'}, ["body"], None, None),
    (422, "not_finite", "POST", "/logprob", {"content": b'{"x": [[1, 2], [NaN, 2]]}'}, ["body", "x"], 1, 0),
    (422, "not_finite", "POST", "/logprob", {"content": b'{"x": [[1, -Infinity]], "version": 1}'}, ["body", "x"], 0, 1),
    (400, "malformed_body", "POST", "/logprob", {"content": b'{"x": [[NaN, 2]'}, ["body"], None, None),
    (
        422,
        "invalid_argument",
        "POST",
        "/logprob?model=square",
        {"json": {"x": [[1, 2]]}},
        ["query", "model"],
        None,
        None,
    ),
    (
        415,
        "unsupported_media_type",
        "POST",
        "/logprob",
        {"content": b"{}", "headers": {"Content-Encoding": "gzip"}},
        None,
        None,
        None,
    ),
    (400, "malformed_body", "POST", "/logprob", {"json": {"x": [[1, 2], [3]]}}, ["body", "x"], 1, None),
    (400, "malformed_body", "POST", "/logprob", {"json": {"x": [[0, 1], 3]}}, ["body", "x"], 1, None),
    (
        400,
        "malformed_body",
        "POST",
        "/models/image/encode",
        {"json": {"x": [[[1], [2], [3]], [[4], [5]]]}},
        ["body", "x"],
        0,
        None,
    ),
    (404, "flow_not_found", "POST", "/models/other/logprob", {"json": {"x": [[1, 2]]}}, None, None, None),
    (404, "route_not_found", "POST", "/models/..%2f..%2fetc/logprob", {"json": {"x": [[1, 2]]}}, None, None, None),
    (404, "flow_not_found", "GET", "/sample?model=other", {}, None, None, None),
    (
        404,
        "version_not_found",
        "POST",
        "/models/two-moons/versions/9/encode",
        {"json": {"x": [[1, 2]]}},
        None,
        None,
        None,
    ),
    (404, "version_not_found", "GET", "/models/two-moons/versions/one/sample", {}, None, None, None),
    (404, "version_not_found", "GET", "/models/two-moons/versions/0", {}, None, None, None),
    (404, "flow_not_found", "GET", "/models/other", {}, None, None, None),
    (404, "flow_not_found", "GET", "/models/..%5c..", {}, None, None, None),
    (404, "route_not_found", "GET", "/nowhere", {}, None, None, None),
    (404, "route_not_found", "POST", "/logprob/", {"json": {"x": [[1, 2]]}}, None, None, None),
    (405, "method_not_allowed", "GET", "/logprob", {}, None, None, None),
    (405, "method_not_allowed", "DELETE", "/models/two-moons", {}, None, None, None),
    (406, "not_acceptable", "GET", "/sample", {"headers": {"accept": "text/html"}}, None, None, None),
    (
        406,
        "not_acceptable",
        "POST",
        "/encode",
        {"json": {"x": [[1, 2]]}, "headers": {"accept": "image/png"}},
        None,
        None,
        None,
    ),
    (
        415,
        "unsupported_media_type",
        "POST",
        "/logprob",
        {"content": b"x", "headers": {"content-type": "text/plain"}},
        None,
        None,
        None,
    ),
    (422, "invalid_argument", "POST", "/logprob", {"json": [1]}, ["body"], None, None),
    (422, "invalid_argument", "POST", "/logprob", {"json": {}}, ["body", "x"], None, None),
    (422, "invalid_argument", "POST", "/logprob", {"json": {"x": [[1, "2"]]}}, ["body", "x"], 0, 1),
    (
        422,
        "invalid_argument",
        "POST",
        "/logprob",
        {"json": {"x": [[1, 2]], "alarm_rate": 2}},
        ["body", "alarm_rate"],
        None,
        None,
    ),
    (
        422,
        "invalid_argument",
        "POST",
        "/logprob",
        {"json": {"x": [[1, 2]], "return": ["w"]}},
        ["body", "return", 0],
        None,
        None,
    ),
    (
        422,
        "invalid_argument",
        "POST",
        "/logprob",
        {"json": {"x": [[1, 2]], "modle": "a"}},
        ["body", "modle"],
        None,
        None,
    ),
    (
        422,
        "invalid_argument",
        "POST",
        "/models/square/logprob",
        {"json": {"x": [[1]], "model": "image"}},
        ["body", "model"],
        None,
        None,
    ),
    (422, "invalid_argument", "GET", "/sample?n=0", {}, ["query", "n"], None, None),
    (422, "invalid_argument", "GET", "/sample?n=-1", {}, ["query", "n"], None, None),
    (422, "invalid_argument", "GET", "/sample?n=1_0", {}, ["query", "n"], None, None),
    (422, "invalid_argument", "GET", "/sample?n=1.0", {}, ["query", "n"], None, None),
    (422, "invalid_argument", "GET", "/sample?temperature=1_0", {}, ["query", "temperature"], None, None),
    (422, "invalid_argument", "GET", "/models/conditional/sample?context=1_0,2", {}, ["query", "context"], None, None),
    (422, "invalid_argument", "GET", "/sample?m=1", {}, ["query", "m"], None, None),
    (422, "invalid_argument", "GET", "/sample?n=1&n=2", {}, ["query", "n"], None, None),
    (422, "invalid_argument", "GET", "/sample?seed=18446744073709551616", {}, ["query", "seed"], None, None),
    (422, "invalid_argument", "GET", "/models/conditional/sample?context=a,b", {}, ["query", "context"], None, None),
    (422, "invalid_argument", "GET", "/models/square/sample?temperature=2", {}, ["query", "temperature"], None, None),
    (
        422,
        "invalid_argument",
        "POST",
        "/interpolate",
        {"json": {"points": [[1, 2], [2, 1]], "steps": 1}},
        ["body", "steps"],
        None,
        None,
    ),
    (
        422,
        "invalid_argument",
        "POST",
        "/interpolate",
        {"json": {"points": [[1, 1], [-1, -1]], "space": "z"}},
        ["body", "points"],
        0,
        None,
    ),
    (422, "wrong_shape", "POST", "/logprob", {"json": {"x": [[1, 2, 3]]}}, ["body", "x"], None, None),
    (422, "wrong_shape", "POST", "/logprob", {"json": {"x": []}}, ["body", "x"], None, None),
    (
        422,
        "wrong_shape",
        "POST",
        "/logprob",
        {"json": {"x": [[1, 2]], "context": [1]}},
        ["body", "context"],
        None,
        None,
    ),
    (
        422,
        "wrong_shape",
        "POST",
        "/models/conditional/logprob",
        {"json": {"x": [[1, 2, 3]]}},
        ["body", "context"],
        None,
        None,
    ),
    (
        422,
        "wrong_shape",
        "POST",
        "/models/conditional/encode",
        {"json": {"x": [[1, 2, 3]], "context": [1]}},
        ["body", "context"],
        None,
        None,
    ),
    (
        422,
        "wrong_shape",
        "POST",
        "/models/conditional/encode",
        {"json": {"x": [[1, 2, 3]] * 3, "context": [[1, 2]] * 2}},
        ["body", "context"],
        None,
        None,
    ),
    (422, "wrong_shape", "GET", "/models/conditional/sample", {}, ["query", "context"], None, None),
    (422, "wrong_shape", "POST", "/interpolate", {"json": {"points": [[1, 2]]}}, ["body", "points"], None, None),
    (
        422,
        "wrong_shape",
        "POST",
        "/models/conditional/interpolate",
        {"json": {"points": [[1, 2, 3]] * 4, "context": [[1, 2]] * 3}},
        ["body", "context"],
        None,
        None,
    ),
    (
        400,
        "malformed_body",
        "POST",
        "/interpolate",
        {"json": {"points": [[[1, 2]] * 3, [[1, 2]] * 2]}},
        ["body", "points"],
        None,
        None,
    ),
    (
        422,
        "invalid_argument",
        "POST",
        "/interpolate",
        {"json": {"points": [[1, 2], [2, 1]], "spacing": "arc"}},
        ["body", "spacing"],
        None,
        None,
    ),
    (422, "not_finite", "POST", "/logprob", {"json": {"x": [[1, 2], [3, 1e39]]}}, ["body", "x"], 1, 1),
    (422, "not_finite", "POST", "/logprob", {"content": b'{"x": [[1, 1e400]]}'}, ["body", "x"], 0, 1),
    (422, "not_finite", "GET", "/models/conditional/sample?context=nan,1", {}, ["query", "context"], 0, 0),
    (422, "not_finite", "POST", "/decode", {"json": {"z": [[0, 0], [3e38, 3e38]]}}, ["body", "z"], 1, None),
    (
        422,
        "out_of_support",
        "POST",
        "/models/square/interpolate",
        {"json": {"points": [[1], [9]]}},
        ["body", "points"],
        1,
        None,
    ),
    (422, "over_work_budget", "GET", "/sample?n=1000000000000", {}, ["query", "n"], None, None),
    (
        422,
        "over_work_budget",
        "POST",
        "/interpolate",
        {"json": {"points": [[1, 2], [2, 1]], "steps": 10**9}},
        ["body", "steps"],
        None,
        None,
    ),
]


@pytest.mark.parametrize(("status", "code", "method", "path", "sent", "loc", "row", "column"), BAD)
def test_every_error_is_a_problem_that_says_what_and_where(
    client, repository, status, code, method, path, sent, loc, row, column
):
    answer = client.request(method, path, **sent)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["detail"]
    assert str(repository) not in answer.text
    if loc is not None:
        first = document["errors"][0]
        assert (first["loc"], first.get("row"), first.get("column")) == (loc, row, column)
        assert first["reason"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/logprob", "POST"),
        ("/sample", "GET, POST"),
        ("/models/two-moons/versions/1/sample", "GET, POST"),
        ("/models", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(client, path, allowed):
    assert client.request("PUT", path).headers["allow"] == allowed


def test_a_body_over_the_cap(serving):
    client = serving(max_body_bytes=2000)
    assert client.post("/logprob", json={"x": [[1, 2]] * 10}).status_code == 200
    answer = client.post("/logprob", json={"x": [[1.5, 2.5]] * 1000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_the_work_budget_holds_for_every_verb(serving):
    client = serving(max_work=20)
    for path, body in {
        "/logprob": {"x": [[1, 2]] * 11},
        "/encode": {"x": [[1, 2]] * 11},
        "/decode": {"z": [[1, 2]] * 11},
        "/sample": {"n": 11},
        "/models/conditional/sample": {"n": 2, "context": [[1, 2]] * 4},
        "/interpolate": {"points": [[1, 2], [2, 1]], "steps": 6},
    }.items():
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "over_work_budget"), path
    assert client.post("/sample", json={"n": 10}).status_code == 200


@pytest.mark.parametrize(("name", "direction"), [("log_prob", "forward"), ("encode", "forward"), ("decode", "inverse")])
def test_a_full_engine_refuses_the_call_itself_before_the_body_is_read(client, monkeypatch, name, direction):
    registry = client.app.state.registry
    lane = getattr(registry.find(None, None), direction)

    def full(deadline):
        raise QueueFull("too much is waiting")

    monkeypatch.setattr(lane, "admit", full)
    with pytest.raises(QueueFull):
        getattr(Verbs(registry, 1000, 1000), name)(Exchange(content_type="application/x-npy", body=bytes(100_000)))
