"""uvicorn's HTTP protocol, with bounds on headers and on every wait, and with the fast door before the application.

uvicorn's httptools parser has no cap on a header: one of 300 MB is gathered whole, in quadratic time, on the event
loop. Nor does it ever close a connection whose request drips in byte by byte.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.counting import OTHER, CountReplies
from service.api.problems import problem
from service.errors import HeaderTooLarge, MalformedBody, PushforwardError, SlowRequest
from service.exchange import Reply
from service.guard import TIMEOUT_HEADER, Waits, check_length
from service.http.cycle import HotCycle
from service.http.heads import Fields, Hot
from service.http.hot_calls import FastDoor, WrittenHeads

__all__ = ["BoundedHttpToolsProtocol", "FastHttpToolsProtocol"]


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """`HttpToolsProtocol` that answers 431 to a header over the cap, and tells its own errors as problem documents.

    The cap is uvicorn's `h11_max_incomplete_event_size`, so that one setting holds for both of its parsers.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  passed on as they are
        super().__init__(*args, **kwargs)
        self._cap = self.config.h11_max_incomplete_event_size or (1 << 16)
        self._header_bytes = 0  # of the fields that the parser has given
        self._unparsed_bytes = 0  # received while it gave neither a whole header nor a whole body
        self._wholes = 0
        self._in_message = False
        self._in_body = False
        self._answering: RequestResponseCycle | None = None
        self._replies: CountReplies | None = self.app_state.get("count")
        self._waits: Waits = self.app_state.get("waits") or Waits()
        self._since = self.loop.time()  # the connection, the header, the body or the idle time began
        self._unread_since: float | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the cycle that is being answered; uvicorn tells only the newest, which may wait behind it."""
        if self._answering is not None:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a header that grows without end is cut off before it is whole."""
        wholes = self._wholes
        super().data_received(data)
        if self._in_body or self._wholes != wholes:
            self._unparsed_bytes = 0
        else:
            self._unparsed_bytes += len(data)
        if self._unparsed_bytes > self._cap and not self.transport.is_closing():
            self._refuse(self._too_large())

    def pause_writing(self) -> None:
        """Remember since when the client does not read."""
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._unread_since = None

    def sweep(self, now: float) -> None:
        """End the connection where the client has kept the server waiting for too long.

        One look at all connections every now and then is cheaper than a timer for each request, and it cannot be put
        off by a byte at a time.

        Args:
            now: on the event loop's clock.
        """
        if self.transport.is_closing():
            return
        waited = now - self._since
        if self._unread_since is not None and now - self._unread_since > self._waits.body_seconds:
            self.transport.abort()
        elif self._in_message:
            what, limit = (
                ("body", self._waits.body_seconds) if self._in_body else ("header", self._waits.header_seconds)
            )
            if waited > limit and self._in_body and getattr(self.cycle, "response_started", False):
                self.transport.close()  # it has its answer, and sends a body that nobody reads
            elif waited > limit and not self.flow.read_paused:
                self._refuse(SlowRequest(f"the request's {what} did not come in whole within {limit:g} seconds"))
        elif self._idle and waited > self._waits.keep_alive_seconds:
            self.transport.close()

    @property
    def _idle(self) -> bool:
        """Whether no request is under way."""
        return not self._in_message and (self.cycle is None or self.cycle.response_complete)

    def on_response_complete(self) -> None:
        """Go on with the next request; `sweep` closes the connection where none comes, and no timer is needed."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not self._in_message:
            self._since = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def on_message_begin(self) -> None:
        """Start counting."""
        super().on_message_begin()
        self._header_bytes = 0
        self._in_message = True
        self._since = self.loop.time()

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """From here on, bytes are of the body."""
        self._enter_body()
        super().on_headers_complete()

    def _enter_body(self) -> None:
        self._wholes += 1
        self._in_body = True
        self._since = self.loop.time()

    def on_message_complete(self) -> None:
        """From here on, bytes are of the next header."""
        self._leave_body()
        super().on_message_complete()

    def _leave_body(self) -> None:
        self._wholes += 1
        self._in_message = self._in_body = False
        self._since = self.loop.time()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's signature
        """Tell what the parser could not take; also reached where a callback above raised."""
        if self._header_bytes > self._cap:
            self._refuse(self._too_large())
        else:
            self._refuse(MalformedBody("this is not an HTTP request"))

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._cap:
            raise self._too_large()

    def _too_large(self) -> HeaderTooLarge:
        return HeaderTooLarge(f"the request's header has more than {self._cap} bytes, which is the cap")

    def _refuse(self, error: PushforwardError) -> None:
        reply = problem(error)
        fields = [
            *self.server_state.default_headers,
            (b"content-type", reply.media_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
            (b"connection", b"close"),
        ]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
        self.transport.write(STATUS_LINE[reply.status] + head + b"\r\n" + reply.body)
        self.transport.close()
        if self._replies is not None:
            self._replies(OTHER, OTHER, reply)


class FastHttpToolsProtocol(BoundedHttpToolsProtocol):
    """`BoundedHttpToolsProtocol` that gives hot calls to the fast door, where the application's state holds one.

    Only the plain case goes that way: HTTP/1.1, a body whose length is said, nothing else under way on the
    connection, and a client that reads its answers. A request that is pipelined behind another goes to the
    application, so that uvicorn's own queue keeps the order. A head that the parser has seen before is not parsed
    again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  passed on as they are
        super().__init__(*args, **kwargs)
        self._door: FastDoor | None = None if self.access_log else self.app_state.get("fast_door")
        self._heads = WrittenHeads() if self._door is None else self._door.written
        self._hot: HotCycle | None = None
        self._head: bytes | None = None
        self._parsed_bytes = 0  # of the hot call's body, those that the parser knows of

    def connection_lost(self, exc: Exception | None) -> None:
        """What a hot call has not run yet is dropped."""
        cycle: object = self.cycle
        if isinstance(cycle, HotCycle) and cycle.going is not None and not cycle.response_complete:
            cycle.going.abandon()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Answer a request whose head is known, and take the body of a hot call; feed the parser with anything else."""
        if self._hot is not None:
            self._take(self._hot, data)
            return
        if self._door is not None and self._idle and not self.flow.write_paused:
            hot = self._door.heads.recall(data)
            if hot is not None:
                cycle = self.cycle = HotCycle(hot)  # type: ignore[assignment]  # has what uvicorn asks for
                self._start(self._door, cycle, hot)
                return
            end = data.find(b"\r\n\r\n")
            self._head = data[:end] if end > 0 else None
        super().data_received(data)
        self._head = None

    def on_headers_complete(self) -> None:
        """Choose the door."""
        cycle = self._hot_cycle()
        if cycle is None:
            self._head = None
            super().on_headers_complete()
            return
        self._enter_body()
        self._parsed_bytes = 0
        self._hot = cycle
        self.cycle = cycle  # type: ignore[assignment]  # as above

    def _hot_cycle(self) -> HotCycle | None:
        door = self._door
        if door is None or self.flow.write_paused or not (self.cycle is None or self.cycle.response_complete):
            return None
        if self.parser.get_http_version() != "1.1" or self.parser.should_upgrade():
            return None
        found = door.heads.find(self.parser.get_method(), self.url)
        if found is None:
            return None
        call, query = found
        said = _fields(self.headers, self.parser.should_keep_alive(), door.max_body_bytes)
        if said is None or door.heads.may_stream(call, said[0]):
            return None
        fields, length = said
        if self._head is not None:
            door.heads.remember(self._head, call, fields, length)
            self._head = None
        return HotCycle(Hot(call, fields, query), length, door.clock())

    def on_body(self, body: bytes) -> None:
        """Gather the body of a hot call: what comes with its head."""
        if self._hot is None:
            super().on_body(body)
        else:
            self._parsed_bytes += len(body)
            self._gather(self._hot, body)

    def _take(self, cycle: HotCycle, data: bytes) -> None:
        """Take what comes after a hot call's head. To the parser it is nothing but bytes, which it would copy."""
        missing = cycle.missing
        if len(data) < missing:
            self._gather(cycle, data)
            return
        self._gather(cycle, data[:missing])
        self.parser = httptools.HttpRequestParser(self)  # the one there is still waits for the body
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self.on_message_complete()
        if len(data) > missing:
            self.data_received(data[missing:])

    def _gather(self, cycle: HotCycle, piece: bytes) -> None:
        cycle.take(piece)
        if len(piece) >= _LONG_PIECE and not self.flow.read_paused:
            self.flow.pause_reading()
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        """Start a hot call, now that it is whole."""
        cycle, self._hot = self._hot, None
        if cycle is None or self._door is None:
            super().on_message_complete()
            return
        self._leave_body()
        self._start(self._door, cycle, cycle.hot._replace(body=cycle.body))

    def _start(self, door: FastDoor, cycle: HotCycle, hot: Hot) -> None:
        going = door.answer(hot, partial(self._answer, cycle), cycle.since)
        if not cycle.response_complete:
            cycle.going = going

    def shutdown(self) -> None:
        """Give a hot call whose body is not whole yet to the application, which can end it when the time is over."""
        cycle, self._hot = self._hot, None
        if cycle is not None:
            self.cycle = None  # type: ignore[assignment]  # as uvicorn begins
            super().on_headers_complete()
            received = cycle.received
            super().on_body(received[: self._parsed_bytes])
            self.parser.feed_data(received[self._parsed_bytes :])
        super().shutdown()

    def _answer(self, cycle: HotCycle, reply: Reply) -> None:
        if cycle.disconnected or self.transport.is_closing():
            return
        keep_alive = cycle.hot.fields.keep_alive and cycle.keep_alive
        body = reply.body
        head = self._common_head(reply) if not reply.headers else self._written_head(reply)
        end = b"\r\n\r\n" if keep_alive else b"\r\nconnection: close\r\n\r\n"
        self.transport.write(b"%b%d%b%b" % (head, len(body), end, body))
        cycle.end()
        if self._replies is not None:
            self._replies(*cycle.hot.call.route, reply)
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _common_head(self, reply: Reply) -> bytes:
        """The head up to the length, for an answer without fields of its own; kept until the default fields change."""
        heads = self._heads
        fields = self.server_state.default_headers
        if heads.fields is not fields or heads.count != len(fields):
            heads.fields, heads.count = fields, len(fields)
            heads.written.clear()
        head = heads.written.get((reply.status, reply.media_type))
        if head is None:
            head = heads.written[reply.status, reply.media_type] = self._written_head(reply)
        return head

    def _written_head(self, reply: Reply) -> bytes:
        pieces = [STATUS_LINE[reply.status]]
        for name, value in self.server_state.default_headers:
            pieces += (name, b": ", value, b"\r\n")
        for key, text in reply.headers.items():
            pieces += (key.lower().encode(), b": ", text.encode(), b"\r\n")
        pieces += (b"content-type: ", reply.media_type.encode(), b"\r\ncontent-length: ")
        return b"".join(pieces)


_LONG_PIECE: Final = 1 << 16
"""After so many bytes of a body at once the others have their turn: libuv would read 32 such pieces, up to 8 MB."""

_COLD_HEADERS: Final = frozenset({b"expect", b"transfer-encoding", b"content-encoding", b"upgrade"})
"""A request with one of these goes to the application."""

_TIMEOUT: Final = TIMEOUT_HEADER.lower().encode()


def _fields(headers: list[tuple[bytes, bytes]], keep_alive: bool, max_body_bytes: int) -> tuple[Fields, int] | None:
    """What a hot call needs of its header fields, and the length of its body.

    None where it has a field that only the application understands.
    """
    length = 0
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name == b"content-length":
            try:
                check_length(value.decode("latin-1"), max_body_bytes)
            except PushforwardError:
                return None  # told by the application
            length = int(value)
        elif name in _COLD_HEADERS:
            return None
        elif name in (b"content-type", b"accept", _TIMEOUT):
            found.setdefault(name, value.decode("latin-1"))
    return Fields(found.get(b"content-type"), found.get(b"accept"), found.get(_TIMEOUT), keep_alive), length
