"""The turns of an event loop: since when the bytes that it reads now may have waited.

A loop polls its sockets, then reads what has come, one connection after the other. What comes meanwhile waits for the
next poll. Under load a turn takes longer than some deadlines, and the age of a request that is counted from the moment
at which it is read says nothing: the age counts from the earliest time at which its bytes can have come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Turns"]

_POLL_SECONDS: Final = 2e-3
"""A poll that took longer has waited: nothing had come before."""


class Turns:
    """The turns of one event loop.

    Args:
        call_soon: of the loop: calls a function before the next poll.
        clock: seconds, on which deadlines are given.
    """

    __slots__ = ("_began", "_call_soon", "_clock", "_ended", "_open", "_since", "number", "seconds")

    def __init__(self, call_soon: Callable[[Callable[[], None]], object], clock: Callable[[], float]) -> None:
        self._call_soon = call_soon
        self._clock = clock
        self._open = False
        self._since = self._began = self._ended = 0.0
        self.number = 0
        self.seconds = 0.0
        """The length of the turn before this one; 0 where the loop has waited since."""

    def since(self) -> float:
        """The earliest time at which bytes that are read now can have come: they were not there at the last poll."""
        if not self._open:
            self._open = True
            self.number += 1
            self._call_soon(self._end)
            now = self._clock()
            waited = now - self._ended > _POLL_SECONDS
            self._since = now if waited else self._began
            self.seconds = 0.0 if waited else self.seconds
            self._began = now
        return self._since

    def _end(self) -> None:
        self._open = False
        self._ended = self._clock()
        self.seconds = self._ended - self._began
