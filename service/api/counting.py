"""Counts requests by route, method and status: those that the application answers, and those of the protocol.

What meets no route is counted under one name, whatever path it asked for: a stranger
must not be able to make series.
"""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine.metrics.metrics import Metrics
from service.exchange import Reply

__all__ = ["OTHER", "CountReplies", "CountRequests"]

OTHER: Final = "other"
"""The route of what met none of the API's: an unknown path, the documentation. Also a method that is none of HTTP's."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class CountReplies:
    """Counts what is answered in the protocol itself.

    Args:
        metrics: where; for the thread of the event loop alone.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, method: str, route: str, reply: Reply) -> None:
        """Count an answer to a request of this method and route."""
        self._metrics.count_request(method, route, reply.status)
        if reply.code is not None:
            self._metrics.count_rejection(reply.code)


class CountRequests:
    """A middleware of plain ASGI.

    Args:
        app: what answers.
        metrics: where the answers are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count as soon as the status is known."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        counted = False

        async def counting(message: Message) -> None:
            nonlocal counted
            if message["type"] == "http.response.start" and not counted:
                counted = True
                self._count(scope, message["status"])
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except Exception:
            if not counted:  # it is answered outside of this, by the handler of what was not foreseen
                self._count(scope, 500)
            raise

    def _count(self, scope: Scope, status: int) -> None:
        method = scope["method"]
        route = getattr(scope.get("route"), "path", OTHER)  # its template: as many as there are routes
        self._metrics.count_request(method if method in _METHODS else OTHER, route, status)
