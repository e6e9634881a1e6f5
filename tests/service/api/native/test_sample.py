"""/sample over HTTP: its seeds, its contexts, and its two spellings."""

from __future__ import annotations

import numpy as np


def test_sample_by_query_and_by_body_are_the_same(client):
    got = client.get("/sample", params={"n": 4, "seed": 7, "offset": 2, "temperature": 0.5})
    posted = client.post("/sample", json={"n": 4, "seed": 7, "offset": 2, "temperature": 0.5})
    assert got.content == posted.content
    document = got.json()
    assert list(document) == ["model", "version", "seed", "offset", "n", "x", "log_prob"]
    assert (document["seed"], document["offset"], document["n"]) == (7, 2, 4)
    assert np.shape(document["x"]) == (4, 2)


def test_without_a_seed_one_is_drawn_that_every_reader_keeps(client):
    first, second = (client.get("/sample").json() for _ in range(2))
    assert first["seed"] != second["seed"]
    assert first["seed"] < 2**53
    assert client.get("/sample", params={"seed": first["seed"]}).json() == first


def test_ten_rows_are_five_and_the_next_five(client):
    def x(**query):
        return client.get("/models/coupling/sample", params={"seed": 3, **query}).json()["x"]

    assert x(n=10) == x(n=5) + x(n=5, offset=5)
    assert x(n=3000)[2990:] == x(n=10, offset=2990)


def test_the_greatest_seed(client):
    assert client.get("/sample", params={"seed": 2**64 - 1}).json()["seed"] == 2**64 - 1


def test_samples_for_each_context(client):
    contexts = [[0, 0], [1, 2]]
    both = client.post("/models/conditional/sample", json={"n": 3, "seed": 1, "context": contexts}).json()
    assert np.shape(both["x"]) == (2, 3, 3)
    assert np.shape(both["log_prob"]) == (2, 3)
    query = client.get("/models/conditional/sample", params={"n": 3, "seed": 1, "context": "1,2"}).json()
    assert query["x"] == both["x"][1]
    assert np.shape(query["x"]) == (3, 3)


def test_a_context_too_far_out_for_samples_is_the_callers_matter(client):
    body = {"n": 3, "seed": 1, "context": [[0.5, 1.0], [3e38, 3e38]]}
    answer = client.post("/models/conditional/sample", json=body)
    assert answer.status_code == 422
    assert answer.json()["code"] == "not_finite"
    assert [(error["loc"], error["row"]) for error in answer.json()["errors"]] == [(["body", "context"], 1)]
