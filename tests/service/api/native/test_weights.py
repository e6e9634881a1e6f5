"""/weights over HTTP: what it answers, in every media type, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pyarrow as pa
import pytest

from tests.service.api.native.replies import npy, problem

X = [[0.5, 0.25], [1.0, -0.5], [0.0, 0.0]]


def weighed(client, **body):
    return client.post("/weights", json=body)


def test_weights_of_a_flow_against_itself_are_equal(client):
    drawn = client.get("/sample?n=200&seed=3").json()
    for rows in ({"n": 200, "seed": 3}, {"x": drawn["x"]}):
        target = drawn["log_prob"]
        if "x" in rows:
            target = client.post("/logprob", json={"x": drawn["x"]}).json()["log_prob"]
        document = weighed(client, log_target=target, **rows).json()
        names = ["model", "version", "weights", "log_weights", "ess", "ess_share", "pareto_k", "pareto_k_threshold"]
        assert list(document) == [*names, "log_evidence", "log_evidence_se", "verdict"]
        assert document["log_evidence"] == pytest.approx(0.0, abs=1e-6)
        assert document["log_evidence_se"] == pytest.approx(0.0, abs=1e-6)
        np.testing.assert_allclose(document["weights"], 1 / 200, rtol=1e-6)
        assert document["ess"] == pytest.approx(200, rel=1e-9)
        assert document["pareto_k"] is None
        assert document["verdict"] == "good: all weights are equal, to the rounding of float32"


def test_weights_are_those_of_the_rows_of_the_seed(client):
    drawn = client.get("/sample?n=50&seed=5&offset=7").json()
    target = -0.5 * (np.array(drawn["x"]) ** 2).sum(axis=1)
    document = weighed(client, n=50, seed=5, offset=7, log_target=target.tolist()).json()
    ratios = np.exp(target - np.array(drawn["log_prob"]))
    np.testing.assert_allclose(document["weights"], ratios / ratios.sum(), rtol=1e-6)
    assert document["ess"] == pytest.approx(1 / np.square(document["weights"]).sum())
    by_rows = weighed(client, x=drawn["x"], log_target=target.tolist()).json()
    np.testing.assert_allclose(by_rows["weights"], document["weights"], rtol=1e-4)


def test_a_target_of_zero_has_no_weight(client):
    document = weighed(client, x=X, log_target=[0.0, None, -1.0]).json()
    assert (document["weights"][1], document["log_weights"][1]) == (0.0, None)
    assert "in_support" not in document


def test_weights_with_a_context(client):
    drawn = client.get("/models/conditional/sample?n=20&seed=1&context=0.5,-1").json()
    body = {"n": 20, "seed": 1, "log_target": drawn["log_prob"]}
    for context in ([0.5, -1], [[0.5, -1]]):
        document = client.post("/models/conditional/weights", json={**body, "context": context}).json()
        assert document["ess"] == pytest.approx(20)


def test_weights_in_every_media_type(client):
    rows, target = np.array(X), np.array([0.0, -np.inf, -1.0])
    expected = weighed(client, x=X, log_target=[0.0, None, -1.0]).json()

    def ask(url, body, content_type, accept):
        answer = client.post(url, content=body, headers={"Content-Type": content_type, "Accept": accept})
        assert answer.status_code == 200, answer.text
        return answer

    by_seed = weighed(client, n=3, seed=7, log_target=[0.0, None, -1.0]).json()
    whole = ask("/weights?n=3&seed=7", npy(target), "application/x-npy", "application/x-npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(whole.content)), by_seed["weights"])
    assert float(whole.headers["Pushforward-Ess"]) == pytest.approx(by_seed["ess"])
    assert whole.headers["Pushforward-Verdict"] == by_seed["verdict"]
    in_query = ask("/weights?log_target=0,-inf,-1", npy(rows), "application/x-npy", "application/x-npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(in_query.content)), expected["weights"])
    text = "column 0,column 1,log_target\n" + "".join(f"{a},{b},{t}\n" for (a, b), t in zip(X, target, strict=True))
    lines = list(csv.DictReader(io.StringIO(ask("/weights", text.encode(), "text/csv", "text/csv").text)))
    assert list(lines[0]) == ["weights", "log_weights"]
    assert [float(line["weights"]) for line in lines] == expected["weights"]
    assert float(lines[1]["log_weights"]) == -math.inf
    out = io.BytesIO()
    table = pa.table({"log_target": target, "column 1": rows[:, 1], "column 0": rows[:, 0]})
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    kind = "application/vnd.apache.arrow.stream"
    found = pa.ipc.open_stream(ask("/weights", out.getvalue(), kind, kind).content).read_all()
    assert found["weights"].to_pylist() == expected["weights"]
    ndjson = "".join(
        json.dumps({"column 0": a, "column 1": b, "log_target": None if t == -np.inf else t}) + "\n"
        for (a, b), t in zip(X, target, strict=True)
    )
    answer = ask("/weights", ndjson.encode(), "application/x-ndjson", "application/x-ndjson")
    assert [json.loads(line)["weights"] for line in answer.text.splitlines()] == expected["weights"]


@pytest.mark.parametrize(
    ("body", "code", "loc", "match"),
    [
        ({"x": X, "log_target": [0, 0]}, "wrong_shape", ["body", "log_target"], "each of the 3 rows, and found 2"),
        ({"x": X}, "invalid_argument", ["body", "log_target"], "this argument is needed"),
        ({"log_target": [0]}, "invalid_argument", ["body", "x"], "expected x, or n and seed, and found none"),
        ({"x": X, "n": 3, "log_target": [0]}, "invalid_argument", ["body", "n"], "and found x and n"),
        ({"n": 1, "log_target": [0]}, "invalid_argument", ["body", "seed"], "this argument is needed"),
        ({"x": X, "seed": 1, "log_target": [0] * 3}, "invalid_argument", ["body", "seed"], "it belongs to n"),
        ({"x": X, "offset": 1, "log_target": [0] * 3}, "invalid_argument", ["body", "offset"], "it belongs to n"),
        ({"x": X, "log_target": [None] * 3}, "invalid_argument", ["body", "log_target"], "zero at every row"),
        ({"x": X, "log_target": "0,0,0"}, "invalid_argument", ["body", "log_target"], "found a string"),
        ({"n": 0, "seed": 1, "log_target": []}, "invalid_argument", ["body", "n"], "greater than or equal to 1"),
        ({"n": 10**9, "seed": 1, "log_target": [0]}, "over_work_budget", ["body", "n"], "budget"),
        ({"n": 1, "seed": 1, "log_target": [0], "context": [1]}, "wrong_shape", ["body", "context"], "no context"),
    ],
)
def test_what_cannot_be_weighed_is_refused(client, body, code, loc, match):
    found, detail, errors = problem(weighed(client, **body))
    assert (found, errors[0]["loc"]) == (code, loc), detail
    assert match in detail


def test_a_target_that_is_not_a_number_is_named(client):
    text = json.dumps({"x": X, "log_target": [0.0, math.nan, 1.0]})
    answer = client.post("/weights", content=text, headers={"Content-Type": "application/json"})
    code, detail, errors = problem(answer)
    assert (code, errors[0]["loc"], errors[0]["row"]) == ("not_finite", ["body", "log_target"], 1)
    assert "NaN" in detail


def test_a_row_that_the_flow_could_not_have_drawn_is_named(client):
    answer = client.post("/models/square/weights", json={"x": [[1.0], [9.0]], "log_target": [0, 0]})
    code, _, errors = problem(answer)
    assert (code, errors[0]["loc"], errors[0]["row"]) == ("out_of_support", ["body", "x"], 1)


def test_rows_that_are_drawn_take_one_context(client):
    body = {"n": 2, "seed": 1, "log_target": [0, 0], "context": [[1, 2], [3, 4]]}
    code, detail, errors = problem(client.post("/models/conditional/weights", json=body))
    assert (code, errors[0]["loc"]) == ("wrong_shape", ["body", "context"])
    assert "one row of context" in detail
