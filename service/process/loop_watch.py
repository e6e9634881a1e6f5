"""The watch over a worker's event loop, which beats while it turns: a worker whose loop stands still hangs.

A worker on a busy machine also beats late. Three things tell it from one that hangs. Time in which the supervisor
itself did not run does not count. Nor does time in which the worker's main thread waits for a processor: it counts once
the thread has used as much of one. And a worker that has not begun to beat has longer.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["LOOK_SECONDS", "LoopWatch", "ThreadActivity", "main_thread_activity"]

LOOK_SECONDS: Final = 0.25
"""The time between two looks at a worker, and between two beats of its loop."""

_START_SECONDS: Final = 120.0
"""The time to the first beat: an interpreter starts, imports what serving needs, and makes the application."""


class ThreadActivity(NamedTuple):
    """What the system says of a thread.

    Args:
        runnable: whether it runs or waits for a processor, and for nothing else.
        cpu_seconds: the processor time that it has used.
    """

    runnable: bool
    cpu_seconds: float


class LoopWatch:
    """The watch over the loop of one process.

    Args:
        hang_seconds: the time without a beat after which the process hangs.
        now: in seconds, when the process was started.
    """

    def __init__(self, hang_seconds: float, now: float) -> None:
        self._hang_seconds = hang_seconds
        self._looked_at = now
        self._beat = 0.0
        self._silent_seconds = 0.0
        self._cpu_seconds = 0.0

    def hangs(self, now: float, beat: float, activity: ThreadActivity | None) -> bool:
        """Look at the process.

        Args:
            now: in seconds.
            beat: the time of the last beat; 0 before the first.
            activity: of its main thread; None where the system does not tell.

        Returns:
            Whether it hangs.
        """
        seconds = min(now - self._looked_at, 2 * LOOK_SECONDS)
        self._looked_at = now
        if beat != self._beat:
            self._beat = beat
            self._silent_seconds = 0.0
            self._cpu_seconds = 0.0 if activity is None else activity.cpu_seconds
            return False
        self._silent_seconds += seconds
        if self._silent_seconds < (self._hang_seconds if beat else max(self._hang_seconds, _START_SECONDS)):
            return False
        if activity is None or not activity.runnable:
            return True
        return activity.cpu_seconds - self._cpu_seconds >= self._hang_seconds


def main_thread_activity(process: int) -> ThreadActivity | None:
    """The activity of a process's main thread; None where the system does not tell, or the process has ended."""
    if sys.platform != "linux":
        return None
    try:
        fields = Path(f"/proc/{process}/task/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    ticks = int(fields[11]) + int(fields[12])  # in user mode, and in the kernel
    return ThreadActivity(fields[0] == "R", ticks / os.sysconf("SC_CLK_TCK"))
