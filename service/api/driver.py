"""The driver: starts the verb of a request, runs its plan to the end, and hands the reply to a callback.

Both doors use it: a connection that answers by itself hands it a callback, and the ASGI route awaits a future. A plan
goes on where its next step belongs: a short step on the event loop, a long one on a helper thread. Runs of one lane
that are asked for in one turn of the loop go to the engine together, and small requests of one endpoint share a plan.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from service.api.codecs import wire
from service.api.endpoints import Endpoint
from service.api.grouped.groups import Replies
from service.api.grouped.reading import Parcel
from service.api.helpers import Helpers
from service.api.problems import problem, problem_reply
from service.api.requests import Call, Fields, RawRequest, by_endpoint
from service.api.turns import Turns
from service.engine.batching.workers import QueuedLane, Submission
from service.errors import DeadlineExceeded, PushforwardError, QueueFull, release_frames
from service.exchange import UNWATCHED, Exchange, Reply, Watch
from service.guard import deadline
from service.plan import LARGE_RUN, Finished, Outputs, Plan, Run, Ticket, advance

__all__ = ["LARGE_BODY", "Call", "Driver", "Fields", "GroupMember", "PlanTask", "RawRequest"]

T = TypeVar("T")

LARGE_BODY: Final = 1 << 16
"""A step that works on more bytes is taken on a helper thread."""

_LOOP_SECONDS: Final = 1.5e-3
"""A batch that is expected to take longer does not run on the event loop. Handed to another thread, 64 rows drawn of 64
columns, which take a millisecond, came back at half the rate: the two threads want the interpreter at the same time."""

_GATHERED_BATCHES: Final = 2
"""So many batches of one lane do not wait for the end of a turn. A single one may be for the event loop itself, and not
in the middle of a turn: a client that sends thousands of requests at once would hold it up."""

_GROUP_SIZE: Final = 64
"""The most requests of a group."""

_SMALL_BODY: Final = 1 << 13
"""In bytes; a request with a longer body joins no group."""

_SMALL_ARRAY: Final = 1 << 11
"""As `_SMALL_BODY`, of a body that is no JSON: as many bytes hold several times as many numbers.

A group is decoded before the queue is asked. Under overload hundreds of rows would be decoded to be refused.
"""

_SPENT: Final = 0.1
"""Of the time until its deadline: a request whose body took longer to come joins no group, which would share it."""


_TOO_FAR_BEHIND: Final = problem(
    QueueFull("the event loop is so far behind that the deadline passed before this request was looked at")
)
"""The reply to a request that waited too long for the event loop: made once, since many are refused when it is made."""


_LAGS: Final = 0.05
"""Of the time until its deadline: where the loop's turns are longer, a request that took too long to come in is late
through the server's fault."""


class _Refusal(NamedTuple):
    """A request that a full queue refused.

    Args:
        size: of its body, in bytes.
        until: its deadline.
        reply: that it got.
    """

    size: int
    until: float
    reply: Reply


class PlanTask(Generic[T]):
    """A plan under way. It is the callback of its run.

    Args:
        driver: drives it.
        plan: the generator.
        done: called once on the event loop, with what the plan returned or raised; never once it is abandoned.
        deadline: on `time.monotonic`, in seconds.
        draws: whether the plan draws a picture, so that a helper goes on after each run.
        threads_only: whether the event loop may run none of its batches, however short.
        watch: what the plan asks whether anybody still waits; None where its steps are short.
    """

    __slots__ = (
        "abandoned",
        "deadline",
        "done",
        "draws",
        "driver",
        "helper",
        "late",
        "plan",
        "step_bytes",
        "threads_only",
        "ticket",
        "watch",
    )

    def __init__(
        self,
        driver: Driver,
        plan: Plan[T],
        done: Callable[[T | Exception], None],
        deadline: float,
        *,
        draws: bool = False,
        threads_only: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.driver = driver
        self.plan = plan
        self.done = done
        self.deadline = deadline
        self.draws = draws
        self.threads_only = threads_only
        self.step_bytes = 0  # what its next step works on; more than LARGE_BODY where a helper is to take it
        self.ticket: Ticket | None = None
        self.helper: asyncio.Task[Run | Finished[T]] | None = None
        self.late: asyncio.TimerHandle | None = None
        self.watch = watch
        self.abandoned = False

    def __call__(self, result: Outputs | Exception) -> None:
        """Take the result of a run, from any thread."""
        self.driver.arrive(self, result)

    def abandon(self) -> None:
        """Give the plan up: nobody waits for it any more."""
        self.abandoned = True
        if self.watch is not None:
            self.watch.abandoned = True
        if self.ticket is not None:
            self.ticket.abandoned = True
        if self.helper is not None:  # it has the plan, and finds nobody waiting
            self.helper.cancel()
        else:
            self.plan.close()


class _Group:
    """Requests that share one plan, which is abandoned when each of them is."""

    __slots__ = ("_left", "_members", "task")

    def __init__(self, members: list[GroupMember]) -> None:
        self._members = members
        self._left = len(members)
        self.task: PlanTask[Replies] | None = None
        for member in members:
            member.group = self

    def settle(self, result: Replies | Exception) -> None:
        """Give each member its reply."""
        members, self._members = self._members, []
        self.task = None  # else the two would be in a circle that only a collection ends
        replies: Replies = [problem_reply(result)] * len(members) if isinstance(result, Exception) else result
        for member, reply in zip(members, replies, strict=True):
            member.group = None
            if not member.abandoned:
                member.take(reply)

    def leave(self) -> None:
        """Note that a member has been abandoned."""
        self._left -= 1
        if self._left == 0 and self.task is not None:
            self.task.abandon()
            self.task = None


class GroupMember:
    """A request that is asked together with others.

    Args:
        driver: drives it.
        request: itself.
        deadline: on `time.monotonic`, in seconds.
        answer: takes the reply.
    """

    __slots__ = ("_answer", "_driver", "_single", "abandoned", "deadline", "group", "request")

    def __init__(self, driver: Driver, request: RawRequest, deadline: float, answer: Callable[[Reply], None]) -> None:
        self._driver = driver
        self._answer = answer
        self._single: PlanTask[Reply] | None = None
        self.request = request
        self.deadline = deadline
        self.group: _Group | None = None
        self.abandoned = False

    def take(self, reply: Reply | None) -> None:
        """Take what the group has for this request; None sends it on alone."""
        if reply is None:
            self._single = self._driver.single(self.request, self.deadline, self._answer)
        else:
            self._driver.hand_over(self._answer, reply)

    def abandon(self) -> None:
        """Give the request up: nobody waits for its reply any more."""
        self.abandoned = True
        if self._single is not None:
            self._single.abandon()
        elif self.group is not None:
            self.group.leave()


class Driver:
    """The driver of one server, on one event loop.

    Args:
        helpers: threads for what would hold up the loop.
        timeout_seconds: the time for an answer where the client says nothing.
    """

    def __init__(self, helpers: Helpers, timeout_seconds: float) -> None:
        self._helpers = helpers
        self._timeout_seconds = timeout_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turns: Turns | None = None
        self._thread = 0
        self._waiting: dict[tuple[int, int], list[GroupMember]] = {}
        self._runs: dict[QueuedLane, list[tuple[Run, PlanTask[Any]]]] = {}
        self._rows: dict[QueuedLane, int] = {}  # of the same runs
        self._flushing = False
        self._arrived: deque[tuple[PlanTask[Any], Outputs | Exception]] = deque()
        self._arriving = False
        self._delivering = False
        self._refusals: dict[tuple[Call, str | None], _Refusal] = {}  # by call and Content-Type
        self._refused_in = 0  # the turn of all of them

    def clock(self) -> float:
        """Seconds, on which deadlines are given."""
        return self._helpers.clock()

    def deadline(self, fields: Fields, since: float) -> float:
        """The time after which an answer comes too late.

        Args:
            fields: of the request.
            since: when its head had come.

        Raises:
            InvalidArgument: from `service.guard.deadline`.
        """
        return deadline(fields.timeout, self._timeout_seconds, since)

    def since(self) -> float:
        """Since when bytes that are read now may have waited for the event loop, on `clock`."""
        return self._running_turns().since()

    def deliver(self) -> None:
        """Take the results of other threads, which would wait for the end of a long turn of the event loop."""
        if self._arrived and not self._delivering:
            self._take_in()

    def answer(
        self, request: RawRequest, answer: Callable[[Reply], None], since: float | None = None
    ) -> PlanTask[Reply] | GroupMember | None:
        """Start a request.

        Args:
            request: a whole one.
            answer: called once with the reply, on the event loop, at once or later; never once it is abandoned.
            since: when its head had come, from which its deadline counts; None for just now, as of `since`.

        Returns:
            The request under way, for whoever may have to abandon it; None where it has its reply.
        """
        call, fields, _, body = request
        now = self._helpers.clock()
        turns = self._turns or self._running_turns()
        read = turns.since()
        since = read if since is None else since
        try:
            until = since + self._timeout_seconds if fields.timeout is None else self.deadline(fields, since)
        except PushforwardError as error:
            self.hand_over(answer, problem_reply(error))
            return None
        if until <= now and (since >= read or turns.seconds > _LAGS * (until - since)):
            self.hand_over(answer, _TOO_FAR_BEHIND)
            return None
        known = self._known_refusal(request, until)
        if known is not None:
            self.hand_over(answer, known)
            return None
        slow = read - since > _SPENT * (until - since)
        alone = slow or (fields.caller is not None and fields.caller.counts_rows)
        if call.endpoint.group_verb is None or alone or (len(body) > _SMALL_ARRAY and not _is_small(body, fields)):
            return self.single(request, until, answer)
        member = GroupMember(self, request, until, answer)
        head = id(call), id(fields)  # of most they are the same objects, and to hash what they hold takes longer
        if head in self._waiting:
            self._waiting[head].append(member)
            return member
        self._waiting[head] = [member]
        self._flush_soon()
        return member

    def reply(self, request: RawRequest, since: float | None = None) -> asyncio.Future[Reply]:
        """Start a request, as `answer`. Cancelling the future abandons it."""
        future: asyncio.Future[Reply] = self._running_loop().create_future()
        return _abandoned_with(future, self.answer(request, partial(_settle, future), since))

    def run(self, plan: Plan[T]) -> asyncio.Future[T]:
        """Drive a plan to its end, with its runs on the engine's threads. Cancelling the future abandons it.

        A canary is to find out whether the engine comes back, and may not hold up the loop where it does not.

        Returns:
            What the plan returns or raises.
        """
        future: asyncio.Future[T] = self._running_loop().create_future()
        task = PlanTask(self, plan, partial(_settle, future), math.inf, threads_only=True)
        self._start(task, 0)
        return _abandoned_with(future, task)

    def single(self, request: RawRequest, until: float, answer: Callable[[Reply], None]) -> PlanTask[Reply] | None:
        """Start a request that shares no plan, as `answer`.

        Args:
            request: a whole one.
            until: its deadline.
            answer: takes the reply.
        """
        answer = partial(self.hand_over, answer)
        known = self._known_refusal(request, until)  # since it joined a group that had no place for it
        if known is not None:
            answer(known)
            return None
        call, fields, query, body = request
        asked = tuple(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else ()
        size = len(body) if wire.takes_long(fields.content_type, len(body)) else 0
        watch = Watch(until, self.clock) if size > LARGE_BODY else UNWATCHED
        exchange = Exchange(
            call.name, call.version, asked, fields.content_type, fields.accept, body, until, watch, fields.caller
        )
        reply = partial(self._reply, request, until, answer)
        try:
            plan = call.endpoint.verb(exchange)
        except Exception as error:  # told and, where it is no one's fault but ours, logged
            reply(error)
            return None
        draws = _may_be_picture(fields.accept)
        task = PlanTask(self, plan, reply, until, draws=draws, watch=watch if size > LARGE_BODY else None)
        self._start(task, size)
        return task

    def _known_refusal(self, request: RawRequest, until: float) -> Reply | None:
        """The reply that a full queue has just given to a request of the same kind that was no easier to take.

        Args:
            request: a whole one.
            until: its deadline.
        """
        call, fields, query, body = request
        if query or self._refused_in != self._running_turns().number:
            return None
        known = self._refusals.get((call, fields.content_type))
        return known.reply if known is not None and len(body) >= known.size and until <= known.until else None

    def _reply(
        self, request: RawRequest, until: float, answer: Callable[[Reply], None], result: Reply | Exception
    ) -> None:
        """Answer with what a verb's plan gave.

        What a full queue refuses, it refuses for the rest of this turn of the loop, or until a result comes: no plan is
        made for another request of the same kind that is no smaller and has no more time.
        """
        if not isinstance(result, Exception):
            answer(result)
            return
        reply = problem_reply(result)
        call, fields, query, body = request
        if isinstance(result, QueueFull) and not query and wire.holds_rows_only(fields.content_type):
            turn = self._running_turns().number
            if turn != self._refused_in:
                self._refusals.clear()
                self._refused_in = turn
            self._refusals[call, fields.content_type] = _Refusal(len(body), until, reply)
        answer(reply)

    def hand_over(self, answer: Callable[[Reply], None], reply: Reply) -> None:
        """Give a reply to whoever waits for it; what goes wrong there is the loop's to tell, and no other request's."""
        try:
            answer(reply)
        except Exception as error:  # whatever it is, the requests of the same turn are to have their replies
            context = {"message": "a reply could not be handed over", "exception": error}
            self._running_loop().call_exception_handler(context)

    def arrive(self, task: PlanTask[Any], result: Outputs | Exception) -> None:
        """Take the result of a task's run, from any thread."""
        if threading.get_ident() == self._thread:
            self._go_on(task, result)
            return
        self._arrived.append((task, result))
        if not self._arriving and self._loop is not None and not self._loop.is_closed():
            self._arriving = True
            self._loop.call_soon_threadsafe(self._take_in)

    def _take_in(self) -> None:
        self._arriving = False
        self._delivering = True
        self._refusals.clear()
        try:
            while self._arrived:
                self._go_on(*self._arrived.popleft())
        finally:
            self._delivering = False

    def _running_turns(self) -> Turns:
        if self._turns is None:
            self._turns = Turns(self._running_loop().call_soon, self.clock)
        return self._turns

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
        return self._loop

    def _start(self, task: PlanTask[T], size: int) -> None:
        """Take a task's first step.

        Args:
            task: not yet under way.
            size: of what that step works on, in bytes.
        """
        self._running_loop()
        if size > LARGE_BODY:
            try:
                self._helpers.admit(size, task.deadline)
            except QueueFull as error:
                task.done(error)
                return
            task.step_bytes = size
        self._go_on(task, None)

    def _go_on(self, task: PlanTask[T], message: Outputs | Exception | None) -> None:
        """Take a task's next step, here or on a helper thread."""
        task.ticket = None
        if task.abandoned:
            return
        if task.step_bytes > LARGE_BODY:
            helper = self._running_loop().create_task(self._helpers.run(task.step_bytes, advance, task.plan, message))
            task.helper = helper
            helper.add_done_callback(partial(self._come_back, task))
            if task.deadline < math.inf:
                left = max(0.0, task.deadline - self.clock())
                task.late = self._running_loop().call_later(left, self._expire, task)
            return
        try:
            step = advance(task.plan, message)
        except Exception as error:  # whoever waits is told
            task.done(error)
        else:
            self._take_step(task, step)

    def _expire(self, task: PlanTask[Any]) -> None:
        """Answer a task whose deadline passes while a helper thread has it: whatever that does, nobody waits longer."""
        task.abandon()
        task.done(DeadlineExceeded("the deadline passed before the request was answered"))

    def _come_back(self, task: PlanTask[T], helper: asyncio.Task[Run | Finished[T]]) -> None:
        """Take the step that a helper thread has taken."""
        task.helper = None
        if task.late is not None:
            task.late.cancel()
            task.late = None
        if helper.cancelled():
            return
        try:
            step = helper.result()
        except Exception as error:  # as above
            if task.abandoned:
                release_frames(error)
            else:
                task.done(error)
            return
        if task.abandoned:
            task.plan.close()
        else:
            self._take_step(task, step)

    def _take_step(self, task: PlanTask[T], step: Run | Finished[T]) -> None:
        """Finish a task, or bring the run that it wishes for to the engine."""
        if isinstance(step, Finished):
            value: T = step.value
            task.done(value)
            return
        large = step.size > LARGE_RUN
        task.step_bytes = LARGE_BODY + 4 * step.size if large or task.draws else 0
        if isinstance(step.lane, QueuedLane) and not (large or task.threads_only):
            self._gather(step.lane, step, task)
            return
        try:
            task.ticket = step.lane.submit(step, task, task.deadline)
        except Exception as error:  # the plan, not its driver, decides what an error means
            self._go_on(task, error)

    def _gather(self, lane: QueuedLane, run: Run, task: PlanTask[Any]) -> None:
        """Keep a run until the end of this turn, or until there are some batches of them, which are for the threads.

        A batch that is full gains nothing by what comes after it. `admit` sees what is queued, and nothing of what is
        gathered: under overload the requests behind it are refused before their bodies are read.

        Args:
            lane: of the run.
            run: of the task.
            task: that wishes for it.
        """
        gathered = self._runs.setdefault(lane, [])
        gathered.append((run, task))
        self._rows[lane] = rows = self._rows.get(lane, 0) + len(run.rows)
        if rows >= _GATHERED_BATCHES * lane.queue.limits.chunk_rows:
            self._bring(lane, self._runs.pop(lane), 0.0)
        else:
            self._flush_soon()

    def _bring(self, lane: QueuedLane, gathered: list[tuple[Run, PlanTask[Any]]], loop_seconds: float) -> None:
        """Bring runs of a lane to the engine together.

        Args:
            lane: of the runs.
            gathered: the runs, and the tasks that wish for them.
            loop_seconds: the most that a batch may take on the event loop.
        """
        self._rows.pop(lane, None)
        live = [(run, task) for run, task in gathered if not task.abandoned]
        tickets = lane.run_inline([Submission(run, task, task.deadline) for run, task in live], loop_seconds)
        for (_, task), ticket in zip(live, tickets, strict=True):
            if ticket is not None and not ticket.answered:  # else it would hold the two of them in a circle
                task.ticket = ticket

    def _flush_soon(self) -> None:
        """Go on with what this turn of the loop brings, once it has brought it."""
        if not self._flushing:
            self._flushing = True
            self._running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        try:
            there = [[member for member in members if not member.abandoned] for members in waiting.values()]
            for endpoint, heads in by_endpoint(there, _GROUP_SIZE):
                self._ask_together(endpoint, heads)
        finally:
            self._flushing = False  # not sooner: what they wish for is brought below
        if self._waiting:  # a reply has brought the next request of its connection
            self._flush_soon()
        runs, self._runs = self._runs, {}
        for lane, gathered in runs.items():
            self._bring(lane, gathered, _LOOP_SECONDS)

    def _ask_together(self, endpoint: Endpoint, heads: list[list[GroupMember]]) -> None:
        """Ask for requests of one endpoint, by their heads: in groups, and alone those that are in none."""
        if endpoint.group_verb is None:
            return
        parcels: list[Parcel] = []
        every: list[GroupMember] = []
        for members in heads:
            call, fields, _, _ = members[0].request
            common = Exchange(call.name, call.version, (), fields.content_type, fields.accept)
            parcels.append(Parcel(common, [member.request for member in members]))
            every += members
        try:
            groups = endpoint.group_verb(parcels)
        except Exception as error:  # told and logged, as a verb's own
            reply = problem_reply(error)
            for member in every:
                member.take(reply)
            return
        left = None if len(groups) == 1 and len(groups[0].places) == len(every) else set(range(len(every)))
        for places, plan in groups:
            members = every if left is None else [every[place] for place in places]
            if left is not None:
                left.difference_update(places)
            group = _Group(members)
            group.task = PlanTask(self, plan, group.settle, min([member.deadline for member in members]))
            self._start(group.task, 0)
        for place in sorted(left or ()):
            every[place].take(None)


def _settle(future: asyncio.Future[T], result: T | Exception) -> None:
    """Put what a plan gave into a future."""
    if future.done():  # cancelled, and the task is about to be told
        if isinstance(result, Exception):
            release_frames(result)
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def _abandoned_with(future: asyncio.Future[T], task: PlanTask[Any] | GroupMember | None) -> asyncio.Future[T]:
    """The future, whose cancellation abandons the task."""
    if task is not None and not future.done():

        def abandon(settled: asyncio.Future[T]) -> None:
            if settled.cancelled():
                task.abandon()

        future.add_done_callback(abandon)
    return future


def _is_small(body: bytes | bytearray, fields: Fields) -> bool:
    """Whether a body that is no small array may join a group all the same."""
    return len(body) <= _SMALL_BODY and wire.is_json(fields.content_type)


def _may_be_picture(accept: str | None) -> bool:
    """Whether an Accept header names pictures at all."""
    return accept is not None and "image/" in accept.lower()
