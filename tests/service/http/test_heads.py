from __future__ import annotations

import pytest

from service.http.heads import Call, Fields, Heads, Hot


def verb(exchange):
    return None


def together(common, texts):
    return None


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
def test_which_calls_are_hot(method, url, found):
    known = Heads({(b"POST", b"logprob"): verb}, {(b"POST", b"logprob"): together}).find(method, url)
    if known is None:
        assert found is None
        return
    call, query = known
    assert (call.name, call.version, query) == found
    assert (call.verb, call.together) == (verb, together)


HEAD = b"POST /logprob HTTP/1.1\r\nHost: x\r\nContent-Length: 2"
QUERY = b"GET /sample?n=1&seed=5 HTTP/1.1\r\nHost: x"


@pytest.fixture
def heads():
    made = Heads({}, {})
    made.remember(HEAD, Call(verb, "flow"), Fields("a/b"), 2)
    made.remember(QUERY, Call(verb), Fields(), 0)
    return made


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (HEAD + b"\r\n\r\n{}", Hot(Call(verb, "flow"), Fields("a/b"), b"", b"{}")),
        (QUERY + b"\r\n\r\n", Hot(Call(verb), Fields(), b"n=1&seed=5")),
        (b"GET /sample?seed=6&n=3 HTTP/1.1\r\nHost: x\r\n\r\n", Hot(Call(verb), Fields(), b"seed=6&n=3")),
        (b"GET /sample? HTTP/1.1\r\nHost: x\r\n\r\n", Hot(Call(verb), Fields())),
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
    for number in range(5000):
        heads.remember(b"POST /%d HTTP/1.1\r\nA: %d" % (number, number), Call(verb), Fields(), 0)
    heads.remember(b"POST /long HTTP/1.1\r\nA: " + b"x" * 3000, Call(verb), Fields(), 0)
    assert max(len(heads._lines), len(heads._fields)) <= 4096
    assert max(map(len, heads._fields)) < 3000
