"""The fast door: drives the hot verbs' plans with callbacks, without a task, a route or a middleware to a call.

It calls the very verbs that FastAPI's routes call, so that the two doors cannot answer differently. Requests that
arrive in one turn of the event loop and wish for runs of the same lane are handed to the engine together.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar
from urllib.parse import parse_qsl

from service.api.codecs import wire
from service.api.door import LARGE_RUN, drive
from service.api.helpers import Helpers
from service.api.problems import told
from service.engine.batching.queues import QueuedRun
from service.engine.batching.workers import QueuedLane, Submission
from service.errors import PushforwardError
from service.exchange import Exchange, Reply
from service.guard import deadline
from service.http.grouping import Replies
from service.http.heads import Call, Fields, Heads, Hot
from service.plan import Finished, Outputs, Plan, Run, advance

__all__ = ["FastDoor", "Going", "Waiting", "WrittenHeads"]

_MOST_SECONDS: Final = 1.5e-3
"""A batch that is expected to take longer does not run on the event loop. Handed to another thread, 64 rows drawn of 64
columns, which take a millisecond, came back at half the rate: the two threads want the interpreter at the same time."""

_MOST_TOGETHER: Final = 64
"""Requests that are asked together."""

_SMALL_BODY: Final = 1 << 13
"""In bytes; a longer body is no plain request's."""

_SPENT: Final = 0.1
"""Of the time until its deadline: a request whose body took longer to come shares no deadline with others."""

T = TypeVar("T")
Answer = Callable[[Reply], None]


class WrittenHeads:
    """The heads of answers, as they are written to every connection while the default fields stay the same."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] | None = None
        self.count = 0
        self.written: dict[tuple[int, str], bytes] = {}


class Going(ABC, Generic[T]):
    """A plan under way: the lane's callback, and what can be abandoned."""

    __slots__ = ("_door", "abandoned", "deadline", "plan", "task", "ticket")

    def __init__(self, door: FastDoor, plan: Plan[T], deadline: float) -> None:
        self._door = door
        self.plan = plan
        self.deadline = deadline
        self.ticket: QueuedRun | None = None
        self.task: asyncio.Task[None] | None = None
        self.abandoned = False

    def __call__(self, result: Outputs | Exception) -> None:
        """Take the result of a run, from any thread."""
        self._door.arrive(self, result)

    @abstractmethod
    def finish(self, value: T) -> None:
        """Take what the plan has returned, on the event loop."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Take what the plan has raised, on the event loop."""

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.abandoned = True
        if self.ticket is not None:
            self.ticket.abandoned = True
        if self.task is not None:
            self.task.cancel()


class _Alone(Going[Reply]):
    """A verb's plan for one request."""

    __slots__ = ("_answer",)

    def __init__(self, door: FastDoor, plan: Plan[Reply], deadline: float, answer: Answer) -> None:
        super().__init__(door, plan, deadline)
        self._answer = answer

    def finish(self, value: Reply) -> None:
        self._answer(value)

    def fail(self, error: Exception) -> None:
        self._answer(told(error))


class _Group(Going[Replies]):
    """A plan for many requests. It is abandoned when each of them is."""

    __slots__ = ("_left", "_members")

    def __init__(self, door: FastDoor, plan: Plan[Replies], members: list[Waiting]) -> None:
        super().__init__(door, plan, min([member.deadline for member in members]))
        self._members = members
        self._left = len(members)

    def finish(self, value: Replies) -> None:
        members, self._members = self._members, []
        for member, reply in zip(members, value, strict=True):
            member.group = None
            if not member.abandoned:
                member.take(reply)

    def fail(self, error: Exception) -> None:
        self.finish([told(error)] * len(self._members))

    def leave(self) -> None:
        """One of the requests has been abandoned."""
        self._left -= 1
        if self._left == 0:
            self.abandon()


class Waiting:
    """A request that is asked together with others."""

    __slots__ = ("_answer", "_door", "abandoned", "alone", "deadline", "group", "hot")

    def __init__(self, door: FastDoor, hot: Hot, deadline: float, answer: Answer) -> None:
        self._door = door
        self._answer = answer
        self.hot = hot
        self.deadline = deadline
        self.abandoned = False
        self.group: _Group | None = None
        self.alone: Going[Reply] | None = None

    def take(self, reply: Reply | None) -> None:
        """Take what the group has for this request; None sends it on alone."""
        if reply is None:
            self.alone = self._door.alone(self.hot, self.deadline, self._answer)
        else:
            self._answer(reply)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.abandoned = True
        if self.alone is not None:
            self.alone.abandon()
        elif self.group is not None:
            self.group.leave()


class FastDoor:
    """The hot calls of one server, on one event loop.

    Args:
        heads: what it answers.
        helpers: threads for whatever would hold up the loop.
        max_body_bytes: the cap on a body.
        timeout_seconds: the time for an answer where the client says nothing.
    """

    def __init__(self, heads: Heads, helpers: Helpers, max_body_bytes: int, timeout_seconds: float) -> None:
        self.heads = heads
        self.max_body_bytes = max_body_bytes
        self.written = WrittenHeads()
        self._helpers = helpers
        self._timeout_seconds = timeout_seconds
        self._waiting: dict[tuple[Call, Fields], list[Waiting]] = {}
        self._gathered: dict[QueuedLane, list[tuple[Run, Going[Any]]]] = {}
        self._flushing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._arrived: deque[tuple[Going[Any], Outputs | Exception]] = deque()
        self._called = False

    def clock(self) -> float:
        """Seconds, on which deadlines are given."""
        return self._helpers.clock()

    def answer(self, hot: Hot, answer: Answer, since: float | None = None) -> Going[Reply] | Waiting | None:
        """Start a call; `answer` is called once with the reply, on the event loop, at once or later.

        Args:
            hot: the call.
            answer: takes the reply.
            since: when its head had come, from which its deadline counts; None for just now.

        Returns:
            The call, where it goes on.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
        call, fields, query, body = hot
        now = self.clock()
        since = now if since is None else since
        try:
            until = deadline(fields.timeout, self._timeout_seconds, since)
        except PushforwardError as error:
            answer(told(error))
            return None
        slow = now - since > _SPENT * (until - since)
        if call.together is None or slow or len(body) > _SMALL_BODY or (body and query):
            return self.alone(hot, until, answer)
        waiting = Waiting(self, hot, until, answer)
        self._waiting.setdefault((call, fields), []).append(waiting)
        self._flush_soon()
        return waiting

    def alone(self, hot: Hot, until: float, answer: Answer) -> Going[Reply] | None:
        """Start a call that shares nothing but, it may be, its batch; as `answer`."""
        call, fields, query, body = hot
        asked = tuple(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else ()
        exchange = Exchange(call.name, call.version, asked, fields.content_type, fields.accept, body, until)
        try:
            plan = call.verb(exchange)
        except Exception as error:  # as below
            answer(told(error))
            return None
        going = _Alone(self, plan, until, answer)
        if wire.takes_long(fields.content_type, len(body)):
            self._leave(going, len(body), None)
        else:
            self._go_on(going, None)
        return going

    def arrive(self, going: Going[Any], result: Outputs | Exception) -> None:
        """Take the result of a run, from any thread."""
        if threading.get_ident() == self._thread:
            self._go_on(going, result)
            return
        self._arrived.append((going, result))
        if not self._called and self._loop is not None and not self._loop.is_closed():
            self._called = True
            self._loop.call_soon_threadsafe(self._take_in)

    def _take_in(self) -> None:
        self._called = False
        while self._arrived:
            self._go_on(*self._arrived.popleft())

    def _go_on(self, going: Going[Any], message: Outputs | Exception | None) -> None:
        going.ticket = None
        try:
            step = advance(going.plan, message)
        except Exception as error:  # told and, where it is no one's fault but ours, logged
            going.fail(error)
            return
        if isinstance(step, Finished):
            going.finish(step.value)
        elif step.size > LARGE_RUN or not isinstance(step.lane, QueuedLane):
            self._leave(going, 0, step)
        else:
            self._gathered.setdefault(step.lane, []).append((step, going))
            self._flush_soon()

    def _leave(self, going: Going[Any], size: int, step: Run | None) -> None:
        """Leave a large call to a task, and to the helpers."""
        going.task = asyncio.get_running_loop().create_task(self._drive(going, size, step))
        self._tasks.add(going.task)
        going.task.add_done_callback(self._tasks.discard)

    async def _drive(self, going: Going[Any], size: int, step: Run | None) -> None:
        try:
            value = await drive(going.plan, self._helpers, deadline=going.deadline, size=size, step=step)
        except Exception as error:  # as above
            going.fail(error)
        else:
            going.finish(value)

    def _flush_soon(self) -> None:
        """Go on with what this turn of the loop brings, once it has brought it."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for (call, fields), members in waiting.items():
            for start in range(0, len(members), _MOST_TOGETHER):
                self._ask_together(call, fields, members[start : start + _MOST_TOGETHER])
        self._flushing = False
        gathered, self._gathered = self._gathered, {}
        for lane, runs in gathered.items():
            asked = [Submission(run, going, going.deadline) for run, going in runs if not going.abandoned]
            goings = [going for _, going in runs if not going.abandoned]
            for going, ticket in zip(goings, lane.run_inline(asked, _MOST_SECONDS), strict=True):
                if ticket is not None and not ticket.answered:  # else it would hold the two of them in a circle
                    going.ticket = ticket

    def _ask_together(self, call: Call, fields: Fields, members: list[Waiting]) -> None:
        members = [member for member in members if not member.abandoned]
        if call.together is None or not members:
            return
        common = Exchange(call.name, call.version, (), fields.content_type, fields.accept)
        texts = [bytes(member.hot.body) or member.hot.query for member in members]
        group = _Group(self, call.together(common, texts), members)
        for member in members:
            member.group = group
        self._go_on(group, None)
