from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from service.api.driver import LARGE_BODY, Call, Driver, Fields, RawRequest
from service.api.endpoints import Endpoint
from service.api.grouped.groups import Group
from service.api.helpers import Helpers
from service.engine.batching.queues import Limits
from service.engine.batching.workers import QueuedLane, Workers
from service.errors import ClientGone, EngineFailed, NotFinite, QueueFull
from service.exchange import Reply
from service.plan import LARGE_RUN, Outputs, Run
from tests.service.api.lanes import OUTPUTS, Lane, plan, with_helpers
from tests.waiting import turns_until, until


def verb(exchange):
    return None


@pytest.fixture
def helpers():
    pool = Helpers(1)
    yield pool
    pool.close()


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

        driver = Driver(helpers, 30.0)
        futures = []
        for value in values:
            future = asyncio.get_running_loop().create_future()
            driver.answer(
                RawRequest(Call(Endpoint("POST", "/verb", doubled)), Fields(), b"", str(value).encode()),
                future.set_result,
            )
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
    driver = Driver(helpers, 30.0)

    async def main():
        driver.answer(RawRequest(Call(Endpoint("POST", "/verb", verb)), Fields(timeout=told)), replies.append)

    asyncio.run(main())
    assert replies[0].status == 422
    assert b"Pushforward-Timeout-Ms" in replies[0].body


def test_what_the_call_of_a_verb_refuses_is_told(helpers):
    replies = []
    driver = Driver(helpers, 30.0)

    def full(exchange):
        raise QueueFull("too much is waiting")

    async def main():
        return driver.answer(
            RawRequest(Call(Endpoint("POST", "/verb", full)), Fields(), b"", bytes(100_000)), replies.append
        )

    assert asyncio.run(main()) is None
    assert replies[0].status == 429


def test_a_deadline_counts_from_the_head(helpers):
    seen = []
    driver = Driver(helpers, 30.0)

    def noted(exchange):
        seen.append(exchange.deadline)
        yield from ()
        return Reply(b"")

    async def main():
        for since in (5.0, None):
            driver.answer(
                RawRequest(Call(Endpoint("POST", "/verb", noted)), Fields(timeout="500")), lambda reply: None, since
            )

    before = driver.clock()
    asyncio.run(main())
    assert seen[0] == 5.5
    assert before + 0.5 <= seen[1] <= driver.clock() + 0.5


@pytest.mark.parametrize(
    ("rows", "size", "expected"), [(1, 0, [0, 0]), (1, LARGE_BODY + 1, [1, 0]), (LARGE_RUN + 1, 0, [0, 1])]
)
def test_only_large_steps_leave_the_loop(rows, size, expected):
    found = []

    def verb(exchange):
        found.append((yield from plan(Lane(OUTPUTS), rows)))
        return Reply(b"")

    async def main(helpers):
        call = Call(Endpoint("POST", "/verb", verb))
        return await Driver(helpers, 30.0).reply(RawRequest(call, Fields(), b"", bytes(size)))

    with_helpers(main)
    ((outputs, threads),) = found
    assert outputs is OUTPUTS
    assert [int(name.startswith("helper")) for name in threads] == expected


@pytest.mark.parametrize("error", [EngineFailed("in a run"), QueueFull("at the door")])
def test_an_error_goes_through_the_plan(error):
    def mends(lane):
        with pytest.raises(type(error)):
            yield Run(lane, np.zeros((1, 1), np.float32))
        return "mended"

    async def main(helpers, made):
        return await Driver(helpers, 30.0).run(made(Lane(error)))

    assert with_helpers(main, made=mends) == "mended"
    with pytest.raises(type(error)):
        with_helpers(main, made=plan)


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
        future = Driver(helpers, 30.0).run(watched())
        assert dones
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        await asyncio.sleep(0)
        dones[0](OUTPUTS)
        await asyncio.sleep(0)

    with_helpers(main)
    assert closed == [True]
    assert tickets[0].abandoned, "nobody waits for its rows"
    dones[0](OUTPUTS)  # the loop is closed by now


def single(driver, verb, answers, body=b""):
    request = RawRequest(Call(Endpoint("POST", "/verb", verb)), Fields(), b"", body)
    return driver.answer(request, answers.append)


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_result_before_the_driver_knows_that_its_future_was_cancelled_is_dropped():
    dones = []

    class Late(Lane):
        def submit(self, run, done, deadline):
            dones.append(done)
            return SimpleNamespace(abandoned=False)

    async def main(helpers):
        future = Driver(helpers, 30.0).run(plan(Late(None)))
        future.cancel()
        dones[0](OUTPUTS)
        await turns()
        return future.cancelled()

    assert with_helpers(main)


def test_an_abandoned_request_is_never_answered():
    dones, answers = [], []

    class Late(Lane):
        def submit(self, run, done, deadline):
            dones.append(done)
            return SimpleNamespace(abandoned=False)

    def verb(exchange):
        yield Run(Late(None), np.zeros((1, 1), np.float32))
        return Reply(b"")

    async def main(helpers):
        single(Driver(helpers, 30.0), verb, answers).abandon()
        dones[0](OUTPUTS)
        await turns()

    with_helpers(main)
    assert answers == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_step_that_nobody_waits_for_is_not_taken_or_not_told(fails):
    sent, steps, answers = [], [], []

    def verb(exchange):
        steps.append(exchange)
        if fails:
            raise RuntimeError("nobody hears it")
        yield from ()
        return Reply(b"")

    async def main():
        driver = Driver(helpers, 30.0)
        first = single(driver, verb, answers, bytes(LARGE_BODY + 1))
        second = single(driver, verb, answers, bytes(LARGE_BODY + 1))
        await turns()
        first.abandon()
        await turns()
        for errand in sent:
            errand()
        second.abandon()  # its step has been taken, and the loop has not heard of it yet
        await turns()

    helpers = Helpers(1, send=sent.append)
    asyncio.run(main())
    helpers.close()
    assert (len(steps), answers) == (1, [])


def test_a_deadline_bounds_a_step_that_does_not_end():
    """The answer comes when the deadline passes, whatever a helper thread does, and that hears that nobody waits."""
    let_go, watches = threading.Event(), []

    def verb(exchange):
        watches.append(exchange.watch)
        assert let_go.wait(30)
        yield from ()
        return Reply(b"late")

    async def main(helpers):
        driver = Driver(helpers, 30.0)
        fields = Fields(timeout="20")
        call = Call(Endpoint("POST", "/verb", verb))
        reply = await asyncio.wait_for(driver.reply(RawRequest(call, fields, b"", bytes(LARGE_BODY + 1))), 20)
        assert (reply.status, reply.code) == (504, "deadline_exceeded")
        assert watches[0].abandoned
        with pytest.raises(ClientGone):
            watches[0].check()
        let_go.set()

    with_helpers(main)


def test_a_client_that_goes_is_told_to_the_step_under_way():
    begun, let_go, ends = threading.Event(), threading.Event(), []

    def verb(exchange):
        begun.set()
        assert let_go.wait(30)
        try:
            exchange.watch.check()
        except ClientGone as error:
            ends.append(error.code)
        yield from ()
        return Reply(b"")

    async def main(helpers):
        answers = []
        task = single(Driver(helpers, 30.0), verb, answers, bytes(LARGE_BODY + 1))
        await asyncio.to_thread(begun.wait, 30)
        task.abandon()
        let_go.set()
        await turns_until(lambda: ends)
        assert (ends, answers) == (["client_gone"], [])

    with_helpers(main)


def test_a_plan_that_draws_goes_on_on_a_helper():
    names = []

    def verb(exchange):
        yield Run(Lane(OUTPUTS), np.zeros((1, 1), np.float32))
        names.append(threading.current_thread().name)
        return Reply(b"")

    async def main(helpers):
        driver = Driver(helpers, 30.0)
        for accept in ("image/png", "application/json"):
            request = RawRequest(Call(Endpoint("POST", "/verb", verb)), Fields(accept=accept))
            await asyncio.wait_for(driver.reply(request), 20)

    with_helpers(main)
    assert [name.startswith("helper") for name in names] == [True, False]


def test_a_canarys_run_is_the_engines_and_a_requests_may_be_the_loops(helpers):
    threads = []

    class Noting(Counting):
        def __call__(self, rows, context):
            threads.append(threading.current_thread().name)
            return super().__call__(rows, context)

    async def main():
        workers = Workers(1)
        lane = workers.lane(Noting(), Limits())
        lane.queue.record(1, 1e-6)

        def probe(exchange=None):
            yield Run(lane, np.zeros((1, 1), np.float32))
            return Reply(b"")

        driver = Driver(helpers, 30.0)
        await asyncio.wait_for(driver.run(probe()), 20)
        await asyncio.wait_for(driver.reply(RawRequest(Call(Endpoint("GET", "/probe", probe)), Fields())), 20)
        workers.close(10)

    asyncio.run(main())
    assert [name.startswith("engine") for name in threads] == [True, False]


def together(run_lane):
    """An endpoint whose requests of one turn share a run."""

    def alone(exchange):
        yield Run(run_lane, np.zeros((1, 1), np.float32))
        return Reply(exchange.body)

    def plan(texts):
        yield Run(run_lane, np.zeros((len(texts), 1), np.float32))
        return [Reply(text) for text in texts]

    def group(parcels):
        texts = [each.body for parcel in parcels for each in parcel.questions]
        return [Group(list(range(len(texts))), plan(texts))]

    return Endpoint("POST", "/verb", alone, group), Endpoint("POST", "/verb", alone)


@pytest.mark.parametrize("grouped", [True, False])
def test_a_client_that_cannot_be_answered_costs_no_other_its_reply(helpers, grouped):
    answers, told = [], []

    def broken(reply):
        raise OSError("the client has gone")

    async def main():
        workers = Workers(1)
        lane = workers.lane(Counting(), Limits())
        lane.queue.record(1, 1e-6)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context["exception"]))
        endpoints = [together(lane)[0 if grouped else 1] for _ in range(3)]  # each its own group
        driver = Driver(helpers, 30.0)
        for endpoint in endpoints:
            for answer in (broken, answers.append):
                driver.answer(RawRequest(Call(endpoint), Fields(), b"", b"x"), answer)
        # one that is refused at once
        driver.answer(RawRequest(Call(endpoints[0]), Fields(timeout="-1")), broken)
        await turns()
        workers.close(10)

    asyncio.run(main())
    assert [reply.body for reply in answers] == [b"x"] * 3
    assert [str(error) for error in told] == ["the client has gone"] * 4


class Moved:
    """A driver whose clock the test moves, and a verb that answers at once and notes that it was asked."""

    def __init__(self, helpers):
        self.now = 100.0
        helpers.clock = lambda: self.now
        self.driver = Driver(helpers, 0.1)
        self.asked, self.replies = [], []
        self.call = Call(Endpoint("POST", "/verb", self.verb))

    def verb(self, exchange):
        self.asked.append(exchange.deadline)
        yield from ()
        return Reply(b"done")

    def ask(self, since=None):
        self.driver.answer(RawRequest(self.call, Fields(), b"", b"x"), self.replies.append, since)
        return self.replies[-1]


def test_what_waited_too_long_for_the_loop_is_refused_before_a_plan_is_made(helpers):
    async def main():
        moved = Moved(helpers)
        assert moved.ask().status == 200
        for behind, status in ((0.05, 200), (0.04, 200), (0.02, 429)):
            moved.now += behind  # the same turn goes on
            assert moved.ask().status == status
        assert len(moved.asked) == 3
        refused = moved.replies[-1]
        assert (refused.code, refused.headers) == ("queue_full", {"Retry-After": "1"})
        assert b"event loop" in refused.body
        await turns()
        assert moved.ask().status == 429, "it may have come just after the poll before"
        await turns()
        moved.now += 1.0
        assert moved.ask().status == 200, "the loop has waited"

    asyncio.run(main())


def test_a_deadline_counts_from_the_turn_in_which_the_bytes_may_have_come(helpers):
    async def main():
        moved = Moved(helpers)
        moved.ask()
        moved.now += 0.03
        moved.ask()
        await turns()
        moved.ask()
        assert moved.asked == [100.1, 100.1, 100.1]

    asyncio.run(main())


def test_whose_own_body_took_too_long_is_no_fault_of_the_loop(helpers):
    async def main():
        moved = Moved(helpers)
        moved.now += 1.0
        assert moved.ask(since=moved.now - 0.5).status == 200  # the verb decides, and asks for no run
        assert len(moved.asked) == 1

    asyncio.run(main())


def test_results_of_other_threads_do_not_wait_for_the_end_of_a_turn(helpers):
    replies = []

    async def main():
        workers = Workers(1)
        lane = workers.lane(Counting(), Limits(), inline=False)
        driver = Driver(helpers, 30.0)

        def verb(exchange):
            outputs = yield Run(lane, np.ones((1, 1), np.float32))
            return Reply(str(outputs.log_prob[0]).encode())

        for _ in range(2):
            driver.answer(RawRequest(Call(Endpoint("POST", "/verb", verb)), Fields()), replies.append)
        await asyncio.sleep(0)  # the runs are brought to the lane
        until(lambda: len(driver._arrived) == 2)  # the loop does not turn meanwhile
        assert replies == []
        driver.deliver()
        assert [reply.body for reply in replies] == [b"1.0", b"1.0"]
        workers.close(10)

    asyncio.run(main())


class Full:
    """A driver of a verb that is always refused by its queue, at once or in its plan."""

    def __init__(self, helpers, *, at_once=False):
        self.now = 100.0
        helpers.clock = lambda: self.now
        self.driver = Driver(helpers, 0.1)
        self.plans, self.replies = 0, []
        self.call = Call(Endpoint("POST", "/verb", self.refuse if at_once else self.verb))

    def refuse(self, exchange):
        self.plans += 1
        raise QueueFull("there is no room", retry_seconds=2.5)

    def verb(self, exchange):
        yield from ()
        self.refuse(exchange)

    def ask(self, size=100, content_type="application/x-npy", query=b"", timeout=None):
        """Whether a plan was made for a request."""
        before = self.plans
        request = RawRequest(self.call, Fields(content_type, timeout=timeout), query, bytes(size))
        self.driver.answer(request, self.replies.append)
        assert (self.replies[-1].status, self.replies[-1].headers) == (429, {"Retry-After": "3"})
        return self.plans - before == 1


@pytest.mark.parametrize("at_once", [True, False])
def test_what_a_full_queue_refused_is_refused_again_without_a_plan_for_a_turn(helpers, at_once):
    async def main():
        full = Full(helpers, at_once=at_once)
        assert full.ask()
        assert not full.ask()
        assert not full.ask(size=200)
        assert not full.ask(timeout="50")
        assert full.ask(timeout="200"), "it has more time"
        assert full.ask(size=99), "it is smaller"
        assert not full.ask(size=99)
        assert full.ask(content_type="text/csv")
        assert full.ask(query=b"model=other")
        assert full.ask(query=b"model=other")
        await turns()
        assert full.ask(), "another turn"
        assert len(full.driver._refusals) == 1, "what was known in another turn is forgotten"

    asyncio.run(main())


def test_what_joined_no_group_is_refused_again_without_a_plan_too(helpers):
    async def main():
        full = Full(helpers)
        request = RawRequest(full.call, Fields("application/x-npy"), b"", bytes(100))
        assert full.ask()
        for _ in range(3):
            assert full.driver.single(request, 100.1, full.replies.append) is None
        assert full.plans == 1
        assert [reply.status for reply in full.replies] == [429] * 4

    asyncio.run(main())


def test_two_full_batches_wait_for_no_more_of_their_turn(helpers, monkeypatch):
    """What is queued is seen by the requests behind it, which are then refused before their bodies are read."""
    brought = []
    run_inline = QueuedLane.run_inline

    def noted(lane, submissions, seconds):
        brought.append((len(submissions), seconds > 0))
        return run_inline(lane, submissions, seconds)

    monkeypatch.setattr(QueuedLane, "run_inline", noted)

    async def main():
        workers = Workers(1, stopped)
        lane = workers.lane(Counting(), Limits(chunk_rows=4))
        replies, driver = [], Driver(helpers, 30.0)

        def one_row(exchange):
            yield Run(lane, np.zeros((1, 1), np.float32))
            return Reply(b"done")

        call = Call(Endpoint("POST", "/verb", one_row))
        for _ in range(20):
            driver.answer(RawRequest(call, Fields()), replies.append)
        assert brought == [(8, False), (8, False)], "and for the threads"
        await turns_until(lambda: len(replies) == 20)
        workers.close(10)

    asyncio.run(main())
    assert brought == [(8, False), (8, False), (4, True)]


@pytest.mark.parametrize("content_type", [None, "application/json", "application/x-www-form-urlencoded"])
def test_a_body_that_may_name_another_flow_is_looked_at(helpers, content_type):
    async def main():
        full = Full(helpers)
        assert full.ask(content_type=content_type)
        assert full.ask(content_type=content_type)

    asyncio.run(main())


def test_a_result_ends_what_was_known_of_a_full_queue(helpers):
    async def main():
        full = Full(helpers)
        assert full.ask()
        assert not full.ask()
        full.driver._arrived.append((SimpleNamespace(ticket=None, abandoned=True), OUTPUTS))
        full.driver.deliver()
        assert full.ask()

    asyncio.run(main())
