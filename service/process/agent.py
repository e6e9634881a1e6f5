"""The agent of the supervisor in a worker: it makes the changes that the supervisor decides on, and asks for others."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import assert_never

from service.engine.changes import Change, Changes, Outcome
from service.engine.registry import Registry
from service.errors import Draining
from service.process.messages import (
    Abort,
    ChangeAnswer,
    ChangeRequest,
    Commit,
    Committed,
    FromWorker,
    Loaded,
    Prepare,
    Prepared,
    ToWorker,
)

__all__ = ["Agent"]


class Agent:
    """The worker's end of the connection to the supervisor.

    Args:
        send: sends a message to the supervisor; one thread at a time.
        receive: waits for the next message of the supervisor.
    """

    def __init__(self, send: Callable[[FromWorker], None], receive: Callable[[], ToWorker]) -> None:
        self._send = send
        self._receive = receive
        self._sending = threading.Lock()
        self._work: queue.SimpleQueue[Prepare | Commit | Abort] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[Outcome]] = {}
        self._ended = False

    def send(self, message: FromWorker) -> None:
        """Send a message, from any thread. Where the supervisor has ended, `listen` says so."""
        with self._sending, contextlib.suppress(OSError):
            self._send(message)

    def listen(self) -> None:
        """Take the messages of the supervisor until it ends."""
        try:
            while True:
                self._take(self._receive())
        except (EOFError, OSError):
            self._ended = True
            for number in list(self._asked):
                self._settle(number, Draining("the server is shutting down"))

    def _take(self, message: ToWorker) -> None:
        if isinstance(message, ChangeAnswer):
            self._settle(message.number, message.result)
        else:
            self._work.put(message)

    def _settle(self, number: int, result: Outcome | Exception) -> None:
        future = self._asked.pop(number, None)
        if future is None:
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def serve(self, registry: Registry) -> Changes:
        """Make the supervisor's changes on a registry, on a thread of its own.

        Args:
            registry: of this worker.

        Returns:
            What asks the supervisor for changes.
        """
        threading.Thread(target=self._change, args=(registry,), name="changes", daemon=True).start()
        return self

    def _change(self, registry: Registry) -> None:
        try:
            registry.wait_until_loaded()
        except Draining:
            return
        self.send(Loaded(registry.catalogue.failed))
        while True:
            message = self._work.get()
            match message:
                case Prepare(catalogue):
                    self.send(Prepared(catalogue.number, registry.prepare(catalogue)))
                case Commit(catalogue):
                    registry.commit(catalogue)
                    self.send(Committed(catalogue.number))
                case Abort():
                    registry.abort()
                case _:
                    assert_never(message)

    def apply(self, change: Change) -> Outcome:
        """Ask the supervisor for a change, as `service.engine.changes.Changes.apply`."""
        number = next(self._numbers)
        future: Future[Outcome] = Future()
        self._asked[number] = future
        self.send(ChangeRequest(number, change))
        if self._ended:
            self._settle(number, Draining("the server is shutting down"))
        return future.result()
