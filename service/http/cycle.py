"""A hot call under way on a connection, as uvicorn's protocol sees it."""

from __future__ import annotations

from typing import Final

from service.exchange import Body, Reply
from service.http.heads import Hot
from service.http.hot_calls import Going, Waiting

__all__ = ["HotCycle"]


class HotCycle:
    """A hot call under way: what uvicorn's protocol wants to know of a cycle, and the call itself.

    Args:
        hot: the call.
        length: of its body, in bytes, where that is still to come.
        since: when its head had come, on the clock of its deadline; None where all of it came at once.
    """

    __slots__ = (
        "_body",
        "_length",
        "disconnected",
        "going",
        "hot",
        "keep_alive",
        "message_event",
        "response_complete",
        "since",
    )

    def __init__(self, hot: Hot, length: int = 0, since: float | None = None) -> None:
        self.hot = hot
        self.since = since
        self.going: Going[Reply] | Waiting | None = None
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NO_EVENT
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

    def end(self) -> None:
        """Its answer is written. Lets go of what may be large, or holds it in a circle that only a collection ends."""
        self.response_complete = True
        self.going = None
        self._body = b""

    @property
    def body(self) -> Body:
        """The body, once it is whole."""
        return self._body

    @property
    def received(self) -> bytes:
        """What there is of the body."""
        return bytes(self._body)


class _NoEvent:
    """Nobody waits for a hot call's messages."""

    def set(self) -> None:
        """Wake nobody."""


_NO_EVENT: Final = _NoEvent()
