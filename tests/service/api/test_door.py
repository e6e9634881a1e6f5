from __future__ import annotations

import asyncio

import numpy as np

from service.api.door import respond
from service.api.driver import Driver
from service.exchange import Reply
from service.plan import Run
from tests.service.api.lanes import OUTPUTS, Lane, plan, with_helpers


def test_while_a_piece_is_sent_the_next_one_is_computed_and_no_more():
    begun = []

    def piece(number):
        begun.append(number)
        yield Run(Lane(OUTPUTS), np.zeros((1, 1), np.float32))
        return b"%d" % number

    async def read(helpers):
        reply = Reply(b"first", rest=(piece(number) for number in range(4)))
        response = respond(reply, Driver(helpers, 30.0))
        body = aiter(response.body_iterator)
        seen = []
        async for part in body:
            for _ in range(50):  # what has been begun has had its time
                await asyncio.sleep(0)
            seen.append((part, len(begun)))
        return seen

    assert with_helpers(read) == [(b"first", 1), (b"0", 2), (b"1", 3), (b"2", 4), (b"3", 4)]


def test_a_piece_that_nobody_waits_for_is_given_up():
    async def leave(helpers):
        lane = Lane(None)
        tickets = []
        submit = lane.submit
        lane.submit = lambda *given: tickets.append(submit(*given)) or tickets[-1]
        body = respond(Reply(b"first", rest=iter([plan(lane)])), Driver(helpers, 30.0)).body_iterator
        assert await anext(body) == b"first"
        await asyncio.sleep(0)
        await body.aclose()
        await asyncio.sleep(0)
        return [ticket.abandoned for ticket in tickets]

    assert with_helpers(leave) == [True]
