from __future__ import annotations

import inspect
import subprocess
import sys

import httpx
import numpy as np
import orjson
import pytest

import pushforward
from pushforward.client import errors
from pushforward.client.connection import DEFAULT_TIMEOUT
from tests.pushforward.conftest import Time

FLOW = {
    "name": "affine",
    "version": 2,
    "versions": [1, 2],
    "state": "ready",
    "default": True,
    "event_shape": [2],
    "context_width": 0,
    "features": [],
}


def reply(**payload):
    return httpx.Response(200, content=orjson.dumps({"model": "affine", "version": 2, **payload}))


def test_a_request_is_what_the_contract_says(connect):
    seen = []

    def handler(request):
        seen.append(request)
        return reply(log_prob=[-1.5, None], in_support=[True, False])

    client = connect(handler, base_url="http://host:81/below", model="affine", headers={"X-Key": "k"})
    log_prob = client.log_prob(np.array([[0.1, 1], [2, 3]], np.float32))
    assert log_prob.tolist() == [-1.5, -np.inf]
    assert log_prob.dtype == np.float32
    request = seen[0]
    assert (request.method, str(request.url)) == ("POST", "http://host:81/below/logprob")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-key"] == "k"
    assert request.content == b'{"model":"affine","x":[[0.1,1.0],[2.0,3.0]]}'


def test_a_query_is_sent(connect):
    seen = []

    def handler(request):
        seen.append(str(request.url))
        return reply(x=[[0.5, 0.5]], log_prob=[1.0], seed=7, offset=0)

    assert connect(handler, base_url="http://host").sample(seed=7, context=[0.5]).seed == 7
    assert seen == ["http://host/sample?n=1&offset=0&seed=7&temperature=1.0&context=0.5"]


def test_a_client_has_jitter_of_its_own():
    slept = []
    transport = httpx.MockTransport(lambda _: httpx.Response(503))
    with pushforward.Client(transport=transport, sleep=slept.append) as client, pytest.raises(errors.Unavailable):
        client.log_prob([1, 2])
    assert len(set(slept)) == 3


def test_the_paths_of_the_cold_calls(connect):
    seen = []

    def handler(request):
        seen.append(f"{request.method} {request.url.raw_path.decode()}")
        listed = {"default": "affine", "models": [FLOW]}
        return httpx.Response(200, json=listed if request.url.path == "/models" else FLOW)

    client = connect(handler)
    assert [flow.name for flow in client.models()] == ["affine"]
    assert client.model("affine").versions == (1, 2)
    assert client.model("a/../b", 3).name == "affine"
    assert client.model().event_shape == (2,)
    assert connect(handler, model="own", version=1).model().name == "affine"
    assert client.live()
    assert client.ready()
    assert seen == [
        "GET /models",
        "GET /models/affine",
        "GET /models/a%2F..%2Fb/versions/3",
        "GET /models",
        "GET /models/affine",
        "GET /models/own/versions/1",
        "GET /health/live",
        "GET /health/ready",
    ]


def test_a_server_without_a_default_flow(connect):
    client = connect(lambda _: httpx.Response(200, json={"default": None, "models": [FLOW]}))
    with pytest.raises(errors.InvalidInput, match="name one of"):
        client.model()


def test_a_lost_connection_is_tried_again(connect):
    failures = [httpx.ConnectError("refused"), httpx.RemoteProtocolError("closed"), httpx.ReadError("reset")]
    time = Time()

    def handler(_):
        if failures:
            raise failures.pop(0)
        return reply(log_prob=[1.0])

    assert connect(handler, time).log_prob([1, 2]).tolist() == [1.0]
    assert len(time.slept) == 3


def test_a_server_that_is_not_there(connect):
    def handler(_):
        raise httpx.ConnectError("refused")

    client = connect(handler, base_url="http://nobody:1")
    with pytest.raises(errors.ConnectionFailed, match="http://nobody:1: refused"):
        client.log_prob([1, 2])
    assert client.live() is False
    assert client.ready() is False


@pytest.mark.parametrize(("probe", "status"), [("live", 503), ("ready", 503)])
def test_a_probe_says_no_without_waiting(connect, probe, status):
    time = Time()
    assert getattr(connect(lambda _: httpx.Response(status), time), probe)() is False
    assert time.slept == []


def test_a_probe_of_something_else_is_an_error(connect):
    with pytest.raises(errors.NotFound):
        connect(lambda _: httpx.Response(404)).ready()


def test_a_timeout_is_not_tried_again(connect):
    calls = []

    def handler(request):
        calls.append(request)
        raise httpx.ReadTimeout("")

    with pytest.raises(errors.TimedOut, match="gave no answer in 7 seconds"):
        connect(handler, timeout=7).log_prob([1, 2])
    assert len(calls) == 1


def test_each_try_gets_what_is_left_of_the_time(connect):
    seen = []

    def handler(request):
        seen.append(request.extensions["timeout"]["read"])
        return httpx.Response(429, headers={"Retry-After": "4"})

    with pytest.raises(errors.Overloaded) as caught:
        connect(handler, timeout=10).log_prob([1, 2])
    assert caught.value.retry_after == 4.0
    assert seen[0] == 10.0
    assert [round(left) for left in seen] == [10, 6, 2]


def test_an_answer_that_drips_past_the_deadline_is_given_up(connect):
    time = Time()

    class Drip(httpx.SyncByteStream, httpx.AsyncByteStream):
        sent = 0

        def __iter__(self):
            while Drip.sent < 50:
                time.now += 1.0
                Drip.sent += 1
                yield b" "

        async def __aiter__(self):
            for piece in self:
                yield piece

    with pytest.raises(errors.TimedOut):
        connect(lambda _: httpx.Response(200, stream=Drip()), time, timeout=5).log_prob([1, 2])
    assert Drip.sent == 5


def test_a_refusal_carries_the_servers_words(connect):
    problem = {
        "type": "urn:pushforward:problem:wrong_shape",
        "title": "t",
        "status": 422,
        "detail": "x has 3 columns",
        "code": "wrong_shape",
        "errors": [{"loc": ["body", "x"], "row": 1, "column": 2, "reason": "expected 2"}],
    }
    time = Time()
    with pytest.raises(errors.InvalidRequest) as caught:
        connect(lambda _: httpx.Response(422, json=problem), time).log_prob([1, 2, 3])
    error = caught.value
    assert (error.status, error.code, error.detail) == (422, "wrong_shape", "x has 3 columns")
    assert (error.errors[0].loc, error.errors[0].row, error.errors[0].column) == (("body", "x"), 1, 2)
    assert time.slept == []


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "/logprob"])
def test_an_address_that_is_none(connect, url):
    with pytest.raises(errors.InvalidInput, match="base_url"):
        connect(url)


def test_scores_where_more_is_asked_for(connect):
    client = connect(lambda _: reply(log_prob=[1.0], z=[[0.5, 0.5]], anomaly=[True]))
    scores = client.log_prob([1, 2], returns=["z"], alarm_rate=0.1)
    assert scores.z.tolist() == [[0.5, 0.5]]
    assert scores.anomaly.tolist() == [True]
    assert client.log_prob([1, 2], returns=[]).log_prob.tolist() == [1.0]
    assert client.log_prob([1, 2], alarm_rate=0.1).anomaly.tolist() == [True]


def test_both_clients_have_the_same_calls():
    def calls(kind):
        members = inspect.getmembers(kind, inspect.isfunction)
        return {name: _shape(member) for name, member in members if not name.startswith("_")}

    def answers(kind):
        returned = {name: inspect.signature(getattr(kind, name)).return_annotation for name in calls(kind)}
        # a block comes from an iterator of each client's own kind
        return {name: annotation for name, annotation in returned.items() if name != "stream_sample"}

    assert calls(pushforward.Client) == calls(pushforward.AsyncClient)
    assert answers(pushforward.Client) == answers(pushforward.AsyncClient)
    ours, theirs = (inspect.signature(kind) for kind in (pushforward.Client, pushforward.AsyncClient))
    assert list(ours.parameters) == list(theirs.parameters)
    assert ours.parameters["timeout"].default == DEFAULT_TIMEOUT


def _shape(function):
    return [(p.name, p.kind, p.default, p.annotation) for p in inspect.signature(function).parameters.values()]


def test_the_context_manager_closes():
    with pushforward.Client(transport=httpx.MockTransport(lambda _: reply(log_prob=[1.0]))) as client:
        client.log_prob([1, 2])
    with pytest.raises(RuntimeError, match="closed"):
        client.log_prob([1, 2])


async def _async_context():
    async with pushforward.AsyncClient(transport=httpx.MockTransport(lambda _: reply(log_prob=[1.0]))) as client:
        await client.log_prob([1, 2])
    return client


def test_the_asynchronous_context_manager_closes():
    import asyncio

    client = asyncio.run(_async_context())
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(client.log_prob([1, 2]))


PUBLIC = {
    pushforward: {"AsyncClient", "Client", "answers", "errors"},
    pushforward.client: {"AsyncClient", "Client"},
    pushforward.answers: {
        "Decoded",
        "Edited",
        "Encoded",
        "Importance",
        "ModelInfo",
        "Path",
        "Posterior",
        "RepositoryVersion",
        "Samples",
        "Scores",
        "Trace",
        "TracedStep",
        "Weights",
    },
    pushforward.errors: {
        "ApiError",
        "ClientError",
        "ConnectionFailed",
        "DeadlineExceeded",
        "InvalidInput",
        "InvalidRequest",
        "NotAuthorized",
        "NotFound",
        "Overloaded",
        "ServerFailed",
        "TimedOut",
        "TooLarge",
        "Unavailable",
        "UnexpectedAnswer",
        "api_error",
    },
}


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_the_public_names_stay(module):
    assert len(module.__all__) == len(PUBLIC[module])
    assert set(module.__all__) == PUBLIC[module]
    for name in module.__all__:
        assert getattr(module, name) is not None


def test_the_names_are_light():
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        _ = pushforward.Klient
    code = """
import sys, pushforward
assert not {'httpx', 'numpy', 'torch', 'fastapi', 'onnxruntime', 'service.errors'} & set(sys.modules), 'import'
pushforward.Client; pushforward.AsyncClient; pushforward.client.errors; pushforward.client.answers
heavy = {'torch', 'fastapi', 'onnxruntime', 'models', 'service.engine', 'service.api'} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
