"""The slot of one worker: the process that holds it, the messages of that process, and the time of the next start."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import Final, NamedTuple

from service.bundle.catalogue import Catalogue, Key
from service.children import module_command
from service.process.loop_watch import LoopWatch
from service.process.messages import FromWorker, ToWorker
from service.process.preflight import ServerStatus
from service.settings import Settings

__all__ = ["Slot", "WorkerJob", "WorkerProcess", "start_worker"]

_EARLY_SECONDS: Final = 10.0
"""A process that ends within this time after its start has ended early."""

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0


class WorkerJob(NamedTuple):
    """The job of a worker, sent by the supervisor.

    Args:
        settings: of the server, with the port that was chosen.
        number: of the worker, from 0.
        counters: the descriptor of the file in which all workers count.
        listener: the descriptor of the socket to answer on; None to open one on the same port as the others.
        admin_listener: the same, for the port of administration and metrics where there is one.
        regions: the number of regions in that file.
        catalogue: what all workers serve.
        settled: whether others serve that already. A worker that cannot serve the same must then not join them.
    """

    settings: Settings
    number: int
    counters: int
    listener: int | None
    admin_listener: int | None
    regions: int
    catalogue: Catalogue
    settled: bool


@dataclass(eq=False)
class WorkerProcess:
    """The process of a worker, and the socket to it.

    Args:
        process: of the worker.
        control: the socket.
    """

    process: subprocess.Popen[bytes]
    control: Connection[WorkerJob | ToWorker, FromWorker]

    def receive(self) -> FromWorker | None:
        """The next message; None where the process has ended."""
        try:
            return self.control.recv()
        except (EOFError, OSError):
            return None

    def send(self, message: ToWorker) -> None:
        """Send a message; nothing happens where the process has ended, which `receive` tells."""
        with suppress(OSError):
            self.control.send(message)

    def close(self) -> int:
        """Close the socket, and wait for the end of the process.

        Returns:
            Its exit status; the negative number of a signal that ended it.
        """
        self.control.close()
        try:
            return self.process.wait(1.0)
        except subprocess.TimeoutExpired:  # it lives on without its main thread
            self.process.kill()
            return self.process.wait()


class Slot:
    """The slot of one worker, held by one process after the other.

    Args:
        number: of the worker.
        hang_seconds: the time after which a loop that stands still is one that hangs.

    Attributes:
        worker: the process that holds it; None where none does.
        status: the last status of that process; None before the first.
        loaded: whether that process has tried every version of the catalogue.
        failures: the versions that it could not load at the server's start.
        watch: over the event loop of that process.
        hangs: whether that process was killed since its loop stood still.
        early_exits: the number of processes in a row that ended early, from the last one that did not.
        restart_at: the time from which the next process may be started, on `time.monotonic`.
    """

    def __init__(self, number: int, hang_seconds: float) -> None:
        self.number = number
        self.worker: WorkerProcess | None = None
        self.watch = LoopWatch(hang_seconds, 0.0)
        self.hangs = False
        self.status: ServerStatus | None = None
        self.loaded = False
        self.failures: frozenset[Key] = frozenset()
        self.early_exits = 0
        self.restart_at = 0.0
        self._hang_seconds = hang_seconds
        self._started = 0.0

    def record_start(self, worker: WorkerProcess | None, now: float) -> None:
        """Record the start of a process, or that it could not be started."""
        self.worker, self.status, self.loaded, self._started = worker, None, False, now
        self.watch, self.hangs = LoopWatch(self._hang_seconds, now), False

    def record_exit(self, now: float) -> float:
        """Record the end of the process.

        Returns:
            The seconds until the next start: 0, unless several processes in a row have ended early.
        """
        self.worker, self.status, self.loaded = None, None, False
        self.early_exits = self.early_exits + 1 if now - self._started < _EARLY_SECONDS else 1
        delay = 0.0 if self.early_exits == 1 else min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (self.early_exits - 2))
        self.restart_at = now + delay
        return delay


def start_worker(job: WorkerJob) -> WorkerProcess:
    """Start a worker in a new interpreter, so that it inherits neither locks nor threads.

    Raises:
        OSError: the machine cannot start a process.
    """
    ours, theirs = Pipe()
    listeners = [each for each in (job.listener, job.admin_listener) if each is not None]
    files = (theirs.fileno(), job.counters, *listeners)
    command = module_command("service.process.worker", theirs.fileno())
    with ExitStack() as opened:
        opened.enter_context(ours)
        with theirs:
            ours.send(job)
            # In a session of its own, so that Ctrl-C reaches the supervisor alone and each worker is told once.
            process = subprocess.Popen(command, pass_fds=files, stdin=subprocess.DEVNULL, start_new_session=True)
        opened.pop_all()
    return WorkerProcess(process, ours)
