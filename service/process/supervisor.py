"""Several workers on one port: starts them, replaces one that has crashed, and ends them all together.

The supervisor answers nothing and loads nothing: it holds the port, the memory in which the workers count, and a
socket to each worker. A worker that ends takes down the requests on its own connections and no others; another is
started at once, and with growing patience where it dies again and again. Where no worker has ever answered, the
repository or the machine is at fault, and the server ends with what is known of it.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from typing import Final

from service.engine.metrics.shared_counters import SharedCounters, shared_file
from service.errors import ServerError
from service.process.preflight import REUSES_PORTS, Standing, bind, cannot_listen, check_repository, start_log, url
from service.process.slots import Failed, Job, Slot, Worker, start
from service.settings import Settings

__all__ = ["serve"]

_log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
"""So many starts of one worker fail, while no other has ever answered, before the server gives up."""

_MORE_SECONDS: Final = 3.0
"""A worker that has not ended so long after it should have drained is killed."""


def serve(settings: Settings, announce: Callable[[str, Standing], None], *, reuse: bool = REUSES_PORTS) -> None:
    """Serve with several workers until a signal comes.

    Args:
        settings: how.
        announce: is given the server's URL once every worker answers, and the flows that are ready on all of them.
        reuse: whether each worker listens on a socket of its own, or all on the same.

    Raises:
        InvalidArgument: the repository holds no flow, the default flow is not among them, or the address cannot be
            listened on.
        ServerError: no worker can be started, or one had to be killed in the end.
    """
    start_log(settings)
    check_repository(settings)
    with ExitStack() as held:
        bound = held.enter_context(bind(settings.host, settings.port))
        if reuse:
            held.enter_context(_alone(bound))
        else:
            bound.listen(2048)
        settings = settings.model_copy(update={"port": bound.getsockname()[1]})
        file = held.enter_context(shared_file(settings.workers))
        counters = SharedCounters(settings.workers, file.fileno())

        def begin(number: int) -> Worker:
            return start(Job(settings, number, file.fileno(), None if reuse else bound.fileno()))

        supervisor = _Supervisor(settings, begin, counters, lambda standing: announce(url(bound), standing))
        with _signals(supervisor) as woken:
            supervisor.watch(woken)
            bound.close()
            supervisor.end(woken)


class _Supervisor:
    """Keeps workers running until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        start: Callable[[int], Worker],
        counters: SharedCounters,
        announce: Callable[[Standing], None],
    ) -> None:
        self._start = start
        self._counters = counters
        self._announce = announce
        self._drain_seconds = settings.drain_seconds
        self._slots = [Slot(number) for number in range(settings.workers)]
        self._answered = False
        self._announced = False
        self._signals: list[int] = []

    def signal(self, number: int) -> None:
        """Take a signal: the first asks for the end, a second SIGINT for an end at once."""
        self._signals.append(number)

    def watch(self, woken: socket.socket) -> None:
        """Keep the workers running until a signal comes."""
        try:
            while not self._signals:
                now = time.monotonic()
                idle = [slot for slot in self._slots if slot.worker is None]
                for slot in idle:
                    if slot.due <= now:
                        self._begin(slot, now)
                self._hear(woken, min((slot.due - now for slot in idle if slot.worker is None), default=None))
        except BaseException:
            self._kill()
            raise

    def end(self, woken: socket.socket) -> None:
        """Let all workers drain; what does not end in time is killed.

        Raises:
            ServerError: a worker had to be killed though nobody asked for it.
        """
        for worker in self._running():
            worker.process.terminate()
        end = time.monotonic() + self._drain_seconds + _MORE_SECONDS
        while self._running() and (left := end - time.monotonic()) > 0 and not self._hurried:
            self._hear(woken, left)
        late = self._kill()
        if late and not self._hurried:
            raise ServerError(f"{late} of {len(self._slots)} workers did not end in time, and had to be killed")

    @property
    def _hurried(self) -> bool:
        return self._signals[1:].count(signal.SIGINT) > 0

    def _running(self) -> list[Worker]:
        return [slot.worker for slot in self._slots if slot.worker is not None]

    def _kill(self) -> int:
        running = self._running()
        for worker in running:
            worker.process.kill()
            worker.end()
        return len(running)

    def _begin(self, slot: Slot, now: float) -> None:
        try:
            slot.began(self._start(slot.number), now)
        except OSError as error:  # of the machine: too many processes, no memory
            if not self._answered:
                raise ServerError(f"no worker can be started: {error.strerror}") from error
            slot.began(None, now)
            _log.error("worker %d cannot be started: %s; again in %g s", slot.number, error.strerror, slot.ended(now))

    def _hear(self, woken: socket.socket, seconds: float | None) -> None:
        """Wait for a signal, for what a worker says, or for so long."""
        spoke = wait([woken, *(worker.control for worker in self._running())], seconds)
        if woken in spoke:
            woken.recv(64)
        for slot in self._slots:
            if slot.worker is not None and slot.worker.control in spoke:
                self._heard(slot, slot.worker)

    def _heard(self, slot: Slot, worker: Worker) -> None:
        said = worker.heard()
        if isinstance(said, Standing):
            slot.standing = said
            self._answered = True
            self._say_once()
        elif isinstance(said, Failed):
            if not self._answered:
                raise ServerError(f"no worker can be started: {said.detail}")
            _log.error("worker %d cannot serve: %s", slot.number, said.detail)
        else:
            self._ended(slot, worker)

    def _say_once(self) -> None:
        standings = [slot.standing for slot in self._slots if slot.standing is not None]
        if len(standings) == len(self._slots) and not self._announced:
            self._announced = True
            flows = frozenset.intersection(*(standing.flows for standing in standings))
            self._announce(Standing(flows, all(standing.loaded for standing in standings)))

    def _ended(self, slot: Slot, worker: Worker) -> None:
        status = worker.end()
        self._counters.release(slot.number)
        delay = slot.ended(time.monotonic())
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        if self._signals:
            if status not in (0, -signal.SIGTERM):  # the latter where it had not yet begun to answer
                _log.error("worker %d %s while it drained", slot.number, how)
            return
        if not self._answered and slot.early >= _ATTEMPTS:
            raise ServerError(f"no worker can be started: the last of {slot.early} in a row {how}")
        _log.error("worker %d %s; another is started %s", slot.number, how, f"in {delay:g} s" if delay else "at once")


@contextmanager
def _alone(bound: socket.socket) -> Iterator[None]:
    """Hold a name that no other supervisor of this address can hold.

    Sockets that share a port would let a second server of the same user join in, and take half of the requests.
    Once the workers listen, its own `bind` fails; until then, this does.
    """
    host, port = bound.getsockname()[:2]
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0pushforward {host} {port}")
        except OSError as error:
            raise cannot_listen(host, port, "another server is starting there") from error
        yield


@contextmanager
def _signals(supervisor: _Supervisor) -> Iterator[socket.socket]:
    """Give SIGINT and SIGTERM to a supervisor, and a socket that can be read once one has come."""
    woken, waker = socket.socketpair()
    with woken, waker:
        waker.setblocking(False)
        before = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        handlers = {n: signal.signal(n, lambda n, _: supervisor.signal(n)) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield woken
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
