"""A hot call under way on a connection, as uvicorn's protocol sees it."""

from __future__ import annotations

from typing import Final

from service.api.exchange import Body, Reply
from service.api.fast import Going, Waiting
from service.api.heads import Hot

__all__ = ["HotCycle"]


class HotCycle:
    """A hot call under way: what uvicorn's protocol wants to know of a cycle, and the call itself.

    Args:
        hot: the call.
        length: of its body, in bytes, where that is still to come.
    """

    __slots__ = (
        "_body",
        "_filled",
        "_length",
        "disconnected",
        "going",
        "hot",
        "keep_alive",
        "message_event",
        "response_complete",
    )

    def __init__(self, hot: Hot, length: int = 0) -> None:
        self.hot = hot
        self.going: Going[Reply] | Waiting | None = None
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NO_EVENT
        self._body: Body = b""
        self._filled = 0
        self._length = length

    def take(self, piece: bytes) -> None:
        """Add a piece of the body. A large one is put together in place, so that it lies in memory once."""
        if len(piece) == self._length:
            self._body = piece
        else:
            if not isinstance(self._body, bytearray):
                self._body = bytearray(self._length)
            self._body[self._filled : self._filled + len(piece)] = piece
        self._filled += len(piece)

    @property
    def body(self) -> Body:
        """The body, once it is whole."""
        return self._body

    @property
    def received(self) -> bytes:
        """What there is of the body."""
        return bytes(self._body[: self._filled])


class _NoEvent:
    """Nobody waits for a hot call's messages."""

    def set(self) -> None:
        """Wake nobody."""


_NO_EVENT: Final = _NoEvent()
