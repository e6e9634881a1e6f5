"""A worker: one of several processes that answer on one port, started as `python -m service.process.worker`.

The worker receives its job over a socket that it inherits. When the socket closes, the supervisor has ended, and the
worker drains and ends: no process of a server outlives it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from service.app import Supervised
from service.bundle.store import Repository, read_bundle
from service.engine.metrics.metrics import Metrics
from service.engine.metrics.shared_counters import SharedCounters
from service.errors import PushforwardError, ServerError
from service.process.agent import Agent
from service.process.ending import FORCED_SECONDS, end_process
from service.process.messages import FromWorker, StartFailure
from service.process.preflight import bind, start_log
from service.process.server import run
from service.process.slots import WorkerJob

__all__ = ["main"]


def main(control: Connection[FromWorker, Any]) -> int:
    """Serve until a signal comes or the supervisor ends, and end this process.

    Args:
        control: to the supervisor, which sends the job first, and messages of `service.process.messages` after it.

    Returns:
        The exit status of a worker that cannot serve.
    """
    job: WorkerJob = control.recv()
    start_log(job.settings)
    agent = Agent(control.send, control.recv)
    watch = threading.Thread(
        target=_watch_supervisor, args=(agent, job.settings.drain_seconds), name="watch", daemon=True
    )
    watch.start()
    try:
        if job.settled:
            _check_repository(job)
        metrics = Metrics(SharedCounters(job.regions, job.counters), job.number)
        supervised = Supervised(job.catalogue, agent.serve)
        settings = job.settings
        bound = _open_socket(job.listener, settings.host, settings.port)
        port = settings.admin_port
        admin = None if port is None else _open_socket(job.admin_listener, settings.admin_host, port)
        shared = job.listener is not None
        run(settings, bound, metrics, agent.send, supervised, admin=admin, shared=shared)
    except PushforwardError as error:
        agent.send(StartFailure(error.detail))
        return 1
    return 0


def _check_repository(job: WorkerJob) -> None:
    """Check that the repository still holds what the other workers serve.

    Raises:
        ServerError: it does not: answers would depend on the worker.
    """
    repository = Repository(job.settings.repository)
    for (name, version), digest in sorted(job.catalogue.digests.items()):
        if (name, version) in job.catalogue.failed:
            continue
        try:
            found = read_bundle(repository.path(name, version)).digest
        except PushforwardError as error:
            found, why = "", error.detail
        else:
            why = "it is another bundle than the one that the other workers serve"
        if found != digest:
            raise ServerError(
                f"{name} version {version} cannot be served as the other workers serve it: {why}. "
                "Put the bundle back, or send the server SIGHUP to serve what the repository holds now"
            )


def _open_socket(listener: int | None, host: str, port: int) -> socket.socket:
    return bind(host, port, reuse=True) if listener is None else socket.socket(fileno=listener)


def _watch_supervisor(agent: Agent, drain_seconds: float) -> None:
    """Listen to the supervisor until it ends, and end this process then."""
    agent.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain_seconds + FORCED_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    end_process(main(Connection(int(sys.argv[1]))))
