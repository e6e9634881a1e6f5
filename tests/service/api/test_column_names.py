"""Columns that are called as arguments are, and as arrays of an answer are: in every media type that has names."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from service.app import create_app
from service.bundle.manifest import ContextFeature, Feature
from tests.service.bundles import affine, install, traced
from tests.service.conftest import settings_for
from tests.service.inprocess import InProcess

ARROW, NDJSON, CSV, NPY = "application/vnd.apache.arrow.stream", "application/x-ndjson", "text/csv", "application/x-npy"
JSON = "application/json"

NAMES = [
    ("x", "y"), ("y", "x"), ("z", "context"), ("points", "x"), ("model", "version"), ("log_prob", "n"),
    ("return", "seed"), ("z0", "z1"), ("x1", "x0"), ("context0", "log_target"), ("t", "round_trip_error"),
    ("n", "seed"), ("answer_log_prob", "log_prob"), ("in_support", "steps"), ("space", "direction"),
]  # fmt: skip
CONTEXTS = [("x", "context"), ("n", "seed"), ("model", "z"), ("context1", "context0"), ("log_prob", "log_target")]
ROWS = np.float32([[0.5, 0.25], [1, -0.5], [0, 2]])
GIVEN = np.float32([[0.125, 1], [2, -1], [0, 0.5]])

EVERY_NAME = pytest.mark.parametrize("names", NAMES, ids="-".join)
EVERY_CONTEXT = pytest.mark.parametrize("names", CONTEXTS, ids="-".join)
TABLES = pytest.mark.parametrize("media", [CSV, NDJSON, ARROW])


def named(names):
    return [Feature(name=name) for name in names]


def flow(names):
    return "-".join(names).replace("_", "-")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("named")
    contexts = [ContextFeature(name=name) for name in ("a", "b")]
    install(
        root,
        *(traced(affine(flow(names), features=named(names))) for names in NAMES),
        *(
            affine(
                f"given-{flow(names)}",
                context_width=2,
                features=named(["p", "q"]),
                context_features=[ContextFeature(name=name) for name in names],
            )
            for names in CONTEXTS
        ),
        affine("given-x-y", context_width=2, features=named(["x", "y"]), context_features=contexts),
        affine("two", context_width=2, features=named(["context0", "x"])),
        affine("one", context_width=1, features=named(["p", "q"])),
        affine("log-prob", event_shape=(1,), features=named(["log_prob"])),
        affine("twice", features=named(["a", "a"])),
        affine("nameless", features=[]),
        affine("nameless-given", context_width=1, features=[], context_features=[ContextFeature(name="x1")]),
        affine("single", event_shape=(1,), features=named(["a"])),
        affine("nameless-single", event_shape=(1,), features=[]),
        affine("image", event_shape=(2, 3, 1), features=[]),
    )
    with InProcess(create_app(settings_for(root, default_flow=None))) as opened:
        yield opened


def body(media, columns):
    """A table of columns, written in the reverse of their order."""
    columns = dict(reversed(columns.items()))
    if media == CSV:
        out = io.StringIO()
        csv.writer(out).writerows([columns, *zip(*columns.values(), strict=True)])
        return out.getvalue().encode()
    if media == NDJSON:
        rows = zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True)
        return "".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows).encode()
    out, table = io.BytesIO(), pa.table({name: np.asarray(values) for name, values in columns.items()})
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def post(client, path, media, content, accept=JSON, **query):
    return client.post(path, content=content, params=query, headers={"content-type": media, "accept": accept})


def ask(client, path, media, content, accept=JSON, **query):
    answer = post(client, path, media, content, accept, **query)
    assert answer.status_code == 200, answer.text
    return answer.json() if accept == JSON else answer.content


def refused(client, path, media, content, words, **query):
    answer = post(client, path, media, content, **query)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]


@EVERY_NAME
@TABLES
def test_columns_of_any_name_are_columns(client, names, media):
    url, table = f"/models/{flow(names)}", dict(zip(names, ROWS.T, strict=True))
    content = body(media, table)
    for verb in ("logprob", "encode", "trace"):
        assert (
            ask(client, f"{url}/{verb}", media, content)
            == client.post(f"{url}/{verb}", json={"x": ROWS.tolist()}).json()
        )
    edit = {"direction": [1, 0], "strength": [0.5]}
    assert (
        ask(client, f"{url}/edit", media, content, direction="1,0", strength="0.5")
        == client.post(f"{url}/edit", json={"x": ROWS.tolist(), **edit}).json()
    )
    walk = client.post(f"{url}/interpolate", json={"points": ROWS.tolist(), "steps": 3}).json()
    assert ask(client, f"{url}/interpolate", media, content, steps=3) == walk
    target = [0.5, -1, 0.25]
    weights = client.post(f"{url}/weights", json={"x": ROWS.tolist(), "log_target": target}).json()
    assert ask(client, f"{url}/weights", media, content, log_target="0.5,-1,0.25") == weights
    if "log_target" not in names:
        with_target = body(media, {**table, "log_target": np.float64(target)})
        assert ask(client, f"{url}/weights", media, with_target) == weights


@EVERY_NAME
@TABLES
@pytest.mark.parametrize("verb", ["sample", "interpolate", "edit", "decode"])
def test_an_answer_has_each_name_once_and_is_read_back(client, names, media, verb):
    url = f"/models/{flow(names)}"
    arguments = {
        "sample": {"n": 3, "seed": 1, "return": ["round_trip_error"]},
        "interpolate": {"points": ROWS.tolist(), "steps": 3},
        "edit": {"x": ROWS.tolist(), "direction": [1, 0], "strength": [0, 1]},
        "decode": {"z": ROWS.tolist()},
    }[verb]
    drawn = client.post(f"{url}/{verb}", json=arguments, headers={"accept": media})
    assert drawn.status_code == 200, drawn.text
    expected = client.post(f"{url}/{verb}", json=arguments).json()
    if media == CSV:
        header = next(csv.reader(io.StringIO(drawn.text)))
        assert len(set(header)) == len(header)
    if media == ARROW:
        header = pa.ipc.open_stream(drawn.content).schema.names
        assert len(set(header)) == len(header)
    scored = ask(client, f"{url}/logprob", media, drawn.content)["log_prob"]
    rows = np.reshape(expected["x"], (-1, 2)).tolist()
    assert scored == client.post(f"{url}/logprob", json={"x": rows}).json()["log_prob"]


def test_a_sample_that_streams_has_each_name_once(client):
    drawn = client.get("/models/log-prob-n/sample", params={"n": 40_000, "seed": 1}, headers={"accept": CSV})
    assert drawn.text.partition("\n")[0] == "log_prob,n,answer_log_prob"
    found = ask(client, "/models/log-prob-n/logprob", CSV, drawn.content, NPY)
    lines = csv.DictReader(io.StringIO(drawn.text))
    np.testing.assert_allclose(np.load(io.BytesIO(found)), [float(line["answer_log_prob"]) for line in lines], 1e-5)


@EVERY_CONTEXT
@TABLES
def test_columns_of_the_context_of_any_name_are_columns(client, names, media):
    url = f"/models/given-{flow(names)}"
    contexts = dict(zip(names, GIVEN.T, strict=True))
    table = {**dict(zip(("p", "q"), ROWS.T, strict=True)), **contexts}
    expected = client.post(f"{url}/logprob", json={"x": ROWS.tolist(), "context": GIVEN.tolist()}).json()
    assert ask(client, f"{url}/logprob", media, body(media, table)) == expected
    drawn = client.post(f"{url}/sample", json={"n": 2, "seed": 1, "context": GIVEN.tolist()}).json()
    assert ask(client, f"{url}/sample", media, body(media, contexts), n=2, seed=1) == drawn


@EVERY_CONTEXT
@TABLES
@pytest.mark.parametrize("verb", ["sample", "encode"])
def test_what_an_answer_holds_is_not_taken_for_the_context(client, names, media, verb):
    url, back = f"/models/given-{flow(names)}", {"sample": "logprob", "encode": "decode"}[verb]
    arguments = {"sample": {"n": 3, "seed": 1}, "encode": {"x": ROWS.tolist()}}[verb] | {"context": [1, 2]}
    answer = client.post(f"{url}/{verb}", json=arguments, headers={"accept": media})
    refused = post(client, f"{url}/{back}", media, answer.content)
    assert (refused.status_code, refused.json()["errors"][0]["loc"][-1]) == (422, "context"), refused.text
    document = client.post(f"{url}/{verb}", json=arguments).json()
    main = {"sample": "x", "encode": "z"}[verb]
    expected = client.post(f"{url}/{back}", json={main: document[main], "context": [1, 2]}).json()
    assert ask(client, f"{url}/{back}", media, answer.content, context="1,2") == expected


@pytest.mark.parametrize("media", [CSV, NDJSON])
def test_a_sample_of_one_column_called_log_prob_is_read_back(client, media):
    drawn = client.get("/models/log-prob/sample", params={"n": 3, "seed": 1}, headers={"accept": media})
    rows = client.get("/models/log-prob/sample", params={"n": 3, "seed": 1}).json()["x"]
    expected = client.post("/models/log-prob/logprob", json={"x": rows}).json()
    assert ask(client, "/models/log-prob/logprob", media, drawn.content) == expected


@EVERY_NAME
def test_an_object_of_numbers_is_a_row_in_json_too(client, names):
    url, first = f"/models/{flow(names)}", dict(zip(names, ROWS[0].tolist(), strict=True))
    expected = client.post(f"{url}/logprob", json={"x": ROWS[:1].tolist(), "alarm_rate": 0.5}).json()
    assert client.post(f"{url}/logprob", json={**first, "alarm_rate": 0.5}).json() == expected
    objects = [dict(zip(names, row, strict=True)) for row in ROWS.tolist()]
    whole = client.post(f"{url}/logprob", json={"x": ROWS.tolist()}).json()
    assert client.post(f"{url}/logprob", json={"x": objects}).json() == whole
    if names[0] not in ("model", "version"):
        assert client.post("/logprob", json={**first, "model": flow(names), "alarm_rate": 0.5}).json() == expected


@EVERY_CONTEXT
def test_an_object_of_numbers_is_a_context_in_json_too(client, names):
    url, first = f"/models/given-{flow(names)}", dict(zip(names, GIVEN[0].tolist(), strict=True))
    expected = client.post(f"{url}/logprob", json={"x": ROWS[:1].tolist(), "context": GIVEN[0].tolist()}).json()
    row = dict(zip(("p", "q"), ROWS[0].tolist(), strict=True))
    assert client.post(f"{url}/logprob", json={**row, **first}).json() == expected
    drawn = client.post(f"{url}/sample", json={"n": 2, "seed": 1, "context": GIVEN[:1].tolist()}).json()
    objects = client.post(f"{url}/sample", json={"n": 2, "seed": 1, "context": [first]})
    assert objects.json() == drawn
    if "n" not in names:
        assert client.post(f"{url}/sample", json={"n": 2, "seed": 1, **first}).json() == drawn


@pytest.mark.parametrize("lines", [b"0.5\n0.25\n", b'{"x":0.5}\n{"x":0.25}\n', b'{"w":0.5}\n{"w":0.25}\n'])
@pytest.mark.parametrize("name", ["nameless", "log-prob-n", "x-y"])
@pytest.mark.parametrize("verb", ["logprob", "encode", "interpolate"])
def test_lines_are_never_joined_into_an_event(client, lines, name, verb):
    answer = post(
        client, f"/models/{name}/{verb}", NDJSON, lines.replace(b'"x"', b'"points"') if verb == "interpolate" else lines
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_shape"), answer.text


def test_lines_of_pieces_of_an_image_are_not_joined(client):
    lines = b"[[1],[2],[3]]\n[[4],[5],[6]]\n"
    refused(
        client, "/models/image/logprob", NDJSON, lines, "expected shape [N, 2, 3, 1] or [N, 6], and found [2, 3, 1]"
    )
    whole = ask(
        client, "/models/image/logprob", NDJSON, b"[[[1],[2],[3]],[[4],[5],[6]]]\n[1,2,3,4,5,6]".split(b"\n")[0]
    )
    assert len(whole["log_prob"]) == 1


def test_latents_and_contexts_are_not_joined_either(client):
    refused(client, "/models/nameless/decode", NDJSON, b'{"z":0.5}\n{"z":0.25}\n', "expected 2 columns, and found 1")
    lines = b'{"x":[1,2],"context":0.5}\n{"x":[1,2],"context":0.25}\n'
    refused(client, "/models/given-x-y/logprob", NDJSON, lines, "context: expected shape [N, 2], and found [2]")
    refused(client, "/models/given-x-y/sample", NDJSON, b"0.5\n0.25\n", "context: expected shape [N, 2], and found [2]")
    assert len(ask(client, "/models/one/logprob", NDJSON, lines)["log_prob"]) == 2


def test_a_line_is_a_row_of_one_column(client):
    for content in (b"0.5\n0.25\n2\n", b"[0.5]\n[0.25]\n[2]\n", b'{"x":0.5}\n{"x":0.25}\n{"x":2}\n'):
        for name in ("single", "nameless-single"):
            expected = client.post(f"/models/{name}/logprob", json={"x": [[0.5], [0.25], [2]]}).json()
            assert ask(client, f"/models/{name}/logprob", NDJSON, content) == expected
    answer = post(client, "/models/nameless-single/logprob", NDJSON, b'1\n"two"\n')
    assert answer.json()["errors"][0]["row"] == 1


@pytest.mark.parametrize("heading", ["u,v", "Y,X", "X,Y", "x,Y", "a,b", "x0,x1"])
@TABLES
def test_columns_without_the_flows_names_are_refused(client, heading, media):
    content = body(media, dict(zip(heading.split(","), ROWS.T, strict=True)))
    refused(client, "/models/x-y/logprob", media, content, "expected all of the flow's columns, and did not find")
    refused(client, "/models/x-y/interpolate", media, content, "expected all of the flow's columns, and did not find")
    answer = post(client, "/models/x-y/logprob", media, content)
    assert ("upper and lower case" in answer.text) == (heading.lower() != heading)


@TABLES
def test_a_case_that_differs_is_no_heading_of_made_up_names(client, media):
    refused(client, "/models/nameless/logprob", media, body(media, {"X1": ROWS[:, 0], "X0": ROWS[:, 1]}), "'x0', 'x1'")
    in_order = body(media, {"v": ROWS[:, 1], "u": ROWS[:, 0]})
    expected = client.post("/models/nameless/logprob", json={"x": ROWS.tolist()}).json()
    assert ask(client, "/models/nameless/logprob", media, in_order) == expected


@TABLES
def test_names_of_arguments_are_any_names_to_a_flow_without_names(client, media):
    in_order = body(media, {"y": ROWS[:, 1], "x": ROWS[:, 0]})
    expected = client.post("/models/nameless/logprob", json={"x": ROWS.tolist()}).json()
    assert ask(client, "/models/nameless/logprob", media, in_order) == expected


@TABLES
@pytest.mark.parametrize(
    ("name", "verb", "heading"),
    [
        ("x-y", "decode", "x,y"),
        ("x-y", "decode", "y,w"),
        ("x-y", "decode", "x0,x1"),
        ("nameless", "decode", "x1,x0"),
        ("nameless", "decode", "Z1,Z0"),
        ("nameless", "logprob", "z1,z0"),
        ("nameless", "encode", "z0,v"),
        ("one", "sample", "p"),
        ("one", "sample", "z0"),
    ],
)
def test_columns_of_something_else_are_not_taken_in_their_order(client, name, verb, heading, media):
    content = body(media, dict(zip(heading.split(","), ROWS.T, strict=False)))
    refused(client, f"/models/{name}/{verb}", media, content, "expected all of the flow's columns, and did not find")


@TABLES
def test_latents_of_any_other_names_are_taken_in_their_order(client, media):
    expected = client.post("/models/x-y/decode", json={"z": ROWS.tolist()}).json()
    for heading in (("z0", "z1"), ("v", "u")):
        content = body(media, dict(zip(heading[::-1] if heading[0] == "v" else heading, ROWS.T, strict=True)))
        if heading[0] == "z0":
            assert ask(client, "/models/x-y/decode", media, content) == expected
    in_order = body(media, {"v": ROWS[:, 1], "u": ROWS[:, 0]})
    assert ask(client, "/models/x-y/decode", media, in_order) == expected


def test_the_index_of_a_frame_is_no_column(client):
    expected = client.post("/models/nameless/logprob", json={"x": ROWS.tolist()}).json()
    frame = pd.DataFrame(ROWS, columns=["u", "v"], index=[5, 3, 4])
    for indexed in (frame, frame.rename_axis("id"), frame.set_axis(["p", "q", "r"])):
        out, table = io.BytesIO(), pa.Table.from_pandas(indexed)
        with pa.ipc.new_stream(out, table.schema) as writer:
            writer.write_table(table)
        assert ask(client, "/models/nameless/logprob", ARROW, out.getvalue()) == expected
        if indexed.index.name is None:  # CSV does not tell a named index from a column
            assert ask(client, "/models/nameless/logprob", CSV, indexed.to_csv().encode()) == expected
    counted = pd.DataFrame(ROWS).to_csv(sep=";").encode()
    assert ask(client, "/models/nameless/logprob", CSV, counted) == expected


@TABLES
def test_a_name_that_two_columns_have_is_no_name(client, media):
    refused(client, "/models/twice/logprob", media, body(media, {"a": ROWS[:, 0], "b": ROWS[:, 1]}), "more than once")


@TABLES
@pytest.mark.parametrize("heading", ["A,B", "a,B", "u,v"])
def test_contexts_without_the_flows_names_are_refused(client, heading, media):
    contexts = dict(zip(heading.split(","), GIVEN.T, strict=True))
    refused(
        client, "/models/given-x-y/sample", media, body(media, contexts), "context: expected all of the flow's columns"
    )
    table = {"x": ROWS[:, 0], "y": ROWS[:, 1], **contexts}
    answer = post(client, "/models/given-x-y/logprob", media, body(media, table))
    assert (answer.status_code, answer.json()["errors"][0]["loc"][-1]) == (422, "context")


@TABLES
def test_a_column_is_not_one_of_x_and_one_of_the_context(client, media):
    table = body(media, {"context0": ROWS[:, 0], "x": ROWS[:, 1], "context1": GIVEN[:, 0]})
    assert post(client, "/models/two/logprob", media, table).status_code == 422
    body_ = {"x": ROWS.tolist(), "context": [1, 2]}
    assert (
        ask(client, "/models/two/logprob", media, table, context="1,2")
        == client.post("/models/two/logprob", json=body_).json()
    )
    table = body(media, {"x0": ROWS[:, 0], "x1": ROWS[:, 1]})
    refused(client, "/models/nameless-given/logprob", media, table, "'x1' is one of the context")


def test_arguments_may_stand_beside_columns(client):
    url = "/models/given-x-y/logprob"
    expected = client.post(url, json={"x": ROWS.tolist(), "context": GIVEN.tolist()}).json()
    rows = list(zip(ROWS.tolist(), GIVEN.tolist(), strict=True))
    shapes = (
        lambda x, c: {"x": x, "context": c},
        lambda x, c: {"x": x[0], "y": x[1], "context": c},
        lambda x, c: {"x": x, "a": c[0], "b": c[1]},
        lambda x, c: {"x": x[0], "y": x[1], "a": c[0], "b": c[1]},
    )
    for shape in shapes:
        lines = "".join(json.dumps(shape(*row)) + "\n" for row in rows)
        assert ask(client, url, NDJSON, lines.encode()) == expected
    lines = json.dumps(shapes[0](*rows[0])).encode()
    refused(client, url, NDJSON, lines, "context stands in the query, and the body holds it", context="1,2")


def test_a_fixed_size_list_under_an_arguments_name_is_the_argument(client):
    out, column = io.BytesIO(), pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 2)
    table = pa.table({"y": ROWS[:, 0], "x": column})
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    expected = client.post("/models/x-y/logprob", json={"x": ROWS.tolist()}).json()
    assert ask(client, "/models/x-y/logprob", ARROW, out.getvalue()) == expected


def test_what_json_meant_before_it_means_still(client):
    expected = client.post("/models/x-y/logprob", json={"x": ROWS[:1].tolist()}).json()
    assert client.post("/models/x-y/logprob", json={"x": ROWS[0].tolist()}).json() == expected
    answer = client.post("/models/x-y/logprob", json={"x": 0.5})
    assert "expected an array of numbers, and found a number" in answer.json()["detail"]
    answer = client.post("/models/x-y/logprob", json={"x": ROWS.tolist(), "y": 0.5})
    assert "y: unknown argument" in answer.json()["detail"]
    answer = client.post("/models/x-y/logprob", json={"x": [{"x": 1, "y": 2}, [1, 2]]})
    assert "row 1: an object stands beside arrays: all rows must be of one kind" in answer.json()["detail"]
    for verb, more in (("trace", {}), ("weights", {"log_target": [0, 0, 0]})):
        drawn = client.post(f"/models/n-seed/{verb}", json={"n": 3, "seed": 1, **more}).json()
        assert len(drawn.get("log_prob", drawn.get("weights"))) == 3
    assert client.post("/models/given-n-seed/sample", json={"n": 2, "seed": 1, "context": [1, 2]}).json()["n"] == 2
