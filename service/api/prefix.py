"""The prefix of the path behind a proxy: told to the application, and pages whose links hold behind any prefix."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.documents import OPENAPI_PATH, OpenApiDocument
from service.api.door import respond
from service.errors import InvalidArgument, Reason

__all__ = ["PrefixedApplication", "add_pages", "require_free"]


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


def add_pages(app: FastAPI, document: OpenApiDocument) -> None:
    """Add the OpenAPI document, and the pages that show it, /docs and /redoc: they ask for it by a relative link.

    Args:
        app: the application.
        document: of it.
    """

    async def openapi(request: Request) -> Response:
        return respond(document.reply(request.scope.get("root_path", "").rstrip("/")))

    async def docs(_: Request) -> Response:
        return get_swagger_ui_html(openapi_url="openapi.json", title=f"{app.title} - Swagger UI")

    async def redoc(_: Request) -> Response:
        return get_redoc_html(openapi_url="openapi.json", title=f"{app.title} - ReDoc")

    app.add_api_route(OPENAPI_PATH, openapi, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_route("/docs", docs, include_in_schema=False)
    app.add_route("/redoc", redoc, include_in_schema=False)
