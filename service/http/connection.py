"""The connection: one client's bytes, from the parser to the driver or to the application, and the answers back.

A connection holds uvicorn's protocol and is not one. It parses each request's head itself. A request that it
understands is a direct one: it goes to the driver, and the connection writes the answer. All others, such as those
that stream or come in chunks, are handed to uvicorn's protocol, event by event, and that runs the application.

uvicorn's parser has no cap on a header: one of 300 MB is gathered whole, in quadratic time, on the event loop. Nor does
it ever close a connection whose request drips in byte by byte. The connection has bounds on both.

Where an answer ends a connection whose client still sends, the connection lingers: it says that it writes no more,
reads on for a while and throws away what comes. A socket that is closed with bytes unread resets the connection, and
the client loses an answer that it has not read yet (RFC 9112, section 9.6).

This module and `service.http.application` alone know uvicorn's insides. `UVICORN_NAMES` lists what they use of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from service.access.connections import ConnectionCaps
from service.access.request_ids import RequestIds
from service.api.counting import OTHER, AnswerCounter
from service.api.driver import Driver, GroupMember, PlanTask, RawRequest
from service.api.problems import identified, problem
from service.errors import Draining, HeaderTooLarge, MalformedBody, PushforwardError, SlowRequest, TooManyConnections
from service.exchange import Body, Reply
from service.guard import Waits
from service.http.application import ApplicationProtocol, ApplicationTransport
from service.http.heads import KnownHead, RequestHeads, ResponseHeads

__all__ = ["STATE", "Connection", "Direct", "Shared"]

STATE: Final = "connections"
"""The entry of the lifespan's state that holds what connections share."""

_LONG_PIECE: Final = 1 << 16
"""After so many bytes of a body at once the others have their turn: libuv would read 32 such pieces, up to 8 MB."""

_LINGER_BYTES: Final = 1 << 30
"""The most that is read and thrown away after an answer that ends a connection."""

_REFUSED_SECONDS: Final = 1.0
"""A connection over a cap is ended after so long, whatever its client does."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Direct:
    """What answers direct requests.

    Args:
        driver: runs them.
        requests: knows their heads.
    """

    driver: Driver
    requests: RequestHeads


@dataclass(frozen=True)
class Shared:
    """What the connections of one server share.

    Args:
        direct: answers what need not go to the application; None where all of it does.
        waits: how long a client may keep the server waiting.
        count: counts the answers that do not come from the application; None where nobody does.
        responses: the heads of those answers.
        ids: makes the ids of requests that have none.
        caps: on connections; None for none.
        admin_port: at which only the application answers; None where there is no such port.
    """

    direct: Direct | None = None
    waits: Waits = field(default_factory=Waits)
    count: AnswerCounter | None = None
    responses: ResponseHeads = field(default_factory=ResponseHeads)
    ids: RequestIds = field(default_factory=RequestIds)
    caps: ConnectionCaps | None = None
    admin_port: int | None = None


class DirectRequest:
    """A direct request under way.

    Args:
        request: what its head says.
        length: of its body, in bytes, where that is still to come.
        since: when its head had come, on the driver's clock; None where all of it came at once.
        request_id: the client's own; None where it gave none.
    """

    __slots__ = ("_body", "_length", "ended", "request", "request_id", "since", "task")

    def __init__(
        self, request: RawRequest, length: int = 0, since: float | None = None, request_id: bytes | None = None
    ) -> None:
        self.request = request
        self.request_id = request_id
        self.since = since
        self.task: PlanTask[Reply] | GroupMember | None = None
        self.ended = False
        self._body: Body = b""
        self._length = length

    def take(self, piece: bytes) -> None:
        """Add a piece of the body. A large one grows in place, so that it lies in memory once.

        To make room for all of it at the start would hold up the loop until as many zeros are written.
        """
        if len(piece) == self._length:
            self._body = piece
            return
        if not isinstance(self._body, bytearray):
            self._body = bytearray()
        self._body += piece

    @property
    def missing(self) -> int:
        """Bytes of the body that are still to come."""
        return self._length - len(self._body)

    def whole(self) -> RawRequest:
        """The request with its body."""
        return self.request._replace(body=self._body)

    def end(self) -> None:
        """Let go of what may be large, or holds the request in a circle that only a collection ends."""
        self.ended = True
        self.task = None
        self._body = b""


class Connection(asyncio.Protocol):
    """One client's connection, as uvicorn's server makes it.

    Args:
        config: of uvicorn. Its `h11_max_incomplete_event_size` is the cap on a header.
        server_state: of uvicorn.
        app_state: of the application's lifespan; `STATE` in it is what connections share.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        shared: Shared = app_state.get(STATE) or Shared()
        self._application = ApplicationProtocol(config, server_state, app_state, _loop)
        self._loop = _loop or asyncio.get_running_loop()
        self._server = server_state
        self._shared = shared
        self._direct = shared.direct
        self._waits = shared.waits
        self._cap = config.h11_max_incomplete_event_size or (1 << 16)
        self._transport: asyncio.Transport
        self._address: str | None = None  # of the client, where its connection counts toward the caps
        self._keep_alive = True
        self._request: DirectRequest | None = None  # the direct request under way
        self._behind = b""  # what came behind it
        self._cycles: deque[RequestResponseCycle] = deque()  # the application's requests under way
        self._since = self._loop.time()  # the connection, the header, the body or the idle time began
        self._unread_since: float | None = None  # the client does not take its answer
        self._lingers: int | None = None  # so many bytes may still come and be thrown away; None before the end
        self._in_message = False
        self._in_body = False
        self._wholes = 0
        self._header_bytes = 0  # of the fields that the parser has given
        self._unparsed_bytes = 0  # received while it gave neither a whole header nor a whole body
        self._head: bytes | None = None  # the parser is being fed just this head
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._renew_parser()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Keep the transport. The server knows this connection, and not the protocol within."""
        self._transport = transport
        within = ApplicationTransport(transport, self.close_after_answer, lambda: self.is_closing)
        self._application.connection_made(within)
        self._server.connections.discard(self._application)
        self._server.connections.add(self)  # type: ignore[arg-type]  # it has what a server asks for
        if self._shared.admin_port is not None and _port(transport) == self._shared.admin_port:
            self._direct = None
        elif self._shared.caps is not None:
            self._enter(self._shared.caps)

    def _enter(self, caps: ConnectionCaps) -> None:
        """Hold the number of connections against the caps. One too many is told so, and has a second to read it."""
        self._address = str((self._transport.get_extra_info("peername") or ("",))[0])
        try:
            caps.enter(self._address)
        except TooManyConnections as error:
            if caps.overrun:
                self._transport.abort()
                return
            self._refuse(error)
            self._loop.call_later(_REFUSED_SECONDS, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  whatever was the cause
        """Drop what has not run yet, and tell the application."""
        self._server.connections.discard(self)
        if self._shared.caps is not None and self._address is not None:
            self._shared.caps.leave(self._address)
        request, self._request = self._request, None
        if request is not None:
            if request.task is not None:
                request.task.abandon()
            request.end()
        self._leave_application()
        self._application.connection_lost(None)  # with an error it would leave its timer behind

    def _leave_application(self) -> None:
        """Tell the application of every request under way that nobody reads its answer.

        uvicorn tells the newest alone, which may wait behind the one that is being answered.
        """
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Take bytes: of a head, of a body, or of what comes behind a direct request that has no answer yet."""
        if self._lingers is not None:
            self._throw_away(data)
            return
        while data and not self.is_closing:
            request = self._request
            if request is None:
                data = self._read(data)
            elif request.missing:
                data = self._read_body(request, data)
            else:
                self._behind += data
                self._transport.pause_reading()
                return

    def pause_writing(self) -> None:
        """Remember since when the client does not read."""
        self._application.pause_writing()
        self._unread_since = self._loop.time()

    def resume_writing(self) -> None:
        """It reads again."""
        self._application.resume_writing()
        self._unread_since = None

    # The server's calls

    def sweep(self, now: float) -> None:
        """End the connection where the client has kept the server waiting for too long.

        One look at all connections every now and then is cheaper than a timer for each request, and it cannot be put
        off by a byte at a time.

        Args:
            now: on the event loop's clock.
        """
        if self._transport.is_closing():
            return
        waited = now - self._since
        if self._unread_since is not None and now - self._unread_since > self._waits.body_seconds:
            self._transport.abort()
        elif self._lingers is not None:
            if waited > self._waits.linger_seconds:
                self._transport.close()
        elif self._in_message:
            what, limit = (
                ("body", self._waits.body_seconds) if self._in_body else ("header", self._waits.header_seconds)
            )
            if waited > limit and self._in_body and getattr(self._application.cycle, "response_started", False):
                self._transport.close()  # it has its answer, and sends a body that nobody reads
            elif waited > limit and self._transport.is_reading():
                self._refuse(SlowRequest(f"the request's {what} did not come in whole within {limit:g} seconds"))
        elif not self._idle:
            self._since = now  # the idle time begins with the answer
        elif waited > self._waits.keep_alive_seconds:
            self._transport.close()

    def shutdown(self) -> None:
        """Answer what is under way, and then close."""
        self._keep_alive = False
        if self._request is None:
            self._application.shutdown()

    def expire(self) -> None:
        """Answer a direct request that has no answer by the end of the time to drain; and linger no more."""
        request = self._request
        if request is not None and not self.is_closing:
            if request.task is not None:
                request.task.abandon()
            self._answer(request, problem(Draining("the server has shut down before this request was finished")))
        if self._lingers is not None:
            self._transport.close()

    # The end

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is answered."""
        return self._lingers is not None or self._transport.is_closing()

    def close_after_answer(self) -> None:
        """Close after what has been written. Where a body is still to come, linger."""
        if self._in_body or self._behind:
            self._linger()
        else:
            self._transport.close()

    def _linger(self) -> None:
        """Write no more, and throw away what comes, until the client closes or the bounds are reached."""
        if self.is_closing:
            return
        self._lingers = _LINGER_BYTES
        self._behind = b""
        self._since = self._loop.time()
        self._leave_application()
        if self._transport.can_write_eof():  # TLS knows no such thing
            self._transport.write_eof()
        self._transport.resume_reading()

    def _throw_away(self, data: bytes) -> None:
        self._lingers = (self._lingers or 0) - len(data)
        if self._lingers <= 0:
            self._transport.close()
        elif len(data) >= _LONG_PIECE:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    @property
    def _idle(self) -> bool:
        """Whether no request is under way."""
        if self._in_message or self._request is not None:
            return False
        cycle: RequestResponseCycle | None = self._application.cycle
        return cycle is None or cycle.response_complete

    # Bytes

    def _read(self, data: bytes) -> bytes:
        """Read from a head on, or go on with a request of the application. Gives back what is not read yet."""
        direct = self._direct
        if direct is None or self._unread_since is not None or not self._idle:
            self._feed(data)
            return b""
        recalled = direct.requests.recall(data)
        if recalled is not None:
            self._since = self._loop.time()
            self._request = DirectRequest(recalled)
            self._start(direct.driver, self._request, recalled)
            return b""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._feed(data)
            return b""
        self._head = data[:end]
        self._feed(data[: end + 4])
        self._head = None
        request = self._request
        if request is not None:
            if request.missing:
                self._renew_parser()  # the one there is waits for the body
            else:
                self._start(direct.driver, request, request.whole())
        return data[end + 4 :]

    def _feed(self, data: bytes) -> None:
        """Feed the parser; a header that grows without end is cut off before it is whole."""
        wholes = self._wholes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            _log.warning("an upgrade that the server does not know was asked for")  # the answer is that of the request
        except httptools.HttpParserError:
            _log.warning("an invalid HTTP request was received")
            too_large = self._header_bytes > self._cap
            self._refuse(self._too_large() if too_large else MalformedBody("this is not an HTTP request"))
            return
        if self._in_body or self._wholes != wholes:
            self._unparsed_bytes = 0
        else:
            self._unparsed_bytes += len(data)
        if self._unparsed_bytes > self._cap and not self.is_closing:
            self._refuse(self._too_large())

    def _read_body(self, request: DirectRequest, data: bytes) -> bytes:
        """Take a direct request's body, which to the parser is nothing but bytes, and would be copied."""
        missing = request.missing
        piece = data[:missing]
        request.take(piece)
        if len(data) < missing:
            if len(piece) >= _LONG_PIECE:
                self._transport.pause_reading()
                self._loop.call_soon(self._read_on)
            return b""
        self._leave_body()
        if self._direct is not None:
            self._start(self._direct.driver, request, request.whole())
        return data[missing:]

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def _renew_parser(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        # An answer to the first of several requests that were sent at once may close the connection.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._application.parser = self._parser

    # The parser's callbacks

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._url = b""
        self._headers = []
        self._header_bytes = 0
        self._in_message = True
        self._since = self._loop.time()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request target."""
        self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field."""
        self._count(len(name) + len(value) + 4)
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Choose who answers."""
        self._wholes += 1
        self._in_body = True
        self._since = self._loop.time()
        head, self._head = self._head, None
        if head is not None and self._direct is not None:
            known = self._known(self._direct.requests)
            if known is not None:
                self._direct.requests.remember(head, known)
                self._request = DirectRequest(
                    known.request, known.length, self._direct.driver.clock(), known.request_id
                )
                return
        self._hand_over()

    def _known(self, requests: RequestHeads) -> KnownHead | None:
        parser = self._parser
        if parser.get_http_version() != "1.1" or parser.should_upgrade():
            return None
        return requests.find(parser.get_method(), self._url, self._headers, keep_alive=parser.should_keep_alive())

    def _hand_over(self) -> None:
        """Hand a request to the application."""
        application = self._application
        application.on_message_begin()
        application.on_url(self._url)
        for name, value in self._headers:
            application.on_header(name, value)
        application.on_headers_complete()
        while self._cycles and self._cycles[0].response_complete:
            self._cycles.popleft()
        self._cycles.append(application.cycle)

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of a body: a direct request's does not pass the parser."""
        self._application.on_body(body)

    def on_message_complete(self) -> None:
        """End a message. A direct request that has no body is whole."""
        self._leave_body()
        if self._request is None:
            self._application.on_message_complete()

    def _leave_body(self) -> None:
        self._wholes += 1
        self._in_message = self._in_body = False
        self._since = self._loop.time()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._cap:
            raise self._too_large()

    def _too_large(self) -> HeaderTooLarge:
        return HeaderTooLarge(f"the request's header has more than {self._cap} bytes, which is the cap")

    # Answers

    def _start(self, driver: Driver, request: DirectRequest, whole: RawRequest) -> None:
        task = driver.answer(whole, partial(self._answer, request), request.since)
        if not request.ended:
            request.task = task

    def _answer(self, request: DirectRequest, reply: Reply) -> None:
        """Write the answer to a direct request, and go on with what came behind it."""
        self._request = None
        request.end()
        if self.is_closing:
            return
        call, fields = request.request.call, request.request.fields
        keep_alive = fields.keep_alive and self._keep_alive
        self._write(reply, call.endpoint.method, call.route, keep_alive=keep_alive, request_id=request.request_id)
        if not keep_alive:
            self.close_after_answer()
        if self._behind:
            behind, self._behind = self._behind, b""
            self._read_on()
            self.data_received(behind)

    def _refuse(self, error: PushforwardError) -> None:
        """Tell what is wrong with a request that has not come in whole, and close."""
        self._write(problem(error), OTHER, OTHER, keep_alive=False)
        self._linger()

    def _write(
        self, reply: Reply, method: str, route: str, *, keep_alive: bool, request_id: bytes | None = None
    ) -> None:
        defaults = self._server.default_headers
        chosen = request_id or self._shared.ids.make()
        if reply.code is not None:
            reply = identified(reply, chosen)
        message = self._shared.responses.message(reply, defaults, keep_alive=keep_alive, request_id=chosen)
        self._transport.write(message)
        if self._shared.count is not None:
            self._shared.count(method, route, reply.status, reply.code)


def _port(transport: asyncio.Transport) -> int | None:
    """The port at which a client has come in."""
    found: int | None = (transport.get_extra_info("sockname") or (None, None))[1]
    return found
