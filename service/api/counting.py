"""The count of answers by route, method, status and error code.

What meets no route is counted under one name, whatever path it asked for: a stranger
must not be able to make series.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine.metrics.metrics import Metrics
from service.errors import PushforwardError

__all__ = ["ERROR_CODE", "OTHER", "AnswerCounter", "CountedApplication", "route_template"]

OTHER: Final = "other"
"""The route of what met none of the API's: an unknown path, the documentation. Also a method that is none of HTTP's."""

ERROR_CODE: Final = "pushforward.error_code"
"""The entry of an ASGI scope in which a response puts the code of the error that it tells."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def route_template(scope: Mapping[str, Any]) -> str:
    """The template of the route that a request has met, of which there are as many as routes; `OTHER` where none."""
    template: str = getattr(scope.get("route"), "path", OTHER)
    return template


class AnswerCounter:
    """Counts each answer of a server once.

    Args:
        metrics: where; for the thread of the event loop alone.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, method: str, route: str, status: int, code: str | None) -> None:
        """Count an answer.

        Args:
            method: of the request.
            route: the template of its path, or `OTHER`.
            status: of the answer.
            code: of the error that it tells; None for what was asked for.
        """
        self._metrics.count_request(method if method in _METHODS else OTHER, route, status)
        if code is not None:
            self._metrics.count_rejection(code)


class CountedApplication:
    """A middleware of plain ASGI that has the answers of an application counted.

    Args:
        app: what answers.
        count: counts.
    """

    def __init__(self, app: ASGIApp, count: AnswerCounter) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and count as soon as the status is known."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        counted = False

        def count(status: int, code: str | None) -> None:
            self._count(scope["method"], route_template(scope), status, code)

        async def counting(message: Message) -> None:
            nonlocal counted
            if message["type"] == "http.response.start" and not counted:
                counted = True
                count(message["status"], scope.get(ERROR_CODE))
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except Exception:
            if not counted:  # it is answered outside of this, by the handler of what was not foreseen
                count(500, PushforwardError.code)
            raise
