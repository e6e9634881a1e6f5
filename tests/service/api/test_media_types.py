"""Every media type through the application: the same numbers, bit for bit, and errors that say what is wrong."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from service.api.native.streams import STREAM_VALUES
from tests.service.api.media import ALL, JSON, Media

NPY, ARROW, NDJSON, CSV = ALL
CONDITIONS = ("dose", "kind=b")
EVERY = pytest.mark.parametrize("media", ALL, ids=lambda media: media.name)


def numbered(name: str, count: int) -> list[str]:
    return [f"{name}{at}" for at in range(count)]


def ask(client, path: str, media: Media, rows: np.ndarray, accept: Media | None = None, names=(), **query: object):
    headers = {"content-type": media.name, "accept": (accept or media).name}
    answer = client.post(path, params=query, content=media.write(rows, names), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == (accept or media).name
    return answer


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)


@EVERY
@pytest.mark.parametrize("out", [JSON, *ALL], ids=lambda media: media.name)
def test_log_prob_is_the_same_in_every_type(client, media, out, x):
    expected = client.post("/models/coupling/logprob", json={"x": x.tolist()}).json()["log_prob"]
    answer = ask(client, "/models/coupling/logprob", media, x, out)
    found = out.read(answer.content, "log_prob", ["log_prob"])
    assert found.tobytes() == np.array(expected, np.float32).tobytes()


@EVERY
def test_encode_and_decode_are_the_same_in_every_type(client, media, x):
    expected = client.post("/models/coupling/encode", json={"x": x.tolist()}).json()["z"]
    there = ask(client, "/models/coupling/encode", media, x)
    z = media.read(there.content, "z", numbered("z", 5))
    assert z.tobytes() == np.array(expected, np.float32).tobytes()
    back = ask(client, "/models/coupling/decode", media, z)
    named = client.post("/models/coupling/decode", json={"z": expected}).json()["x"]
    assert media.read(back.content, "x", numbered("x", 5)).tobytes() == np.array(named, np.float32).tobytes()


@EVERY
def test_interpolate_is_the_same_in_every_type(client, media):
    points = np.float32([[-0.5, 0.5], [1.5, 0.0], [1.0, 1.0]])
    expected = client.post("/interpolate", json={"points": points.tolist(), "steps": 5}).json()["x"]
    answer = ask(client, "/interpolate", media, points, steps=5)
    assert (
        media.read(answer.content, "x", ["column 0", "column 1"]).tobytes() == np.array(expected, np.float32).tobytes()
    )


@EVERY
def test_samples_are_the_same_in_every_type(client, media):
    query = {"n": 7, "seed": 3, "offset": 2, "temperature": 0.5}
    document = client.get("/models/coupling/sample", params=query).json()
    answer = client.get("/models/coupling/sample", params=query, headers={"accept": media.name})
    found = media.read(answer.content, "x", numbered("x", 5))
    assert found.tobytes() == np.array(document["x"], np.float32).tobytes()
    told = {name: answer.headers[f"Pushforward-{name}"] for name in ("model", "version", "seed", "offset", "n")}
    assert told == {name: str(document[name]) for name in told}


@EVERY
def test_several_walks_are_one_table(client, media):
    walks = np.random.default_rng(2).normal(size=(3, 2, 2)).round(3)
    document = client.post("/interpolate", json={"points": walks.tolist(), "steps": 4}).json()
    answer = client.post("/interpolate", json={"points": walks.tolist(), "steps": 4}, headers={"accept": media.name})
    found = media.read(answer.content, "x", ["column 0", "column 1"])
    assert found.tobytes() == np.float32(document["x"]).tobytes()
    if not media.name.endswith("npy"):
        t = media.read(answer.content, "t", ["t"])
        assert np.float32(t).ravel().tolist() == np.tile(np.float32(document["t"]), 3).tolist()


NOISE = [{}, {"temperature": 0.5}, {"truncation": 1.5}, {"method": "sobol"}, {"method": "sobol", "truncation": 0.5}]


@pytest.mark.parametrize("noise", NOISE, ids=str)
@pytest.mark.parametrize("media", [JSON, *ALL], ids=lambda media: media.name)
def test_ten_rows_are_five_and_the_next_five_in_every_type(client, media, noise):
    def drawn(n, offset):
        query = {"n": n, "seed": 3, "offset": offset, **noise}
        answer = client.get("/models/coupling/sample", params=query, headers={"accept": media.name})
        assert answer.status_code == 200, answer.text
        return media.read(answer.content, "x", numbered("x", 5)).tobytes()

    assert drawn(10, 7) == drawn(5, 7) + drawn(5, 12)


@EVERY
@pytest.mark.parametrize("n", [9, STREAM_VALUES // 5 + 9])
def test_round_trips_are_a_column_and_npy_has_no_room(client, media, n):
    query = {"n": n, "seed": 1, "return": "round_trip_error"}
    answer = client.get("/models/coupling/sample", params=query, headers={"accept": media.name})
    if media is NPY:
        assert answer.status_code == 422
        assert "room for x alone" in answer.json()["detail"]
        return
    errors = media.read(answer.content, "round_trip_error", ["round_trip_error"])
    assert len(errors) == n
    assert errors.max() < 1e-4


def test_noise_by_body_is_that_by_query(client):
    arguments = {"n": 4, "seed": 3, "truncation": 0.7, "method": "sobol"}
    by_query = client.get("/models/coupling/sample", params=arguments).json()
    assert by_query == client.post("/models/coupling/sample", json=arguments).json()
    assert by_query["x"] != client.get("/models/coupling/sample", params=arguments | {"method": "random"}).json()["x"]


@EVERY
def test_a_sample_that_would_run_out_of_rows_is_refused_before_it_streams(client, media):
    query = {"n": 2**16, "offset": 2**52 - 2**15, "method": "sobol"}
    answer = client.get("/models/coupling/sample", params=query, headers={"accept": media.name})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["loc"] == ["query", "offset"]


@EVERY
def test_an_image_is_flat_columns_but_whole_where_there_are_axes(client, media):
    images = np.random.default_rng(1).uniform(size=(3, 2, 3, 1)).astype(np.float32)
    expected = client.post("/models/image/logprob", json={"x": images.tolist()}).json()["log_prob"]
    answer = ask(client, "/models/image/logprob", media, images)
    assert media.read(answer.content, "log_prob", ["log_prob"])[:, 0].tolist() == np.float32(expected).tolist()
    drawn = client.get("/models/image/sample", params={"n": 2, "seed": 1}, headers={"accept": media.name})
    named = client.get("/models/image/sample", params={"n": 2, "seed": 1}).json()["x"]
    assert media.read(drawn.content, "x", numbered("x", 6)).ravel().tolist() == np.float32(named).ravel().tolist()
    if media is NPY:
        assert np.load(io.BytesIO(drawn.content)).shape == (2, 2, 3, 1)
    if media is NDJSON:
        assert np.shape(json.loads(drawn.content.splitlines()[0])["x"]) == (2, 3, 1)


@EVERY
def test_a_density_of_zero_is_minus_infinity(client, media):
    answer = ask(client, "/models/square/logprob", media, np.float32([[0.25], [-1], [5]]))
    found = media.read(answer.content, "log_prob", ["log_prob"])[:, 0]
    assert np.isneginf(found).tolist() == [False, True, True]
    if media is NDJSON:
        lines = [json.loads(line) for line in answer.content.splitlines()]
        assert [line.get("in_support") for line in lines] == [None, False, False]
        assert lines[1]["log_prob"] is None
    if media is CSV:
        assert answer.text.splitlines()[2] == "-inf"


@EVERY
def test_context_for_all_rows_stands_in_the_query(client, media, x):
    rows = x[:9, :3]
    body = {"x": rows.tolist(), "context": [0.5, -0.5]}
    expected = client.post("/models/conditional/logprob", json=body).json()["log_prob"]
    answer = ask(client, "/models/conditional/logprob", media, rows, context="0.5,-0.5")
    assert media.read(answer.content, "log_prob", ["log_prob"])[:, 0].tolist() == np.float32(expected).tolist()


def test_context_for_each_row_stands_beside_it(client, x):
    rows, context = x[:9, :3], x[:9, 3:]
    body = {"x": rows.tolist(), "context": context.tolist()}
    expected = np.float32(client.post("/models/conditional/logprob", json=body).json()["log_prob"]).tolist()
    header = "context1,column 2,column 0,column 1,context0\n"
    text = header + "\n".join(f"{c[1]},{r[2]},{r[0]},{r[1]},{c[0]}" for r, c in zip(rows, context, strict=True))
    lines = [json.dumps({"x": r.tolist(), "context": c.tolist()}) for r, c in zip(rows, context, strict=True)]
    for media, content in ((CSV, text), (NDJSON, "\n".join(lines))):
        headers = {"content-type": media.name, "accept": NPY.name}
        answer = client.post("/models/conditional/logprob", content=content.encode(), headers=headers)
        assert np.load(io.BytesIO(answer.content)).tolist() == expected, answer.text


@pytest.mark.parametrize("names", [("dose", "kind=b"), ("context0", "context1")])
def test_columns_of_the_context_have_names(client, x, names):
    rows, context = x[:9, :3], x[:9, 3:]
    body = {"x": rows.tolist(), "context": context.tolist()}
    expected = np.float32(client.post("/models/conditional/logprob", json=body).json()["log_prob"]).tolist()
    columns = dict(zip(("column 0", "column 1", "column 2", *names), [*rows.T, *context.T], strict=True))
    shuffled = {name: columns[name] for name in sorted(columns, reverse=True)}
    text = (
        ",".join(shuffled) + "\n" + "\n".join(",".join(map(str, row)) for row in zip(*shuffled.values(), strict=True))
    )
    lines = "\n".join(json.dumps(dict(zip(columns, map(float, r), strict=True))) for r in np.hstack([rows, context]))
    for media, content in ((CSV, text), (NDJSON, lines)):
        headers = {"content-type": media.name, "accept": NPY.name}
        answer = client.post("/models/conditional/logprob", content=content.encode(), headers=headers)
        assert answer.status_code == 200, answer.text
        assert np.load(io.BytesIO(answer.content)).tolist() == expected
    contexts = f"{names[1]},{names[0]}\n2,1\n4,3\n"
    headers = {"content-type": CSV.name, "accept": NPY.name}
    path = "/models/conditional/sample"
    drawn = client.post(path, params={"n": 3, "seed": 1}, content=contexts.encode(), headers=headers)
    same = client.post(path, json={"n": 3, "seed": 1, "context": [[1, 2], [3, 4]]}, headers={"accept": NPY.name})
    assert drawn.content == same.content


@EVERY
def test_contexts_of_samples_are_a_body(client, media):
    contexts = np.float32([[0, 0], [1, 2]])
    body = {"n": 3, "seed": 1, "context": contexts.tolist()}
    expected = client.post("/models/conditional/sample", json=body).json()["x"]
    answer = ask(client, "/models/conditional/sample", media, contexts, names=CONDITIONS, n=3, seed=1)
    found = media.read(answer.content, "x", numbered("column ", 3))
    assert found.ravel().tolist() == np.float32(expected).ravel().tolist()
    if media is NPY:
        assert np.load(io.BytesIO(answer.content)).shape == (2, 3, 3)


@pytest.mark.parametrize("media", ALL[1:], ids=lambda media: media.name)
def test_a_table_holds_all_that_was_asked_for(client, media):
    query = {"return": "z,quantile", "alarm_rate": 0.1}
    body = ask(client, "/logprob", media, np.float32([[1, 2], [0, 0]]), **query).content
    columns = ["log_prob", "z0", "z1", "quantile", "anomaly"]
    if media is ARROW:
        table = pa.ipc.open_stream(body).read_all()
        assert table.column_names == columns
        assert table.schema.field("anomaly").type == pa.bool_()
    elif media is CSV:
        assert body.splitlines()[0].decode() == ",".join(columns)
    else:
        assert list(json.loads(body.splitlines()[0])) == ["log_prob", "z", "quantile", "anomaly"]


@EVERY
def test_an_answer_is_the_next_body(client, media):
    query = {"n": 9, "seed": 3}
    drawn = client.get("/models/coupling/sample", params=query, headers={"accept": media.name})
    scored = client.post("/models/coupling/logprob", content=drawn.content, headers={"content-type": media.name})
    expected = client.get("/models/coupling/sample", params=query).json()["x"]
    assert scored.json() == client.post("/models/coupling/logprob", json={"x": expected}).json()


@EVERY
@pytest.mark.parametrize(
    ("path", "rows", "query", "status", "code", "loc"),
    [
        ("/logprob", [[1, 2], [np.nan, 2]], {}, 422, "not_finite", ["body", "x"]),
        ("/logprob", [[1, 2], [3, 1e39]], {}, 422, "not_finite", ["body", "x"]),
        ("/logprob", [[1, 2, 3]], {}, 422, "wrong_shape", ["body", "x"]),
        ("/logprob", [[1, 2]], {"modle": "a"}, 422, "invalid_argument", ["query", "modle"]),
        ("/logprob", [[1, 2]], {"return": "w"}, 422, "invalid_argument", ["query", "return", 0]),
        ("/logprob", [[1, 2]], {"alarm_rate": "two"}, 422, "invalid_argument", ["query", "alarm_rate"]),
        ("/logprob", [[1, 2]], {"x": "1"}, 422, "invalid_argument", ["query", "x"]),
        ("/logprob", [[1, 2]], {"context": "1"}, 422, "wrong_shape", ["query", "context"]),
        ("/logprob", [[1, 2]], {"model": "other"}, 404, "flow_not_found", None),
        ("/decode", [[3e38, 3e38]], {}, 422, "not_finite", ["body", "z"]),
        ("/interpolate", [[1, 2]], {}, 422, "wrong_shape", ["body", "points"]),
        ("/interpolate", [[1, 2], [2, 1]], {"steps": 10**9}, 422, "over_work_budget", ["query", "steps"]),
        ("/models/conditional/logprob", [[1, 2, 3]], {}, 422, "wrong_shape", ["query", "context"]),
    ],
)
def test_errors_name_the_place(client, media, path, rows, query, status, code, loc):
    if media is NDJSON and np.isnan(rows).any():
        content = b"[1, 2]\n[NaN, 2]"
    else:
        others = ["any 0", "any 1", "any 2"] if len(rows[0]) == 3 and path == "/logprob" else ()
        others = ["z0", "z1"] if path == "/decode" else others
        content = media.write(np.array(rows, np.float64), others)
    answer = client.post(path, params=query, content=content, headers={"content-type": media.name})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if loc is not None:
        assert answer.json()["errors"][0]["loc"] == loc
    if code == "not_finite" and path == "/logprob":
        first = answer.json()["errors"][0]
        assert (first["row"], first["column"]) == ((1, 0) if np.isnan(rows[1][0]) else (1, 1))


@EVERY
@pytest.mark.parametrize("verb", ["logprob", "encode", "decode", "interpolate", "sample"])
def test_bytes_of_another_kind_are_a_problem(client, media, verb):
    for content in (b"", b"\xff\xfe\x00", b"{", b"\x93NUMPY", b"ARROW1\0\0"):
        answer = client.post(f"/{verb}", content=content, headers={"content-type": media.name})
        assert answer.status_code in (400, 422), (content, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def test_npy_has_no_room_for_more_than_one_array(client):
    for query in ({"return": "z"}, {"alarm_rate": 0.5}):
        headers = {"content-type": NPY.name, "accept": NPY.name}
        answer = client.post("/logprob", params=query, content=NPY.write(np.ones((1, 2))), headers=headers)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["loc"] == ["query", *query]
    answer = client.post("/logprob", json={"x": [[1, 2]], "return": ["z"]}, headers={"accept": NPY.name})
    assert answer.json()["errors"][0]["loc"] == ["body", "return"]


def test_json_goes_in_and_another_type_out(client):
    answer = client.post("/logprob", json={"x": [[1, 2]]}, headers={"accept": CSV.name})
    assert answer.text.splitlines()[0] == "log_prob"


def test_a_body_of_small_integers_is_weighed_before_it_grows(serving, monkeypatch):
    client = serving(max_work=20)
    monkeypatch.setattr("service.api.native.backend.event_rows", lambda *_: pytest.fail("the array was read"))
    content = NPY.write(np.ones((11, 2), np.int8))
    answer = client.post("/logprob", content=content, headers={"content-type": NPY.name})
    assert (answer.status_code, answer.json()["code"]) == (422, "over_work_budget")


def test_a_body_of_small_integers_is_weighed_by_its_rows(serving):
    content = NPY.write(np.ones((10, 2), np.int8))
    answer = serving(max_work=20).post("/logprob", content=content, headers={"content-type": NPY.name})
    assert answer.status_code == 200


@EVERY
@pytest.mark.parametrize(("path", "width"), [("/models/coupling/sample", 5), ("/models/image/sample", 6)])
def test_a_sample_that_streams_is_bit_for_bit_the_whole(client, media, path, width):
    n = STREAM_VALUES // width * 2 + 77
    answer = client.get(path, params={"n": n, "seed": 5}, headers={"accept": media.name})
    assert answer.status_code == 200
    assert "content-length" not in answer.headers
    assert (answer.headers["Pushforward-Seed"], answer.headers["Pushforward-N"]) == ("5", str(n))
    found = media.read(answer.content, "x", numbered("x", width))
    assert len(found) == n
    for start in (0, STREAM_VALUES // width - 3, n - 10):
        part = client.get(path, params={"n": 10, "seed": 5, "offset": start}).json()["x"]
        assert found[start : start + 10].ravel().tolist() == np.float32(part).ravel().tolist()


@EVERY
def test_each_context_of_a_sample_that_streams_has_its_rows(client, media):
    contexts, n = np.float32([[0, 0], [1, 2], [-1, 0.5]]), STREAM_VALUES // 3
    answer = ask(client, "/models/conditional/sample", media, contexts, names=CONDITIONS, n=n, seed=1)
    found = media.read(answer.content, "x", numbered("column ", 3)).reshape(3, n, 3)
    body = {"n": 5, "seed": 1, "offset": n - 5, "context": contexts.tolist()}
    part = client.post("/models/conditional/sample", json=body).json()["x"]
    assert found[:, -5:].tobytes() == np.array(part, np.float32).tobytes()
    if media is NPY:
        assert np.load(io.BytesIO(answer.content)).shape == (3, n, 3)


def test_what_streams_has_a_budget_of_its_own(serving):
    client = serving(max_work=100_000, max_stream_work=150_000)
    for accept, n, status in (
        (JSON.name, 50_000, 200),
        (JSON.name, 50_001, 422),
        (CSV.name, 75_000, 200),
        (CSV.name, 75_001, 422),
    ):
        answer = client.get("/sample", params={"n": n}, headers={"accept": accept})
        assert answer.status_code == status, (accept, n)


def test_the_examples_of_two_neighbours_are_not_mixed_up(client):
    bodies = [NPY.write(np.full((5, 2), value, np.float32)) for value in range(4)]
    headers = {"content-type": NPY.name, "accept": NPY.name}
    answers = [client.post("/logprob", content=body, headers=headers).content for body in bodies]
    assert all(one != other for one, other in pairwise(answers))
