"""/edit over HTTP: what it answers, in every media type, and what it refuses."""

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
from tests.service.api.native.replies import npy, problem
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
        ({"strength": [0] * 3_000_000}, "over_work_budget", ["body", "strength"], "there are more than 1048576"),
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
