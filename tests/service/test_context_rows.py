"""Rows of a context over HTTP: the same bits from each verb and in each media type, whoever else is in the call."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.service.api.media import ALL
from tests.service.api.native.replies import npy, problem

CONTEXTS = np.float32([[0.5, 1.0], [-1.25, 0.0], [0.1, 1.0], [0.5, 0.0]])
CONDITIONS = ["dose", "kind=b"]
COLUMNS = [f"column {at}" for at in range(3)]
PATH = "/models/conditional/sample"
EVERY = pytest.mark.parametrize("media", ALL, ids=lambda media: media.name)
METHODS = pytest.mark.parametrize("method", ["random", "sobol"])


def alone(client, context, n, **query):
    """The rows of one context by GET, ``[n, 3]``."""
    text = ",".join(repr(value) for value in np.float32(context).tolist())
    answer = client.get(PATH, params={"n": n, "seed": 7, "context": text, **query})
    assert answer.status_code == 200, answer.text
    return np.float32(answer.json()["x"])


def together(client, contexts, n, **more):
    """The rows of several contexts by POST, ``[K, n, 3]``."""
    body = {"n": n, "seed": 7, "context": np.float32(contexts).tolist(), **more}
    answer = client.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    return np.float32(answer.json()["x"])


@METHODS
def test_a_context_has_the_same_rows_by_get_and_post_alone_and_in_any_company(client, method):
    each = np.stack([alone(client, context, 5, method=method) for context in CONTEXTS])
    assert len(np.unique(each.reshape(20, 3), axis=0)) == 20
    np.testing.assert_array_equal(together(client, CONTEXTS, 5, method=method), each)
    np.testing.assert_array_equal(together(client, CONTEXTS[::-1], 5, method=method), each[::-1])
    np.testing.assert_array_equal(together(client, CONTEXTS[[2, 0, 2]], 5, method=method), each[[2, 0, 2]])
    np.testing.assert_array_equal(together(client, CONTEXTS[1:2], 5, method=method), each[1:2])


@METHODS
def test_ten_rows_of_each_context_are_five_and_the_next_five(client, method):
    five = [together(client, CONTEXTS, 5, offset=offset, method=method) for offset in (0, 5)]
    np.testing.assert_array_equal(together(client, CONTEXTS, 10, method=method), np.concatenate(five, axis=1))


def test_a_body_without_a_sign_of_zero_and_one_with_it_are_one_context(client):
    body = b'{"n": 3, "seed": 7, "context": [[0, -1], [-0.0, -1], [0.0, -1.0], [-1e-60, -1]]}'
    x = client.post(PATH, content=body, headers={"content-type": "application/json"}).json()["x"]
    assert x[0] == x[1] == x[2] == x[3]
    assert alone(client, [-0.0, -1], 3).tolist() == np.float32(x[0]).tolist()


@EVERY
@pytest.mark.parametrize("noise", ["independent", "common"])
def test_every_media_type_takes_contexts_and_gives_their_rows(client, media, noise):
    expected = np.stack([alone(client, context, 5, noise=noise) for context in CONTEXTS]).reshape(-1, 3)
    query = {"n": 5, "seed": 7, "noise": noise}
    for answer in (
        client.post(
            PATH, params=query, content=media.write(CONTEXTS, CONDITIONS), headers={"content-type": media.name}
        ),
        client.post(PATH, json={**query, "context": CONTEXTS.tolist()}, headers={"accept": media.name}),
    ):
        assert answer.status_code == 200, answer.text
        if answer.headers["content-type"] == "application/json":
            found = np.float32(answer.json()["x"]).reshape(-1, 3)
        else:
            found = media.read(answer.content, "x", COLUMNS)
        np.testing.assert_array_equal(found, expected)


@EVERY
@METHODS
def test_a_stream_has_the_rows_of_each_context_and_goes_on_at_any_row(client, media, method):
    n = 12_000  # 72,000 values: it streams
    body = {"n": n, "seed": 7, "method": method, "context": CONTEXTS[:2].tolist()}
    streamed = media.read(client.post(PATH, json=body, headers={"accept": media.name}).content, "x", COLUMNS)
    both = streamed.reshape(2, n, 3)
    for context, rows in zip(CONTEXTS, both, strict=False):
        for offset in (0, 5461, n - 10):
            found = alone(client, context, 10, offset=offset, method=method)
            np.testing.assert_array_equal(found, rows[offset : offset + 10])


def test_trace_and_weights_take_the_rows_of_the_context(client):
    for noise in ("independent", "common"):
        for context in (CONTEXTS[0], CONTEXTS[2]):
            x = alone(client, context, 6, offset=3, noise=noise)
            drawn = {"n": 6, "seed": 7, "offset": 3, "noise": noise, "context": context.tolist()}
            traced = client.post("/models/conditional/trace", json=drawn).json()
            np.testing.assert_array_equal(np.float32(traced["steps"][0]["value"]), x)
            target = (-0.5 * x.astype(np.float64) ** 2).sum(axis=1).tolist()
            by_seed = client.post("/models/conditional/weights", json={**drawn, "log_target": target}).json()
            rows = {"x": x.tolist(), "context": context.tolist(), "log_target": target}
            by_rows = client.post("/models/conditional/weights", json=rows).json()
            np.testing.assert_allclose(by_seed["weights"], by_rows["weights"], rtol=1e-4)


@pytest.mark.parametrize("verb", ["trace", "weights"])
def test_a_noise_belongs_to_rows_that_are_drawn(client, verb):
    body = {"x": [[0.5, 0.25]], "noise": "common"} | ({"log_target": [0.0]} if verb == "weights" else {})
    code, detail, errors = problem(client.post(f"/{verb}", json=body))
    assert code == "invalid_argument"
    assert "it belongs to n" in detail
    assert errors[0]["loc"] == ["body", "noise"]


@METHODS
def test_common_noise_moves_with_the_context_alone(client, parts, method):
    how = {"noise": "common", "method": method}
    x = together(client, CONTEXTS, 50, **how)
    for context, rows in zip(CONTEXTS, x, strict=True):
        np.testing.assert_array_equal(alone(client, context, 50, **how), rows)
    each = np.repeat(CONTEXTS, 50, axis=0).astype(np.float64)
    z = parts["conditional"].forward(x.reshape(-1, 3).astype(np.float64), each)[0].reshape(4, 50, 3)
    np.testing.assert_allclose(z[1:], np.broadcast_to(z[0], z[1:].shape), atol=1e-5)


@pytest.mark.parametrize("noise", ["independent", "common"])
def test_without_a_context_the_noise_changes_nothing(client, noise):
    plain = client.get("/sample", params={"n": 5, "seed": 7})
    assert client.get("/sample", params={"n": 5, "seed": 7, "noise": noise}).content == plain.content
    assert client.post("/sample", json={"n": 5, "seed": 7, "noise": noise}).content == plain.content


def test_another_noise_is_refused(client):
    for answer in (
        client.get("/sample", params={"noise": "shared"}),
        client.post("/sample", json={"noise": "shared"}),
        client.post(PATH, params={"noise": "shared"}, content=npy(CONTEXTS), headers={"content-type": ALL[0].name}),
    ):
        code, detail, errors = problem(answer)
        assert code == "invalid_argument"
        assert errors[0]["loc"][-1] == "noise"
        assert "'independent' or 'common'" in detail


def test_pictures_are_drawn_of_the_same_rows(client):
    query = {"n": 5, "seed": 7, "context": "0.5,1"}
    pictures = [
        client.get(PATH, params={**query, "noise": noise}, headers={"accept": "image/png"}).content
        for noise in ("independent", "common")
    ]
    assert pictures[0] != pictures[1]
    posted = {"n": 5, "seed": 7, "context": [0.5, 1.0]}
    answer = client.post(PATH, content=json.dumps(posted), headers={"accept": "image/png"})
    assert answer.content == pictures[0]
