"""Waiting for what another thread or process does: until it holds, and never longer than a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["LIMIT", "steady", "turns_until", "until"]

LIMIT = 180.0
"""Seconds. What a test waits for takes far less on an idle machine: the limit is for what never comes."""


def until(holds: Callable[[], object], seconds: float = LIMIT, pause: float = 0.005) -> None:
    """Ask until something holds, with a pause in seconds between two looks; a test that waits too long fails."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(pause)


async def turns_until(holds: Callable[[], object], seconds: float = LIMIT) -> None:
    """Let the event loop turn until something holds; a test that waits too long fails."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0)


def steady(read: Callable[[], object], looks: int = 20) -> Callable[[], bool]:
    """A condition for `until`: a reading has been the same at so many looks in a row."""
    last, same = read(), 1

    def holds() -> bool:
        nonlocal last, same
        now = read()
        same = same + 1 if now == last else 1
        last = now
        return same >= looks

    return holds
