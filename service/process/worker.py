"""A worker: one of several processes that answer on one port, started as `python -m service.process.worker`.

The worker receives its job over a socket that it inherits. When the socket closes, the supervisor has ended, and the
worker drains and ends: no process of a server outlives it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection

from service.engine.metrics.metrics import Metrics
from service.engine.metrics.shared_counters import SharedCounters
from service.errors import PushforwardError
from service.process.ending import FORCED_SECONDS, end_process
from service.process.preflight import ServerStatus, bind, start_log
from service.process.server import run
from service.process.slots import StartFailure, WorkerJob

__all__ = ["main"]


def main(control: Connection[ServerStatus | StartFailure, WorkerJob]) -> int:
    """Serve until a signal comes or the supervisor ends, and end this process.

    Args:
        control: to the supervisor.

    Returns:
        The exit status of a worker that cannot serve.
    """
    job = control.recv()
    start_log(job.settings)
    watch = threading.Thread(
        target=_watch_supervisor, args=(control, job.settings.drain_seconds), name="watch", daemon=True
    )
    watch.start()
    try:
        metrics = Metrics(SharedCounters(job.settings.workers, job.counters), job.number)
        shared = job.listener is not None
        run(job.settings, _open_socket(job), metrics, lambda status: _send(control, status), shared=shared)
    except PushforwardError as error:
        _send(control, StartFailure(error.detail))
        return 1
    return 0


def _send(control: Connection[ServerStatus | StartFailure, WorkerJob], message: ServerStatus | StartFailure) -> None:
    with contextlib.suppress(OSError):  # the supervisor has ended, and `_watch_supervisor` ends this process
        control.send(message)


def _open_socket(job: WorkerJob) -> socket.socket:
    if job.listener is not None:
        return socket.socket(fileno=job.listener)
    return bind(job.settings.host, job.settings.port, reuse=True)


def _watch_supervisor(control: Connection[ServerStatus | StartFailure, WorkerJob], drain_seconds: float) -> None:
    """Wait for the end of the supervisor, which sends nothing after the job, and end this process then."""
    try:
        control.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(drain_seconds + FORCED_SECONDS)
        os._exit(1)


if __name__ == "__main__":
    end_process(main(Connection(int(sys.argv[1]))))
