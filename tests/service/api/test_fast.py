from __future__ import annotations

import asyncio

import numpy as np
import pytest

from service.api.exchange import Reply
from service.api.fast import Call, FastDoor, Fields
from service.api.helpers import Helpers
from service.api.native import Verbs
from service.engine.plan import Outputs, Run
from service.engine.queues import Limits
from service.engine.workers import Workers
from service.errors import NotFinite


def verb(exchange):
    return None


@pytest.fixture
def helpers():
    pool = Helpers(1)
    yield pool
    pool.close()


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
def test_which_calls_it_answers(helpers, method, url, found):
    call = FastDoor({(b"POST", b"logprob"): verb}, helpers, 1000, 30.0).find(method, url)
    assert (call and (call.name, call.version, call.query)) == found
    assert call is None or call.verb is verb


def test_its_verbs_are_routes_of_the_application():
    hot = Verbs.hot(Verbs.__new__(Verbs))
    assert set(hot) == {(b"POST", b"logprob"), (b"GET", b"sample"), (b"POST", b"encode"), (b"POST", b"decode")}


class Counting:
    """A runner that notes the size of each batch and the thread that ran it."""

    width = 1

    def __init__(self):
        self.sizes = []

    def __call__(self, rows, context):
        self.sizes.append(len(rows))
        if (rows < 0).any():
            raise NotFinite("a row is negative")
        return Outputs(rows, rows[:, 0], rows[:, 0])


def ask(helpers, clock, values, rows_each=1):
    """Replies to calls that arrive in one turn of the loop, and the sizes of the batches."""

    async def all_of_them():
        workers, runner = Workers(1, clock), Counting()
        lane = workers.lane(runner, Limits())
        lane.queue.note(1, 1e-6)

        def doubled(exchange):
            rows = np.full((rows_each, 1), float(exchange.body), np.float32)
            outputs = yield Run(lane, rows)
            return Reply(str(2 * outputs.log_prob[0]).encode())

        door = FastDoor({(b"POST", b"double"): doubled}, helpers, 1000, 30.0)
        call = door.find(b"POST", b"/double")
        futures = []
        for value in values:
            future = asyncio.get_running_loop().create_future()
            door.answer(call, Fields(), str(value).encode(), future.set_result)
            futures.append(future)
        replies = await asyncio.wait_for(asyncio.gather(*futures), 20)
        workers.close(10)
        return replies, runner.sizes

    return asyncio.run(all_of_them())


def stopped():
    return 0.0


def test_calls_of_one_turn_ride_in_one_batch_and_get_their_own_answers(helpers):
    replies, sizes = ask(helpers, stopped, range(10))
    assert [float(reply.body) for reply in replies] == [2.0 * i for i in range(10)]
    assert sizes == [10]


def test_a_culprit_gets_the_error_and_its_neighbours_their_answers(helpers):
    replies, _ = ask(helpers, stopped, [1, -1, 3])
    assert [reply.status for reply in replies] == [200, 422, 200]
    assert [float(replies[i].body) for i in (0, 2)] == [2.0, 6.0]


def test_large_runs_are_left_to_the_threads(helpers):
    replies, sizes = ask(helpers, stopped, [1, 2], rows_each=10_000)
    assert [float(reply.body) for reply in replies] == [2.0, 4.0]
    assert max(sizes) == Limits().chunk_rows


HEAD = b"POST /logprob HTTP/1.1\r\nHost: x\r\nContent-Length: 2"
QUERY = b"GET /sample?n=1&seed=5 HTTP/1.1\r\nHost: x"


@pytest.fixture
def door(helpers):
    made = FastDoor({}, helpers, 1000, 30.0)
    made.remember(HEAD, Call(verb, "flow"), Fields(2, "a/b"))
    made.remember(QUERY, Call(verb, query=b"n=1&seed=5"), Fields())
    return made


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (HEAD + b"\r\n\r\n{}", (Call(verb, "flow"), Fields(2, "a/b"), b"{}")),
        (QUERY + b"\r\n\r\n", (Call(verb, query=b"n=1&seed=5"), Fields(), b"")),
        (b"GET /sample?seed=6&n=3 HTTP/1.1\r\nHost: x\r\n\r\n", (Call(verb, query=b"seed=6&n=3"), Fields(), b"")),
        (b"GET /sample? HTTP/1.1\r\nHost: x\r\n\r\n", (Call(verb), Fields(), b"")),
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
def test_only_a_head_that_was_parsed_before_is_recalled(door, data, found):
    assert door.recall(data) == found


def test_what_is_remembered_has_a_bound(door):
    for number in range(5000):
        door.remember(b"POST /%d HTTP/1.1\r\nA: %d" % (number, number), Call(verb), Fields())
    door.remember(b"POST /long HTTP/1.1\r\nA: " + b"x" * 3000, Call(verb), Fields())
    assert max(len(door._lines), len(door._fields)) <= 4096
    assert max(map(len, door._fields)) < 3000


@pytest.mark.parametrize("told", ["0", "-1", "1.5", "", "x", "3600001", "12345678", "\u0664"])
def test_a_timeout_that_is_none_is_refused(helpers, told):
    replies = []
    door = FastDoor({}, helpers, 1000, 30.0)

    async def main():
        door.answer(Call(verb), Fields(timeout=told), b"", replies.append)

    asyncio.run(main())
    assert replies[0].status == 422
    assert b"Pushforward-Timeout-Ms" in replies[0].body
