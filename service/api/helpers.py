"""Threads for what would hold up the event loop: decoding a large body, encoding a large answer.

The engine's own threads do it between two batches. Where none comes to it soon, because they are held up or there is
but one, a thread of its own does.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, Generic, TypeVar

from service.errors import QueueFull, release_frames

__all__ = ["Helpers"]

T = TypeVar("T")

_MARGIN: Final = 0.8
_WEIGHT: Final = 0.1

_PATIENCE_SECONDS: Final = 0.01
"""How long the engine has to come to an errand: twice the longest that a batch usually takes."""


class _Errand(Generic[T]):
    """A call that is made once, by whichever thread comes to it first.

    Args:
        call: what to call.
    """

    def __init__(self, call: Callable[[], T]) -> None:
        self.result: Future[T] = Future()
        self._call = call
        self._untaken = threading.Lock()

    def __call__(self) -> None:
        """Make the call, if nobody has yet and somebody waits for it still."""
        if not self._untaken.acquire(blocking=False) or not self.result.set_running_or_notify_cancel():
            return
        try:
            result = self._call()
        except BaseException as error:
            self.result.set_exception(error)
        else:
            self.result.set_result(result)


class Helpers:
    """A few threads, and how much waits for them.

    Args:
        threads: how many.
        clock: seconds, on which deadlines are given.
        send: has an errand called by one of the engine's threads, if it can; None where they have no time for any.
    """

    def __init__(
        self,
        threads: int,
        clock: Callable[[], float] = time.monotonic,
        send: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self.clock = clock
        self._send = send
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
        errand = _Errand(partial(self._timed, function, args))
        if self._send is None:
            late = None
            self._pool.submit(errand)
        else:
            late = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, self._instead, errand)
            self._send(errand)
        try:
            result, seconds = await asyncio.wrap_future(errand.result)
        except asyncio.CancelledError:
            errand.result.add_done_callback(_forget)
            raise
        finally:
            self._waiting_bytes -= size
            if late is not None:
                late.cancel()
        each = seconds / max(size, 1)
        self._seconds_per_byte += (each - self._seconds_per_byte) * (_WEIGHT if self._seconds_per_byte else 1.0)
        return result

    def _instead(self, errand: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # closed meanwhile
            self._pool.submit(errand)

    def _timed(self, function: Callable[..., T], args: tuple[object, ...]) -> tuple[T, float]:
        began = self.clock()
        return function(*args), self.clock() - began

    def close(self) -> None:
        """Start nothing further."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _forget(result: Future[tuple[T, float]]) -> None:
    """Let go of an error that nobody waits for any more."""
    if not result.cancelled() and (error := result.exception()) is not None:
        release_frames(error)
