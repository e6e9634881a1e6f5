"""The process that answers: uvicorn, its limits, and an end that loses no request.

On SIGTERM or SIGINT the server is a lame duck first: readiness says no, every answer carries `Connection: close`, so
that keep-alive clients go elsewhere of themselves. Then it accepts what waits, stops to listen, and lets what is in
flight finish, all within `Settings.drain_seconds`; what has no answer by then gets 503. The process then ends with
status 0, whatever threads still run. A second SIGINT ends it at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from service.app import Supervised, create_app
from service.bundle.store import Repository
from service.engine.changes import Changes, Reload
from service.engine.metrics.metrics import Metrics
from service.engine.registry import Registry
from service.errors import PushforwardError
from service.http.connection import Connection
from service.process.ending import FORCED_SECONDS, Deadline, end_process
from service.process.listening import accept_the_last
from service.process.loop_watch import LOOK_SECONDS
from service.process.preflight import (
    Announce,
    ServerStatus,
    Terminal,
    bind,
    check_access,
    check_environment,
    check_repository,
    server_urls,
    start_log,
)
from service.process.tls import CIPHERS, Certificate
from service.process.watching import RepositoryWatch
from service.settings import Settings

__all__ = ["run", "serve", "standing"]

_log = logging.getLogger(__name__)

_SWEEP_TICKS: Final = 4
"""In tenths of a second. A body that still comes when its deadline passes is told so within half a second."""

_LAME_DUCK_SECONDS: Final = 1.0

_LAST_SECONDS: Final = 0.75
"""The time after the drain for clients to take their last answers."""

_LOOK_SECONDS: Final = 0.02
"""The time between two looks at what is still under way."""

# Of malloc.h.
_M_ARENA_MAX: Final = -8
_M_MMAP_THRESHOLD: Final = -3
_M_TRIM_THRESHOLD: Final = -1

_KEPT: Final = 8 << 20
"""What the heap may keep free, in bytes: bodies and the values between a graph's layers, allocated each time anew. What
is longer has pages of its own, given back as soon as it is freed."""

_SWITCH_SECONDS: Final = 2e-4
"""How long a thread may keep the interpreter from others that wait for it. Python's 5 ms are longer than most batches:
the loop gives it up at each read and write, and a thread that joins rows or hands out answers would keep it so long."""


def serve(settings: Settings, announce: Announce) -> None:
    """Serve until a signal comes. A flow that cannot be served is logged with its reason as soon as that is known.

    This process ends with the server.

    Args:
        settings: how.
        announce: is called once it answers, with the flows as they stand.

    Raises:
        InvalidArgument: the repository holds no flow, or the address cannot be listened on.
    """
    start_log(settings)
    check_environment()
    check_access(settings)
    check_repository(settings)
    bound = bind(settings.host, settings.port)
    admin = None if settings.admin_port is None else bind(settings.admin_host, settings.admin_port)
    sockets = [bound] if admin is None else [bound, admin]
    url, *admin_url = server_urls(settings, *sockets)
    run(settings, bound, Metrics(), lambda status: announce(url, status, *admin_url), admin=admin)


def run(
    settings: Settings,
    bound: socket.socket,
    metrics: Metrics,
    started: Callable[[ServerStatus], None],
    supervised: Supervised | None = None,
    *,
    admin: socket.socket | None = None,
    shared: bool = False,
) -> None:
    """Answer on a socket until a signal comes, on this process's main thread. Then end the process.

    Its status is 0, or 1 where the server could not go on, as where a device that is required was lost.

    Args:
        settings: how.
        bound: from `service.process.preflight.bind`.
        metrics: where to count.
        started: is called once, when the socket listens.
        supervised: what a supervisor decides for all of its workers; None for a server of one process.
        admin: the socket of administration and metrics; None where they have none of their own.
        shared: whether other processes listen on these very sockets.
    """
    if admin is not None:  # the port that the system has chosen, where it was to choose
        settings = settings.model_copy(update={"admin_port": admin.getsockname()[1]})
    _allocate_in_one_place()
    sys.setswitchinterval(_SWITCH_SECONDS)

    def leave(reason: str) -> None:
        server.leave(reason)

    app = create_app(settings, metrics, leave=leave, supervised=supervised)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # the application writes it
        forwarded_allow_ips=list(settings.trusted_proxies),
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        h11_max_incomplete_event_size=settings.max_header_bytes,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ssl_ciphers=CIPHERS,
    )
    server = _Server(config, app, settings.drain_seconds, started, shared=shared)
    server.certificate = _watch_certificate(settings)
    # Until uvicorn sets the same handlers itself.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    changes: Changes = app.state.changes
    if hasattr(signal, "SIGHUP"):
        terminal = Terminal()
        signal.signal(
            signal.SIGHUP,
            lambda *_: signal.raise_signal(signal.SIGTERM) if terminal.is_lost() else start_reload(changes),
        )
    if supervised is None and settings.watch:
        watch = RepositoryWatch(Repository(settings.repository))
        threading.Thread(
            target=_watch, args=(watch, changes, settings.watch_seconds), name="watch", daemon=True
        ).start()
    server.run(sockets=[bound] if admin is None else [bound, admin])


def start_reload(changes: Changes) -> None:
    """Reload the repository on a thread of its own: a signal's handler may not wait."""
    threading.Thread(target=_reload, args=(changes, Reload()), name="reload", daemon=True).start()


def _reload(changes: Changes, reload: Reload) -> None:
    with suppress(PushforwardError):  # it has been logged
        changes.apply(reload)


def _watch(watch: RepositoryWatch, changes: Changes, seconds: float) -> None:
    """Reload the repository whenever it has changed.

    Args:
        watch: over the repository.
        changes: reloads it.
        seconds: between two looks.
    """
    while True:
        time.sleep(seconds)
        if watch.changed():
            _reload(changes, Reload(watched=True))


def standing(registry: Registry) -> ServerStatus:
    """The flows as they stand."""
    ready = frozenset(entry.name for entry in registry.entries() if entry.state == "ready")
    return ServerStatus(ready, registry.loaded)


class _Server(uvicorn.Server):
    """uvicorn's server, with an end of its own.

    Args:
        config: of uvicorn.
        app: the application.
        drain_seconds: from the first signal to the 503 for what has no answer.
        started: is called once, when the server answers.
        shared: whether other processes listen on its socket.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: FastAPI,
        drain_seconds: float,
        started: Callable[[ServerStatus], None],
        *,
        shared: bool,
    ) -> None:
        super().__init__(config)
        self.certificate: Certificate | None = None  # looked at for changes
        self._application = app
        self._drain_seconds = drain_seconds
        self._when_started = started
        self._closed_lanes = 0
        self._shared = shared
        self._stopped_at: float | None = None
        self._deadline = Deadline(drain_seconds + FORCED_SECONDS)
        self._status = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  as uvicorn has it
        """Take a signal. The first asks for the end; a second SIGINT ends the process at once.

        uvicorn raises a signal again after the end, which does not come back to it here.
        """
        if self._stopped_at is None:
            self._begin_to_end()
        elif sig == signal.SIGINT:
            end_process(self._status)

    def leave(self, reason: str) -> None:
        """Drain and end with status 1, since the server cannot go on. From any thread.

        Args:
            reason: why.
        """
        self._status = 1
        _log.error("the server ends: %s", reason)
        if self._stopped_at is None:
            self._begin_to_end()

    def _begin_to_end(self) -> None:
        self._stopped_at = time.monotonic()
        self._deadline.begin(self._status)
        self.should_exit = True
        if not self.started:  # nothing has been accepted
            end_process(self._status)

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes, and end the process."""
        await super().serve(sockets)
        end_process(self._status)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        self._beat()
        await super().startup(sockets)
        # What is loaded stays: without this, each full collection would walk all of it, tens of milliseconds at a time.
        gc.collect()
        gc.freeze()
        _give_back_freed_memory()
        if self.started:
            self._when_started(standing(self._application.state.registry))

    def _beat(self) -> None:
        """Say that the event loop turns, as long as it does."""
        self._application.state.metrics.beat()
        asyncio.get_running_loop().call_later(LOOK_SECONDS, self._beat)

    async def on_tick(self, counter: int) -> bool:
        """Every tenth of a second; every few of them, look for connections that keep the server waiting."""
        if counter % _SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.sweep(now)
            if self.certificate is not None and self.config.ssl is not None:
                self.certificate.refresh(self.config.ssl)
            closed = self._application.state.workers.closed_lanes
            if closed != self._closed_lanes:  # a flow has gone, and with it the memory of its sessions
                self._closed_lanes = closed
                asyncio.get_running_loop().run_in_executor(None, _give_back_freed_memory)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Be a lame duck, stop to listen, drain, and answer what is left with 503."""
        start = time.monotonic() if self._stopped_at is None else self._stopped_at
        end = start + self._drain_seconds
        self._application.state.operations.draining = True
        self.server_state.default_headers.append((b"connection", b"close"))
        await self._wait_for_connections(start + min(_LAME_DUCK_SECONDS, self._drain_seconds / 2))
        await accept_the_last(sockets or [], end, shared=self._shared)
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        await self._wait_for_connections(end, drain=True)
        for connection in self._connections():
            connection.expire()
        await self._wait_for_connections(end + _LAST_SECONDS)
        await self.lifespan.shutdown()

    async def _wait_for_connections(self, end: float, *, drain: bool = False) -> None:
        """Wait until all connections have been closed.

        Args:
            end: the latest time, on `time.monotonic`.
            drain: whether each connection is to close after the answers that it owes.
        """
        loop = asyncio.get_running_loop()
        while self.server_state.connections and time.monotonic() < end:
            for connection in self._connections():
                if drain:
                    connection.shutdown()
                connection.sweep(loop.time())
            await asyncio.sleep(_LOOK_SECONDS)

    def _connections(self) -> list[Connection]:
        return [each for each in self.server_state.connections if isinstance(each, Connection)]


def _watch_certificate(settings: Settings) -> Certificate | None:
    """The certificate of the settings; None where the server speaks no TLS."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return Certificate(settings.tls_certificate, settings.tls_key)


def _allocate_in_one_place() -> None:
    """Let all threads share glibc's one heap: one for each would keep what flows were loaded with, some 8 MB.

    What it keeps is said too: by itself glibc begins with 128 kB, takes pages from the system and gives them back
    within each batch, and moves the bound with what is freed, up to 64 MB.
    """
    with _where_glibc_is():
        glibc = ctypes.CDLL(None)
        glibc.mallopt(_M_ARENA_MAX, 1)
        glibc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        glibc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def _give_back_freed_memory() -> None:
    """Return to the system what loading has freed: glibc would keep it, 10 MB with the shipped flows."""
    with _where_glibc_is():
        ctypes.CDLL(None).malloc_trim(0)


def _where_glibc_is() -> suppress:
    """Pass over a call that another C library does not have; on another system there is none to ask."""
    return suppress(AttributeError, OSError, TypeError)
