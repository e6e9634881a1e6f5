"""The end of a server's process: at once, with what was logged, and whatever threads still run.

A thread that decodes, computes or loads cannot be stopped. An interpreter that ends waits for some threads, and aborts
under others that are in native code. A server that has answered all requests therefore ends its process itself.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from contextlib import suppress
from typing import Final, NoReturn

__all__ = ["FORCED_SECONDS", "Deadline", "end_process"]

FORCED_SECONDS: Final = 1.5
"""The time after the drain from which on a process ends, whatever it still does."""


class Deadline:
    """The latest end of this process, counted from the first signal that asks for its end.

    Its thread waits from the start: a signal's handler may interrupt any code, and must neither take a lock nor start
    a thread.

    Args:
        seconds: from the signal to the end.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._reader, self._writer = os.pipe()
        threading.Thread(target=self._wait, name="deadline", daemon=True).start()

    def begin(self, status: int = 0) -> None:
        """Count from now on.

        Args:
            status: of the process, 0 to 255, should it end then.
        """
        os.write(self._writer, bytes([status]))

    def _wait(self) -> None:
        (status,) = os.read(self._reader, 1)
        time.sleep(self._seconds)
        os._exit(status)  # without a flush, which another thread may hold up


def end_process(status: int) -> NoReturn:
    """End this process with a status, and wait for no thread. What was logged or printed is written first."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            stream.flush()
    os._exit(status)
