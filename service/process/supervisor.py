"""The supervisor of several workers on one port: starts them, replaces one that crashed, and ends them all together.

The supervisor answers nothing and loads nothing. It holds the port, the memory in which the workers count, and a socket
to each worker. A worker that ends takes down the requests on its own connections and no others. One whose event loop
stands still is killed. Another is started at once, or after a growing delay where workers end early again and again.
Where no worker has ever answered, the fault is in the repository or the machine, and the server ends with the reason.
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

from service.engine.metrics.metrics import WORKER_HANGS
from service.engine.metrics.shared_counters import SharedCounters, shared_file
from service.errors import ServerError
from service.process.loop_watch import LOOK_SECONDS, main_thread_activity
from service.process.preflight import (
    REUSES_PORTS,
    ServerStatus,
    bind,
    check_environment,
    check_repository,
    listen_error,
    server_url,
    start_log,
)
from service.process.slots import Slot, StartFailure, WorkerJob, WorkerProcess, start_worker
from service.settings import Settings

__all__ = ["serve"]

_log = logging.getLogger(__name__)

_MAX_FAILED_STARTS: Final = 3
"""The starts of one worker that fail in a row, while no worker has ever answered, before the server gives up."""

_GRACE_SECONDS: Final = 1.75
"""The time after the drain from which on a worker that has not ended is killed: it was to end itself before
(`service.process.ending.FORCED_SECONDS`)."""


def serve(settings: Settings, announce: Callable[[str, ServerStatus], None], *, reuse: bool = REUSES_PORTS) -> None:
    """Serve with several workers until a signal comes.

    Args:
        settings: of the server.
        announce: takes the server's URL once every worker answers, and the flows that are ready on all of them.
        reuse: whether each worker listens on a socket of its own, or all on the same.

    Raises:
        InvalidArgument: the repository holds no flow, or the address cannot be listened on.
        ServerError: no worker can be started, or one had to be killed in the end.
    """
    start_log(settings)
    check_environment()
    check_repository(settings)
    with ExitStack() as held:
        bound = held.enter_context(bind(settings.host, settings.port))
        if reuse:
            held.enter_context(_claim_address(bound))
        else:
            bound.listen(2048)
        settings = settings.model_copy(update={"port": bound.getsockname()[1]})
        file = held.enter_context(shared_file(settings.workers))
        counters = SharedCounters(settings.workers, file.fileno())

        def start(number: int) -> WorkerProcess:
            listener = None if reuse else bound.fileno()
            return start_worker(WorkerJob(settings, number, counters=file.fileno(), listener=listener))

        supervisor = _Supervisor(settings, start, counters, lambda status: announce(server_url(bound), status))
        with _deliver_signals(supervisor) as wakeup:
            supervisor.supervise(wakeup)
            bound.close()
            supervisor.shut_down(wakeup)


class _Supervisor:
    """Keeps workers running until a signal comes.

    Args:
        settings: of the server.
        start_worker: starts the worker of a number.
        counters: of all workers.
        announce: takes the status once every worker answers.
    """

    def __init__(
        self,
        settings: Settings,
        start_worker: Callable[[int], WorkerProcess],
        counters: SharedCounters,
        announce: Callable[[ServerStatus], None],
    ) -> None:
        self._start_worker = start_worker
        self._counters = counters
        self._announce = announce
        self._drain_seconds = settings.drain_seconds
        self._hang_seconds = settings.hang_seconds
        self._slots = [Slot(number, settings.hang_seconds) for number in range(settings.workers)]
        self._answered = False
        self._announced = False
        self._signals: list[int] = []

    def signal(self, number: int) -> None:
        """Take a signal. The first asks for the end, and a second SIGINT for the end at once."""
        self._signals.append(number)

    def supervise(self, wakeup: socket.socket) -> None:
        """Keep the workers running until a signal comes.

        Args:
            wakeup: is readable once a signal has come.

        Raises:
            ServerError: no worker can be started.
        """
        try:
            while not self._signals:
                now = time.monotonic()
                idle = [slot for slot in self._slots if slot.worker is None]
                for slot in idle:
                    if slot.restart_at <= now:
                        self._start(slot, now)
                delays = [slot.restart_at - now for slot in idle if slot.worker is None]
                self._wait(wakeup, min([*delays, LOOK_SECONDS]))
                self._kill_hung(time.monotonic())
        except BaseException:
            self._kill()
            raise

    def _kill_hung(self, now: float) -> None:
        """Kill each worker whose event loop stands still. Its end is handled as that of any other worker."""
        for slot in self._slots:
            if slot.worker is None or slot.hangs:
                continue
            process = slot.worker.process
            beat = self._counters.last_beat(slot.number)
            if slot.watch.hangs(now, beat, main_thread_activity(process.pid)):
                slot.hangs = True
                hung = "worker %d hangs: its event loop has stood still for %g s; it is killed"
                _log.error(hung, slot.number, self._hang_seconds)
                process.kill()

    def shut_down(self, wakeup: socket.socket) -> None:
        """Let all workers drain, and kill those that do not end in time.

        Args:
            wakeup: is readable once a signal has come.

        Raises:
            ServerError: a worker had to be killed without a second SIGINT.
        """
        for worker in self._running():
            worker.process.terminate()
        end = time.monotonic() + self._drain_seconds + _GRACE_SECONDS
        while self._running() and (left := end - time.monotonic()) > 0 and not self._end_at_once:
            self._wait(wakeup, left)
        late = self._kill()
        if late and not self._end_at_once:
            raise ServerError(f"{late} of {len(self._slots)} workers did not end in time, and had to be killed")

    @property
    def _end_at_once(self) -> bool:
        return self._signals[1:].count(signal.SIGINT) > 0

    def _running(self) -> list[WorkerProcess]:
        return [slot.worker for slot in self._slots if slot.worker is not None]

    def _kill(self) -> int:
        running = self._running()
        for worker in running:
            worker.process.kill()
            worker.close()
        return len(running)

    def _start(self, slot: Slot, now: float) -> None:
        try:
            slot.record_start(self._start_worker(slot.number), now)
        except OSError as error:  # of the machine: too many processes, no memory
            if not self._answered:
                raise ServerError(f"no worker can be started: {error.strerror}") from error
            slot.record_start(None, now)
            delay = slot.record_exit(now)
            _log.error("worker %d cannot be started: %s; again in %g s", slot.number, error.strerror, delay)

    def _wait(self, wakeup: socket.socket, seconds: float) -> None:
        """Wait for a signal, for a message of a worker, or for this time.

        Args:
            wakeup: is readable once a signal has come.
            seconds: the most.
        """
        readable = wait([wakeup, *(worker.control for worker in self._running())], seconds)
        if wakeup in readable:
            wakeup.recv(64)
        for slot in self._slots:
            if slot.worker is not None and slot.worker.control in readable:
                self._handle_message(slot, slot.worker)

    def _handle_message(self, slot: Slot, worker: WorkerProcess) -> None:
        message = worker.receive()
        if isinstance(message, ServerStatus):
            slot.status = message
            self._answered = True
            self._announce_once()
        elif isinstance(message, StartFailure):
            if not self._answered:
                raise ServerError(f"no worker can be started: {message.detail}")
            _log.error("worker %d cannot serve: %s", slot.number, message.detail)
        else:
            self._handle_exit(slot, worker)

    def _announce_once(self) -> None:
        statuses = [slot.status for slot in self._slots if slot.status is not None]
        if len(statuses) == len(self._slots) and not self._announced:
            self._announced = True
            flows = frozenset.intersection(*(status.flows for status in statuses))
            self._announce(ServerStatus(flows, all(status.loaded for status in statuses)))

    def _handle_exit(self, slot: Slot, worker: WorkerProcess) -> None:
        status = worker.close()
        self._counters.release(slot.number)
        if slot.hangs:
            self._counters.count_ended(slot.number, (WORKER_HANGS.name, str(slot.number)))
        delay = slot.record_exit(time.monotonic())
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        if self._signals:
            if status not in (0, -signal.SIGTERM):  # the latter where it had not yet begun to answer
                _log.error("worker %d %s while it drained", slot.number, how)
            return
        if not self._answered and slot.early_exits >= _MAX_FAILED_STARTS:
            raise ServerError(f"no worker can be started: the last of {slot.early_exits} in a row {how}")
        _log.error("worker %d %s; another is started %s", slot.number, how, f"in {delay:g} s" if delay else "at once")


@contextmanager
def _claim_address(bound: socket.socket) -> Iterator[None]:
    """Claim a name that no other supervisor of this address can claim.

    Sockets that share a port would let a second server of the same user join in and take half of the requests. Once the
    workers listen, the `bind` of the second server fails. Until then, this claim does.

    Raises:
        InvalidArgument: another supervisor has claimed the address.
    """
    host, port = bound.getsockname()[:2]
    with socket.socket(socket.AF_UNIX) as name:
        try:
            name.bind(f"\0pushforward {host} {port}")
        except OSError as error:
            raise listen_error(host, port, "another server is starting there") from error
        yield


@contextmanager
def _deliver_signals(supervisor: _Supervisor) -> Iterator[socket.socket]:
    """Deliver SIGINT and SIGTERM to a supervisor, and yield a socket that is readable once one has come."""
    wakeup, writer = socket.socketpair()
    with wakeup, writer:
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        handlers = {n: signal.signal(n, lambda n, _: supervisor.signal(n)) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield wakeup
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
