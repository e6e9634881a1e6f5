"""The fast door: drives the hot verbs' plans with callbacks, without a task, a route or a middleware to a call.

It calls the very verbs that FastAPI's routes call, so that the two doors cannot answer differently. Requests that
arrive in one turn of the event loop and wish for runs of the same lane are handed to the engine together.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from service.api.asking import Verb
from service.api.door import LARGE_BODY, LARGE_RUN, drive, may_be_picture
from service.api.exchange import Body, Exchange, Reply
from service.api.guard import deadline
from service.api.helpers import Helpers
from service.api.problems import told
from service.engine.plan import Finished, Outputs, Plan, Run, advance
from service.engine.queues import Request
from service.engine.workers import Asked, QueuedLane
from service.errors import PushforwardError

__all__ = ["Call", "FastDoor", "Fields", "Going", "WrittenHeads"]

_MOST_SECONDS: Final = 5e-4
"""A batch that is expected to take longer does not run on the event loop."""

_REMEMBERED: Final = 4096
"""Heads of requests that are remembered at once."""

_LONGEST_HEAD: Final = 2048
"""In bytes; a longer head is parsed each time."""

_WHOLE: Final = frozenset({None, "*/*", "application/json"})
"""What a client accepts that is never written in pieces."""

_PLAIN_QUERY: Final = re.compile(rb"[A-Za-z0-9_.,=&+-]*")

T = TypeVar("T")
Answer = Callable[[Reply], None]


class Call(NamedTuple):
    """What a request line asks for.

    Args:
        verb: the function that answers.
        name: the flow named in the path, if one is.
        version: the version named in the path, as it was written.
        query: the raw query string.
        route: method and template of the path, as they are counted.
    """

    verb: Verb
    name: str | None = None
    version: str | None = None
    query: bytes = b""
    route: tuple[str, str] = ("", "")


class Fields(NamedTuple):
    """What the header fields of a request say, as far as a hot call needs it.

    Args:
        length: of the body, in bytes.
        content_type: the field, or None.
        accept: the field, or None.
        timeout: the field `service.api.guard.TIMEOUT_HEADER`, or None.
        keep_alive: whether the connection goes on after the answer.
    """

    length: int = 0
    content_type: str | None = None
    accept: str | None = None
    timeout: str | None = None
    keep_alive: bool = True


class WrittenHeads:
    """The heads of answers, as they are written to every connection while the default fields stay the same."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] | None = None
        self.count = 0
        self.written: dict[tuple[int, str], bytes] = {}


class Going:
    """A hot call under way: the lane's callback, and what can be abandoned."""

    __slots__ = ("_door", "abandoned", "answer", "deadline", "plan", "task", "ticket")

    def __init__(self, door: FastDoor, plan: Plan[Reply], answer: Answer, deadline: float) -> None:
        self._door = door
        self.plan = plan
        self.answer = answer
        self.deadline = deadline
        self.ticket: Request | None = None
        self.task: asyncio.Task[None] | None = None
        self.abandoned = False

    def __call__(self, result: Outputs | Exception) -> None:
        """Take the result of a run, from any thread."""
        self._door.arrive(self, result)

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.abandoned = True
        if self.ticket is not None:
            self.ticket.abandoned = True
        if self.task is not None:
            self.task.cancel()


class FastDoor:
    """The hot calls of one server, on one event loop.

    Args:
        verbs: (method, last part of the path) -> verb, such as ``(b"POST", b"logprob")``.
        helpers: threads for whatever would hold up the loop.
        max_body_bytes: the cap on a body.
        timeout_seconds: the time for an answer where the client says nothing.
    """

    def __init__(
        self,
        verbs: Mapping[tuple[bytes, bytes], Verb],
        helpers: Helpers,
        max_body_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self.heads = WrittenHeads()
        self._verbs = verbs
        self._streaming = verbs.get((b"GET", b"sample"))
        self._helpers = helpers
        self._timeout_seconds = timeout_seconds
        self._gathered: dict[QueuedLane, list[tuple[Run, Going]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lines: dict[bytes, Call] = {}
        self._fields: dict[bytes, Fields] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._arrived: deque[tuple[Going, Outputs | Exception]] = deque()
        self._called = False

    def find(self, method: bytes, url: bytes) -> Call | None:
        """The call that a request line makes, or None where this door does not answer it.

        Args:
            method: as sent.
            url: the request target, as sent.
        """
        path, _, query = url.partition(b"?")
        if b"%" in path or b"#" in query:
            return None
        parts = path.split(b"/")
        verb = self._verbs.get((method, parts[-1]))
        if verb is None or parts[0]:
            return None
        asked, last = method.decode(), "/" + parts[-1].decode()
        try:
            match parts[1:-1]:
                case []:
                    return Call(verb, None, None, query, (asked, last))
                case [b"models", name] if name:
                    return Call(verb, name.decode("ascii"), None, query, (asked, "/models/{name}" + last))
                case [b"models", name, b"versions", version] if name and version:
                    route = (asked, "/models/{name}/versions/{version}" + last)
                    return Call(verb, name.decode("ascii"), version.decode("ascii"), query, route)
                case _:
                    return None
        except UnicodeDecodeError:
            return None

    def may_stream(self, call: Call, fields: Fields) -> bool:
        """Whether the application answers: in pieces, as fast as the client reads, or with a picture, off the loop."""
        accept = fields.accept
        return accept not in _WHOLE and (call.verb == self._streaming or may_be_picture(accept))

    def remember(self, head: bytes, call: Call, fields: Fields) -> None:
        """Keep what the parser made of a request's head, for requests with the same one.

        Clients send the same head over and over, but for the query and the body's length.

        Args:
            head: request line and header fields, without the empty line at their end.
            call: what the line asks for.
            fields: what the fields say.
        """
        line, _, rest = head.partition(b"\r\n")
        if len(head) > _LONGEST_HEAD or not line.endswith(b" HTTP/1.1"):
            return
        _keep(self._lines, _without_query(line), call)
        _keep(self._fields, rest, fields)

    def recall(self, data: bytes) -> tuple[Call, Fields, bytes] | None:
        """One whole request whose head is known but for a plain query: what it asks for, and its body. None for others.

        Args:
            data: what was received, from the first byte of a request on.
        """
        end = data.find(b"\r\n\r\n")
        start = data.find(b"\r\n")
        if start < 0 or start == end:
            return None
        fields = self._fields.get(data[start + 2 : end])
        if fields is None or len(data) - end - 4 != fields.length:
            return None
        line = data[:start]
        call = self._lines.get(line)
        if call is None:
            known = self._lines.get(_without_query(line))
            query = line[line.find(b"?") + 1 : -len(b" HTTP/1.1")]
            if known is None or _PLAIN_QUERY.fullmatch(query) is None:
                return None
            call = known._replace(query=query)
        elif call.query:
            call = call._replace(query=b"")
        return None if self.may_stream(call, fields) else (call, fields, data[end + 4 :])

    def answer(self, call: Call, fields: Fields, body: Body, answer: Answer) -> Going | None:
        """Start a call; `answer` is called once with the reply, on the event loop, at once or later.

        Returns:
            The call, where it goes on.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._thread = threading.get_ident()
        query = tuple(parse_qsl(call.query.decode("latin-1"), keep_blank_values=True)) if call.query else ()
        try:
            until = deadline(fields.timeout, self._timeout_seconds, self._helpers.clock())
        except PushforwardError as error:
            answer(told(error))
            return None
        plan = call.verb(Exchange(call.name, call.version, query, fields.content_type, fields.accept, body, until))
        going = Going(self, plan, answer, until)
        if len(body) > LARGE_BODY:
            self._leave(going, len(body), None)
        else:
            self._go_on(going, None)
        return going

    def arrive(self, going: Going, result: Outputs | Exception) -> None:
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

    def _go_on(self, going: Going, message: Outputs | Exception | None) -> None:
        try:
            step = advance(going.plan, message)
        except Exception as error:  # told and, where it is no one's fault but ours, logged
            going.answer(told(error))
            return
        if isinstance(step, Finished):
            going.answer(step.value)
        elif len(step.rows) * step.lane.width > LARGE_RUN or not isinstance(step.lane, QueuedLane):
            self._leave(going, 0, step)
        else:
            if not self._gathered:
                asyncio.get_running_loop().call_soon(self._flush)
            self._gathered.setdefault(step.lane, []).append((step, going))

    def _leave(self, going: Going, size: int, step: Run | None) -> None:
        """Leave a large call to a task, and to the helpers."""
        going.task = asyncio.get_running_loop().create_task(self._drive(going, size, step))
        self._tasks.add(going.task)
        going.task.add_done_callback(self._tasks.discard)

    async def _drive(self, going: Going, size: int, step: Run | None) -> None:
        try:
            reply = await drive(going.plan, self._helpers, deadline=going.deadline, size=size, step=step)
        except Exception as error:  # as above
            reply = told(error)
        going.answer(reply)

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, {}
        for lane, runs in gathered.items():
            asked = [Asked(run, going, going.deadline) for run, going in runs if not going.abandoned]
            goings = [going for _, going in runs if not going.abandoned]
            for going, ticket in zip(goings, lane.run_here(asked, _MOST_SECONDS), strict=True):
                going.ticket = ticket


def _keep(memory: dict[bytes, T], key: bytes, value: T) -> None:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[key] = value


def _without_query(line: bytes) -> bytes:
    """A request line, with whatever follows the path's question mark taken out."""
    path, mark, _ = line.partition(b"?")
    return path + mark + b" HTTP/1.1" if mark else line
