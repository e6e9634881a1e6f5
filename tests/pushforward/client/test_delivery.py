from __future__ import annotations

import json
from collections.abc import Iterable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.client.connection import run_blocking
from pushforward.client.delivery import Delivery, HttpAnswer, HttpRequest
from pushforward.client.errors import ApiError, ClientError, ConnectionFailed, Overloaded, TimedOut, Unavailable
from tests.pushforward.conftest import Time

ASK = HttpRequest("GET", "models")
LOST = "lost"


class Network:
    """A connection that answers each request with the next event, and writes down what it is asked to do."""

    def __init__(self, events: Iterable[HttpAnswer | Exception], time: Time) -> None:
        self.events = iter(events)
        self.time = time
        self.deadlines: list[float] = []
        self.pauses: list[float] = []

    async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        self.deadlines.append(deadline)
        event = next(self.events)
        if isinstance(event, Exception):
            raise event
        return event

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.time.sleep(seconds)


def drive(events, time, request=ASK, **options):
    """Deliver a request; give back how it ended, the deadline of each try, and the pauses."""
    network = Network(events, time)
    rules = {"random": Random(0), "wall_clock": lambda: 1_000_000_000.0} | options
    delivery = Delivery(network, clock=time.clock, **rules)
    try:
        return run_blocking(delivery.deliver(request)), network.deadlines, network.pauses
    except ClientError as error:
        return error, network.deadlines, network.pauses


def refused(status, retry_after=None):
    return HttpAnswer(status, b"", retry_after)


def test_an_answer_ends_it():
    time = Time()
    answer, sends, pauses = drive([HttpAnswer(200, b"{}")], time)
    assert (answer, len(sends), pauses) == (HttpAnswer(200, b"{}"), 1, [])


@pytest.mark.parametrize("event", [ConnectionFailed("reset"), refused(429), refused(503)])
def test_what_may_pass_is_tried_again(event):
    time = Time()
    answer, sends, pauses = drive([event, event, HttpAnswer(200, b"")], time)
    assert isinstance(answer, HttpAnswer)
    assert (len(sends), len(pauses)) == (3, 2)


@pytest.mark.parametrize("status", [400, 401, 404, 405, 413, 415, 422, 431, 500, 502, 504])
def test_no_other_refusal_is(status):
    time = Time()
    error, sends, _ = drive([refused(status), HttpAnswer(200, b"")], time)
    assert isinstance(error, ApiError)
    assert (error.status, len(sends)) == (status, 1)


def test_a_timeout_is_not():
    time = Time()
    error, sends, _ = drive([TimedOut("late"), HttpAnswer(200, b"")], time)
    assert (type(error), len(sends)) == (TimedOut, 1)


def test_retries_end():
    time = Time()
    error, sends, _ = drive([refused(503)] * 9, time, retries=2)
    assert (type(error), len(sends)) == (Unavailable, 3)


def test_a_probe_is_asked_once():
    time = Time()
    probe = HttpRequest("GET", "health/ready", retried=False)
    error, sends, _ = drive([refused(503)] * 9, time, probe)
    assert (type(error), len(sends)) == (Unavailable, 1)


def test_retry_after_is_waited_for():
    time = Time()
    _, _, pauses = drive([refused(429, "7"), HttpAnswer(200, b"")], time)
    assert 7.0 <= pauses[0] <= 7.1


def test_retry_after_may_be_a_date():
    time = Time()
    date = "Sun, 09 Sep 2001 01:46:45 GMT"  # five seconds after the wall clock's 10^9
    error, _, _ = drive([refused(503, date)], time, retries=0)
    assert error.retry_after == 5.0


@pytest.mark.parametrize("header", ["soon", "", "-3", "1.5", "Foo, 99 Bar 2001"])
def test_a_retry_after_that_says_nothing_is_passed_over(header):
    time = Time()
    error, _, _ = drive([refused(503, header)], time, retries=0)
    assert error.retry_after is None


def test_a_retry_after_beyond_the_deadline_is_told_at_once():
    time = Time()
    error, sends, pauses = drive([refused(429, "31")] * 2, time, timeout=30)
    assert (type(error), error.retry_after, len(sends), pauses) == (Overloaded, 31.0, 1, [])


events = st.one_of(
    st.builds(ConnectionFailed, st.just(LOST)),
    st.builds(refused, st.sampled_from([400, 404, 422, 429, 500, 503, 504]), st.sampled_from([None, "0", "1", "20"])),
    st.just(HttpAnswer(200, b"")),
)


@settings(deadline=None)
@given(st.lists(events, min_size=8, max_size=8), st.integers(0, 5), st.floats(0.01, 60), st.integers(0, 5))
def test_the_rules_hold_for_every_course_of_events(course, retries, timeout, seed):
    time = Time()
    begun = time.now
    result, sends, pauses = drive(course, time, timeout=timeout, retries=retries, random=Random(seed))
    assert len(sends) <= retries + 1
    assert len(pauses) == len(sends) - 1
    assert time.now - begun < timeout
    assert all(deadline == begun + timeout for deadline in sends)
    seen = course[: len(sends)]
    for event, pause in zip(seen, pauses, strict=False):
        assert isinstance(event, ConnectionFailed) or event.status in (429, 503)
        asked = float(getattr(event, "retry_after", None) or 0)
        assert asked <= pause <= asked + 5.0
    last = seen[-1]
    if isinstance(last, HttpAnswer) and last.status < 400:
        assert result is last
    else:
        assert isinstance(result, ConnectionFailed | ApiError)
        assert getattr(result, "status", None) == getattr(last, "status", None)


def test_jitter_grows_and_is_bounded():
    time = Time()
    _, _, pauses = drive([refused(503)] * 13, time, retries=12, timeout=1000)
    assert all(0 <= pause <= min(5.0, 0.1 * 2**k) for k, pause in enumerate(pauses))
    assert len(set(pauses)) == 12


class Chosen(Random):
    """Draws the lower end of an interval, or the upper."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + self.share * (b - a)


def test_the_bounds_of_the_pauses_double_up_to_the_longest():
    _, sends, pauses = drive([refused(503)] * 9, Time(), retries=8, timeout=1000, random=Chosen(1.0))
    assert len(sends) == 9
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    _, _, pauses = drive([refused(503, "2")] * 3, Time(), retries=2, random=Chosen(1.0))
    assert pauses == pytest.approx([2.1, 2.2])


@pytest.mark.parametrize(("retry_after", "tries"), [("29", 2), ("30", 1)])
def test_a_pause_ends_before_the_deadline(retry_after, tries):
    events = [refused(503, retry_after), HttpAnswer(200, b"")]
    _, sends, _ = drive(events, Time(), timeout=30, random=Chosen(0.0))
    assert len(sends) == tries


@pytest.mark.parametrize(("status", "refusal"), [(399, False), (400, True)])
def test_a_status_of_400_is_a_refusal_and_one_below_is_none(status, refusal):
    answer, _, _ = drive([refused(status)], Time())
    assert isinstance(answer, ApiError) == refusal


def test_a_date_in_the_past_asks_for_no_pause():
    error, _, _ = drive([refused(503, "Sun, 09 Sep 2001 01:46:00 GMT")], Time(), retries=0)
    assert error.retry_after == 0.0


@pytest.mark.parametrize("retries", [0, -1])
def test_no_retries(retries):
    _, sends, _ = drive([refused(503)] * 3, Time(), retries=retries)
    assert len(sends) == 1


def test_rows_that_cost_an_engine_are_not_sent_again():
    problem = {"code": "engine_lost", "detail": "the engine crashed", "status": 503, "errors": []}
    answer = HttpAnswer(503, json.dumps(problem).encode(), "1")
    error, sends, _ = drive([answer] * 9, Time())
    assert isinstance(error, Unavailable)
    assert error.code == "engine_lost"
    assert len(sends) == 1
