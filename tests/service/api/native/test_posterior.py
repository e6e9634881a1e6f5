"""/posterior over HTTP: what it answers, in every media type, and what it refuses."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pyarrow as pa
import pytest

from service.engine.verbs.posterior import summarize
from tests.service.api.native.replies import npy, problem

CONTEXTS = [[0.5, -1.0], [2.0, 0.0], [-0.25, 1.0]]
PATH = "/models/conditional/posterior"


def draws(client, **body):
    return np.float32(client.post("/models/conditional/sample", json=body).json()["x"])


def test_summaries_are_of_the_rows_that_sample_draws(client):
    body = {"context": CONTEXTS, "n": 40, "seed": 7, "offset": 2}
    document = client.post(PATH, json={**body, "quantiles": [0.1, 0.9], "hpd": [0.5]}).json()
    names = ["model", "version", "seed", "offset", "n", "mean", "std", "quantiles", "hpd", "correlation"]
    assert list(document) == names
    expected = summarize(draws(client, **body), [0.1, 0.9], [0.5])
    for name in names[5:]:
        np.testing.assert_array_equal(np.float32(document[name]), getattr(expected, name))
    assert np.shape(document["hpd"]) == (3, 1, 2, 3)


def test_a_context_has_the_same_summaries_in_any_company(client):
    body = {"n": 30, "seed": 1}
    together = client.post(PATH, json={**body, "context": CONTEXTS}).json()
    for at, context in enumerate(CONTEXTS):
        for form in (context, [context]):
            alone = client.post(PATH, json={**body, "context": form}).json()
            assert alone["mean"] == together["mean"][at : at + 1]
            assert alone["correlation"] == together["correlation"][at : at + 1]


def test_what_is_not_given_is_chosen_and_said(client):
    document = client.post("/posterior", json={}).json()
    assert (document["n"], document["offset"]) == (1000, 0)
    assert np.shape(document["quantiles"]) == (1, 3, 2)
    assert np.shape(document["hpd"]) == (1, 1, 2, 2)
    again = client.post("/posterior", json={"seed": document["seed"]}).json()
    assert again == document


def test_what_is_not_wanted_is_left_out(client):
    body = {"n": 5, "seed": 1, "quantiles": [], "hpd": [], "correlation": False}
    assert list(client.post("/posterior", json=body).json())[5:] == ["mean", "std"]


def test_a_number_is_a_list_of_one(client):
    one = client.post("/posterior", json={"n": 50, "seed": 1, "hpd": 0.5, "quantiles": 0.5}).json()
    assert one == client.post("/posterior", json={"n": 50, "seed": 1, "hpd": [0.5], "quantiles": [0.5]}).json()


def test_every_media_type(client):
    expected = client.post(
        PATH, json={"context": CONTEXTS, "n": 20, "seed": 3, "quantiles": [0.5], "hpd": [0.9]}
    ).json()
    query = f"{PATH}?n=20&seed=3&quantiles=0.5&hpd=0.9"

    def ask(url, body, content_type, accept):
        answer = client.post(url, content=body, headers={"Content-Type": content_type, "Accept": accept})
        assert answer.status_code == 200, answer.text
        return answer

    whole = ask(query, npy(np.float32(CONTEXTS)), "application/x-npy", "application/x-npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(whole.content)), np.float32(expected["mean"]))
    assert whole.headers["Pushforward-Seed"] == "3"
    text = "kind=b,dose\n" + "".join(f"{b},{a}\n" for a, b in CONTEXTS)
    lines = list(
        csv.DictReader(io.StringIO(ask(query + "&correlation=false", text.encode(), "text/csv", "text/csv").text))
    )
    assert list(lines[0])[:6] == ["mean0", "mean1", "mean2", "std0", "std1", "std2"]
    assert [float(line["mean1"]) for line in lines] == [mean[1] for mean in expected["mean"]]
    kind = "application/vnd.apache.arrow.stream"
    found = pa.ipc.open_stream(ask(query, npy(np.float32(CONTEXTS)), "application/x-npy", kind).content).read_all()
    assert len(found) == 3
    lines = ask(query, json.dumps(CONTEXTS[0]).encode(), "application/x-ndjson", "application/x-ndjson").text
    assert json.loads(lines)["std"] == expected["std"][0]


@pytest.mark.parametrize(
    ("body", "code", "loc", "match"),
    [
        ({}, "wrong_shape", ["body", "context"], "a context of 2 columns is needed"),
        ({"context": [[1]]}, "wrong_shape", ["body", "context"], "2"),
        ({"context": CONTEXTS, "n": 0}, "invalid_argument", ["body", "n"], "greater than or equal to 1"),
        ({"context": CONTEXTS, "n": 10**9}, "over_work_budget", ["body", "n"], "budget"),
        ({"context": CONTEXTS, "quantiles": [0.5, 2]}, "invalid_argument", ["body", "quantiles", 1], "less than"),
        ({"context": CONTEXTS, "quantiles": "0.5"}, "invalid_argument", ["body", "quantiles"], "list"),
        ({"context": CONTEXTS, "quantiles": [0.5] * 65}, "invalid_argument", ["body", "quantiles"], "at most 64"),
        ({"context": CONTEXTS, "quantiles": [0.25] * 20000}, "invalid_argument", ["body", "quantiles"], "longer"),
        ({"context": CONTEXTS, "hpd": [0]}, "invalid_argument", ["body", "hpd", 0], "greater than 0"),
        ({"context": CONTEXTS, "hpd": True}, "invalid_argument", ["body", "hpd"], "list"),
        ({"context": CONTEXTS, "correlation": 1}, "invalid_argument", ["body", "correlation"], "boolean"),
        ({"context": [[0, 0], [3e38, 3e38]], "n": 3}, "not_finite", ["body", "context"], "row 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_summarized_is_refused(client, body, code, loc, match):
    found, detail, errors = problem(client.post(PATH, json={"seed": 1, **body}))
    assert (found, errors[0]["loc"]) == (code, loc), detail
    assert match in detail


def test_an_answer_counts_as_work(serving):
    client = serving(max_work=2000)
    contexts = [[0.0, 0.0]] * 70
    body = {"context": contexts, "n": 1, "seed": 1}
    code, _, errors = problem(client.post(PATH, json=body))
    assert (code, errors[0]["loc"]) == ("over_work_budget", ["body", "context"])
    small = {**body, "quantiles": [], "hpd": [], "correlation": False}
    assert client.post(PATH, json=small).status_code == 200
