"""A flow with a prior over HTTP: corrected densities, and draws that lie inside."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest

from service.bundle.priors import Prior
from tests.service.api.native.replies import npy, problem
from tests.service.bundles import affine, install

BOX = Prior(low=[-0.5, None], high=[1.0, 0.4])
ROWS = [[0.0, 0.0], [0.9, 0.39], [1.1, 0.0]]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("priors")
    install(root, affine("leaky", 1, (2,), 2, prior=BOX), affine("two-moons", 1, (2,), 0, prior=BOX))
    return root


@pytest.fixture
def client(serving, root):
    return serving(root)


def test_a_corrected_density(client):
    plain = client.post("/models/leaky/logprob", json={"x": ROWS, "context": [0, 0]}).json()
    found = client.post("/models/leaky/logprob", json={"x": ROWS, "context": [0, 0], "correct": True}).json()
    assert list(found) == ["model", "version", "log_prob", "acceptance", "acceptance_se", "in_support"]
    assert found["log_prob"][2] is None
    assert found["in_support"] == [True, True, False]
    assert len(set(found["acceptance"])) == 1
    assert found["log_prob"][0] == pytest.approx(plain["log_prob"][0] - math.log(found["acceptance"][0]), rel=1e-5)
    query = "/models/leaky/logprob?correct=true&context=0,0"
    headers = {"Content-Type": "application/x-npy", "Accept": "text/csv"}
    lines = client.post(query, content=npy(np.float32(ROWS)), headers=headers).text.splitlines()
    assert lines[0] == "log_prob,acceptance,acceptance_se"


def test_draws_lie_inside_by_each_way(client):
    body = {"n": 200, "seed": 7, "context": [[0, 0], [0.5, 0.5]]}
    found = client.post("/models/leaky/sample", json=body).json()
    x = np.float32(found["x"])
    assert BOX.inside(x.reshape(-1, 2)).all()
    assert 0 < found["acceptance"] < 1
    one = client.get("/models/leaky/sample?n=5&seed=7&offset=3&context=0.5,0.5").json()
    assert one["x"] == found["x"][1][3:8]
    singles = [client.get(f"/sample?seed={seed}").json() for seed in range(40)]
    assert BOX.inside(np.float32([each["x"][0] for each in singles])).all()
    assert all("acceptance" in each for each in singles)
    summary = client.post("/models/leaky/posterior", json=body).json()
    assert np.float32(summary["mean"]) == pytest.approx(x.mean(axis=1), rel=1e-4, abs=1e-5)
    assert len(summary["acceptance"]) == 2
    traced = client.post("/models/leaky/weights", json={"n": 4, "seed": 7, "context": [0, 0], "log_target": [0] * 4})
    assert traced.status_code == 200


def test_a_large_sample_is_streamed_inside_too(client):
    url = "/models/leaky/sample?n=40000&seed=7&context=0,0"
    text = client.get(url, headers={"Accept": "text/csv"}).text
    x = np.loadtxt(io.StringIO(text), delimiter=",", skiprows=1)[:, :2]
    assert BOX.inside(x).all()
    start = client.get("/models/leaky/sample?n=5&seed=7&offset=39995&context=0,0").json()["x"]
    np.testing.assert_array_equal(np.float32(x[-5:]), np.float32(start))


def test_the_evidence_is_that_of_draws_inside(client):
    drawn = client.get("/sample?n=400&seed=3").json()
    found = client.post("/weights", json={"n": 400, "seed": 3, "log_target": drawn["log_prob"]}).json()
    assert found["log_evidence"] == pytest.approx(math.log(drawn["acceptance"]), abs=1e-4)


def test_what_cannot_be_corrected(client, serving, root):
    code, detail, errors = problem(
        client.post("/models/leaky/logprob", json={"x": ROWS, "context": [1e4, 0], "correct": True})
    )
    assert (code, errors[0]["loc"], errors[0]["row"]) == ("invalid_argument", ["body", "context"], 0)
    assert "lies inside the prior" in detail
    tight = serving(root, max_work=5000)
    code, _, errors = problem(tight.post("/logprob", json={"x": ROWS, "correct": True}))
    assert (code, errors[0]["loc"]) == ("over_work_budget", ["body", "correct"])


def test_a_flow_without_a_prior_is_told_so(serving):
    code, detail, errors = problem(serving().post("/logprob", json={"x": ROWS, "correct": True}))
    assert (code, errors[0]["loc"]) == ("invalid_argument", ["body", "correct"])
    assert "no prior" in detail


def test_a_correction_counts_the_points_that_it_takes(serving, root):
    """A context under which little lies inside takes more of them."""
    client = serving(root, max_work=4096 * 2)
    body = {"x": [[0.0, 0.0]], "correct": True}
    assert client.post("/models/leaky/logprob", json={**body, "context": [0, 0]}).status_code == 200
    for at in range(30):  # the mean of x is moved, until next to nothing lies inside
        answer = client.post("/models/leaky/logprob", json={**body, "context": [at, at]})
        if answer.status_code != 200:
            break
    code, detail, errors = problem(answer)
    assert (code, errors[0]["loc"]) == ("over_work_budget", ["body", "correct"])
    assert f"{17 * 4096} rows of 2 values" in detail
