from __future__ import annotations

import asyncio

import numpy as np
import pytest

from service.api.helpers import Helpers
from service.api.native.verbs import Verbs
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.errors import NotFinite, QueueFull
from service.exchange import Reply
from service.http.heads import Call, Fields, Heads, Hot
from service.http.hot_calls import FastDoor
from service.plan import Outputs, Run


def verb(exchange):
    return None


@pytest.fixture
def helpers():
    pool = Helpers(1)
    yield pool
    pool.close()


def test_its_verbs_are_routes_of_the_application():
    hot = Verbs(None, 0, 0).hot()
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
        lane.queue.record(1, 1e-6)

        def doubled(exchange):
            rows = np.full((rows_each, 1), float(exchange.body), np.float32)
            outputs = yield Run(lane, rows)
            return Reply(str(2 * outputs.log_prob[0]).encode())

        door = FastDoor(Heads({}, {}), helpers, 1000, 30.0)
        futures = []
        for value in values:
            future = asyncio.get_running_loop().create_future()
            door.answer(Hot(Call(doubled), Fields(), b"", str(value).encode()), future.set_result)
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


@pytest.mark.parametrize("told", ["0", "-1", "1.5", "", "x", "3600001", "12345678", "\u0664"])
def test_a_timeout_that_is_none_is_refused(helpers, told):
    replies = []
    door = FastDoor(Heads({}, {}), helpers, 1000, 30.0)

    async def main():
        door.answer(Hot(Call(verb), Fields(timeout=told)), replies.append)

    asyncio.run(main())
    assert replies[0].status == 422
    assert b"Pushforward-Timeout-Ms" in replies[0].body


def test_what_the_call_of_a_verb_refuses_is_told(helpers):
    replies = []
    door = FastDoor(Heads({}, {}), helpers, 1000, 30.0)

    def full(exchange):
        raise QueueFull("too much is waiting")

    async def main():
        return door.answer(Hot(Call(full), Fields(), b"", bytes(100_000)), replies.append)

    assert asyncio.run(main()) is None
    assert replies[0].status == 429


def test_a_deadline_counts_from_the_head(helpers):
    seen = []
    door = FastDoor(Heads({}, {}), helpers, 1000, 30.0)

    def noted(exchange):
        seen.append(exchange.deadline)
        yield from ()
        return Reply(b"")

    async def main():
        for since in (5.0, None):
            door.answer(Hot(Call(noted), Fields(timeout="500")), lambda reply: None, since)

    before = door.clock()
    asyncio.run(main())
    assert seen[0] == 5.5
    assert before + 0.5 <= seen[1] <= door.clock() + 0.5
