from __future__ import annotations

import pytest

from service.access.keys import KeyRing, make_key
from service.access.policy import AccessPolicy
from service.api.driver import Call, Fields, RawRequest
from service.api.endpoints import Endpoint
from service.exchange import Reply
from service.http.heads import KnownHead, RequestHeads, ResponseHeads


def verb(exchange):
    return None


LOGPROB = Endpoint("POST", "/logprob", verb)
SAMPLE = Endpoint("GET", "/sample", verb, streams=True)


@pytest.mark.parametrize(
    ("method", "url", "found"),
    [
        (b"POST", b"/logprob", (None, None, b"")),
        (b"POST", b"/logprob?a=1", (None, None, b"a=1")),
        (b"POST", b"/models/wine/logprob", ("wine", None, b"")),
        (b"POST", b"/models/wine/versions/3/logprob?", ("wine", "3", b"")),
        (b"GET", b"/logprob", None),
        (b"POST", b"/logprob/", None),
        (b"POST", b"logprob", None),
        (b"POST", b"//logprob", None),
        (b"POST", b"http://host/logprob", None),
        (b"POST", b"/models//logprob", None),
        (b"POST", b"/models/w%69ne/logprob", None),
        (b"POST", b"/models/wine/versions//logprob", None),
        (b"POST", b"/models/wine/1/logprob", None),
        (b"POST", b"/models/w\xc3\xafne/logprob", None),
        (b"POST", b"/interpolate", None),
        (b"POST", b"/logprob?a#b", None),
    ],
)
def test_which_requests_are_direct(method, url, found):
    known = RequestHeads([LOGPROB], 1000).find(method, url, [], keep_alive=True)
    if known is None:
        assert found is None
        return
    call, _, query, _ = known.request
    assert (call.name, call.version, query) == found
    assert call.endpoint is LOGPROB
    assert call.route == call.route.partition("/logprob")[0] + "/logprob"


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ([(b"content-length", b"7"), (b"content-type", b"a/b")], 7),
        ([(b"content-length", b"1001")], None),
        ([(b"content-length", b"x")], None),
        ([(b"transfer-encoding", b"chunked")], None),
        ([(b"content-encoding", b"identity")], None),
        ([(b"expect", b"100-continue")], None),
    ],
)
def test_which_fields_are_left_to_the_application(headers, length):
    known = RequestHeads([LOGPROB], 1000).find(b"POST", b"/logprob", headers, keep_alive=False)
    assert (None if known is None else known.length) == length
    assert known is None or known.request.fields == Fields("a/b", keep_alive=False)


@pytest.mark.parametrize(
    ("accept", "direct"), [(None, True), (b"*/*", True), (b"application/json", True), (b"text/csv", False)]
)
def test_what_may_stream_is_left_to_the_application(accept, direct):
    headers = [] if accept is None else [(b"accept", accept)]
    heads = RequestHeads([LOGPROB, SAMPLE], 1000)
    assert (heads.find(b"GET", b"/sample", headers, keep_alive=True) is not None) == direct
    assert heads.find(b"POST", b"/logprob", headers, keep_alive=True) is not None


HEAD = b"POST /logprob HTTP/1.1\r\nHost: x\r\nContent-Length: 2"
QUERY = b"GET /sample?n=1&seed=5 HTTP/1.1\r\nHost: x"
POSTED, ASKED = Call(LOGPROB, "flow"), Call(SAMPLE)


@pytest.fixture
def heads():
    made = RequestHeads([], 1000)
    made.remember(HEAD, KnownHead(RawRequest(POSTED, Fields("a/b")), 2))
    made.remember(QUERY, KnownHead(RawRequest(ASKED, Fields()), 0))
    return made


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (HEAD + b"\r\n\r\n{}", RawRequest(POSTED, Fields("a/b"), b"", b"{}")),
        (QUERY + b"\r\n\r\n", RawRequest(ASKED, Fields(), b"n=1&seed=5")),
        (b"GET /sample?seed=6&n=3 HTTP/1.1\r\nHost: x\r\n\r\n", RawRequest(ASKED, Fields(), b"seed=6&n=3")),
        (b"GET /sample? HTTP/1.1\r\nHost: x\r\n\r\n", RawRequest(ASKED, Fields())),
        (HEAD + b"\r\n\r\n{", None),  # not whole yet
        (HEAD + b"\r\n\r\n{} ", None),  # something follows
        (HEAD, None),
        (HEAD.replace(b"2", b"3") + b"\r\n\r\n{ }", None),
        (HEAD.replace(b"POST", b"PUT") + b"\r\n\r\n{}", None),
        (HEAD.replace(b"1.1", b"1.0") + b"\r\n\r\n{}", None),
        (HEAD.replace(b"/logprob", b"/logprob?a=1") + b"\r\n\r\n{}", None),
        (HEAD.replace(b"/logprob", b"/log%70rob") + b"\r\n\r\n{}", None),
        (b"\r\n" + HEAD + b"\r\n\r\n{}", None),
        (b"GET /sample?n=1%30 HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"GET /sample?n=1 HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"GET /sample?n=1#f HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"GET /sample HTTP/1.1\r\nHost: x\r\n\r\n", None),
        (b"GET /sample?n=1 HTTP/1.1\r\nHost: y\r\n\r\n", None),
        (b"GET /sample HTTP/1.1\r\n\r\n", None),
        (b"\r\n\r\n", None),
        (b"", None),
    ],
)
def test_only_a_head_that_was_parsed_before_is_recalled(heads, data, found):
    assert heads.recall(data) == found


def test_what_is_remembered_has_a_bound(heads):
    known = KnownHead(RawRequest(ASKED, Fields()), 0)
    for number in range(5000):
        heads.remember(b"POST /%d HTTP/1.1\r\nA: %d" % (number, number), known)
    heads.remember(b"POST /long HTTP/1.1\r\nA: " + b"x" * 3000, known)
    assert max(len(heads._lines), len(heads._fields)) <= 4096
    assert max(map(len, heads._fields)) < 3000


def test_an_answer_has_the_default_fields_its_own_and_its_length():
    defaults = [(b"date", b"now")]
    heads = ResponseHeads()
    whole = heads.message(Reply(b"{}"), defaults, keep_alive=True, request_id=b"7")
    assert whole == (
        b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
        b"x-request-id: 7\r\n\r\n{}"
    )
    own = heads.message(Reply(b"", 429, headers={"Retry-After": "3"}), defaults, keep_alive=False, request_id=b"7")
    assert own.startswith(b"HTTP/1.1 429 Too Many Requests\r\ndate: now\r\nretry-after: 3\r\n")
    assert own.endswith(b"content-length: 0\r\nx-request-id: 7\r\nconnection: close\r\n\r\n")
    for seconds in ("3", "4", "3"):
        other = heads.message(
            Reply(b"", 429, headers={"Retry-After": seconds}), defaults, keep_alive=True, request_id=b"8"
        )
        assert b"\r\nretry-after: %b\r\n" % seconds.encode() in other


def test_an_answers_head_follows_the_default_fields():
    heads, defaults = ResponseHeads(), [(b"date", b"now")]
    heads.message(Reply(b""), defaults, keep_alive=True, request_id=b"7")
    defaults.append((b"connection", b"close"))  # as a server that drains does
    assert b"now\r\nconnection: close\r\n" in heads.message(Reply(b""), defaults, keep_alive=True, request_id=b"7")
    assert b"later" in heads.message(Reply(b""), [(b"date", b"later"), (b"a", b"b")], keep_alive=True, request_id=b"7")


ALICE, OPS = make_key("alice", ["infer"], requests_per_minute=3), make_key("ops", ["admin"])


def bearer(key):
    return b"authorization", b"Bearer " + key.encode()


@pytest.fixture
def guarded():
    ring = KeyRing([ALICE.stored, OPS.stored], clock=lambda: 0.0)
    return RequestHeads([LOGPROB], 1000, policy=AccessPolicy(ring)), ring


def find(heads, *fields):
    return heads.find(b"POST", b"/logprob", fields, keep_alive=True)


def test_only_what_the_gate_lets_through_is_direct(guarded):
    heads, _ = guarded
    assert find(heads, bearer(ALICE.key)).request.fields.caller.stored == ALICE.stored
    assert find(heads) is None
    assert find(heads, bearer(OPS.key)) is None
    assert find(heads, bearer(ALICE.key), bearer(ALICE.key)) is None
    assert find(heads, bearer(ALICE.key), (b"host", b"evil.example")) is None


@pytest.mark.parametrize("field", [(b"origin", b"http://localhost"), (b"sec-fetch-site", b"same-origin")])
def test_what_a_browser_says_is_never_remembered(guarded, field):
    assert find(guarded[0], bearer(ALICE.key), field) is None


def test_a_head_that_is_recalled_is_paid_for_and_forgotten_with_its_key(guarded):
    heads, _ = guarded
    head = b"POST /logprob HTTP/1.1\r\nAuthorization: Bearer %b" % ALICE.key.encode()
    heads.remember(head, find(heads, bearer(ALICE.key)))
    assert heads.recall(head + b"\r\n\r\n").fields.caller.stored == ALICE.stored
    assert heads.recall(head + b"\r\n\r\n") is not None
    assert heads.recall(head + b"\r\n\r\n") is None  # the fourth of three
    heads, _ = guarded[0], guarded[1].replace([ALICE.stored])
    heads.forget()
    assert heads.recall(head + b"\r\n\r\n") is None


def test_a_head_without_its_key_is_another_head(guarded):
    heads, _ = guarded
    head = b"POST /logprob HTTP/1.1\r\nAuthorization: Bearer %b" % ALICE.key.encode()
    heads.remember(head, find(heads, bearer(ALICE.key)))
    for other in (
        head[:-1],
        head + b"A",
        head.replace(b"Bearer", b"Bearer "),
        head.partition(b"\r\n")[0] + b"\r\nA: b",
    ):
        assert heads.recall(other + b"\r\n\r\n") is None


def test_an_id_of_the_client_is_kept_and_its_head_is_not(guarded):
    heads, _ = guarded
    assert find(heads, bearer(ALICE.key)).request_id is None
    known = find(heads, bearer(ALICE.key), (b"x-request-id", b"abc"))
    assert known.request_id == b"abc"
    heads.remember(b"POST /logprob HTTP/1.1\r\nX-Request-Id: abc", known)
    assert heads.recall(b"POST /logprob HTTP/1.1\r\nX-Request-Id: abc\r\n\r\n") is None
    assert find(heads, bearer(ALICE.key), (b"x-request-id", b"a\tb")).request_id is None


def test_two_ids_are_read_as_the_application_reads_them(guarded):
    heads, _ = guarded
    known = find(heads, bearer(ALICE.key), (b"x-request-id", b"a"), (b"x-request-id", b"b"))
    assert known.request_id == b"a, b"
