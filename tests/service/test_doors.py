"""Two doors, one answer: a direct request is answered by the connection just as the application answers it.

`Content-Encoding: identity` says nothing and sends a request to the application: the same request with and without it
goes through both doors of one server process.
"""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.driver import LARGE_BODY
from tests.server import Server
from tests.service.api.media import ALL

COLD = "Content-Encoding: identity\r\n"


@pytest.fixture(scope="module")
def server(repository):
    process = Server(
        "--repository", repository, "--default-flow", "two-moons", "--max-work", 100_000, "--max-stream-work", 500_000
    )
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url) as opened:
        yield opened


numbers = st.floats(-3, 3, width=32) | st.integers(-3, 3) | st.sampled_from([1e30, 1e400, None, "1", True, [1.0]])
rows = st.lists(st.lists(numbers, min_size=1, max_size=3), max_size=3) | numbers
bodies = st.dictionaries(
    st.sampled_from(["x", "z", "return", "alarm_rate", "model", "version", "context", "unknown"]),
    rows | st.sampled_from([["z", "quantile"], ["nothing"], 0.1, 7, "two-moons", "square", "nowhere", 1]),
    max_size=4,
)
prefixes = st.sampled_from(
    [
        *("", "/models/", "/else", "/models/two-moons", "/models/square", "/models/nowhere", "/models/image"),
        *("/models/two-moons/versions/1", "/models/two-moons/versions/9", "/models/two-moons/versions/x"),
        "/models/two%2Dmoons",
    ]
)
parameters = st.dictionaries(
    st.sampled_from(["n", "seed", "offset", "temperature", "context", "model", "x"]),
    st.sampled_from(["1", "3", "0", "-1", "7", "2.5", "nan", "", "1,2", "two-moons", "square", "40000", "1000000"]),
    max_size=4,
)
accepts = st.sampled_from(
    [None, "*/*", "application/json", "text/html", "application/*;q=0.5", *(media.name for media in ALL)]
)
content_types = st.sampled_from([None, "application/json", "application/json; charset=utf-8", "text/plain"])


DRAWN = "pushforward-seed"


def told(response: httpx.Response):
    kind = response.headers.get("content-type", "")
    document = response.json() if response.content and "json" in kind and "ndjson" not in kind else response.content
    headers = {name: value for name, value in response.headers.items() if name in NAMES or "pushforward" in name}
    if isinstance(document, dict):
        assert document.pop("request_id", None) == (response.headers["x-request-id"] if response.is_error else None)
    if isinstance(document, dict) and "seed" in document:
        document = None if document["seed"] >= 1 << 20 else document  # drawn by the server, so another each time
    elif int(headers.get(DRAWN, 0)) >= 1 << 20:
        document = headers[DRAWN] = None
    return response.status_code, headers, document


NAMES = {"content-type", "retry-after", "allow"}


def both(client: httpx.Client, method: str, url: str, headers: dict[str, str], content: bytes | None):
    # a header's value of None would be dropped by httpx's defaults, so that they are cleared first
    hot = client.build_request(method, url, content=content)
    for name in ("accept", "content-type"):
        hot.headers.pop(name, None)
    hot.headers.update(headers)
    cold = client.build_request(method, url, content=content, headers={"content-encoding": "identity"})
    for name in ("accept", "content-type"):
        cold.headers.pop(name, None)
    cold.headers.update(headers)
    return told(client.send(hot)), told(client.send(cold))


def some(**headers: str | None) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items() if value is not None}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prefixes, st.sampled_from(["logprob", "encode", "decode", "sample", "trace"]), bodies, accepts, content_types)
def test_posts_are_answered_alike(client, prefix, verb, body, accept, content_type):
    content = json.dumps(body).replace("Infinity", "1e400").encode()
    headers = some(accept=accept, content_type=content_type)
    hot, cold = both(client, "POST", f"{prefix}/{verb}", headers, content)
    assert hot == cold


tables = st.lists(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=2), min_size=1, max_size=3)
questions = st.dictionaries(
    st.sampled_from(["return", "alarm_rate", "model", "context", "steps", "x", "unknown"]),
    st.sampled_from(["z", "z,quantile", "0.1", "two-moons", "square", "1", "0.5,1", ""]),
    max_size=2,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefixes,
    st.sampled_from(["logprob", "encode", "decode"]),
    st.sampled_from(ALL),
    tables,
    questions,
    accepts,
    st.data(),
)
def test_other_media_types_are_answered_alike(client, prefix, verb, media, table, query, accept, data):
    content = media.write(np.array(table, np.float32))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content) - 1))
        content = content[:at] + data.draw(st.binary(max_size=2)) + content[at + 1 :]
    url = str(httpx.URL(f"{prefix}/{verb}", params=query))
    hot, cold = both(client, "POST", url, some(accept=accept, content_type=media.name), content)
    assert hot == cold


def test_calls_of_many_connections_at_once_are_answered_alike(server):
    """Plain calls among odd ones, in the same turns of the loop: each gets what it gets alone."""
    x = np.random.default_rng(0).normal(size=(200, 2)).round(3).tolist()
    odd = [
        '{"x": [[1, null]]}',
        '{"x": [[1, 2], [3, 4]]}',
        '{"x": [[1e39, 0]]}',
        '{"x": [[1, 2]], "return": ["z"]}',
        "{",
    ]
    calls = [
        ("POST", "/logprob", (odd[i % 5] if i % 7 == 0 else json.dumps({"x": [x[i]]})).encode()) for i in range(200)
    ]
    calls += [("GET", f"/sample?n=1&seed={i}" if i % 5 else f"/sample?seed={i}&n=0", None) for i in range(200)]

    async def main():
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:

            async def answers(**headers):
                asked = [client.request(how, url, content=content, headers=headers) for how, url, content in calls]
                return [told(answer) for answer in await asyncio.gather(*asked)]

            await answers()  # so that all heads are known
            return await answers(), await answers(**{"content-encoding": "identity"})

    hot, cold = asyncio.run(main())
    assert hot == cold
    assert {status for status, _, _ in hot} == {200, 400, 422}


def shapes(x: list[list[float]]) -> list[tuple[str, str, bytes | None]]:
    """Calls of every shape: those that share a run, and odd ones among them."""
    a, b, *_ = x
    image, conditional = [abs(value) for value in (a + b) * 2][:6], [*a, 1.0]
    posts = [
        ("logprob", {"model": "two-moons", "x": [a]}),
        ("logprob", {"x": [a], "version": 1, "model": "two-moons"}),
        ("logprob", {"x": [a], "return": ["quantile", "z"], "alarm_rate": 0.1}),
        ("logprob", {"x": [a], "return": ["round_trip_error"]}),
        ("logprob", {"x": x[:4]}),
        ("logprob", {"x": [a], "alarm_rate": 7}),
        ("models/image/logprob", {"x": [image]}),
        ("models/conditional/logprob", {"x": [conditional], "context": a}),
        ("models/conditional/logprob", {"x": [conditional]}),
        ("models/square/logprob", {"x": [[a[0]]]}),
        ("encode", {"x": [a]}),
        ("encode", {"x": [[1e39, 0]]}),
        ("decode", {"z": [a]}),
        ("models/image/decode", {"z": [image] * 2}),
        ("interpolate", {"points": [a, b], "steps": 5}),
        ("interpolate", {"points": [a, b], "steps": 1}),
        ("models/image/interpolate", {"points": [image, image[::-1]], "steps": 3, "path": "linear"}),
        ("edit", {"x": [a], "direction": b, "strength": [0.5, 1]}),
        ("edit", {"x": [a], "direction": [0, 0], "strength": [1]}),
        ("trace", {"x": [a]}),
        ("models/square/trace", {"x": [[a[0]]]}),
        ("sample", {"seed": round(abs(1000 * a[0])), "temperature": 0.5, "n": 3}),
        ("models/conditional/sample", {"seed": 3, "context": a}),
        ("weights", {"x": [a], "log_target": [0.5]}),
    ]
    found = [("POST", f"/{path}", json.dumps(body).encode()) for path, body in posts]
    return [*found, ("GET", f"/sample?seed={round(abs(1000 * a[0]))}&temperature=0.5", None), ("GET", "/models", None)]


def test_calls_of_every_shape_at_once_are_answered_alike(server):
    """Each by the connection, by the application, and alone: the bytes are the same."""
    x = np.random.default_rng(1).normal(size=(40, 2)).round(3).tolist()
    calls = [call for at in range(0, 40, 4) for call in shapes(x[at : at + 4])]

    async def main():
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=120) as client:

            async def answers(**headers):
                asked = [client.request(how, url, content=content, headers=headers) for how, url, content in calls]
                return [told(answer) for answer in await asyncio.gather(*asked)]

            await answers()  # so that all heads are known
            return await answers(), await answers(**{"content-encoding": "identity"})

    hot, cold = asyncio.run(main())
    assert hot == cold
    with httpx.Client(base_url=server.url, timeout=120) as client:
        alone = [told(client.request(how, url, content=content)) for how, url, content in calls]
    assert hot == alone
    assert {status for status, _, _ in hot} >= {200, 422}


@pytest.mark.parametrize("query", ["?", "?alarm_rate=0.1", "?x=1", "?seed=7"])
def test_a_plain_body_beside_a_query_is_answered_alike(client, query):
    for _ in range(2):  # the head is known the second time
        hot, cold = both(client, "POST", f"/logprob{query}", {}, b'{"x": [[1, 2]]}')
        assert hot == cold
        assert hot[0] == (200 if query == "?" else 422)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prefixes, st.binary(max_size=40))
def test_broken_bodies_are_answered_alike(client, prefix, content):
    hot, cold = both(client, "POST", f"{prefix}/logprob", {}, content)
    assert hot == cold


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prefixes, parameters, accepts)
def test_samples_are_answered_alike(client, prefix, query, accept):
    url = str(httpx.URL(f"{prefix}/sample", params=query))
    hot, cold = both(client, "GET", url, some(accept=accept), None)
    assert hot == cold


def talk(server, sent: bytes | list[bytes], answers: int) -> list[tuple[bytes, bytes]]:
    """Send bytes, or pieces of them, on one connection, and read so many answers: head and body of each."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in [sent] if isinstance(sent, bytes) else sent:
            connection.sendall(piece)
        received, found = b"", []
        while len(found) < answers:
            piece = connection.recv(1 << 16)
            assert piece, (found, received)
            received += piece
            while b"\r\n\r\n" in received:
                head, _, rest = received.partition(b"\r\n\r\n")
                if head.startswith(b"HTTP/1.1 100"):
                    received = rest
                    continue
                length = int(dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])[b"content-length"])
                if len(rest) < length:
                    break
                found.append((head, rest[:length]))
                received = rest[length:]
    return found


def post(x: float, more: str = "", version: str = "1.1") -> bytes:
    body = json.dumps({"x": [[x, 0.0]], "return": ["z"]})
    return f"POST /logprob HTTP/{version}\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def latents(answers) -> list[float]:
    return [json.loads(body)["z"][0][0] for _, body in answers]


def test_pipelined_calls_are_answered_in_their_order(server):
    xs = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    sent = b"".join(post(x, COLD if i % 3 == 2 else "") for i, x in enumerate(xs))
    alone = [latents(talk(server, post(x), 1))[0] for x in xs]
    assert len(set(alone)) == len(xs)
    assert latents(talk(server, sent, len(xs))) == alone


def test_a_connection_is_used_again_and_again(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        for x in (1.0, 2.0, 3.0):
            connection.sendall(post(x))
            assert received_json(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def received_json(connection: socket.socket) -> bytes:
    """A reply whose body is a JSON object; its head and its body may come apart."""
    received = b""
    while not received.endswith(b"}"):
        piece = connection.recv(1 << 16)
        assert piece, "the connection has ended"
        received += piece
    return received


def test_a_body_that_comes_byte_by_byte_is_one_body(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in post(1.0):
            connection.sendall(bytes([byte]))
        assert b'"log_prob":' in received_json(connection)


@pytest.mark.parametrize("cut", [0, 1, 1 << 16, -1])
def test_a_body_in_pieces_ends_where_its_length_says(server, cut):
    body = json.dumps({"x": [[0.5, 0.0]] * 12_000}).encode()
    assert len(body) > 1 << 17
    head = f"POST /logprob HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    alone = latents(talk(server, post(1.0), 1))[0]
    at = cut % len(body)
    answers = talk(server, [head + body[:at], body[at:] + post(1.0) + post(1.0)], 3)
    assert len(json.loads(answers[0][1])["log_prob"]) == 12_000
    assert latents(answers[1:]) == [alone, alone]


@pytest.mark.parametrize(("more", "version"), [("Connection: close\r\n", "1.1"), ("", "1.0")])
def test_a_client_that_wants_the_end_gets_it(server, more, version):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(post(1.0, more, version))
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_waits_for_100_is_told_to_go_on(server):
    ((_, body),) = talk(server, post(1.0, "Expect: 100-continue\r\n"), 1)
    assert "log_prob" in json.loads(body)


def test_a_chunked_body_is_read(server):
    body = b'{"x": [[1, 2]]}'
    sent = b"POST /logprob HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent += b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    ((head, _),) = talk(server, sent, 1)
    assert head.startswith(b"HTTP/1.1 200")


def test_a_large_body_and_a_large_answer_pass(client):
    x = np.zeros((LARGE_BODY // 8, 2)).tolist()
    content = json.dumps({"x": x}).encode()
    assert len(content) > LARGE_BODY
    assert len(client.post("/logprob", content=content).json()["log_prob"]) == len(x)
    assert len(client.get("/sample?n=20000&seed=1").json()["x"]) == 20000


@pytest.mark.parametrize(
    ("path", "body"),
    [("logprob", {"x": [[0.5, 0.2]]}), ("decode", {"z": [[0.5, 0.2]]}), ("sample", {"n": 9, "seed": 1})],
)
def test_a_picture_is_the_same_through_either_door(client, path, body):
    headers = {"accept": "image/png"}
    hot = [client.post(f"/{path}", json=body, headers=headers) for _ in range(2)]
    cold = client.post(f"/{path}", json=body, headers={**headers, "content-encoding": "identity"})
    for answer in (*hot, cold):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert "transfer-encoding" not in answer.headers
    assert {answer.content for answer in hot} == {cold.content}


def test_a_client_that_reads_nothing_is_not_written_to_for_ever(server):
    sent = b"GET /sample?n=4000&seed=1 HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=2) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(TimeoutError):  # the server stops reading, as it has nowhere to write to
            connection.sendall(sent * 1_000_000)
    assert httpx.get(f"{server.url}/health/live").status_code == 200


@pytest.mark.parametrize("media", ALL, ids=lambda media: media.name)
def test_a_sample_that_streams_streams_whatever_was_asked_before(client, media):
    plain = {"n": 3, "seed": 1}
    for accept in ("application/json", media.name):  # both heads are known by now
        for _ in range(2):
            assert client.get("/sample", params=plain, headers={"accept": accept}).status_code == 200
            body = json.dumps({"x": [[1, 2]]})
            assert client.post("/logprob", content=body, headers={"accept": accept}).status_code == 200
    n = 200_000  # the work budget is 100,000 values
    answer = client.get("/sample", params={"n": n, "seed": 1}, headers={"accept": media.name})
    assert answer.status_code == 200
    assert answer.headers["transfer-encoding"] == "chunked"
    assert len(media.read(answer.content, "x", ["column 0", "column 1"])) == n
