"""The supervisor of several workers on one port: starts them, replaces one that crashed, and ends them all together.

The supervisor answers nothing and loads nothing. It holds the port, the memory in which the workers count, and a socket
to each worker. A worker that ends takes down the requests on its own connections and no others. One whose event loop
stands still is killed. Another is started at once, or after a growing delay where workers end early again and again.
Where no worker has ever answered, the fault is in the repository or the machine, and the server ends with the reason.

The supervisor says what all workers serve (`service.process.rollout`). On SIGHUP it has them serve what the repository
holds now, and then replaces them one after the other: each ends once its successor answers.
"""

from __future__ import annotations

import logging
import math
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from typing import Final, Protocol

from service.bundle.catalogue import Catalogue, Key, read_catalogue
from service.bundle.store import Repository
from service.engine.changes import Outcome, Reload
from service.engine.metrics.metrics import WORKER_HANGS
from service.engine.metrics.shared_counters import SharedCounters, shared_file
from service.errors import Draining, PushforwardError, ServerError
from service.process.loop_watch import LOOK_SECONDS, main_thread_activity
from service.process.messages import (
    ChangeAnswer,
    ChangeRequest,
    Committed,
    Loaded,
    Prepared,
    StartFailure,
)
from service.process.preflight import (
    REUSES_PORTS,
    Announce,
    ServerStatus,
    Terminal,
    bind,
    check_access,
    check_environment,
    check_repository,
    listen_error,
    server_urls,
    start_log,
)
from service.process.renewal import Renewal
from service.process.rollout import Participant, Rollout
from service.process.slots import Slot, WorkerJob, WorkerProcess, start_worker
from service.process.watching import RepositoryWatch
from service.settings import Settings

__all__ = ["serve"]

_log = logging.getLogger(__name__)

_MAX_FAILED_STARTS: Final = 3
"""The starts of one worker that fail in a row, while no worker has ever answered, before the server gives up."""

_HANGUP: Final[signal.Signals | None] = getattr(signal, "SIGHUP", None)
"""The signal that asks for a reload; not on every system."""

_SETTLED_STARTUP_SECONDS: Final = 24 * 3600.0
"""A worker that joins others listens only once it serves all that they serve, however long it loads."""

_GRACE_SECONDS: Final = 1.75
"""The time after the drain from which on a worker that has not ended is killed: it was to end itself before
(`service.process.ending.FORCED_SECONDS`)."""


def serve(settings: Settings, announce: Announce, *, reuse: bool = REUSES_PORTS) -> None:
    """Serve with several workers until a signal comes.

    Args:
        settings: of the server.
        announce: is called once every worker answers, with the flows that are ready on all of them.
        reuse: whether each worker listens on a socket of its own, or all on the same.

    Raises:
        InvalidArgument: the repository holds no flow, or the address cannot be listened on.
        ServerError: no worker can be started, or one had to be killed in the end.
    """
    start_log(settings)
    check_environment()
    check_access(settings)
    check_repository(settings)
    with ExitStack() as held:
        bound = held.enter_context(bind(settings.host, settings.port))
        sockets = [bound]
        settings = settings.model_copy(update={"port": bound.getsockname()[1]})
        if settings.admin_port is not None:
            sockets.append(held.enter_context(bind(settings.admin_host, settings.admin_port)))
            settings = settings.model_copy(update={"admin_port": sockets[1].getsockname()[1]})
        url, *admin_url = server_urls(settings, *sockets)
        for each in sockets:
            if reuse:
                held.enter_context(_claim_address(each))
            else:
                each.listen(2048)
        regions = settings.workers + 1  # one for the successor of a worker that still runs
        file = held.enter_context(shared_file(regions))
        counters = SharedCounters(regions, file.fileno())

        def start(number: int, catalogue: Catalogue, *, settled: bool) -> WorkerProcess:
            listener, admin_listener = (*(None if reuse else each.fileno() for each in sockets), None)[:2]
            patient = settings.model_copy(update={"startup_seconds": _SETTLED_STARTUP_SECONDS})
            job = WorkerJob(
                patient if settled else settings,
                number,
                counters=file.fileno(),
                listener=listener,
                admin_listener=admin_listener,
                regions=regions,
                catalogue=catalogue,
                settled=settled,
            )
            return start_worker(job)

        supervisor = _Supervisor(settings, start, counters, lambda status: announce(url, status, *admin_url))
        with _deliver_signals(supervisor) as wakeup:
            supervisor.supervise(wakeup)
            for each in sockets:
                each.close()
            supervisor.shut_down(wakeup)


class _StartWorker(Protocol):
    """Starts a worker."""

    def __call__(self, number: int, catalogue: Catalogue, *, settled: bool) -> WorkerProcess:
        """Start the worker of a number, as `service.process.slots.WorkerJob` describes it."""
        ...


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
        start_worker: _StartWorker,
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
        repository = Repository(settings.repository)
        self._rollout = Rollout(repository, read_catalogue(repository))
        self._settled = False
        self._failures: dict[Key, PushforwardError] = {}
        self._renewal = Renewal(
            settings.workers,
            settings.drain_seconds + _GRACE_SECONDS,
            lambda number: Slot(number, settings.hang_seconds),
        )
        self._hung_up = False
        self._terminal = Terminal()
        self._watch = RepositoryWatch(repository) if settings.watch else None
        self._watch_seconds = settings.watch_seconds
        self._next_look = 0.0

    def signal(self, number: int) -> None:
        """Take a signal. SIGHUP asks for a reload, unless the terminal is gone. The first other asks for the end.

        A second SIGINT asks for it at once.
        """
        if number == _HANGUP and not self._terminal.is_lost():
            self._hung_up = True
        else:
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
                if not self._rollout.busy:
                    for slot in idle:
                        if slot.restart_at <= now:
                            self._start(slot, now)
                    self._renew(now)
                self._change(now)
                times = [slot.restart_at for slot in idle if slot.worker is None and not self._rollout.busy]
                times += [time for time in (self._rollout.deadline, self._renewal.deadline) if time is not None]
                times += [] if self._watch is None else [self._next_look]
                left = min(times, default=math.inf) - time.monotonic()
                self._wait(wakeup, max(0.0, min(left, LOOK_SECONDS)))
                self._kill_hung(time.monotonic())
        except BaseException:
            self._kill()
            raise

    def _change(self, now: float) -> None:
        """Ask for a reload where a signal or the watch wants one, and go on with the changes that were asked for.

        Args:
            now: on `time.monotonic`.
        """
        for worker in self._rollout.expire():
            self._end_worker(worker, "does not serve what the others do")
        if self._hung_up:
            self._hung_up = False
            self._rollout.ask(Reload(), self._renew_all)
        if self._watch is not None and now >= self._next_look:
            self._next_look = now + self._watch_seconds
            if self._watch.changed():
                self._rollout.ask(Reload(watched=True), lambda _: None)
        running = [slot for slot in self._slots if slot.worker is not None]
        if self._settled and not self._renewal.busy and all(slot.loaded for slot in running):
            self._rollout.begin([slot.worker for slot in running if slot.worker is not None])

    def _renew_all(self, result: Outcome | PushforwardError) -> None:
        """Replace all workers, one after the other, after a reload that was made."""
        if isinstance(result, Outcome):
            self._renewal.ask(self._slots)

    def _renew(self, now: float) -> None:
        """Go on with the replacement of workers.

        Args:
            now: on `time.monotonic`.
        """
        for slot in self._renewal.late(now):
            if slot.worker is not None:
                _log.error("worker %d did not end in time, and is killed", slot.number)
                slot.worker.process.kill()
        successor = self._renewal.next_successor(self._slots)
        if successor is not None:
            self._start(successor, now)
            if successor.worker is None:  # which has been logged
                self._renewal.give_up()
        old = self._renewal.take_over(self._slots, now)
        if old is not None and old.worker is not None:
            old.worker.process.terminate()

    def _end_worker(self, worker: Participant, why: str) -> None:
        """Kill a worker; another is started in its place."""
        for slot in self._all_slots():
            if slot.worker is worker and slot.worker is not None:
                _log.error("worker %d %s, and is killed", slot.number, why)
                slot.worker.process.kill()

    def _kill_hung(self, now: float) -> None:
        """Kill each worker whose event loop stands still. Its end is handled as that of any other worker."""
        for slot in self._all_slots():
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
        self._rollout.close(Draining("the server is shutting down"))
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

    def _all_slots(self) -> list[Slot]:
        """The slots of all processes, those that come and those that go included."""
        return [*self._slots, *self._renewal.slots]

    def _running(self) -> list[WorkerProcess]:
        return [slot.worker for slot in self._all_slots() if slot.worker is not None]

    def _kill(self) -> int:
        running = self._running()
        for worker in running:
            worker.process.kill()
            worker.close()
        return len(running)

    def _start(self, slot: Slot, now: float) -> None:
        try:
            worker = self._start_worker(slot.number, self._rollout.catalogue, settled=self._settled)
            slot.record_start(worker, now)
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
        for slot in self._all_slots():
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
        elif isinstance(message, Loaded):
            self._handle_loaded(slot, worker, message)
        elif isinstance(message, (Prepared, Committed)):
            self._rollout.take(worker, message)
        elif isinstance(message, ChangeRequest):
            number = message.number
            if self._signals:
                worker.send(ChangeAnswer(number, Draining("the server is shutting down")))
                return
            self._rollout.ask(message.change, lambda result: worker.send(ChangeAnswer(number, result)))
        else:
            self._handle_exit(slot, worker)

    def _handle_loaded(self, slot: Slot, worker: WorkerProcess, message: Loaded) -> None:
        """Note that a worker has loaded what it can. At the server's start, what one of them cannot, none serves."""
        slot.loaded = True
        unknown = message.failures.keys() - self._rollout.catalogue.failed.keys()
        if self._settled:
            if unknown:
                name, version = min(unknown)
                self._end_worker(worker, f"does not serve {name} version {version}, which the others do")
            return
        self._failures.update(message.failures)
        slot.failures = frozenset(message.failures)
        if all(each.loaded for each in self._slots):
            self._settled = True
            workers = [each.worker for each in self._slots if each.worker is not None]
            if any(each.failures != self._failures.keys() for each in self._slots):
                self._rollout.withhold(self._failures, workers)
            else:
                self._rollout.catalogue = self._rollout.catalogue.with_failures(self._failures)

    def _announce_once(self) -> None:
        statuses = [slot.status for slot in self._slots if slot.status is not None]
        if len(statuses) == len(self._slots) and not self._announced:
            self._announced = True
            flows = frozenset.intersection(*(status.flows for status in statuses))
            self._announce(ServerStatus(flows, all(status.loaded for status in statuses)))

    def _handle_exit(self, slot: Slot, worker: WorkerProcess) -> None:
        status = worker.close()
        self._counters.release(slot.number)
        self._rollout.lose(worker)
        if slot.hangs:
            self._counters.count_ended(slot.number, (WORKER_HANGS.name, str(slot.number)))
        delay = slot.record_exit(time.monotonic())
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        if self._signals:
            if status not in (0, -signal.SIGTERM):  # the latter where it had not yet begun to answer
                _log.error("worker %d %s while it drained", slot.number, how)
            return
        if slot in self._renewal.slots:
            if self._renewal.end(slot):
                _log.error("the successor of a worker %s; the workers that run stay", how)
            elif status not in (0, -signal.SIGTERM):
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
    """Deliver SIGINT, SIGTERM and SIGHUP to a supervisor, and yield a socket that is readable once one has come."""
    wakeup, writer = socket.socketpair()
    with wakeup, writer:
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        numbers = [signal.SIGINT, signal.SIGTERM, *([] if _HANGUP is None else [_HANGUP])]
        handlers = {n: signal.signal(n, lambda n, _: supervisor.signal(n)) for n in numbers}
        try:
            yield wakeup
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)
