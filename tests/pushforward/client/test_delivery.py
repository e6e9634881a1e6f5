from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushforward.client.delivery import Answer, Delivery, Pause, Request, Send
from pushforward.client.errors import ApiError, ConnectionFailed, Overloaded, TimedOut, Unavailable
from tests.pushforward.conftest import Time

ASK = Request("GET", "models")
LOST = "lost"


def delivery(time, **options):
    return Delivery(clock=time.clock, random=Random(0), wall_clock=lambda: 1_000_000_000.0, **options)


def drive(steps, events, time):
    """Answer each Send with the next event; give back what happened."""
    sends, pauses = [], []
    events = iter(events)
    message = None
    try:
        while True:
            step = steps.send(message)
            while isinstance(step, Send):
                sends.append(step)
                event = next(events)
                if not isinstance(event, Exception):
                    message = event
                    break
                step = steps.throw(event)
            else:
                pauses.append(step.seconds)
                time.sleep(step.seconds)
                message = None
    except StopIteration as stop:
        return stop.value, sends, pauses
    except Exception as error:
        return error, sends, pauses


def refused(status, retry_after=None):
    return Answer(status, b"", retry_after)


def test_an_answer_ends_it():
    time = Time()
    answer, sends, pauses = drive(delivery(time).deliver(ASK), [Answer(200, b"{}")], time)
    assert (answer, len(sends), pauses) == (Answer(200, b"{}"), 1, [])


@pytest.mark.parametrize("event", [ConnectionFailed("reset"), refused(429), refused(503)])
def test_what_may_pass_is_tried_again(event):
    time = Time()
    answer, sends, pauses = drive(delivery(time).deliver(ASK), [event, event, Answer(200, b"")], time)
    assert isinstance(answer, Answer)
    assert (len(sends), len(pauses)) == (3, 2)


@pytest.mark.parametrize("status", [400, 401, 404, 405, 413, 415, 422, 431, 500, 502, 504])
def test_no_other_refusal_is(status):
    time = Time()
    error, sends, _ = drive(delivery(time).deliver(ASK), [refused(status), Answer(200, b"")], time)
    assert isinstance(error, ApiError)
    assert (error.status, len(sends)) == (status, 1)


def test_a_timeout_is_not():
    time = Time()
    error, sends, _ = drive(delivery(time).deliver(ASK), [TimedOut("late"), Answer(200, b"")], time)
    assert (type(error), len(sends)) == (TimedOut, 1)


def test_retries_end():
    time = Time()
    error, sends, _ = drive(delivery(time, retries=2).deliver(ASK), [refused(503)] * 9, time)
    assert (type(error), len(sends)) == (Unavailable, 3)


def test_a_probe_is_asked_once():
    time = Time()
    probe = Request("GET", "health/ready", patient=False)
    error, sends, _ = drive(delivery(time).deliver(probe), [refused(503)] * 9, time)
    assert (type(error), len(sends)) == (Unavailable, 1)


def test_retry_after_is_waited_for():
    time = Time()
    _, _, pauses = drive(delivery(time).deliver(ASK), [refused(429, "7"), Answer(200, b"")], time)
    assert 7.0 <= pauses[0] <= 7.1


def test_retry_after_may_be_a_date():
    time = Time()
    date = "Sun, 09 Sep 2001 01:46:45 GMT"  # five seconds after the wall clock's 10^9
    error, _, _ = drive(delivery(time, retries=0).deliver(ASK), [refused(503, date)], time)
    assert error.retry_after == 5.0


@pytest.mark.parametrize("header", ["soon", "", "-3", "1.5", "Foo, 99 Bar 2001"])
def test_a_retry_after_that_says_nothing_is_passed_over(header):
    time = Time()
    error, _, _ = drive(delivery(time, retries=0).deliver(ASK), [refused(503, header)], time)
    assert error.retry_after is None


def test_a_retry_after_beyond_the_deadline_is_told_at_once():
    time = Time()
    error, sends, pauses = drive(delivery(time, timeout=30).deliver(ASK), [refused(429, "31")] * 2, time)
    assert (type(error), error.retry_after, len(sends), pauses) == (Overloaded, 31.0, 1, [])


events = st.one_of(
    st.builds(ConnectionFailed, st.just(LOST)),
    st.builds(refused, st.sampled_from([400, 404, 422, 429, 500, 503, 504]), st.sampled_from([None, "0", "1", "20"])),
    st.just(Answer(200, b"")),
)


@settings(deadline=None)
@given(st.lists(events, min_size=8, max_size=8), st.integers(0, 5), st.floats(0.01, 60), st.integers(0, 5))
def test_the_rules_hold_for_every_course_of_events(course, retries, timeout, seed):
    time = Time()
    begun = time.now
    rules = Delivery(timeout, retries, clock=time.clock, random=Random(seed))
    result, sends, pauses = drive(rules.deliver(ASK), course, time)
    assert len(sends) <= retries + 1
    assert len(pauses) == len(sends) - 1
    assert time.now - begun < timeout
    assert all(send.deadline == begun + timeout for send in sends)
    seen = course[: len(sends)]
    for event, pause in zip(seen, pauses, strict=False):
        assert isinstance(event, ConnectionFailed) or event.status in (429, 503)
        asked = float(getattr(event, "retry_after", None) or 0)
        assert asked <= pause <= asked + rules.longest_pause
    last = seen[-1]
    if isinstance(last, Answer) and last.status < 400:
        assert result is last
    else:
        assert isinstance(result, ConnectionFailed | ApiError)
        assert getattr(result, "status", None) == getattr(last, "status", None)


def test_jitter_grows_and_is_bounded():
    time = Time()
    rules = delivery(time, retries=12, timeout=1000)
    _, _, pauses = drive(rules.deliver(ASK), [refused(503)] * 13, time)
    assert all(0 <= pause <= min(5.0, 0.1 * 2**k) for k, pause in enumerate(pauses))
    assert len(set(pauses)) == 12
    assert isinstance(Pause(pauses[0]), Pause)
