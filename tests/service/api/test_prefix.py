"""The API behind a prefix: a proxy may take the prefix off, or leave it."""

from __future__ import annotations

import json
import re
import socket

import httpx
import pytest

import pushforward
from service.app import create_app
from service.errors import InvalidArgument
from tests.server import Server
from tests.service.conftest import settings_for
from tests.service.inprocess import InProcess


@pytest.fixture(scope="module", params=["/flows", "/flows/", "/a/b-c"])
def prefixed(repository, request):
    with InProcess(create_app(settings_for(repository, root_path=request.param))) as opened:
        opened.prefix = request.param.rstrip("/")
        yield opened


@pytest.mark.parametrize("path", ["/models", "/health/live", "/metrics", "/openapi.json", "/docs", "/redoc"])
def test_paths_are_found_with_the_prefix_and_without(prefixed, path):
    plain, with_prefix = prefixed.get(path), prefixed.get(prefixed.prefix + path)
    assert (plain.status_code, with_prefix.status_code) == (200, 200)
    if path != "/metrics":
        assert plain.content == with_prefix.content


def test_verbs_are_found_with_the_prefix_and_without(prefixed):
    body = {"x": [[0.5, 0.25]]}
    expected = prefixed.post("/logprob", json=body)
    assert expected.status_code == 200
    for path in ("/logprob", "/models/two-moons/logprob"):
        assert prefixed.post(prefixed.prefix + path, json=body).json() == expected.json()
    for path in (prefixed.prefix * 2 + "/logprob", prefixed.prefix + "s/logprob", "/nowhere"):
        answer = prefixed.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "route_not_found")
        assert f"GET {prefixed.prefix}/docs lists them" in answer.json()["detail"]
    refused = prefixed.get(f"{prefixed.prefix}/logprob")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")


def test_the_document_names_the_prefix(prefixed, client):
    assert prefixed.get("/openapi.json").json()["servers"] == [{"url": prefixed.prefix}]
    document = client.get("/openapi.json").json()
    assert "servers" not in document
    assert prefixed.get("/openapi.json").json()["paths"] == document["paths"]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_a_page_asks_for_the_document_beside_it(client, page):
    asked = re.findall(r"""["']([^"']*openapi\.json)["']""", client.get(page).text)
    assert asked
    for path in asked:
        assert httpx.URL("http://x/any/prefix" + page).join(path).path == "/any/prefix/openapi.json"


@pytest.mark.parametrize("prefix", ["/models", "/health", "/logprob", "/docs", "/models/{name}"])
def test_a_prefix_that_routes_begin_with_is_refused(repository, prefix):
    if "{" in prefix:
        with pytest.raises(ValueError, match="root_path"):
            settings_for(repository, root_path=prefix)
        return
    with pytest.raises(
        InvalidArgument, match=f"--root-path {prefix}: the route {prefix}.* of the server itself begins so"
    ):
        create_app(settings_for(repository, root_path=prefix))


def test_a_real_server_behind_a_prefix(repository):
    server = Server("--repository", repository, "--root-path", "/flows", "--workers", 2)
    try:
        body = json.dumps({"x": [[0.5, 0.25]]}).encode()
        answers = []
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            verb = b"/models/two-moons/logprob"
            for path in (b"/flows" + verb, verb, b"/flows" + verb, b"/flows" + verb[1:]):
                head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, len(body))
                connection.sendall(head + body)
                received = b""
                while not received.endswith(b"}"):
                    received += connection.recv(1 << 16)
                answers.append(received.partition(b"\r\n\r\n")[2])
        assert answers[0] == answers[1] == answers[2]
        assert b"route_not_found" in answers[3]
        for url in (f"{server.url}/flows", f"{server.url}/flows/", server.url):
            with pushforward.Client(url) as client:
                assert client.log_prob([[0.5, 0.25]], model="two-moons") == pytest.approx(
                    json.loads(answers[0])["log_prob"]
                )
                assert client.models()
    finally:
        assert server.stop() == 0
