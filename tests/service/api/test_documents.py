"""The documents: the same bytes through either door, made once a change."""

from __future__ import annotations

import httpx
import pytest

from service.access.policy import AccessPolicy
from service.api.documents import OpenApiDocument, documents
from service.api.driver import Driver
from service.api.helpers import Helpers
from service.api.operations import Operations
from service.engine.metrics.metrics import Metrics
from service.http.heads import RequestHeads
from tests.server import Server


@pytest.fixture(scope="module")
def server(repository):
    process = Server("--repository", repository, "--default-flow", "two-moons")
    yield process
    assert process.stop() == 0


PATHS = [
    *(
        "/models",
        "/models?x=1",
        "/models/two-moons",
        "/models/nowhere",
        "/models/two-moons/versions/1",
        "/openapi.json",
    ),
    *("/models/", "/models/two-moons/versions/x", "/models/two-moons/versions/9", "/models/logprob", "/models/sample"),
    *("/models/two-moons/models", "/models/a/openapi.json", "/two-moons", "/models/models"),
]


def test_both_doors_give_the_same_document(server):
    with httpx.Client(base_url=server.url) as client:
        for path in PATHS:
            for accept in ("*/*", "application/json", "text/html"):
                for more in ({}, {"Pushforward-Timeout-Ms": "x"}):
                    told = []
                    for door in ({}, {}, {"Content-Encoding": "identity"}):  # the head is known the second time
                        answer = client.get(path, headers={"Accept": accept, **more, **door})
                        document = answer.json()
                        document.pop("request_id", None)
                        told.append((answer.status_code, answer.headers["content-type"], document))
                    assert told[0] == told[1] == told[2], (path, accept, more)


@pytest.fixture(scope="module")
def operations(client):
    helpers = Helpers(1)
    yield Operations(client.app.state.registry, Driver(helpers, 30.0), 1.0, Metrics())
    helpers.close()


def test_a_document_is_written_once_for_each_snapshot(operations, client):
    registry = client.app.state.registry
    first = operations.models(), operations.model("square"), operations.model("square", "1")
    again = operations.models(), operations.model("square"), operations.model("square", "1")
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert first[1] is first[2]
    registry._current = type(registry._current).of(
        {entry.key: entry for entry in registry.entries()},
        registry._current.catalogue,
        registry._current.wanted_default,
    )
    assert operations.models() == first[0]
    assert operations.models() is not first[0]


def test_the_head_of_an_open_document_lets_nobody_else_in(operations, client):
    """The same fields, with no key, are not known for a call that needs one."""
    table = documents(operations, OpenApiDocument(client.app), "")
    heads = RequestHeads(table, 1 << 20, policy=AccessPolicy())
    for path, known in ((b"/openapi.json", False), (b"/models", True)):
        head = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nX-A: 1"
        found = heads.find(b"GET", path, [(b"host", b"x"), (b"x-a", b"1")], keep_alive=True)
        assert found is not None
        heads.remember(head, found)
        assert (heads.recall(head + b"\r\n\r\n") is not None) == known
