"""The connection: one client's bytes, from the parser to the driver or to the application, and the answers back.

A connection holds uvicorn's protocol and is not one. It parses each request's head itself. A request that it
understands is a direct one: it goes to the driver, and the connection writes the answer. All others, such as those
that stream or come in chunks, are handed to uvicorn's protocol, event by event, and that runs the application.

uvicorn's parser has no cap on a header: one of 300 MB is gathered whole, in quadratic time, on the event loop. Nor does
it count what frames the chunks of a body, or ever close a connection whose request drips in byte by byte. The
connection has bounds on all three.

Where an answer ends a connection whose client still sends, the connection lingers: it says that it writes no more,
reads on for a while and throws away what comes. A socket that is closed with bytes unread resets the connection, and
the client loses an answer that it has not read yet (RFC 9112, section 9.6).

A client may close its half of the connection after a request, and gets its answer. A client that has gone looks the
same until something is written to it. Where the answer takes long, 102 (Processing) is: whoever has gone resets the
connection, and the work for it ends.

This module and `service.http.application` alone know uvicorn's insides. `UVICORN_NAMES` lists what they use of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from service.access.connections import ConnectionCaps
from service.access.request_ids import RequestIds
from service.api.counting import OTHER, AnswerCounter, route_template
from service.api.door import REQUEST_ID
from service.api.driver import Driver, GroupMember, PlanTask, RawRequest
from service.api.problems import identified, problem
from service.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    HeaderTooLarge,
    InvalidArgument,
    MalformedBody,
    PushforwardError,
    QueueFull,
    RequestError,
    SlowRequest,
    TooManyConnections,
)
from service.exchange import Body, Reply
from service.guard import BodyBudget, HeldBody, Waits
from service.http.application import ApplicationProtocol, ApplicationTransport
from service.http.heads import KnownHead, RequestHeads, ResponseHeads, check_host

__all__ = ["STATE", "Connection", "Direct", "Shared"]

STATE: Final = "connections"
"""The entry of the lifespan's state that holds what connections share."""

_LONG_PIECE: Final = 1 << 16
"""After so many bytes of a body at once the others have their turn: libuv would read 32 such pieces, up to 8 MB."""

_PARSED_PIECE: Final = 1 << 14
"""The most bytes that the parser is given at once, so that what it gives for them is known."""

_FRAMING_PER_BYTE: Final = 8
"""The most bytes that may frame one byte of a body: chunks of a single byte take five, and some clients send them."""

_LINGER_BYTES: Final = 1 << 30
"""The most that is read and thrown away after an answer that ends a connection."""

_REFUSED_SECONDS: Final = 1.0
"""A connection over a cap is ended after so long, whatever its client does."""

_FIRST_SECONDS: Final = 1.0
"""The time for the first request on a connection that was accepted just before the server drained."""

_PROBE_SECONDS: Final = 5.0
"""The time after which a client that sends no more, and waits for its answer, is asked whether it is still there."""

_PROCESSING: Final = b"HTTP/1.1 102 Processing\r\n\r\n"
"""An interim answer (RFC 9110, section 15.2), which every client of HTTP/1.1 passes over."""

_FAREWELL_SECONDS: Final = 0.25
"""The time for the client of an idle connection to see that the server ends it, and to close it too."""

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
        max_body_bytes: the cap on a body.
        count: counts the answers that do not come from the application; None where nobody does.
        budget: of all bodies; None where there is no bound.
        responses: the heads of those answers.
        ids: makes the ids of requests that have none.
        caps: on connections; None for none.
        admin_port: at which only the application answers; None where there is no such port.
    """

    direct: Direct | None = None
    waits: Waits = field(default_factory=Waits)
    max_body_bytes: int = 64 << 20
    count: AnswerCounter | None = None
    budget: BodyBudget | None = None
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
        budget: of all bodies; None where all of it came at once.
        request_id: the client's own; None where it gave none.
    """

    __slots__ = ("_body", "_held", "_length", "ended", "request", "request_id", "since", "task")

    def __init__(
        self,
        request: RawRequest,
        length: int = 0,
        since: float | None = None,
        budget: BodyBudget | None = None,
        request_id: bytes | None = None,
    ) -> None:
        self._held = None if budget is None or length <= BodyBudget.LARGE else HeldBody(budget)
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

        Raises:
            QueueFull: there is no room for it.
        """
        if self._held is not None:
            self._held.add(piece)
            self._body = self._held.body
            return
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
        if self._held is not None:
            self._held.release()


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
        self._within: ApplicationTransport
        self._keep_alive = True
        self._request: DirectRequest | None = None  # the direct request under way
        self._behind = b""  # what came behind it
        self._cycles: deque[RequestResponseCycle] = deque()  # the application's requests under way
        self._since = self._loop.time()  # the connection, the header, the body or the idle time began
        self._unread_since: float | None = None  # the client does not take its answer
        self._lingers: int | None = None  # so many bytes may still come and be thrown away; None before the end
        self._linger_seconds = shared.waits.linger_seconds
        self._idle_seconds: float = shared.waits.keep_alive_seconds
        self._heard = False  # something has come
        self._in_message = False
        self._in_body = False
        self._wholes = 0
        self._header_bytes = 0  # of the fields that the parser has given
        self._unparsed_bytes = 0  # received while it gave neither a whole header, nor any of a body, nor its end
        self._body_bytes = 0  # of the body that comes, as it gave them
        self._framing_bytes = 0  # of the same body, beside these
        self._ended = False  # the client has closed its half
        self._probed = 0.0  # that happened, or it was asked whether it is there
        self._deaf = False  # no further request is read, since one cannot be
        self._head: bytes | None = None  # the parser is being fed just this head
        self._without_upgrade: bytes | None = None  # the head to parse next, in the place of one that asks for another
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._renew_parser()

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Keep the transport. The server knows this connection, and not the protocol within."""
        self._transport = transport
        self._within = ApplicationTransport(transport, self.close_after_answer, lambda: self.is_closing)
        self._application.connection_made(self._within)
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
        self._heard = True
        if self._direct is not None:
            self._direct.driver.deliver()
        if self._lingers is not None:
            self._throw_away(data)
            return
        if self._deaf:
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

    def eof_received(self) -> bool:
        """Take the end of what the client sends. It gets the answers to the requests that have come whole.

        Returns:
            Whether the connection stays open for them.
        """
        self._ended = True
        if self._lingers is not None or self._transport.get_extra_info("sslcontext") is not None:
            return False  # TLS knows no half of a connection
        self._probed = self._loop.time()
        return self._end_after_answers()

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
        if self._ended:
            self._probe(now)
        waited = now - self._since
        if self._unread_since is not None and now - self._unread_since > self._waits.body_seconds:
            self._transport.abort()
        elif self._lingers is not None:
            if waited > self._linger_seconds:
                self._transport.close()
        elif self._in_message:
            what, limit = (
                ("body", self._waits.body_seconds) if self._in_body else ("header", self._waits.header_seconds)
            )
            if self._request is not None and self._is_late(self._request):
                self._turn_away(
                    self._request, DeadlineExceeded("the deadline passed before the request's body had come in whole")
                )
            elif waited > limit and self._in_body and getattr(self._application.cycle, "response_started", False):
                self._transport.close()  # it has its answer, and sends a body that nobody reads
            elif waited > limit and self._transport.is_reading():
                self._refuse(SlowRequest(f"the request's {what} did not come in whole within {limit:g} seconds"))
        elif not self._idle:
            self._since = now  # the idle time begins with the answer
        elif waited > self._idle_seconds and self._keep_alive:
            self._transport.close()
        elif waited > self._idle_seconds:
            self._linger(_FAREWELL_SECONDS)

    def _probe(self, now: float) -> None:
        """End the connection where a client that sends no more has gone."""
        if self._within.has_failed():
            self._transport.abort()
        elif now - self._probed > _PROBE_SECONDS and self._unread_since is None:
            self._probed = now
            cycle = next(iter(self._owed_cycles()), None)
            plain = cycle is not None and not cycle.response_started and cycle.scope["http_version"] == "1.1"
            if self._request is not None or plain:
                self._transport.write(_PROCESSING)

    def _is_late(self, request: DirectRequest) -> bool:
        """Whether the deadline of a direct request whose body still comes has passed."""
        if self._direct is None or request.since is None:
            return False
        driver = self._direct.driver
        try:
            return driver.clock() > driver.deadline(request.request.fields, request.since)
        except InvalidArgument:  # told once the body is there
            return False

    def shutdown(self) -> None:
        """Close after the answers that are owed. To be called again and again, since more may come meanwhile.

        A connection on which nothing has come yet has some time for its first request.
        """
        if self._keep_alive and self._idle:
            self._since = self._loop.time()
            self._idle_seconds = _FIRST_SECONDS
        self._keep_alive = False
        if not self._idle:
            if self._request is None and self._application.cycle is not None:
                self._application.cycle.keep_alive = False
        elif self._heard:
            self._linger(_FAREWELL_SECONDS)

    def expire(self) -> None:
        """Answer what has no answer by the end of the time to drain, break off what streams, and close."""
        refusal = problem(Draining("the server has shut down before this request was finished"))
        request = self._request
        cycle = next((each for each in self._cycles if not each.response_complete), None)
        if self.is_closing:
            self._transport.close()  # also where it lingers
        elif request is not None:
            if request.task is not None:
                request.task.abandon()
            self._answer(request, refusal)
        elif cycle is None:
            self._transport.close()
        elif cycle.response_started:
            _log.warning("an answer that streams broke off: the server has shut down")
            self._break_off(cycle)
        else:
            method, given = cycle.scope["method"], cast("bytes | None", cycle.scope.get(REQUEST_ID))
            self._write(refusal, method, route_template(cycle.scope), keep_alive=False, request_id=given)
            self._linger()

    # The end

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is answered."""
        return self._lingers is not None or self._transport.is_closing()

    def close_after_answer(self) -> None:
        """Close after what has been written. Where a body is still to come, linger."""
        if self._in_body or self._behind or self._deaf:
            self._linger()
        else:
            self._transport.close()

    def _end_after_answers(self) -> bool:
        """Read no further request, and close the connection after the answers that are owed.

        Returns:
            Whether any is owed: a request has come whole and has no answer.
        """
        if self._request is not None:
            return not self._request.missing  # its answer looks whether more is to come
        owed = self._owed_cycles()
        if owed:
            owed[-1].keep_alive = False
            self._deaf = True
        return bool(owed)

    def _owed_cycles(self) -> list[RequestResponseCycle]:
        """The application's requests that have come whole and have no answer, in their order."""
        coming = self._application.cycle if self._in_body else None
        return [each for each in self._cycles if each is not coming and not each.response_complete]

    def _break_off(self, cycle: RequestResponseCycle) -> None:
        """End an answer that streams, so that its client sees that something is missing."""
        self._leave_application()
        if cycle.scope["http_version"] == "1.0":  # its answer ends where the connection does
            self._within.abort()
        else:
            self._transport.close()

    def _linger(self, seconds: float | None = None) -> None:
        """Write no more, and throw away what comes, until the client closes or the bounds are reached.

        Args:
            seconds: the bound on the time; None for the usual one.
        """
        if self.is_closing:
            return
        if seconds is not None:
            self._linger_seconds = seconds
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
            self._unparsed_bytes = 0
            self._request = DirectRequest(recalled)
            self._start(direct.driver, self._request, recalled)
            return b""
        begun = data if self._in_message else data.lstrip(b"\r\n")  # empty lines before a request are passed over
        self._count_unparsed(len(data) - len(begun))
        data = begun
        end = data.find(b"\r\n\r\n")
        if end < 0 or self.is_closing:
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
        """Feed the parser, until the connection closes."""
        for start in range(0, len(data), _PARSED_PIECE):
            piece = data[start : start + _PARSED_PIECE]
            while piece:
                if self.is_closing or self._deaf:
                    return
                piece = self._feed_piece(piece)

    def _feed_piece(self, data: bytes) -> bytes:
        """Feed the parser a piece; a header or the framing of a body that grows without end is cut off.

        Returns:
            What it is to be fed next.
        """
        wholes, body_bytes = self._wholes, self._body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            (end,) = upgrade.args
            again, self._without_upgrade = self._without_upgrade or b"", None
            self._renew_parser()
            self._unparsed_bytes = 0
            return again + data[end:]
        except httptools.HttpParserError as error:
            _log.warning("an invalid HTTP request was received")
            cause = error.__context__  # what a callback has raised
            unread = MalformedBody("this is not an HTTP request")
            self._refuse(cause if isinstance(cause, PushforwardError) else unread)
            return b""
        if self._wholes != wholes:
            self._unparsed_bytes = 0
        elif self._in_body:
            self._count_framing(len(data), self._body_bytes - body_bytes)
        else:
            self._count_unparsed(len(data))
        return b""

    def _count_unparsed(self, size: int) -> None:
        """Count bytes that have given nothing yet; too many of a header are refused."""
        self._unparsed_bytes += size
        if self._unparsed_bytes > self._cap and not self.is_closing:
            self._refuse(self._too_large())

    def _count_framing(self, received: int, given: int) -> None:
        """Count the bytes that frame a body: the sizes of chunks, their extensions, and trailers.

        They take the room that the body leaves under its cap, and beyond it an eighth of the body, which chunks of some
        length need. Where the body has few bytes, they may be as many as those of a header, or eight times the body's.

        Args:
            received: the bytes of a piece that lies within the body.
            given: the bytes of the body among them.
        """
        self._framing_bytes += received - given
        self._unparsed_bytes = 0 if given else self._unparsed_bytes + received
        body, framing, cap = self._body_bytes, self._framing_bytes, self._shared.max_body_bytes
        room = min(max(cap - body, 0) + body // 8, _FRAMING_PER_BYTE * body)
        if self._unparsed_bytes > self._cap or framing > room + self._cap:
            detail = f"{framing} bytes frame {body} bytes of the body in chunks; the cap is {cap} bytes in all"
            self._refuse(BodyTooLarge(f"{detail}, and {_FRAMING_PER_BYTE} for each byte of the body"))

    def _read_body(self, request: DirectRequest, data: bytes) -> bytes:
        """Take a direct request's body, which to the parser is nothing but bytes, and would be copied."""
        missing = request.missing
        piece = data[:missing]
        try:
            request.take(piece)
        except QueueFull as error:
            self._turn_away(request, error)
            return b""
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
        """Choose who answers.

        A request may ask for another protocol, and is answered in this one (RFC 9110, section 7.8). The parser takes
        what follows such a head for the other protocol, also where that is the body: it gets the head again, without
        the field.

        Raises:
            RequestError: the head does not name the host as it must, or asks for a tunnel.
        """
        check_host(self._headers, self._parser.get_http_version())
        if self._parser.get_method() == b"CONNECT":
            raise RequestError("CONNECT asks for a tunnel, and this server is no proxy")
        if self._parser.should_upgrade():
            self._without_upgrade = self._head_without(b"upgrade")
            return
        self._body_bytes = self._framing_bytes = 0
        self._wholes += 1
        self._in_body = True
        self._since = self._loop.time()
        head, self._head = self._head, None
        if head is not None and self._direct is not None:
            known = self._known(self._direct.requests)
            if known is not None:
                self._direct.requests.remember(head, known)
                since = self._direct.driver.since()
                self._request = DirectRequest(known.request, known.length, since, self._shared.budget, known.request_id)
                return
        self._hand_over()

    def _head_without(self, field: bytes) -> bytes:
        """The head that has just been parsed, without a field."""
        parser = self._parser
        version = parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % (name, value) for name, value in self._headers if name != field]
        return b"%b %b HTTP/%b\r\n%b\r\n" % (parser.get_method(), self._url, version, b"".join(fields))

    def _known(self, requests: RequestHeads) -> KnownHead | None:
        parser = self._parser
        if parser.get_http_version() != "1.1":
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
        self._body_bytes += len(body)
        self._application.on_body(body)

    def on_message_complete(self) -> None:
        """End a message. A direct request that has no body is whole."""
        if self._without_upgrade is not None:
            return
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
        if self._lingers is not None or self._transport.is_closing():
            return
        call, fields, _, _ = request.request
        keep_alive = fields.keep_alive and self._keep_alive and (not self._ended or bool(self._behind))
        self._write(reply, call.endpoint.method, call.route, keep_alive=keep_alive, request_id=request.request_id)
        if not keep_alive:
            self.close_after_answer()
        if self._behind:
            behind, self._behind = self._behind, b""
            self._read_on()
            self.data_received(behind)
            if self._ended and not self.is_closing and not self._end_after_answers():
                self._transport.close()

    def _turn_away(self, request: DirectRequest, error: PushforwardError) -> None:
        """Refuse a direct request whose body still comes: there is no room for it, or no time."""
        self._request = None
        request.end()
        call = request.request.call
        given = request.request_id
        self._write(problem(error), call.endpoint.method, call.route, keep_alive=False, request_id=given)
        self._linger()

    def _refuse(self, error: PushforwardError) -> None:
        """Tell what is wrong with a request that has not come in whole, and close.

        Where requests before it have no answer yet, theirs are the last: to the client the next answer would be theirs.
        """
        if self._end_after_answers():
            return
        cycle = self._application.cycle if self._in_body and self._request is None else None
        if cycle is None or not cycle.response_started:
            self._write(problem(error), OTHER, OTHER, keep_alive=False)
            self._linger()
        elif cycle.response_complete:
            self._linger()
        else:
            self._break_off(cycle)

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
