"""One thread for all that is done on a device.

ONNX Runtime keeps what it has recorded as a CUDA graph with the thread that recorded it, and while it records, a call
to CUDA from any other thread spoils the recording. So loading, copying and running all happen here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["Stream"]

T = TypeVar("T")


class Stream:
    """A thread that does one thing after the other for those who wait for it. It starts with the first.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, work: Callable[[], T]) -> T:
        """Do it there; gives what it returns, raises what it raises."""
        done: Future[T] = Future()

        def do() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._start()
        self._work.put(do)
        return done.result()

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    # A daemon: a device that hangs must not keep the process from ending.
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            self._work.get()()
