"""The thread of a device, which does all its work: loading, copying and running.

ONNX Runtime keeps a recorded CUDA graph with the thread that recorded it. While it records, a call to CUDA from any
other thread breaks the recording.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["DeviceThread"]

T = TypeVar("T")


class DeviceThread:
    """A thread that calls one function after the other while its callers wait. It starts with the first call.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self, work: Callable[[], T]) -> T:
        """Call a function on the thread, and return its result.

        Args:
            work: the function. An exception that it raises is raised here.
        """
        done: Future[T] = Future()

        def call() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        self._start()
        self._work.put(call)
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
