"""The ASGI door: a thin wrapper around the driver, from Starlette's request to its response."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.api.counting import ERROR_CODE
from service.api.driver import Call, Driver, Fields, RawRequest
from service.api.endpoints import Endpoint
from service.errors import DeadlineExceeded, PushforwardError, UnsupportedMediaType, release_frames
from service.exchange import Reply
from service.guard import TIMEOUT_HEADER, BodyBudget, HeldBody, read_body
from service.plan import Plan

__all__ = ["Door", "respond"]

_log = logging.getLogger(__name__)


class Door:
    """How requests of the application come to the driver.

    Args:
        driver: answers them.
        max_body_bytes: the cap on a body.
        budget: of all bodies.
    """

    def __init__(self, driver: Driver, max_body_bytes: int, budget: BodyBudget) -> None:
        self._budget = budget
        self._driver = driver
        self._max_body_bytes = max_body_bytes

    def handler(self, endpoint: Endpoint, route: str) -> Callable[[Request], Awaitable[Response]]:
        """The function with which FastAPI answers an endpoint of the table.

        Args:
            endpoint: of the table.
            route: the template of the whole path.
        """

        async def answer(request: Request) -> Response:
            since, named = self._driver.since(), request.path_params
            held = HeldBody(self._budget)
            try:
                raw = await self._read(
                    Call(endpoint, named.get("name"), named.get("version"), route), request, since, held
                )
                return respond(await _unless_gone(self._driver.reply(raw, since), request), self._driver)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            finally:
                held.release()

        return answer

    async def _read(self, call: Call, request: Request, since: float, held: HeldBody) -> RawRequest:
        """The whole request.

        Raises:
            UnsupportedMediaType: its body is encoded.
            BodyTooLarge: its body is over the cap.
            QueueFull: there is no room for it.
            DeadlineExceeded: it has not come in whole by the deadline.
            InvalidArgument: the deadline is none.
        """
        headers = request.headers
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding != "identity":
            detail = f"a body with Content-Encoding {encoding[:64]!r} cannot be read; send it as it is"
            raise UnsupportedMediaType(detail)
        fields = Fields(headers.get("content-type"), headers.get("accept"), headers.get(TIMEOUT_HEADER.lower()))
        try:
            async with asyncio.timeout(self._driver.deadline(fields, since) - self._driver.clock()):
                await read_body(headers, request.stream(), self._max_body_bytes, held)
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed before the request's body had come in whole") from error
        return RawRequest(call, fields, request.scope["query_string"], held.body)


async def _unless_gone(reply: asyncio.Future[Reply], request: Request) -> Reply:
    """The reply, unless the client goes before: then it is cancelled.

    Raises:
        ClientDisconnect: the client has gone.
    """
    gone = asyncio.ensure_future(request.receive())
    both: set[asyncio.Future[Any]] = {reply, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done() and gone.result()["type"] == "http.disconnect":
            raise ClientDisconnect
        return await reply
    finally:
        gone.cancel()
        reply.cancel()  # of no effect where it is there


def respond(reply: Reply, driver: Driver | None = None) -> Response:
    """A reply as a response of Starlette.

    Args:
        reply: what to send.
        driver: needed where it streams.
    """
    headers = {**reply.headers, "Content-Type": reply.media_type}
    if not reply.rest or driver is None:
        return _Whole(reply, headers)
    return _Streamed(_pieces(reply, driver), reply.status, headers)


class _Whole(Response):
    """An answer in one piece, which tells its error's code to whoever counts."""

    def __init__(self, reply: Reply, headers: dict[str, str]) -> None:
        super().__init__(reply.body, reply.status, headers)
        self._code = reply.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[ERROR_CODE] = self._code
        await super().__call__(scope, receive, send)


class _Streamed(StreamingResponse):
    """An answer in pieces. Where one fails the end is never sent, and the connection breaks.

    The status has gone out by then, so that this is how the client learns of it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except PushforwardError as error:
            _log.warning("an answer that streams broke off: %s", error.code)
            release_frames(error)


async def _pieces(reply: Reply, driver: Driver) -> AsyncIterator[bytes]:
    """The bytes of a reply, piece by piece: while one is sent the engine has the next, and never more than that."""
    plans = iter(reply.rest)
    ahead = _driven(plans, driver)
    try:
        yield reply.body
        while ahead is not None:
            piece = await ahead
            ahead = _driven(plans, driver)
            yield piece
    finally:
        if ahead is not None:
            ahead.cancel()
            ahead = None  # this frame would hold a future whose error holds this frame


def _driven(plans: Iterator[Plan[bytes]], driver: Driver) -> asyncio.Future[bytes] | None:
    """The next of the plans on its way; None after the last."""
    plan = next(plans, None)
    if plan is None:
        return None
    future = driver.run(plan)
    future.add_done_callback(_seen)
    return future


def _seen(future: asyncio.Future[bytes]) -> None:
    """Look at a future's error, so that nobody complains where the client had gone before it came."""
    if not future.cancelled():
        future.exception()
