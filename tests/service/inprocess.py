"""An application on an event loop of its own thread, asked synchronously, without a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

import httpx
from fastapi import FastAPI

__all__ = ["InProcess"]

T = TypeVar("T")


class InProcess:
    """A client of `app`, whose lifespan it runs.

    Args:
        app: the application.
        raises: whether what the application raises comes out here, or is answered as a server would.
    """

    def __init__(self, app: FastAPI, *, raises: bool = True) -> None:
        self.app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._lifespan = app.router.lifespan_context(app)
        transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://test")

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._lifespan.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._lifespan.__aexit__(None, None, None))
        self.run(self._client.aclose())
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the application's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def leave_to_threads(self) -> None:
        """Let no flow pass for one that the event loop may run: a test is going to hold up its runs."""
        for entry in self.app.state.registry.entries():
            for lane in () if entry.flow is None else (entry.flow.forward, entry.flow.inverse):
                for _ in range(100):
                    lane.queue.record(1, 0.01)

    def request(self, method: str, path: str, **given: Any) -> httpx.Response:
        return self.run(self._client.request(method, path, **given))

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self.request("GET", path, **given)

    def post(self, path: str, **given: Any) -> httpx.Response:
        return self.request("POST", path, **given)
