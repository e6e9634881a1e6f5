from __future__ import annotations

import asyncio
import threading

import pytest

from service.api.helpers import _MARGIN as MARGIN
from service.api.helpers import Helpers
from service.errors import QueueFull


@pytest.fixture
def helped():
    """Runs a coroutine of some helpers, and closes them."""
    made = []

    def run(coroutine_of, send=None):
        made.append(Helpers(1, send=send))
        return asyncio.run(asyncio.wait_for(coroutine_of(made[-1]), 30))

    yield run
    for helpers in made:
        helpers.close()


def test_a_thread_of_its_own_calls_where_the_engine_has_none(helped):
    name = helped(lambda helpers: helpers.run(1, lambda: threading.current_thread().name))
    assert name.startswith("helper")


def test_who_is_sent_calls(helped):
    assert helped(lambda helpers: helpers.run(1, threading.get_ident), send=lambda errand: errand()) == (
        threading.get_ident()
    )


def test_where_nobody_who_was_sent_comes_a_thread_of_its_own_calls(helped):
    sent, calls = [], []
    helped(lambda helpers: helpers.run(1, calls.append, 1), send=sent.append)
    assert calls == [1]
    sent[0]()
    assert calls == [1], "whoever comes later finds it done"


def test_what_it_raises_comes_back(helped):
    def fail():
        raise ValueError("as told")

    for send in (None, lambda errand: errand()):
        with pytest.raises(ValueError, match="as told"):
            helped(lambda helpers: helpers.run(1, fail), send)


def test_a_call_that_nobody_waits_for_is_not_made(helped):
    sent, calls = [], []

    async def leave(helpers):
        task = asyncio.create_task(helpers.run(1, calls.append, 1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    helped(leave, sent.append)
    sent[0]()
    assert not calls


def test_an_error_that_nobody_waits_for_any_more_lets_go_of_its_frames(helped):
    begun, left, raised = threading.Event(), threading.Event(), []

    def fail():
        begun.set()
        assert left.wait(30)
        raised.append(ValueError("late"))
        raise raised[0]

    async def leave(helpers):
        task = asyncio.create_task(helpers.run(1, fail))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        left.set()
        helpers._pool.shutdown()  # waits for the call
        assert raised[0].__traceback__ is None

    helped(leave)


class Work:
    """Work that takes four seconds of its clock for each byte."""

    def __init__(self):
        self.now = 0.0

    def clock(self):
        return self.now

    def do(self, size):
        self.now += 4 * size


def test_what_waits_is_held_against_the_deadline_by_the_time_that_a_byte_has_taken():
    work = Work()
    helpers = Helpers(2, clock=work.clock)
    waiting = []

    async def measure_then_wait():
        await helpers.run(10, work.do, 10)  # four seconds for each byte
        sends = []
        helpers._send = sends.append
        waiting.append(asyncio.create_task(helpers.run(6, work.do, 6)))
        await asyncio.sleep(0)
        helpers.admit(2, work.now + 32.0 / MARGIN)  # 6 + 2 bytes for two threads: 16 seconds
        helpers.admit(2, work.now + 16.01 / MARGIN)
        with pytest.raises(QueueFull, match=r"after 16 seconds, and the deadline is in 3$"):
            helpers.admit(2, work.now + 3.0)
        sends[0]()
        await waiting[0]
        helpers.admit(1000, work.now)  # nothing waits

    asyncio.run(asyncio.wait_for(measure_then_wait(), 30))
    helpers.close()
