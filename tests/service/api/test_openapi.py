from __future__ import annotations

import re

import pytest

METHODS = {"get", "post"}
PICTURED = {"logprob", "sample", "interpolate", "decode", "edit"}
VERBS = {"logprob", "sample", "interpolate", "encode", "decode", "edit", "trace", "weights", "posterior"}


@pytest.fixture(scope="module")
def document(client):
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document, *, asking=False):
    """Every route; with `asking`, those alone that change nothing."""
    found = [(path, method, said) for path, ways in document["paths"].items() for method, said in ways.items()]
    return [each for each in found if not asking or "repository" not in each[2]["tags"]]


def test_every_route_is_described(document, client):
    described = {(path, method.upper()) for path, method, _ in operations(document)}
    served = {
        (route.path, method)
        for route in client.app.routes
        for method in route.methods
        if method != "HEAD" and not re.match(r"/$|/(console|docs|redoc|openapi)\b", route.path)
    }
    assert described == served
    assert len(described) == 3 * 10 + 6 + 7 + 3


def test_operation_ids_are_distinct(document):
    ids = [said["operationId"] for _, _, said in operations(document)]
    assert len(set(ids)) == len(ids)


def references(node):
    if isinstance(node, dict):
        yield from ([node["$ref"]] if "$ref" in node else [])
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_somewhere(document):
    for reference in set(references(document)):
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in document["components"][kind]


def test_every_example_runs_as_it_stands(document, client):
    for path, method, said in operations(document, asking=True):
        parameters = {p["name"]: p["example"] for p in said.get("parameters", []) if "example" in p}
        in_path = {p["name"] for p in said.get("parameters", []) if p["in"] == "path"}
        url = path.format(**{name: parameters[name] for name in in_path})
        query = {name: value for name, value in parameters.items() if name not in in_path}
        body = said.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        assert (body is not None) == (method == "post"), path
        answer = client.request(method.upper(), url, params=query, json=body) if body else client.get(url, params=query)
        assert answer.status_code == 200, (path, answer.text)
        content = said["responses"]["200"]["content"]
        if "application/json" not in content:
            assert answer.headers["content-type"].partition(";")[0] in content, path
            continue
        known = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert set(answer.json()) <= set(document["components"]["schemas"][known]["properties"]), path


def test_the_documentation_page_is_served(client):
    assert client.get("/docs").status_code == 200


TYPES = {
    "application/json",
    "application/x-npy",
    "application/vnd.apache.arrow.stream",
    "application/x-ndjson",
    "text/csv",
}


def test_every_verb_lists_the_media_types(document):
    for path, method, said in operations(document, asking=True):
        found = set(said["responses"]["200"]["content"])
        if path.rpartition("/")[2] in VERBS:
            pictured = path.rpartition("/")[2] in PICTURED
            assert found == (TYPES | {"image/png"} if pictured else TYPES), path
        else:
            assert len(found) == 1, path
        if method == "post":
            assert set(said["requestBody"]["content"]) == TYPES, path


def test_every_text_that_is_an_example_runs_and_says_what_the_json_says(document, client):
    count = 0
    for path, _, said in operations(document):
        content = said.get("requestBody", {}).get("content", {})
        for name in ("text/csv", "application/x-ndjson"):
            if "example" not in content.get(name, {}):
                continue
            count += 1
            url = path.format(name="two-moons", version=1)
            named = content["application/json"]["example"]
            lists = {k: ",".join(map(str, named[k])) for k in ("direction", "strength") if k in named}
            query = lists | ({"steps": named["steps"]} if "steps" in named else {})
            answer = client.post(url, params=query, content=content[name]["example"], headers={"content-type": name})
            assert answer.status_code == 200, (path, answer.text)
            expected = client.post(url, json={k: v for k, v in named.items() if k != "return"}).json()
            assert answer.json() == expected
    assert count == 3 * 6 * 2


def test_what_stands_in_the_query_beside_a_body_is_listed_and_taken(document, client):
    (said,) = (said for path, method, said in operations(document) if path == "/logprob")
    names = {parameter["name"] for parameter in said["parameters"]}
    assert names == {"model", "version", "context", "return", "alarm_rate", "correct", "columns", "size"}
    query = {"model": "two-moons", "version": 1, "return": "z,quantile", "alarm_rate": 0.1}
    answer = client.post("/logprob", params=query, content="1,2", headers={"content-type": "text/csv"})
    assert set(answer.json()) == {"model", "version", "log_prob", "z", "quantile", "anomaly"}
