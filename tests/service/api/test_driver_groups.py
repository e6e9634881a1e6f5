"""Groups under the driver: who is asked together, who alone, and what each of a group gets."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from service.api.driver import Call, Driver, Fields, RawRequest
from service.api.endpoints import Endpoint
from service.api.grouped.groups import Group
from service.api.helpers import Helpers
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.exchange import Reply
from service.plan import Outputs, Run

NO_FIELDS = Fields()


class Asked:
    """Plans for many that note what they are asked."""

    def __init__(self):
        self.texts = []

    def __call__(self, parcels):
        texts = [bytes(each.body) or each.query for parcel in parcels for each in parcel.questions]
        self.texts.append(texts)
        if b"unreadable" in texts:
            raise RuntimeError("a bug")
        places = [place for place, text in enumerate(texts) if text != b"odd"]
        return [Group(places, self.plan([texts[place] for place in places]))] if places else []

    def plan(self, texts):
        if b"broken" in texts:
            raise RuntimeError("a bug")
        yield from ()
        return [None if text == b"late" else Reply(b"together " + text) for text in texts]


def doubled(exchange):
    yield from ()
    return Reply(b"alone " + exchange.body)


def ask(texts, drop=(), fields=NO_FIELDS):
    """What is answered to texts that arrive in one turn of the loop, and what was asked together."""
    together, replies = Asked(), {}
    helpers = Helpers(1)

    async def main():
        driver = Driver(helpers, 30.0)
        call = Call(Endpoint("POST", "/doubled", doubled, together))
        waiting = [
            driver.answer(RawRequest(call, fields, b"", text), lambda reply, at=at: replies.update({at: reply}))
            for at, text in enumerate(texts)
        ]
        for at in drop:
            waiting[at].abandon()
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    helpers.close()
    return replies, together.texts


def test_calls_of_one_turn_are_asked_together_and_odd_ones_then_alone():
    replies, asked = ask([b"1", b"odd", b"3", b"late"])
    assert [replies[at].body for at in range(4)] == [b"together 1", b"alone odd", b"together 3", b"alone late"]
    assert asked == [[b"1", b"odd", b"3", b"late"]]


def test_calls_with_other_heads_are_asked_together():
    """But for those whose clients have less time: a group has one deadline."""
    together, replies, helpers = Asked(), [], Helpers(1)

    async def main():
        driver = Driver(helpers, 30.0)
        endpoint = Endpoint("POST", "/doubled", doubled, together)
        for at, fields in enumerate((Fields(), Fields(accept="*/*"), Fields(timeout="100"), Fields(content_type="x"))):
            driver.answer(RawRequest(Call(endpoint, f"flow {at % 2}"), fields, b"", b"%d" % at), replies.append)
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    helpers.close()
    assert together.texts == [[b"0", b"1", b"3"], [b"2"]]
    assert len(replies) == 4


def test_not_too_many_are_asked_together():
    replies, asked = ask([b"%d" % at for at in range(150)])
    assert [len(texts) for texts in asked] == [64, 64, 22]
    assert [replies[at].body for at in range(150)] == [b"together %d" % at for at in range(150)]


def test_a_long_body_is_asked_alone():
    replies, asked = ask([b"x" * 10_000])
    assert (replies[0].body[:6], asked) == (b"alone ", [])


def test_who_has_gone_is_not_asked_for():
    replies, asked = ask([b"1", b"2", b"3"], drop=[1])
    assert (sorted(replies), asked) == ([0, 2], [[b"1", b"3"]])
    assert ask([b"1"], drop=[0]) == ({}, [])


def test_a_request_that_a_reply_brings_is_answered_too():
    """A client may send the next one behind a request that is answered while its turn's groups are asked."""
    replies, helpers = [], Helpers(1)

    async def main():
        driver = Driver(helpers, 30.0)
        call = Call(Endpoint("POST", "/doubled", doubled, Asked()))

        def next_one(reply):
            replies.append(reply.body)
            driver.answer(RawRequest(call, Fields(), b"", b"2"), lambda reply: replies.append(reply.body))

        driver.answer(RawRequest(call, Fields(), b"", b"odd"), next_one)
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    helpers.close()
    assert replies == [b"alone odd", b"together 2"]


@pytest.mark.parametrize("fault", [b"broken", b"unreadable"])
def test_a_fault_is_told_to_everyone(caplog, fault):
    replies, _ = ask([b"1", fault])
    assert [replies[at].status for at in range(2)] == [500, 500]
    assert "a request failed" in caplog.text


class Blocked:
    """A runner that waits until it may go on."""

    width = 1

    def __init__(self):
        self.may = threading.Event()

    def __call__(self, rows, context):
        self.may.wait(20)
        return Outputs(rows, rows[:, 0], rows[:, 0])


@pytest.fixture
def blocked():
    """A lane that is busy, for now, and a driver."""
    runner, helpers, workers = Blocked(), Helpers(1), Workers(1, lambda: 0.0)
    lane = workers.lane(runner, Limits())
    lane.queue.record(1, 1.0)  # too slow for the loop
    lane.submit(Run(lane, np.zeros((1, 1), np.float32)), lambda result: None)
    yield lane, Driver(helpers, 30.0)
    runner.may.set()
    workers.close(10)
    helpers.close()


def two(lane, driver, answered):
    """Two calls that wait together behind what runs."""

    def plan(texts):
        yield Run(lane, np.zeros((len(texts), 1), np.float32))
        return [Reply(text) for text in texts]

    def together(parcels):
        texts = [each.body for parcel in parcels for each in parcel.questions]
        return [Group(list(range(len(texts))), plan(texts))]

    call = Call(Endpoint("POST", "/doubled", doubled, together))
    return [driver.answer(RawRequest(call, Fields(), b"", text), answered.put_nowait) for text in (b"1", b"2")]


def test_a_group_is_abandoned_when_all_of_it_has_gone(blocked):
    """Rows that wait behind others are dropped once nobody waits for any of them."""
    lane, driver = blocked

    async def main():
        waiting = two(lane, driver, asyncio.Queue())
        await asyncio.sleep(0)
        ticket = lane.queue.short.runs[-1]
        waiting[0].abandon()
        seen = [ticket.abandoned]
        waiting[1].abandon()
        return [*seen, ticket.abandoned]

    assert asyncio.run(main()) == [False, True]


def test_who_goes_while_it_runs_is_not_answered(blocked):
    lane, driver = blocked

    async def main():
        answered = asyncio.Queue()
        waiting = two(lane, driver, answered)
        await asyncio.sleep(0)
        waiting[0].abandon()
        lane.runner.may.set()
        first = await asyncio.wait_for(answered.get(), 20)
        return first.body, answered.empty()

    assert asyncio.run(main()) == (b"2", True)


@pytest.mark.parametrize(("spent", "asked"), [(0.1, [[b"slow", b"2"]]), (0.4, [[b"2"]])])
def test_whose_body_came_slowly_shares_no_deadline(spent, asked):
    together, replies = Asked(), []
    helpers = Helpers(1, lambda: 100.0)

    async def main():
        driver = Driver(helpers, 30.0)
        call = Call(Endpoint("POST", "/doubled", doubled, together))
        driver.answer(RawRequest(call, Fields(timeout="2000"), b"", b"slow"), replies.append, 100.0 - spent)
        driver.answer(RawRequest(call, Fields(timeout="2000"), b"", b"2"), replies.append)
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(main())
    helpers.close()
    assert (together.texts, len(replies)) == (asked, 2)


@pytest.mark.parametrize(
    ("fields", "most"), [(NO_FIELDS, 1 << 13), (Fields(content_type="application/x-npy"), 1 << 11)]
)
def test_what_holds_many_numbers_is_asked_alone(fields, most):
    """It would be decoded before the queue is asked, which under overload refuses it."""
    small, large = bytes(most), bytes(most + 1)
    replies, asked = ask([small, large, small], fields=fields)
    assert asked == [[small, small]]
    assert replies[1].body == b"alone " + large
