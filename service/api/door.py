"""The ASGI door: drives a verb's plan from an event loop that never computes.

The loop reads bodies, decodes small ones and sends answers. Runs of a flow go to the engine's threads; decoding a
large body and encoding a large answer go to helper threads.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final, TypeVar

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.api.codecs import wire
from service.api.helpers import Helpers
from service.api.native.verbs import Verb
from service.api.problems import problem
from service.errors import Draining, PushforwardError, UnsupportedMediaType
from service.exchange import Exchange, Reply
from service.guard import TIMEOUT_HEADER, deadline, read_body
from service.plan import Finished, Outputs, Plan, Run, advance

__all__ = ["LARGE_BODY", "LARGE_RUN", "Door", "drive", "may_be_picture", "respond"]

T = TypeVar("T")

LARGE_BODY: Final = 1 << 16
"""A step that works on more bytes is taken on a helper thread."""

LARGE_RUN: Final = 1 << 13
"""After runs of more values than this, the plan goes on, and encodes, on a helper thread."""

_log = logging.getLogger(__name__)


async def drive(
    plan: Plan[T],
    helpers: Helpers,
    *,
    deadline: float = math.inf,
    size: int = 0,
    step: Run | None = None,
    aside: bool = False,
) -> T:
    """Drive a plan to its end. Where the waiting task is cancelled, what has not run yet is abandoned.

    Args:
        plan: the generator.
        helpers: threads for whatever would hold up the loop.
        deadline: on `time.monotonic`, in seconds.
        size: of what its first step works on, in bytes; a large one goes to a helper.
        step: what a plan that has been started already wishes for.
        aside: whether a helper goes on after each run, however small: the plan draws.

    Raises:
        QueueFull: the helpers have too much to do.
    """
    if size > LARGE_BODY:
        helpers.admit(size, deadline)
    lent = False
    now: Run | Finished[T]
    message: Outputs | Exception | None = None
    try:
        while True:
            if step is not None:
                now, step = step, None
            elif size > LARGE_BODY:
                lent = True
                now = await helpers.run(size, advance, plan, message)
                lent = False
            else:
                now = advance(plan, message)
            if isinstance(now, Finished):
                value: T = now.value
                return value
            size = LARGE_BODY + 4 * now.size if aside or now.size > LARGE_RUN else 0
            message = await _outputs(now, deadline)
    finally:
        if not lent:  # a helper that has it still will find nobody waiting
            plan.close()


async def _outputs(run: Run, deadline: float) -> Outputs | Exception:
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Outputs | Exception] = loop.create_future()

    def settle(result: Outputs | Exception) -> None:
        if not answered.done():  # the task that waits may have been cancelled
            answered.set_result(result)

    def done(result: Outputs | Exception) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result)

    try:
        ticket = run.lane.submit(run, done, deadline)
    except Exception as error:  # the plan, not its driver, decides what an error means
        return error
    try:
        return await answered
    finally:
        ticket.abandoned = True  # of no meaning once it has been answered


def may_be_picture(accept: str | None) -> bool:
    """Whether an Accept header names pictures at all."""
    return accept is not None and "image/" in accept.lower()


class Door:
    """How requests of the application come to the verbs.

    Args:
        helpers: threads for whatever would hold up the loop.
        max_body_bytes: the cap on a body.
        timeout_seconds: the time for an answer where the client says nothing.
    """

    def __init__(self, helpers: Helpers, max_body_bytes: int, timeout_seconds: float) -> None:
        self.helpers = helpers
        self.max_body_bytes = max_body_bytes
        self.timeout_seconds = timeout_seconds

    def mounted(self, verb: Verb) -> Callable[[Request], Awaitable[Response]]:
        """A verb as an endpoint of FastAPI."""

        async def endpoint(request: Request) -> Response:
            try:
                exchange = await self._exchange(request)
                plan = verb(exchange)
                size = len(exchange.body)
                long = wire.takes_long(exchange.content_type, size)
                driven = asyncio.ensure_future(
                    drive(
                        plan,
                        self.helpers,
                        deadline=exchange.deadline,
                        size=size if long else 0,
                        aside=may_be_picture(exchange.accept),
                    )
                )
                reply = await _unless_gone(driven, request)
                return respond(reply, self.helpers)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            except asyncio.CancelledError:
                # Only the server cancels, when the time to drain is over: whoever waits still is to have an answer.
                return respond(problem(Draining("the server has shut down before this request was finished")))

        return endpoint

    async def _exchange(self, request: Request) -> Exchange:
        headers = request.headers
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            detail = f"a body with Content-Encoding {encoding[:64]!r} cannot be read; send it as it is"
            raise UnsupportedMediaType(detail)
        until = deadline(headers.get(TIMEOUT_HEADER.lower()), self.timeout_seconds, self.helpers.clock())
        body = await read_body(headers, request.stream(), self.max_body_bytes)
        return Exchange(
            name=request.path_params.get("name"),
            version=request.path_params.get("version"),
            query=tuple(request.query_params.multi_items()),
            content_type=headers.get("content-type"),
            accept=headers.get("accept"),
            body=body,
            deadline=until,
        )


async def _unless_gone(driven: asyncio.Task[T], request: Request) -> T:
    """What a task gives, unless the client goes before: then it is cancelled.

    Raises:
        ClientDisconnect: the client has gone.
    """
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({driven, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not driven.done() and gone.result()["type"] == "http.disconnect":
            raise ClientDisconnect
        return await driven
    finally:
        gone.cancel()
        if not driven.done():
            driven.cancel()


def respond(reply: Reply, helpers: Helpers | None = None) -> Response:
    """A reply as a response of Starlette.

    Args:
        reply: what to send.
        helpers: needed where it streams.
    """
    headers = {**reply.headers, "Content-Type": reply.media_type}
    if not reply.rest or helpers is None:
        return Response(reply.body, reply.status, headers)
    return _Streamed(_pieces(reply, helpers), reply.status, headers)


class _Streamed(StreamingResponse):
    """An answer in pieces. Where one fails the end is never sent, and the connection breaks.

    The status has gone out by then, so that this is how the client learns of it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except PushforwardError as error:
            _log.warning("an answer that streams broke off: %s", error.code)
        except asyncio.CancelledError:
            _log.warning("an answer that streams broke off: the server has shut down")  # nobody else cancels


async def _pieces(reply: Reply, helpers: Helpers) -> AsyncIterator[bytes]:
    """The bytes of a reply, piece by piece: while one is sent the engine has the next, and never more than that."""
    plans = iter(reply.rest)
    ahead = _driven(plans, helpers)
    try:
        yield reply.body
        while ahead is not None:
            piece = await ahead
            ahead = _driven(plans, helpers)
            yield piece
    finally:
        if ahead is not None:
            ahead.cancel()


def _driven(plans: Iterator[Plan[bytes]], helpers: Helpers) -> asyncio.Task[bytes] | None:
    """The next of the plans on its way; None after the last."""
    plan = next(plans, None)
    if plan is None:
        return None
    task = asyncio.ensure_future(drive(plan, helpers))
    task.add_done_callback(_seen)
    return task


def _seen(task: asyncio.Task[bytes]) -> None:
    """Look at a task's error, so that nobody complains where the client had gone before it came."""
    if not task.cancelled():
        task.exception()
