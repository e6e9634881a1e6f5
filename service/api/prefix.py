"""The prefix of the path behind a proxy, which the application is told of."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import InvalidArgument, Reason

__all__ = ["PrefixedApplication", "require_free"]


class PrefixedApplication:
    """A middleware of plain ASGI that tells the routes of a prefix: they are found with it and without it.

    Some proxies take the prefix off before they pass a request on, and others leave it.

    Args:
        app: what answers.
        prefix: such as ``/flows``.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] == "http":
            scope["root_path"] = self._prefix
            if scope["path"] == self._prefix:  # the page at / is meant
                scope["path"] = f"{self._prefix}/"
        await self._app(scope, receive, send)


def require_free(app: FastAPI, prefix: str) -> None:
    """Refuse a prefix that routes begin with: a path could then be meant with it or without it.

    Args:
        app: with all of its routes.
        prefix: such as ``/flows``.

    Raises:
        InvalidArgument: a route begins with it.
    """
    paths = [getattr(route, "path", "") for route in app.routes]
    taken = next((path for path in paths if f"{path}/".startswith(f"{prefix}/")), None)
    if taken is not None:
        detail = f"--root-path {prefix}: the route {taken} of the server itself begins so"
        raise InvalidArgument(detail, (Reason(("--root-path",), "let the proxy use another prefix"),))
