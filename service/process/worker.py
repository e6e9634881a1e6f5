"""One of several processes that answer on one port: `python -m service.process.worker`.

It is told what to do over a socket that it inherits. When that closes, the supervisor is no more, and the worker
drains and ends: nothing of a server outlives it.
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
from typing import Final

from service.engine.metrics.metrics import Metrics
from service.engine.metrics.shared_counters import SharedCounters
from service.errors import PushforwardError
from service.process.preflight import Standing, bind, start_log
from service.process.server import run
from service.process.slots import Failed, Job

__all__ = ["main"]

_MORE_SECONDS: Final = 2.0
"""A worker without a supervisor that has not ended so long after it should have drained ends at once."""


def main(control: Connection[Standing | Failed, Job]) -> int:
    """Serve as told until a signal comes, or the supervisor ends.

    Args:
        control: to the supervisor.

    Returns:
        The exit status.
    """
    job = control.recv()
    start_log(job.settings)
    threading.Thread(target=_watch, args=(control, job.settings.drain_seconds), name="watch", daemon=True).start()
    try:
        metrics = Metrics(SharedCounters(job.settings.workers, job.counters), job.number)
        run(job.settings, _socket(job), metrics, lambda standing: _say(control, standing))
    except PushforwardError as error:
        _say(control, Failed(error.detail))
        return 1
    return 0


def _say(control: Connection[Standing | Failed, Job], said: Standing | Failed) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more: `_watch` ends this process
        control.send(said)


def _socket(job: Job) -> socket.socket:
    if job.listener is not None:
        return socket.socket(fileno=job.listener)
    return bind(job.settings.host, job.settings.port, reuse=True)


def _watch(control: Connection[Standing | Failed, Job], drain_seconds: float) -> None:
    """Wait for the supervisor's end; a supervisor that lives says nothing more."""
    try:
        control.recv()
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(drain_seconds + _MORE_SECONDS)
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Connection(int(sys.argv[1]))))
