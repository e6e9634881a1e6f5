"""The place of one worker: which process holds it, what that process is told and says, and when the next is due."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Final, NamedTuple

from service.process.preflight import Standing
from service.settings import Settings

__all__ = ["Failed", "Job", "Slot", "Worker", "start"]

_EARLY_SECONDS: Final = 10.0
"""A worker that ends within so long of its start has died early."""

_FIRST_DELAY: Final = 0.5
_LONGEST_DELAY: Final = 30.0


class Job(NamedTuple):
    """What a worker is told.

    Args:
        settings: of the server, with the port that was chosen.
        number: which worker it is, counted from 0.
        counters: the descriptor of the file in which all workers count.
        listener: the descriptor of the socket to answer on; None to open one on the same port as the others.
    """

    settings: Settings
    number: int
    counters: int
    listener: int | None


class Failed(NamedTuple):
    """What a worker says that cannot serve.

    Args:
        detail: why.
    """

    detail: str


@dataclass(eq=False)
class Worker:
    """A worker's process, and the socket to it."""

    process: subprocess.Popen[bytes]
    control: Connection[Job, Standing | Failed]

    def heard(self) -> Standing | Failed | None:
        """What it says; None where it has ended."""
        try:
            return self.control.recv()
        except (EOFError, OSError):
            return None

    def end(self) -> int:
        """Its exit status, once it has closed its socket; the number of a signal is negative."""
        self.control.close()
        try:
            return self.process.wait(1.0)
        except subprocess.TimeoutExpired:  # it lives on without its main thread
            self.process.kill()
            return self.process.wait()


class Slot:
    """The place of one worker, which one process after the other holds: when to start the next.

    Args:
        number: of the worker.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: Worker | None = None
        self.standing: Standing | None = None
        self.early = 0
        self.due = 0.0
        self._began = 0.0

    def began(self, worker: Worker | None, now: float) -> None:
        """A process has been started, or could not be."""
        self.worker, self.standing, self._began = worker, None, now

    def ended(self, now: float) -> float:
        """The process has ended.

        Returns:
            After how many seconds the next is due: none, unless several in a row have died early.
        """
        self.worker, self.standing = None, None
        self.early = self.early + 1 if now - self._began < _EARLY_SECONDS else 1
        delay = 0.0 if self.early == 1 else min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (self.early - 2))
        self.due = now + delay
        return delay


def start(job: Job) -> Worker:
    """Start a process: a new interpreter, so that it inherits neither locks nor threads."""
    ours, theirs = Pipe()
    files = (theirs.fileno(), job.counters, *(() if job.listener is None else (job.listener,)))
    # It finds modules where this process does: the working directory comes first only where it does so here.
    here = str(Path.cwd())
    safe = [] if here in sys.path or "" in sys.path else ["-P"]
    command = [sys.executable, *safe, "-m", "service.process.worker", str(theirs.fileno())]
    with ExitStack() as opened:
        opened.enter_context(ours)
        with theirs:
            ours.send(job)
            # In a session of its own, so that Ctrl-C reaches the supervisor alone and each worker is told once.
            process = subprocess.Popen(command, pass_fds=files, stdin=subprocess.DEVNULL, start_new_session=True)
        opened.pop_all()
    return Worker(process, ours)
