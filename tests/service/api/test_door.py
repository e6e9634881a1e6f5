from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from service.api.door import LARGE_BODY, LARGE_RUN, drive, respond
from service.api.helpers import Helpers
from service.errors import EngineFailed, QueueFull
from service.exchange import Reply
from service.plan import Outputs, Run
from tests.waiting import turns_until


class Lane:
    """Answers on a thread of its own, or refuses, or never answers."""

    width = 1

    def __init__(self, answer):
        self.answer = answer

    def submit(self, run, done, deadline):
        if isinstance(self.answer, QueueFull):
            raise self.answer
        if self.answer is not None:
            threading.Thread(target=done, args=(self.answer,)).start()
        return SimpleNamespace(abandoned=False)


OUTPUTS = Outputs(*(np.zeros(1, np.float32) for _ in range(3)))


def run(coroutine_of, **given):
    helpers = Helpers(1)
    try:
        return asyncio.run(coroutine_of(helpers, **given))
    finally:
        helpers.close()


def plan(lane, rows=1):
    threads = [threading.current_thread().name]
    outputs = yield Run(lane, np.zeros((rows, 1), np.float32))
    threads.append(threading.current_thread().name)
    return outputs, threads


@pytest.mark.parametrize(
    ("rows", "size", "expected"), [(1, 0, [0, 0]), (1, LARGE_BODY + 1, [1, 0]), (LARGE_RUN + 1, 0, [0, 1])]
)
def test_only_large_steps_leave_the_loop(rows, size, expected):
    async def main(helpers):
        return await drive(plan(Lane(OUTPUTS), rows), helpers, size=size)

    outputs, threads = run(main)
    assert outputs is OUTPUTS
    assert [int(name.startswith("helper")) for name in threads] == expected


@pytest.mark.parametrize("error", [EngineFailed("in a run"), QueueFull("at the door")])
def test_an_error_goes_through_the_plan(error):
    def mends(lane):
        with pytest.raises(type(error)):
            yield Run(lane, np.zeros((1, 1), np.float32))
        return "mended"

    async def main(helpers, made):
        return await drive(made(Lane(error)), helpers)

    assert run(main, made=mends) == "mended"
    with pytest.raises(type(error)):
        run(main, made=plan)


def test_a_cancelled_call_closes_its_plan_and_a_late_answer_harms_nobody():
    closed, dones, tickets = [], [], []

    class Late(Lane):
        def submit(self, run, done, deadline):
            dones.append(done)
            tickets.append(SimpleNamespace(abandoned=False))
            return tickets[0]

    def watched():
        try:
            yield from plan(Late(None))
        finally:
            closed.append(True)

    async def main(helpers):
        task = asyncio.create_task(drive(watched(), helpers))
        await turns_until(lambda: dones)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        dones[0](OUTPUTS)
        await asyncio.sleep(0)

    run(main)
    assert closed == [True]
    assert tickets[0].abandoned, "nobody waits for its rows"
    dones[0](OUTPUTS)  # the loop is closed by now


def test_while_a_piece_is_sent_the_next_one_is_computed_and_no_more():
    begun = []

    def piece(number):
        begun.append(number)
        yield Run(Lane(OUTPUTS), np.zeros((1, 1), np.float32))
        return b"%d" % number

    async def read(helpers):
        reply = Reply(b"first", rest=(piece(number) for number in range(4)))
        response = respond(reply, helpers)
        body = aiter(response.body_iterator)
        seen = []
        async for part in body:
            for _ in range(50):  # what has been begun has had its time
                await asyncio.sleep(0)
            seen.append((part, len(begun)))
        return seen

    assert run(read) == [(b"first", 1), (b"0", 2), (b"1", 3), (b"2", 4), (b"3", 4)]


def test_a_piece_that_nobody_waits_for_is_given_up():
    async def leave(helpers):
        lane = Lane(None)
        tickets = []
        submit = lane.submit
        lane.submit = lambda *given: tickets.append(submit(*given)) or tickets[-1]
        body = respond(Reply(b"first", rest=iter([plan(lane)])), helpers).body_iterator
        assert await anext(body) == b"first"
        await asyncio.sleep(0)
        await body.aclose()
        await asyncio.sleep(0)
        return [ticket.abandoned for ticket in tickets]

    assert run(leave) == [True]
