"""The quarantine rule: an engine whose processes end too often within a minute is started no more."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["MAX_ENDS", "WINDOW_SECONDS", "QuarantineRule"]

MAX_ENDS: Final = 3
"""The crashes and hangs within the window that lead to quarantine, and the starts in a row that fail."""

WINDOW_SECONDS: Final = 60.0


class QuarantineRule:
    """The times at which the processes of one engine ended. Knows no clock.

    Starts that fail count apart as well: where each takes half a minute, three of them never fall into one window.
    """

    def __init__(self) -> None:
        self._ends: deque[float] = deque(maxlen=MAX_ENDS)
        self._failed_starts = 0

    def record_end(self, now: float) -> bool:
        """Record that a process crashed or hung.

        Args:
            now: in seconds, on any clock that does not run backwards.

        Returns:
            Whether the engine is to be quarantined.
        """
        self._ends.append(now)
        return len(self._ends) == MAX_ENDS and now - self._ends[0] <= WINDOW_SECONDS

    def record_failed_start(self, now: float) -> bool:
        """Record that a process ended, or hung, before it was ready. Arguments and answer as of `record_end`."""
        self._failed_starts += 1
        return self.record_end(now) or self._failed_starts >= MAX_ENDS

    def record_start(self) -> None:
        """Record that a process is ready."""
        self._failed_starts = 0
