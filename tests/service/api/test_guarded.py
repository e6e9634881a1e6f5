"""The guarded application: ids, CORS, the access log and OpenAPI, without a socket."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest

from service.access.keys import make_key
from service.api.guarded import LoggedApplication
from service.api.native import decode
from tests.waiting import until

ALICE = make_key("alice", ["infer"])
BEARER = {"Authorization": f"Bearer {ALICE.key}"}
PAGE = "https://page.example"
ROW = {"x": [[0.5, 0.25]]}


@pytest.fixture
def keyed(serving):
    return serving(keys=ALICE.stored.line())


@pytest.mark.parametrize("path", ["/health/live", "/nowhere", "/logprob", "/metrics", "/openapi.json"])
def test_every_answer_has_an_id(client, path):
    one, two = (client.get(path).headers["x-request-id"] for _ in range(2))
    assert one != two
    assert re.fullmatch(r"[0-9a-f]{16}-[0-9a-f]+", one)


def test_a_clients_id_comes_back_in_the_answer_and_in_a_problem(client):
    answer = client.get("/nowhere", headers={"X-Request-Id": 'a "b" \\'})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == 'a "b" \\'
    for wrong in ("x" * 129, "a\tb", "é"):
        answer = client.get("/nowhere", headers={"X-Request-Id": wrong.encode()})
        assert answer.headers["x-request-id"] == answer.json()["request_id"] != wrong
    assert answer.headers["content-length"] == str(len(answer.content))


def test_a_fault_of_the_servers_own_is_logged_with_its_id(serving, monkeypatch, caplog):
    server = serving()

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(server.app.state.operations, "models", fail)
    answer = server.get("/models", headers={"X-Request-Id": "find-me"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "find-me"
    monkeypatch.setattr(decode.wire, "decode", fail)
    asked = {"z": [[0, 0]], "return": ["round_trip_error"]}  # it is asked alone
    answer = server.post("/decode", json=asked, headers={"X-Request-Id": "me-too"})
    assert (answer.status_code, answer.json()["request_id"]) == (500, "me-too")
    assert "me-too" in caplog.text
    assert "find-me" in caplog.text


def preflight(server, origin, **more):
    fields = {"Origin": origin, "Access-Control-Request-Method": "POST", **more}
    return server.request("OPTIONS", "/logprob", headers=fields)


def test_a_page_that_is_named_may_call(serving):
    server = serving(cors_origin=f"{PAGE}, https://other.example", keys=ALICE.stored.line())
    asked = preflight(server, PAGE, **{"Access-Control-Request-Headers": "authorization,content-type"})
    assert (asked.status_code, asked.content) == (204, b"")
    assert asked.headers["access-control-allow-origin"] == PAGE
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert {"authorization", "content-type", "x-request-id", "pushforward-timeout-ms"} <= set(
        asked.headers["access-control-allow-headers"].lower().split(", ")
    )
    assert asked.headers["access-control-max-age"] == "600"
    assert asked.headers["vary"] == "Origin"
    assert "access-control-allow-private-network" not in asked.headers
    private = preflight(server, PAGE, **{"Access-Control-Request-Private-Network": "true"})
    assert private.headers["access-control-allow-private-network"] == "true"
    fields = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
    answer = server.post("/logprob", json=ROW, headers=fields | BEARER)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
    refused = server.post("/logprob", json=ROW, headers=fields)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE  # so that the page can read why


def test_a_page_that_is_not_named_may_not(serving):
    server = serving(cors_origin=PAGE)
    assert preflight(server, "https://evil.example").status_code == 403
    answer = server.post("/logprob", json=ROW, headers={"Origin": "https://evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")
    read = server.get("/models", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in read.headers
    assert read.headers["vary"] == "Origin"


def test_without_cors_a_preflight_is_told_so(keyed):
    answer = preflight(keyed, PAGE)
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "--cors-origin" in answer.json()["detail"]
    assert "access-control-allow-origin" not in answer.headers
    assert "vary" not in answer.headers


def test_openapi_says_which_key_a_route_needs(client, keyed):
    document = keyed.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    said = {path: next(iter(operations.values())) for path, operations in document["paths"].items()}
    assert "security" not in said["/health/live"]
    assert said["/logprob"]["security"] == said["/metrics"]["security"] == [{"key": []}]
    assert said["/metrics"]["description"].endswith("Needs a key with the scope metrics.")
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_a_budget_of_requests_is_429_with_its_time(serving):
    server = serving(keys=make_line(requests_per_minute=2))
    statuses = [server.post("/logprob", json=ROW, headers=SMALL).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    answer = server.get("/models", headers=SMALL)
    assert (answer.status_code, answer.json()["code"]) == (429, "budget_spent")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert server.get("/health/live", headers=SMALL).status_code == 200


SMALL_KEY = make_key("small", ["infer"])
SMALL = {"Authorization": f"Bearer {SMALL_KEY.key}"}


def make_line(**budgets):
    return SMALL_KEY.stored._replace(**budgets).line()


STEPS = 3
"""Of the trace of the flow: a row counts once for each."""


@pytest.mark.parametrize(
    ("method", "path", "body", "rows"),
    [
        ("POST", "/logprob", {"x": [[0, 0]] * 4}, 4),
        ("POST", "/logprob", {"x": [0, 0]}, 1),
        ("POST", "/encode", {"x": [[0, 0]] * 3}, 3),
        ("POST", "/decode", {"z": [[0, 0]] * 3}, 3),
        ("GET", "/sample?n=5", None, 5),
        ("GET", "/sample", None, 1),
        ("POST", "/sample", {"n": 4}, 4),
        ("POST", "/interpolate", {"points": [[0, 0], [1, 1]], "steps": 4}, 8),
        ("POST", "/edit", {"x": [[0, 0]], "direction": [1, 0], "strength": [1, 2, 3]}, 3),
        ("POST", "/trace", {"x": [[0, 0]] * 2}, 2 * STEPS),
        ("POST", "/weights", {"n": 5, "seed": 1, "log_target": [0] * 5}, 5),
    ],
)
def test_a_budget_of_rows_holds_for_each_verb(serving, method, path, body, rows):
    server = serving(keys=make_line(rows_per_minute=2 * rows))
    answers = [server.request(method, path, json=body, headers=SMALL) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "budget_spent"
    assert int(answers[2].headers["retry-after"]) >= 1


def test_a_request_of_more_rows_than_a_minute_has_is_told_to_be_cut(serving):
    server = serving(keys=make_line(rows_per_minute=10))
    answer = server.get("/sample?n=11", headers=SMALL)
    assert answer.status_code == 429
    assert "send fewer rows at once" in answer.json()["detail"]
    assert server.get("/sample?n=10", headers=SMALL).status_code == 200


def test_the_access_log_has_no_key_and_no_query(serving, caplog):
    caplog.set_level(logging.INFO, "pushforward.access")
    server = serving(keys=ALICE.stored.line(), access_log=True)
    server.get("/sample?n=1&seed=7777", headers=BEARER | {"X-Request-Id": "one two"})
    server.get("/mo%0adels", headers={"Authorization": "Bearer pf_wrong"})
    lines = [record.getMessage() for record in caplog.records if record.name == "pushforward.access"]
    assert re.fullmatch(r'\S+ "GET /sample HTTP/1\.1" 200 one%20two key=alice', lines[0])
    assert re.fullmatch(r'\S+ "GET /mo%0Adels HTTP/1\.1" 401 [0-9a-f-]+ key=-', lines[1])
    for word in (ALICE.key, "pf_wrong", "7777", ALICE.stored.digest.hex()):
        assert word not in caplog.text


@pytest.mark.parametrize(
    ("host", "shown"), [('1.2.3.4" 200 key=root\x9b', "1.2.3.4%22%20200%20key=root%C2%9B"), ("fe80::1", "fe80::1")]
)
def test_a_client_that_a_proxy_names_cannot_write_a_line_of_its_own(caplog, host, shown):
    caplog.set_level(logging.INFO, "pushforward.access")

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 404})

    async def send(_message):
        pass

    scope = {"type": "http", "method": "GET", "path": "/a", "http_version": "1.1", "client": (host, 1)}
    asyncio.run(LoggedApplication(app, queries=False)(scope, None, send))
    assert caplog.messages == [f'{shown}:1 "GET /a HTTP/1.1" 404  key=-']


def test_the_access_log_has_queries_if_it_is_told_to(serving, caplog):
    caplog.set_level(logging.INFO, "pushforward.access")
    serving(access_log=True, log_queries=True).get("/sample?n=1&seed=7")
    assert '"GET /sample?n=1&seed=7 HTTP/1.1" 200' in caplog.text


def test_what_keys_are_used_for_is_in_the_metrics(serving):
    server = serving(keys=f"{make_line(rows_per_minute=100)};{make_key('eye', ['metrics']).stored.line()}")
    server.get("/sample?n=7", headers=SMALL)
    counters = server.app.state.metrics.counters
    until(lambda: counters.read().cells.get(("pushforward_key_rows", "small")) == [7.0])
    assert counters.read().cells["pushforward_key_requests", "small"] == [1.0]


def test_a_prefix_hides_no_scope(serving):
    server = serving(root_path="/flows", keys=ALICE.stored.line())
    for path, status in {
        "/flows/metrics": 403,
        "/metrics": 403,
        "/flows/repository/two-moons/versions/1": 403,
        "/flows/flows/metrics": 404,
        "/flows/health/live": 200,
        "/flows": 200,  # the console, which is open
        "/flows/models": 200,
    }.items():
        assert server.get(path, headers=BEARER).status_code == status, path
    assert server.get("/flows/models").status_code == 401
    assert server.get("/flows").status_code == 200
