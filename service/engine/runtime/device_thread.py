"""The thread of a device, which does all its work: loading, copying and running.

ONNX Runtime keeps a recorded CUDA graph with the thread that recorded it. While it records, a call to CUDA from any
other thread breaks the recording.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import NamedTuple, TypeVar

__all__ = ["DeviceHung", "DeviceThread"]

T = TypeVar("T")


class DeviceHung(Exception):
    """A function did not come back from the device in its time, and no further one is called."""


class _Limit(NamedTuple):
    """The bound of the function that is being called.

    Args:
        end: the time by which it must have come back.
        seconds: that it was given.
    """

    end: float
    seconds: float


class DeviceThread:
    """A thread that calls one function after the other while its callers wait. It starts with the first call.

    Where a function does not come back in its time, all who wait get `DeviceHung`, and so does every later caller: the
    thread is left to the device.

    Args:
        name: of the thread.
        clock: in seconds.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._limit: _Limit | None = None
        self._waiting: set[Future[object]] = set()
        self._hung: str | None = None

    def __call__(self, work: Callable[[], T], seconds: float = math.inf) -> T:
        """Call a function on the thread, and return its result.

        Args:
            work: the function. An exception that it raises is raised here.
            seconds: the time for the call itself, the functions before it not counted.

        Raises:
            DeviceHung: this function, or one before it, did not come back in its time.
        """
        done: Future[T] = Future()

        def call() -> None:
            self._limit = _Limit(self._clock() + seconds, seconds)
            try:
                result = work()
            except BaseException as error:
                with suppress(InvalidStateError):  # nobody waits for it any more
                    done.set_exception(error)
            else:
                with suppress(InvalidStateError):
                    done.set_result(result)
            finally:
                self._limit = None

        with self._lock:
            if self._hung is not None:
                raise DeviceHung(self._hung)
            if self._thread is None:
                # A daemon: a device that hangs must not keep the process from ending.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._waiting.add(done)  # type: ignore[arg-type]  # its result is never read as an object
        self._work.put(call)
        try:
            return self._wait(done, seconds)
        finally:
            with self._lock:
                self._waiting.discard(done)

    def _wait(self, done: Future[T], seconds: float) -> T:
        while True:
            limit = self._limit
            left = seconds if limit is None else max(0.0, limit.end - self._clock())
            try:
                return done.result(None if math.isinf(left) else left)
            except TimeoutError:
                if done.done():  # the function itself raised it
                    raise
                if limit is not None and limit is self._limit:
                    self._give_up(limit)

    def _give_up(self, limit: _Limit) -> None:
        with self._lock:
            self._hung = self._hung or f"no answer within {limit.seconds:g} s"
            for done in self._waiting:
                with suppress(InvalidStateError):
                    done.set_exception(DeviceHung(self._hung))

    def _run(self) -> None:
        while True:
            self._work.get()()
