"""Nobody gets past the access policy: some 600 ways to try, on one real server, through both doors and at both lengths.

`Content-Encoding: identity` says nothing and sends a request to the application. Without it, a request is answered by
the connection, which remembers heads that it has seen: a good request with the same line is sent before each bad one.
"""

from __future__ import annotations

import json
import socket

import pytest

from tests.server import Server
from tests.service.key_cases import ALICE, BOB, EYE, KEY, OPS, PATHS, WRONG, bearer

ROW = b'{"x": [[0.5, 0.25]]}'
DOORS = {"hot": b"", "cold": b"Content-Encoding: identity\r\n"}
LONG = {"short": b"", "long": b"X-Padding: " + b"p" * 4000 + b"\r\n"}
"""Heads of more than 2048 bytes are parsed each time, and never remembered."""


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("".join(each.stored.line() + "\n" for each in (ALICE, BOB, OPS, EYE)))
    process = Server("--repository", repository, "--default-flow", "two-moons", "--keys-file", file)
    yield process
    assert process.stop() == 0


def ask(server, *requests, until_close=False):
    """Send requests over one connection, and give what comes for all of them: (status, head, body) of each."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as plug:
        read = plug.makefile("rb")
        found = []
        for request in requests:
            plug.sendall(request)
            found.append(answer(read, request.startswith(b"HEAD")))
            if found[-1] is None:
                break
        return found


def answer(read, bodiless):
    line = read.readline()
    if not line:
        return None
    head = {}
    while field := read.readline().rstrip(b"\r\n"):
        name, _, value = field.partition(b":")
        head[name.lower().decode()] = value.strip().decode("latin-1")
    body = b"" if bodiless else read.read(int(head.get("content-length", 0)))
    return int(line.split()[1]), head, body


def request(fields=b"", method=b"POST", target=b"/logprob", body=ROW, host=b"localhost"):
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%bContent-Length: %d\r\n\r\n%b" % (
        method, target, host, fields, len(body), body,
    )  # fmt: skip


GOOD = request(bearer(KEY))


def assert_refused(found, statuses):
    assert found is not None
    status, head, body = found
    assert status in statuses, (status, body)
    assert b"log_prob" not in body
    assert KEY.encode() not in body
    assert head["x-request-id"]
    if status == 401:
        assert head["www-authenticate"].startswith("Bearer ")
    if head["content-type"] == "application/problem+json" and body:
        assert json.loads(body)["request_id"] == head["x-request-id"]


@pytest.mark.parametrize("length", LONG)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("key", [ALICE, BOB])
def test_a_key_opens_both_doors(server, door, length, key):
    whole = request(LONG[length] + DOORS[door] + bearer(key.key))
    for status, _, body in ask(server, whole, whole, whole):
        assert status == 200
        assert json.loads(body)["log_prob"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", WRONG)
def test_nothing_else_does(server, name, door):
    good, bad = request(DOORS[door] + bearer(KEY)), request(DOORS[door] + WRONG[name])
    before, found = ask(server, good, bad)
    assert before[0] == 200
    assert_refused(found, {403} if name.startswith("of ") else {401})


@pytest.mark.parametrize("length", LONG)
@pytest.mark.parametrize("name", ["none", "one too few", "of metrics", "two fields"])
def test_nor_at_another_length(server, name, length):
    for door in DOORS.values():
        found = ask(server, GOOD, request(LONG[length] + door + WRONG[name]))[1]
        assert_refused(found, {401, 403})


OPEN = {"empty"}


@pytest.mark.parametrize("method", [b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"])
@pytest.mark.parametrize("name", PATHS)
def test_no_path_and_no_method_goes_around(server, name, method):
    for door in DOORS.values():
        _, found = ask(server, GOOD, request(door, method=method, target=PATHS[name]))
        if name in OPEN and method in (b"GET", b"HEAD"):
            assert found[0] == 200
            continue
        assert_refused(found, {404, 405} if name in OPEN else {400, 401})


@pytest.mark.parametrize("name", PATHS)
def test_a_key_for_flows_is_none_for_metrics_or_administration(server, name):
    for method in (b"GET", b"POST", b"PUT", b"DELETE"):
        found = ask(server, request(bearer(KEY), method=method, target=PATHS[name]))[0]
        if any(word in name for word in ("repository", "metrics")) and "slash" not in name:
            assert_refused(found, {403})
        else:
            assert b"pushforward_requests_total" not in (found or (0, {}, b""))[2]


def test_each_key_opens_what_is_its_own(server):
    def statuses(key):
        targets = (b"/metrics", b"/models", b"/repository", b"/health/live", b"/docs", b"/openapi.json")
        return [ask(server, request(bearer(key.key), b"GET", target, b""))[0][0] for target in targets]

    assert statuses(ALICE) == [403, 200, 403, 200, 200, 200]
    assert statuses(EYE) == [200, 403, 403, 200, 200, 200]
    assert statuses(OPS)[:2] == [403, 403]
    assert statuses(OPS)[2] in (200, 404)


def test_probes_and_pages_need_no_key(server):
    for target in (b"/health/live", b"/health/ready", b"/docs", b"/redoc", b"/openapi.json"):
        assert ask(server, request(b"", b"GET", target, b""))[0][0] == 200


def test_the_inference_protocol_is_refused_in_its_own_words(server):
    status, head, body = ask(server, request(target=b"/v2/models/two-moons/infer"))[0]
    assert (status, head["content-type"]) == (401, "application/json")
    assert list(json.loads(body)) == ["error"]


def test_one_connection_has_no_key_of_its_own(server):
    """Each request brings its own key: on one connection, one behind the other, and sent all at once."""
    bad = request()
    statuses = [found[0] for found in ask(server, GOOD, bad, GOOD, request(bearer(EYE.key)), GOOD)]
    assert statuses == [200, 401, 200, 403, 200]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as plug:
        plug.sendall(GOOD + bad + GOOD + bad + request(b"", b"GET", b"/health/live", b"") + bad)
        read = plug.makefile("rb")
        assert [answer(read, False)[0] for _ in range(6)] == [200, 401, 200, 401, 200, 401]


def test_a_body_in_chunks_needs_a_key_too(server):
    head = b"POST /logprob HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
    assert_refused(ask(server, head % (b"", len(ROW), ROW))[0], {401})
    assert ask(server, head % (bearer(KEY), len(ROW), ROW))[0][0] == 200


def test_a_stream_needs_a_key_too(server):
    target, accept = b"/sample?n=100000&seed=1", b"Accept: text/csv\r\n"
    assert_refused(ask(server, request(accept, b"GET", target, b""))[0], {401})
    assert ask(server, request(accept + bearer(KEY), b"GET", target, b""))[0][0] == 200


@pytest.mark.parametrize("host", [b"evil.example", b"localhost.evil.example:80", b"127.0.0.1.evil.example"])
def test_a_strangers_name_is_refused_with_a_key_too(server, host):
    for door in DOORS.values():
        for target in (b"/logprob", b"/health/live", b"/metrics"):
            found = ask(server, GOOD, request(door + bearer(KEY), target=target, host=host))[1]
            assert_refused(found, {421})


FOREIGN = [
    b"Origin: http://evil.example\r\n",
    b"Origin: null\r\n",
    b"Sec-Fetch-Site: cross-site\r\n",
    b"Sec-Fetch-Site: same-site\r\n",
    b"Origin: http://localhost:1\r\n",
]


@pytest.mark.parametrize(
    "kind", [b"application/json", b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data", b""]
)
@pytest.mark.parametrize("fields", FOREIGN)
def test_a_foreign_page_is_refused_whatever_it_sends(server, fields, kind):
    typed = fields + (b"Content-Type: %b\r\n" % kind if kind else b"")
    for door in DOORS.values():
        _, found, after = ask(server, GOOD, request(typed + door + bearer(KEY)), GOOD)
        assert_refused(found, {403})
        assert after[0] == 200
        assert json.loads(found[2])["code"] == "foreign_origin"


@pytest.mark.parametrize("fields", FOREIGN)
def test_what_a_page_may_read_is_no_leave_to_do_more(server, fields):
    """A GET passes, and its head is then known: a POST with the same fields and length is still refused."""
    read, done = (request(fields + bearer(KEY), method, b"/sample", b"") for method in (b"GET", b"POST"))
    plain, warm = request(bearer(KEY), b"POST", b"/sample", b""), ask(server, read, read)
    assert [found[0] for found in warm] == [200, 200]
    assert_refused(ask(server, plain, read, done)[2], {403})


@pytest.mark.parametrize("kind", [b"text/plain", b"application/x-www-form-urlencoded"])
def test_a_program_may_send_a_form(server, kind):
    """curl -d says that it sends a form."""
    assert ask(server, request(bearer(KEY) + b"Content-Type: %b\r\n" % kind))[0][0] in (200, 415)
    own = b"Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n"
    assert ask(server, request(bearer(KEY) + own))[0][0] == 200
