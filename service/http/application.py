"""The application within a connection: uvicorn's protocol, the transport that it is given, and answers to HTTP/1.0."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

__all__ = ["UVICORN_NAMES", "ApplicationProtocol", "ApplicationTransport"]

UVICORN_NAMES: Final = {
    "HttpToolsProtocol": ("_start_asgi_task", "cycle", "parser", "timeout_keep_alive_handler"),
    "RequestResponseCycle": (
        "chunked_encoding",
        "disconnected",
        "expected_content_length",
        "keep_alive",
        "message_event",
        "response_complete",
        "response_started",
        "scope",
        "transport",
        "waiting_for_100_continue",
    ),
    "ServerState": ("connections", "default_headers"),
}
"""The names of uvicorn without a promise that this module uses, beside asyncio's and the parser's callbacks."""


class ApplicationTransport(asyncio.Transport):
    """The transport as the application's protocol sees it: the connection decides how it is closed.

    Args:
        transport: of the connection.
        close: closes the connection after what has been written.
        is_closing: whether the connection answers nothing more.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None], is_closing: Callable[[], bool]) -> None:
        super().__init__()
        self._transport = transport
        self._close = close
        self._is_closing = is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write bytes of an answer, unless the connection has ended."""
        if not self._is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close after what has been written."""
        self._close()

    def abort(self) -> None:
        """Reset the connection, so that the client sees that something is missing: a plain close looks like the end."""
        plug: socket.socket | None = self._transport.get_extra_info("socket")
        if plug is not None and not self._transport.is_closing():
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def has_failed(self) -> bool:
        """Whether the connection has broken. After the end of what the client sends, the event loop does not look."""
        plug: socket.socket | None = self._transport.get_extra_info("socket")
        return plug is not None and plug.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  as asyncio has it
        """What the transport knows, such as the client's address."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Take no more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more."""
        self._transport.resume_reading()


class ApplicationProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which is given a parser's events."""

    def timeout_keep_alive_handler(self) -> None:
        """Do nothing: `Connection.sweep` closes idle connections, also those whose last request was a direct one."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]  # Starlette's types of ASGI
        """Run the application on a request."""
        chosen = _until_close(cycle, app) if cycle.scope["http_version"] == "1.0" else app
        super()._start_asgi_task(cycle, chosen)  # type: ignore[arg-type]


def _until_close(cycle: RequestResponseCycle, app: ASGIApp) -> ASGIApp:
    """An application whose answers an HTTP/1.0 client understands (RFC 9112, sections 6.1 and 6.3).

    Such a client knows no chunks: an answer without a length ends where the connection does. One that breaks off ends
    with a reset, for else it would look whole. The client also expects no 100.

    Args:
        cycle: of the request, which is the last of its connection.
        app: the application.
    """
    cycle.waiting_for_100_continue = False

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        unbounded = False

        async def send_plain(message: Message) -> None:
            nonlocal unbounded
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                names = {name.lower() for name, _ in headers}
                unbounded = b"content-length" not in names
                if unbounded:
                    cycle.chunked_encoding = False
                if b"connection" not in names:  # uvicorn says so by itself from 0.53 on
                    message["headers"] = [*headers, (b"connection", b"close")]
            elif unbounded:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        try:
            await app(scope, receive, send_plain)
        finally:
            if unbounded and not cycle.response_complete:
                cycle.transport.abort()

    return answer
