"""Threads for what would hold up the event loop: decoding a large body, encoding a large answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from service.errors import QueueFull

__all__ = ["Helpers"]

T = TypeVar("T")

_MARGIN: Final = 0.8
_WEIGHT: Final = 0.1


class Helpers:
    """A few threads, and how much waits for them.

    Args:
        threads: how many.
        clock: seconds, on which deadlines are given.
    """

    def __init__(self, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "helper")
        self._waiting_bytes = 0
        self._seconds_per_byte = 0.0

    def admit(self, size: int, deadline: float) -> None:
        """Hold what waits against a deadline, before work of `size` bytes.

        Raises:
            QueueFull: the threads are not expected to be done with it by then.
        """
        if not self._waiting_bytes:
            return
        expected = (self._waiting_bytes + size) * self._seconds_per_byte / self._threads
        left = deadline - self.clock()
        if expected > _MARGIN * left:
            raise QueueFull(
                f"the body would be read after {expected:.3g} seconds, and the deadline is in {max(left, 0.0):.3g}",
                retry_seconds=expected - _MARGIN * max(left, 0.0),
            )

    async def run(self, size: int, function: Callable[..., T], *args: object) -> T:
        """Call `function` on a thread.

        Args:
            size: of what it works on, in bytes; how long that takes is remembered.
            function: what to call.
            args: its arguments.
        """
        self._waiting_bytes += size
        try:
            result, seconds = await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, function, args)
        finally:
            self._waiting_bytes -= size
        each = seconds / max(size, 1)
        self._seconds_per_byte += (each - self._seconds_per_byte) * (_WEIGHT if self._seconds_per_byte else 1.0)
        return result

    def _timed(self, function: Callable[..., T], args: tuple[object, ...]) -> tuple[T, float]:
        began = self.clock()
        return function(*args), self.clock() - began

    def close(self) -> None:
        """Start nothing further."""
        self._pool.shutdown(wait=False, cancel_futures=True)
