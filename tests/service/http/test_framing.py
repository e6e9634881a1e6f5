"""Requests framed as no honest client frames them, and clients that close one half of their connection."""

from __future__ import annotations

import contextlib
import json
import re
import socket

import pytest

from tests.server import Server

ROW = b'{"x": [[1, 2]]}'
HOST = b"Host: x\r\n"
DOORS = {"connection": b"", "application": b"Content-Encoding: identity\r\n"}
CAP, HEADER_CAP = 1 << 20, 1 << 14


@pytest.fixture(scope="module")
def server(repository):
    options = ("--default-flow", "two-moons", "--max-body-bytes", CAP, "--max-header-bytes", HEADER_CAP)
    process = Server("--repository", repository, *options, "--threads", 1, "--allowed-host", "*")
    yield process
    assert process.stop() == 0


def ask(server, *pieces, half_close=False):
    """All that the server answers to these bytes. Whoever sends a lot may find the connection closed meanwhile."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                connection.sendall(piece)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                received += piece
    return received


def statuses(answer):
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def code(answer):
    return json.loads(answer.partition(b"\r\n\r\n")[2])["code"]


def post(body=ROW, more=b"", host=HOST, target=b"/logprob"):
    return b"POST %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (target, host, more, len(body), body)


CHUNKED = b"POST /logprob HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(body, size):
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


FLOODS = {
    "one extension": (b"1;" + b"a" * 60_000,),
    "many extensions": (b"1;" + b"a" * 4000 + b"\r\n{\r\n",) * 100,
    "many short extensions": (b"1;aaaaaaaaaaaaaaaaaa\r\n \r\n" * 1000,) * 20,
    "digits": (b"0" * 60_000,),
    "one trailer": (b"0\r\nx: " + b"a" * 60_000,),
    "many trailers": (b"0\r\n" + b"x: y\r\n" * 20_000,),
    "chunks of one byte": (b"1\r\n \r\n" * 1000,) * 300,
    "data": (b"10000\r\n" + b" " * (1 << 16) + b"\r\n",) * 32,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize("path", [b"/logprob", b"/nowhere"])
def test_what_frames_a_body_counts_toward_the_caps(server, flood, path):
    answer = ask(server, CHUNKED.replace(b"/logprob", path), *flood)
    if path == b"/logprob":
        assert statuses(answer) in ([413], [431])
        assert code(answer) in ("body_too_large", "header_too_large")
    else:  # told at once; what comes is thrown away
        assert statuses(answer) in ([404], [413], [431])


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 16])
def test_honest_chunks_are_read(server, size):
    body = b'{"x": [' + b",".join([b"[1.5, 2.5]"] * 2000) + b"]}"
    assert statuses(ask(server, CHUNKED, b"".join(chunks(body, size)))) == [200]


def test_a_body_of_the_very_cap_may_come_in_chunks(server):
    body = b'{"x": [[1.5, 2.5]' + b" " * (CAP - 19) + b"]}"
    assert len(body) == CAP
    assert statuses(ask(server, CHUNKED, *chunks(body, 64))) == [200]
    assert statuses(ask(server, CHUNKED, *chunks(body + b" ", 64))) == [413]


@pytest.mark.parametrize("size", [1 << 15, 1 << 20])
def test_empty_lines_before_a_request_are_passed_over_up_to_the_cap(server, size):
    close = post(more=b"Connection: close\r\n")
    assert statuses(ask(server, b"\r\n" * 4, close)) == [200]
    assert statuses(ask(server, b"\r\n" * 4 + close)) == [200]
    assert statuses(ask(server, b"\r\n" * size)) == [431]


def test_lines_between_requests_do_not_add_up(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        for _ in range(5):
            connection.sendall(b"\r\n" * 3000 + post())
            answer = b""
            while not answer.endswith(b"]}"):
                answer += connection.recv(1 << 16)
            assert statuses(answer) == [200]


@pytest.mark.parametrize("more", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"", 400),
        (b"Host: x\r\nHost: x\r\n", 400),
        (b"Host: x\r\nhost: y\r\n", 400),
        (b"Host:\r\n", 400),
        (b"Host: a b\r\n", 400),
        (b"Host: a, b\r\n", 400),
        (b"Host: a/b\r\n", 400),
        (b"Host: u@a\r\n", 400),
        (b"Host: a:b\r\n", 400),
        (b"Host: a:80:80\r\n", 400),
        (b"Host: [::1\r\n", 400),
        (b"Host: ::1\r\n", 400),
        (b"Host: \xff\r\n", 400),
        (b"Host: a\r\n", 200),
        (b"HOST:  a_b-c.example:8000 \r\n", 200),
        (b"Host: 127.0.0.1:1\r\n", 200),
        (b"Host: [::1]:8000\r\n", 200),
        (b"Host: a:\r\n", 200),
    ],
)
def test_a_request_names_one_host(server, host, expected, more):
    answer = ask(server, post(host=host, more=more + b"Connection: close\r\n"))
    assert statuses(answer) == [expected]
    if expected == 400:
        assert code(answer) == "bad_request"


def test_an_old_client_may_name_no_host(server):
    assert b" 200 OK" in ask(server, post(host=b"").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert b" 400 " in ask(server, post(host=b"Host: a b\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (post(target=b"http://elsewhere.example/logprob", more=b"Connection: close\r\n"), 200),
        (post(target=b"http://", more=b"Connection: close\r\n"), 400),
        (post(target=b"logprob", more=b"Connection: close\r\n"), 400),
        (post(more=b"X: a\r\n b\r\nConnection: close\r\n"), 400),
        (post(more=b"X : a\r\nConnection: close\r\n"), 400),
        (post(more=b"Expect: 200-maybe\r\nConnection: close\r\n"), 200),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (CHUNKED + b"fffffffffffffffff\r\n", 400),
        (CHUNKED + b"-1\r\n", 400),
        (CHUNKED + b"1 \r\n{\r\n", 400),
        (CHUNKED.replace(b"chunked", b"chunked, gzip") + b"0\r\n\r\n", 400),
        (post(more=b"Transfer-Encoding: chunked\r\n"), 400),
    ],
)
def test_odd_heads_and_framing_have_one_answer(server, sent, expected):
    assert statuses(ask(server, sent)) == [expected]


def test_a_continue_comes_before_the_answer(server):
    whole = post(more=b"Expect: 100-continue\r\nConnection: close\r\n")
    assert statuses(ask(server, whole[: -len(ROW)], ROW)) == [100, 200]


def test_what_cannot_be_read_behind_a_request_is_no_answer_to_it(server):
    """The next answer on a connection is that of the oldest request: here one that takes its time."""
    cold = post(b'{"x": [' + b",".join([b"[1.5, 2.5]"] * 20_000) + b"]}", DOORS["application"])
    for garbage in (b"nonsense\r\n\r\n", CHUNKED + b"x\r\n", post(host=b"")):
        assert statuses(ask(server, cold + garbage)) == [200]  # up to the end of the connection


@pytest.mark.parametrize("more", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize("rows", [1, 20_000])
def test_a_client_that_closes_its_half_gets_its_answers(server, more, rows):
    body = b'{"x": [' + b",".join([b"[1.5, 2.5]"] * rows) + b"]}"
    for version in (b"HTTP/1.1", b"HTTP/1.0"):
        answer = ask(server, post(body, more).replace(b"HTTP/1.1", version), half_close=True)
        assert statuses(answer) == [200]
        assert answer.endswith(b"]}")


def test_a_client_that_closes_its_half_gets_the_answers_to_all_its_requests(server):
    direct, cold = post(), post(more=DOORS["application"])
    for sent in (direct * 3, cold * 3, direct + cold + direct, cold + direct + cold):
        assert statuses(ask(server, sent, half_close=True)) == [200, 200, 200]
        for broken in (direct[:-3], cold[:-3], direct[:30]):
            assert statuses(ask(server, sent + broken, half_close=True)) == [200, 200, 200]
    for broken in (direct[:-3], cold[:-3], direct[:30], b""):
        assert ask(server, broken, half_close=True) == b""


def test_a_stream_goes_on_after_the_client_has_closed_its_half(server):
    answer = ask(server, b"GET /sample?n=100000 HTTP/1.1\r\nHost: x\r\nAccept: text/csv\r\n\r\n", half_close=True)
    assert statuses(answer) == [200]
    assert answer.endswith(b"0\r\n\r\n")


ASKING = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("padding", [b"", b"X: " + b"x" * 12_000 + b"\r\n"], ids=["short", "long"])
@pytest.mark.parametrize("door", DOORS)
def test_a_request_for_another_protocol_is_answered_in_this_one(server, door, padding):
    """Java's client and `curl --http2` send their first request so, with its body behind it."""
    asking = ASKING + DOORS[door] + padding
    chunked = b"POST /logprob HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    for request in (post(more=asking), chunked % (asking, len(ROW), ROW)):
        assert statuses(ask(server, request, request, LAST)) == [200, 200, 200]
        assert statuses(ask(server, request[:40], request[40:-5], request[-5:] + LAST)) == [200, 200]
    websocket = b"GET /logprob HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%b\r\n" % padding
    assert statuses(ask(server, websocket + LAST)) == [405, 200]


@pytest.mark.parametrize("door", DOORS)
def test_its_body_is_no_request(server, door):
    hidden = b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n"
    assert statuses(ask(server, post(hidden, ASKING + DOORS[door]) + LAST)) == [400, 200]


def test_there_is_no_tunnel(server):
    for target in (b"/logprob", b"x:80"):
        assert statuses(ask(server, b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % target + LAST)) == [400]


def test_many_requests_for_another_protocol_are_answered_in_their_order(server):
    """Hundreds of them come in one piece, of which none may be lost behind the first."""
    asking = b"GET /health/live HTTP/1.1\r\nHost:x\r\nConnection:upgrade\r\nUpgrade:a\r\n\r\n"
    assert statuses(ask(server, asking * 1000 + LAST)) == [200] * 1001
