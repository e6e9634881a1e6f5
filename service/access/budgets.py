"""The budget of a key: so many requests, and so many rows, a minute.

A bucket holds one minute's budget and is filled again at a constant rate. Several workers share a budget: each counts
what it has let through, and takes off what the others have counted since it last looked.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Bucket"]

_SECONDS: Final = 60.0


class Bucket:
    """What is left of a budget.

    Args:
        per_minute: the budget; None for no bound.
        now: in seconds, on the clock of the calls.

    Attributes:
        used: what this process has taken, in all.
    """

    __slots__ = ("_at", "_left", "_others", "per_minute", "used")

    def __init__(self, per_minute: int | None, now: float) -> None:
        self.per_minute = per_minute
        self.used = 0
        self._left = float(per_minute or 0)
        self._at = now
        self._others: float | None = None

    def take(self, count: int, now: float) -> float:
        """Take from the bucket, if it holds so much.

        Args:
            count: how much.
            now: in seconds.

        Returns:
            0 where it was taken; else the seconds after which the bucket will hold so much; 60 where it never will.
        """
        if self.per_minute is not None:
            left = self._fill(now)
            if count > self.per_minute:
                return _SECONDS
            if left < count:
                return (count - left) * _SECONDS / self.per_minute
            self._left = left - count
        self.used += count
        return 0.0

    def share(self, others: float, now: float) -> None:
        """Take off what the other workers have taken since the last call; the first call only notes it.

        Args:
            others: what they have taken, in all.
            now: in seconds.
        """
        if self.per_minute is not None and self._others is not None:
            self._left = max(self._fill(now) - max(0.0, others - self._others), -float(self.per_minute))
        self._others = others

    def _fill(self, now: float) -> float:
        """Fill it for the time that has passed."""
        rate = (self.per_minute or 0) / _SECONDS
        self._left = min(float(self.per_minute or 0), self._left + max(0.0, now - self._at) * rate)
        self._at = now
        return self._left
