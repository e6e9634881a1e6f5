"""/edit and /weights over HTTP: what they answer, in every media type, and what they refuse."""

from __future__ import annotations

import csv
import io
import json
import math
import re

import numpy as np
import pyarrow as pa
import pytest

from service.app import create_app
from tests.service.bundles import affine, install
from tests.service.conftest import settings_for
from tests.service.inprocess import InProcess

NPY = {"Content-Type": "application/x-npy"}
X = [[0.5, 0.25], [1.0, -0.5], [0.0, 0.0]]


@pytest.fixture(scope="module")
def walking(tmp_path_factory):
    root = tmp_path_factory.mktemp("directions")
    install(root, affine("two-moons", directions={"right": [1.0, 0.0], "8": [0.0, -2.0]}), affine("other"))
    with InProcess(create_app(settings_for(root))) as opened:
        yield opened


def problem(answer, status=422):
    assert answer.status_code == status, answer.text
    document = answer.json()
    return document["code"], document["detail"], document["errors"]


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def edited(client, **body):
    return client.post("/edit", json={"x": X, "direction": [1.0, 0.5], "strength": [0, 1], **body})


def test_an_edit(client, parts):
    document = edited(client, strength=[0, -0.5, 2]).json()
    assert list(document) == ["model", "version", "x", "z", "log_prob"]
    assert [np.shape(document[name]) for name in ("x", "z", "log_prob")] == [(3, 3, 2), (3, 3, 2), (3, 3)]
    z, _ = parts["two-moons"].forward(np.array(X), None)
    moved = z + np.array([0, -0.5, 2])[:, None, None] * [1.0, 0.5]
    np.testing.assert_allclose(document["z"], moved, rtol=1e-5, atol=1e-5)
    x, _ = parts["two-moons"].inverse(moved.reshape(-1, 2), None)
    np.testing.assert_allclose(np.reshape(document["x"], (-1, 2)), x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.ravel(document["log_prob"]), parts["two-moons"].log_prob(x), rtol=1e-4)


def test_an_image_is_walked_from_one_row_to_another(client):
    a, b = np.linspace(0.1, 0.6, 6).reshape(2, 3, 1).tolist(), np.linspace(0.9, 0.2, 6).tolist()
    body = {"x": a, "direction": {"from": a, "to": b}, "strength": [0.0, 1.0]}
    document = client.post("/models/image/edit", json=body).json()
    assert np.shape(document["x"]) == (2, 1, 2, 3, 1)
    ends = [client.post("/models/image/encode", json={"x": row}).json()["z"] for row in (a, b)]
    assert document["z"] == ends


def test_a_named_direction(walking):
    named = edited(walking, direction="right").json()
    assert named == edited(walking, direction=[1.0, 0.0]).json()
    listed = walking.post("/edit?direction=1,0&strength=0,1", content=npy(np.array(X)), headers=NPY).json()
    assert listed == named
    assert named != edited(walking, direction="8").json()
    listed = {flow["name"]: flow["directions"] for flow in walking.get("/models").json()["models"]}
    assert listed == {"two-moons": ["8", "right"], "other": []}


def test_density_zero_is_null_in_an_edit(client):
    body = {"x": [[1.0], [2.0]], "direction": [1.0], "strength": [0.1, 9.0]}
    document = client.post("/models/square/edit", json=body).json()
    assert document["log_prob"][1] == [None, None]
    assert document["in_support"] == [[True, True], [False, False]]


def test_an_edit_in_every_media_type(walking):
    rows, query = np.array(X), "direction=right&strength=-1,0.5"
    expected = edited(walking, direction="right", strength=[-1, 0.5]).json()

    def ask(accept):
        headers = {"Content-Type": "application/x-npy", "Accept": accept}
        answer = walking.post(f"/edit?{query}", content=npy(rows), headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.content

    x = np.array(expected["x"], np.float32)
    np.testing.assert_array_equal(np.load(io.BytesIO(ask("application/x-npy"))), x)
    table = pa.ipc.open_stream(ask("application/vnd.apache.arrow.stream")).read_all()
    assert table.column_names == ["column 0", "column 1", "z0", "z1", "log_prob"]
    np.testing.assert_array_equal(table["column 0"].to_numpy(), x[..., 0].ravel())
    lines = list(csv.DictReader(io.StringIO(ask("text/csv").decode())))
    np.testing.assert_array_equal(np.array([line["column 1"] for line in lines], np.float32), x[..., 1].ravel())
    records = [json.loads(line) for line in ask("application/x-ndjson").splitlines()]
    assert [record["log_prob"] for record in records] == np.ravel(expected["log_prob"]).tolist()


@pytest.mark.parametrize(
    ("changes", "code", "loc", "match"),
    [
        ({"direction": "rihgt"}, "invalid_argument", ["body", "direction"], "did you mean 'right'\\? it has 8, right"),
        ({"direction": [0, 0]}, "invalid_argument", ["body", "direction"], "every value is zero"),
        ({"direction": [1.0]}, "wrong_shape", ["body", "direction"], "expected shape"),
        ({"direction": [[1, 0], [0, 1]]}, "wrong_shape", ["body", "direction"], "expected one row, and found 2"),
        ({"direction": 5}, "invalid_argument", ["body", "direction"], "expected a name, an array"),
        ({"direction": None}, "invalid_argument", ["body", "direction"], "expected a name, an array"),
        ({"direction": {"from": [0, 0]}}, "invalid_argument", ["body", "direction"], "two rows.*found from"),
        ({"direction": {}}, "invalid_argument", ["body", "direction"], "found nothing"),
        ({"direction": {"from": [0, 0], "to": [1]}}, "wrong_shape", ["body", "direction", "to"], "expected shape"),
        ({"direction": {"from": X, "to": [1, 1]}}, "wrong_shape", ["body", "direction", "from"], "and found 3"),
        ({"direction": {"from": [1, 1], "to": [1, 1]}}, "invalid_argument", ["body", "direction"], "same latent"),
        ({"strength": []}, "invalid_argument", ["body", "strength"], "at least 1 item"),
        ({"strength": 1.0}, "invalid_argument", ["body", "strength"], "list"),
        ({"strength": ["1"]}, "invalid_argument", ["body", "strength", 0], "number"),
        ({"strength": [0] * 3_000_000}, "over_work_budget", ["body", "strength"], "3000000 steps each"),
        ({"strength": [1e39]}, "not_finite", ["body", "strength"], "beyond the range of float32"),
        ({"x": [[1, 2, 3]]}, "wrong_shape", ["body", "x"], "expected shape"),
        ({"context": [1.0]}, "wrong_shape", ["body", "context"], "takes no context"),
        ({"strenght": [1.0]}, "invalid_argument", ["body", "strenght"], "did you mean strength"),
    ],
)
def test_what_is_no_edit_is_refused(walking, changes, code, loc, match):
    found, detail, errors = problem(edited(walking, **changes))
    assert (found, errors[0]["loc"]) == (code, loc), detail
    assert re.search(match, detail), detail


@pytest.mark.parametrize("name", ["direction", "strength"])
def test_not_a_number_is_refused(client, name):
    body = {"x": X, "direction": [1.0, 0.5], "strength": [1.0, 2.0]}
    text = json.dumps({**body, name: [1.0, math.nan]})
    answer = client.post("/edit", content=text, headers={"Content-Type": "application/json"})
    _, _, errors = problem(answer)
    assert errors[0]["loc"][:2] == ["body", name]


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
        assert list(document) == [*names, "verdict"]
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
    text = "x0,x1,log_target\n" + "".join(f"{a},{b},{t}\n" for (a, b), t in zip(X, target, strict=True))
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
