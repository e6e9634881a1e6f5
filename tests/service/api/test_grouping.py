"""The law: what is asked together is answered as its verb answers it alone, byte for byte, or is left to the verb."""

from __future__ import annotations

import asyncio
import json
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.codecs.json import numbers as texts_of
from service.api.driver import Call, Driver, Fields, RawRequest
from service.api.endpoints import Endpoint
from service.api.grouping import GroupVerbs
from service.api.helpers import Helpers
from service.api.native.sample import DRAWN_SEED_BITS
from service.api.native.verbs import Verbs
from service.api.problems import problem_reply
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.errors import DeadlineExceeded, Draining, EngineFailed, QueueFull
from service.exchange import Exchange, Reply
from service.plan import Outputs, Run, advance, run_now

BUDGET = 100


@pytest.fixture(scope="module")
def registry(client):
    return client.app.state.registry


@pytest.fixture(scope="module")
def verbs(registry):
    return Verbs(registry, BUDGET, BUDGET)


@pytest.fixture(scope="module")
def plain(registry):
    return GroupVerbs(registry, BUDGET)


def alone(verb, exchange):
    try:
        return run_now(verb(exchange))
    except Exception as error:
        return problem_reply(error)


numbers = st.floats(-3, 3, width=32) | st.integers(-3, 3) | st.sampled_from([1e30, 1e39, -1e39, 1 << 70, 7.038531e-26])
row = st.lists(numbers | st.sampled_from([None, True, "1", [1.0]]), min_size=1, max_size=3)
plain_row = st.lists(numbers, min_size=2, max_size=2)
bodies = st.one_of(
    st.builds(lambda x: json.dumps({"x": [x]}).encode(), plain_row),
    st.builds(lambda x: json.dumps({"x": x}).encode(), row | st.lists(row, max_size=2)),
    st.builds(lambda x, more: json.dumps({"x": [x], more: 1}).encode(), plain_row, st.sampled_from(["context", "y"])),
    st.sampled_from(
        [
            *(b"", b"[]", b"{}", b"null", b'{"x": [[1, 2]]} ', b'{"x": [[1, 2]]}}', b'{"x": [[1, 2]]},{"x": [[3, 4]]}'),
            *(b'{"x": [[NaN, 1]]}', b'{"x": [[1, 2]], "x": [[3, 4]]}', b'{"x": [[-0, -0.0]]}', b'{"x": [[1e400, 1]]}'),
            *(b'{"z": [[1, 2]]}', b'{"x": [[1, 2]], "model": "square"}', b'{"x": {"y": 1}}', b"\xff"),
        ]
    ),
)
names = st.sampled_from([None, "two-moons", "square", "coupling", "conditional", "image", "nowhere"])
versions = st.sampled_from([None, "1", "2", "x"])
types = st.sampled_from(
    [None, "application/json", "application/json; charset=utf-8", "text/plain", "application/x-npy"]
)
accepts = st.sampled_from([None, "*/*", "application/json", "application/x-npy", "image/png", "text/html"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names, versions, types, accepts, st.lists(bodies, min_size=1, max_size=20))
def test_rows_are_answered_as_their_verb_answers_them(verbs, plain, name, version, kind, accept, texts):
    common = Exchange(name, version, (), kind, accept)
    replies = run_now(plain.log_prob(common, texts))
    assert len(replies) == len(texts)
    for text, reply in zip(texts, replies, strict=True):
        assert reply is None or reply == alone(verbs.log_prob, common._replace(body=text))


@pytest.mark.parametrize("count", [1, 5, 17, 64])
def test_what_is_plain_is_asked_together(plain, verbs, count):
    x = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
    texts = [json.dumps({"x": [each.tolist()]}).encode() for each in x]
    texts[count // 2] = b'{"x": [[1e39, 0]]}'  # its neighbours keep their answers
    step = advance(plain.log_prob(Exchange(), texts))
    assert count == 1 or len(step.rows) == count - 1
    replies = run_now(plain.log_prob(Exchange(), texts))
    assert [at for at, reply in enumerate(replies) if reply is None] == [count // 2]
    seeds = [b"seed=%d" % seed for seed in range(count)]
    assert None not in run_now(plain.sample(Exchange(), seeds))


def test_a_number_is_rounded_as_everywhere(plain):
    run = advance(plain.log_prob(Exchange(), [b'{"x": [[7.038531e-26, 0]]}']))
    assert texts_of(run.rows) == [b"7.038531e-26,0.0"]


@pytest.mark.parametrize("name", ["conditional", "image", "nowhere"])
def test_a_flow_that_takes_more_than_a_row_of_a_table_is_left_to_the_verb(plain, name):
    assert advance(plain.log_prob(Exchange(name), [b'{"x": [[1]]}'])).value == [None]
    assert advance(plain.sample(Exchange(name), [b""])).value == [None]


def test_a_density_of_zero_is_left_to_the_verb(plain, verbs):
    common = Exchange("square")
    texts = [b'{"x": [[0.5]]}', b'{"x": [[-5]]}', b'{"x": [2.5]}']
    replies = run_now(plain.log_prob(common, texts))
    answers = [alone(verbs.log_prob, common._replace(body=text)) for text in texts]
    assert b"in_support" in answers[1].body
    assert replies == [answers[0], None, answers[2]]


queries = st.sampled_from(
    [
        *(b"", b"seed=7", b"n=1&seed=7", b"seed=7&n=1", b"n=1", b"seed=0", b"seed=18446744073709551615"),
        *(b"seed=18446744073709551616", b"seed=9999999999999999999", b"seed=07", b"n=2&seed=7", b"seed=-1", b"seed="),
        *(b"n=1&n=1", b"seed=7&seed=7", b"seed=7&offset=3", b"seed=7&", b"&seed=7", b"seed=1.0", b"n=01&seed=3"),
        *(b"seed=7&temperature=2", b"seed=7&return=round_trip_error", b"model=square&seed=7", b"unknown=1"),
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names, versions, accepts, st.lists(queries, min_size=1, max_size=40))
def test_draws_are_answered_as_their_verb_answers_them(verbs, plain, name, version, accept, texts):
    common = Exchange(name, version, (), None, accept)
    for text, reply in zip(texts, run_now(plain.sample(common, texts)), strict=True):
        if reply is None:
            continue
        seed = json.loads(reply.body)["seed"]
        assert b"seed" in text or 0 <= seed < 1 << DRAWN_SEED_BITS
        query = (("n", "1"), ("seed", str(seed)))
        assert b"seed" not in text or b"seed=%d" % seed in text
        assert reply == alone(verbs.sample_by_query, common._replace(query=query))


def test_seeds_that_the_server_draws_differ(plain):
    replies = run_now(plain.sample(Exchange(), [b""] * 20))
    assert len({json.loads(reply.body)["seed"] for reply in replies}) == 20


def test_the_work_budget_holds(registry, verbs):
    replies = run_now(GroupVerbs(registry, 1).log_prob(Exchange(), [b'{"x": [[1, 2]]}']))
    assert replies == [None]


@pytest.mark.parametrize(
    ("error", "status"),
    [(QueueFull("full", retry_seconds=2.0), 429), (Draining("no more"), 503), (DeadlineExceeded("late"), 504)],
)
def test_what_there_was_no_time_for_is_told_to_each(plain, error, status):
    texts = [b'{"x": [[1, 2]]}', b"{}", b'{"x": [[3, 4]]}']
    plan = plain.log_prob(Exchange(), texts)
    assert isinstance(advance(plan), Run)
    replies = advance(plan, error).value
    assert [reply and reply.status for reply in replies] == [status, None, status]
    assert replies[0] == problem_reply(error)


def test_a_run_that_fails_sends_each_on_alone(plain):
    plan = plain.sample(Exchange(), [b"seed=1", b"seed=2"])
    advance(plan)
    assert advance(plan, EngineFailed("it broke")).value == [None, None]


def test_rows_without_finite_numbers_are_left_to_the_verb(plain):
    plan = plain.sample(Exchange(), [b"seed=1", b"seed=2", b"seed=3"])
    run = advance(plan)
    outputs = run.lane.runner(run.rows[0:3], None)
    outputs.value[1, 0] = np.nan
    replies = advance(plan, outputs._replace(finite=False)).value
    assert [reply is None for reply in replies] == [False, True, False]


class Asked:
    """Plans for many that note what they are asked."""

    def __init__(self):
        self.texts = []

    def __call__(self, common, texts):
        self.texts.append(list(texts))
        if b"broken" in texts:
            raise RuntimeError("a bug")
        yield from ()
        return [None if text == b"odd" else Reply(b"together " + text) for text in texts]


def doubled(exchange):
    yield from ()
    return Reply(b"alone " + exchange.body)


def ask(texts, drop=()):
    """What is answered to texts that arrive in one turn of the loop, and what was asked together."""
    together, replies = Asked(), {}
    helpers = Helpers(1)

    async def main():
        driver = Driver(helpers, 30.0)
        call = Call(Endpoint("POST", "/doubled", doubled, together))
        waiting = [
            driver.answer(RawRequest(call, Fields(), b"", text), lambda reply, at=at: replies.update({at: reply}))
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
    replies, asked = ask([b"1", b"odd", b"3"])
    assert [replies[at].body for at in range(3)] == [b"together 1", b"alone odd", b"together 3"]
    assert asked == [[b"1", b"odd", b"3"]]


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


def test_a_fault_is_told_to_everyone(caplog):
    replies, _ = ask([b"1", b"broken"])
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

    def together(common, texts):
        yield Run(lane, np.zeros((len(texts), 1), np.float32))
        return [Reply(text) for text in texts]

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


def test_a_body_and_a_query_are_asked_alone():
    """A group's text is one of them: the other would be passed over."""
    replies = []

    async def main():
        driver = Driver(helpers, 30.0)
        driver.answer(
            RawRequest(Call(Endpoint("POST", "/doubled", doubled, Asked())), Fields(), b"a=1", b"body"), replies.append
        )
        await asyncio.sleep(0)

    helpers = Helpers(1)
    asyncio.run(main())
    helpers.close()
    assert [reply.body for reply in replies] == [b"alone body"]


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
