"""/trace over HTTP: what it answers, in every media type, and what it refuses."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pytest

from tests.service.api.native.replies import npy, problem

NPY = {"Content-Type": "application/x-npy"}
X = [[0.5, 0.25], [1.0, -0.5], [0.0, 0.0]]


def test_a_trace(client, parts):
    document = client.post("/trace", json={"x": X}).json()
    assert list(document) == ["model", "version", "steps", "log_prob"]
    steps = document["steps"]
    assert [step["name"] for step in steps] == ["x", "centre", "scale"]
    assert steps[0]["value"] == np.array(X, np.float32).tolist()
    z, ladj = parts["two-moons"].forward(np.array(X), None)
    np.testing.assert_allclose(steps[-1]["value"], z, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.sum([step["log_abs_det_jacobian"] for step in steps], axis=0), ladj, rtol=1e-5)
    np.testing.assert_allclose(document["log_prob"], parts["two-moons"].log_prob(X), rtol=1e-5)


def test_a_trace_of_latents_and_of_draws(client):
    drawn = client.get("/sample?n=3&seed=7&offset=2").json()
    by_seed = client.post("/trace", json={"n": 3, "seed": 7, "offset": 2}).json()
    assert by_seed["steps"][0]["value"] == drawn["x"]
    assert by_seed == client.post("/trace", json={"x": drawn["x"]}).json()
    z = [[0.5, -1.0], [2.0, 0.25]]
    by_latent = client.post("/trace", json={"z": z}).json()
    np.testing.assert_allclose(by_latent["steps"][-1]["value"], z, rtol=1e-4, atol=1e-5)


def test_a_trace_with_a_context(client):
    drawn = client.get("/models/conditional/sample?n=3&seed=7&context=0.5,1").json()
    body = {"n": 3, "seed": 7, "context": [0.5, 1]}
    document = client.post("/models/conditional/trace", json=body).json()
    assert document["steps"][0]["value"] == drawn["x"]
    by_rows = client.post("/models/conditional/trace", json={"x": drawn["x"], "context": [0.5, 1]}).json()
    assert by_rows == document


def test_the_steps_of_an_image_keep_their_shapes(client):
    document = client.post("/models/image/trace", json={"x": [0.5] * 6}).json()
    assert [np.shape(step["value"]) for step in document["steps"]] == [(1, 2, 3, 1), (1, 2, 3, 1), (1, 6)]
    listed = client.get("/models/image").json()
    assert listed["trace"] == ["centre", "scale"]


def test_a_large_trace_is_the_same_text_in_pieces(client):
    x = np.random.default_rng(0).normal(size=(9000, 2)).round(3)
    whole = client.post("/trace", json={"x": x.tolist()}).json()
    head = client.post("/trace", json={"x": x[:10].tolist()}).json()
    for part, step in zip(head["steps"], whole["steps"], strict=True):
        assert part["name"] == step["name"]
        assert part["value"] == step["value"][:10]
        assert part["log_abs_det_jacobian"] == step["log_abs_det_jacobian"][:10]
    assert len(whole["log_prob"]) == 9000


def test_a_trace_in_every_media_type(client):
    expected = client.post("/trace", json={"x": X}).json()
    values = np.stack([np.array(step["value"], np.float32) for step in expected["steps"]], axis=1)

    def ask(accept):
        answer = client.post("/trace", content=npy(np.array(X)), headers={**NPY, "Accept": accept})
        assert answer.status_code == 200, answer.text
        return answer.content

    np.testing.assert_array_equal(np.load(io.BytesIO(ask("application/x-npy"))), values)
    table = pa.ipc.open_stream(ask("application/vnd.apache.arrow.stream")).read_all()
    names = [f"values{at}" for at in range(6)] + [f"log_abs_det_jacobians{at}" for at in range(3)]
    assert table.column_names == [*names, "log_prob"]
    np.testing.assert_array_equal(table["values3"].to_numpy(), values[:, 1, 1])
    lines = list(csv.DictReader(io.StringIO(ask("text/csv").decode())))
    assert [float(line["log_prob"]) for line in lines] == expected["log_prob"]
    records = [json.loads(line) for line in ask("application/x-ndjson").splitlines()]
    np.testing.assert_array_equal(np.array([record["values"] for record in records], np.float32), values)


@pytest.mark.parametrize(
    ("path", "body", "code", "loc", "match"),
    [
        ("", {}, "invalid_argument", ["body", "x"], "expected x or z, or n and seed, and found none of them"),
        ("", {"x": X, "z": X}, "invalid_argument", ["body", "z"], "and found x and z"),
        ("", {"n": 3}, "invalid_argument", ["body", "seed"], "this argument is needed"),
        ("", {"z": X, "seed": 3}, "invalid_argument", ["body", "seed"], "it belongs to n, and the rows are z"),
        ("", {"z": [[1, 2, 3]]}, "wrong_shape", ["body", "z"], "expected shape"),
        ("", {"n": 4_000_000, "seed": 1}, "over_work_budget", ["body", "n"], "3 steps each"),
        ("/models/square", {"x": [[1.0]]}, "not_traceable", None, "exported without its chain"),
        ("/models/square", {"z": [[1.0], [3.0]]}, "out_of_support", ["body", "z"], "z, row 1 lies where"),
    ],
)
def test_what_cannot_be_traced_is_refused(client, path, body, code, loc, match):
    found, detail, errors = problem(client.post(f"{path}/trace", json=body))
    assert found == code, detail
    assert loc is None or errors[0]["loc"] == loc
    assert match in detail


def test_too_many_rows_of_a_binary_trace_stand_in_the_body(serving):
    answer = serving(max_work=100).post("/trace", content=npy(np.zeros((20, 2))), headers=NPY)
    code, _, errors = problem(answer)
    assert (code, errors[0]["loc"]) == ("over_work_budget", ["body", "x"])
