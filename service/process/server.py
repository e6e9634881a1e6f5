"""The process that answers: uvicorn, its limits, and an end that loses no request.

On SIGTERM or SIGINT the server is a lame duck first: readiness says no, every answer carries `Connection: close`, so
that keep-alive clients go elsewhere of themselves. Then it stops to listen, lets what is in flight finish, and the
process ends with status 0, all within `Settings.drain_seconds`; what has no answer by then gets 503. A second SIGINT
ends it at once.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import uvicorn
from fastapi import FastAPI

from service.app import Supervised, create_app
from service.bundle.store import Repository
from service.engine.changes import Changes, Reload
from service.engine.metrics.metrics import Metrics
from service.engine.registry import Registry
from service.errors import PushforwardError, ServerError
from service.http.connection import Connection
from service.process.preflight import (
    ServerStatus,
    Terminal,
    bind,
    check_environment,
    check_repository,
    server_url,
    start_log,
)
from service.process.watching import RepositoryWatch
from service.settings import Settings

__all__ = ["run", "serve", "standing"]

_SWEEP_TICKS: Final = 4
"""In tenths of a second. A body that still comes when its deadline passes is told so within half a second."""

_LAME_DUCK_SECONDS: Final = 1.0
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


def serve(settings: Settings, announce: Callable[[str, ServerStatus], None]) -> None:
    """Serve until a signal comes. A flow that cannot be served is logged with its reason as soon as that is known.

    Args:
        settings: how.
        announce: is given the server's URL once it answers, and the flows as they stand.

    Raises:
        InvalidArgument: the repository holds no flow, or the address cannot be listened on.
        ServerError: as `run`.
    """
    start_log(settings)
    check_environment()
    check_repository(settings)
    bound = bind(settings.host, settings.port)
    run(settings, bound, Metrics(), lambda standing: announce(server_url(bound), standing))


def run(
    settings: Settings,
    bound: socket.socket,
    metrics: Metrics,
    started: Callable[[ServerStatus], None],
    supervised: Supervised | None = None,
) -> None:
    """Answer on a socket until a signal comes, on this process's main thread.

    Args:
        settings: how.
        bound: from `service.process.preflight.bind`.
        metrics: where to count.
        started: is called once, when the socket listens.
        supervised: what a supervisor decides for all of its workers; None for a server of one process.

    Raises:
        ServerError: the server could not go on, as where a device that is required was lost.
    """
    _allocate_in_one_place()
    sys.setswitchinterval(_SWITCH_SECONDS)
    failures: list[str] = []

    def leave(reason: str) -> None:
        failures.append(reason)
        server.stop()

    app = create_app(settings, metrics, leave=leave, supervised=supervised)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=settings.access_log,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        h11_max_incomplete_event_size=settings.max_header_bytes,
    )
    server = _Server(config, app, settings.drain_seconds, started)
    # uvicorn raises a signal again once it has drained; a handler of ours makes that a plain end, with status 0.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
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
    server.run(sockets=[bound])
    if failures:
        raise ServerError(failures[0])


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
    """uvicorn's server, with a lame duck's last second."""

    def __init__(
        self, config: uvicorn.Config, app: FastAPI, drain_seconds: float, started: Callable[[ServerStatus], None]
    ) -> None:
        super().__init__(config)
        self._application = app
        self._drain_seconds = drain_seconds
        self._when_started = started
        self._closed_lanes = 0

    def stop(self) -> None:
        """Ask for the end, as a signal does."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        # What is loaded stays: without this, each full collection would walk all of it, tens of milliseconds at a time.
        gc.collect()
        gc.freeze()
        _give_back_freed_memory()
        if self.started:
            self._when_started(standing(self._application.state.registry))

    async def on_tick(self, counter: int) -> bool:
        """Every tenth of a second; every few of them, look for connections that keep the server waiting."""
        if counter % _SWEEP_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.sweep(now)
            closed = self._application.state.workers.closed_lanes
            if closed != self._closed_lanes:  # a flow has gone, and with it the memory of its sessions
                self._closed_lanes = closed
                asyncio.get_running_loop().run_in_executor(None, _give_back_freed_memory)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Be a lame duck, then drain."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._drain_seconds
        self._application.state.operations.draining = True
        self.server_state.default_headers.append((b"connection", b"close"))
        duck = min(_LAME_DUCK_SECONDS, self._drain_seconds / 2)
        while self.server_state.connections and not self.force_exit and loop.time() < end - self._drain_seconds + duck:
            await asyncio.sleep(0.02)
        left = max(0.0, end - loop.time())
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]  # a float is as good to wait_for
        expiry = loop.call_later(left, self._expire)  # uvicorn ends what its application has under way, a little later
        await super().shutdown(sockets)
        expiry.cancel()

    def _expire(self) -> None:
        for connection in self._connections():
            connection.expire()

    def _connections(self) -> list[Connection]:
        return [each for each in self.server_state.connections if isinstance(each, Connection)]


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
