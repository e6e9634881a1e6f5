"""The documents that clients ask for again and again: the flows, one flow, and the OpenAPI document.

Their bytes are made once a change. The connection answers them by itself, as it answers the verbs.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse

from service.api.codecs import wire
from service.api.door import respond
from service.api.endpoints import PREFIXES, Endpoint
from service.api.operations import Operations
from service.exchange import Exchange, Reply
from service.plan import Plan

__all__ = ["OPENAPI_PATH", "OpenApiDocument", "add_document", "documents"]

OPENAPI_PATH = "/openapi.json"


class OpenApiDocument:
    """The OpenAPI document of an application, as bytes.

    Args:
        app: the application; its routes must be complete when the document is first asked for.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._written: dict[str, Reply] = {}

    def reply(self, root_path: str) -> Reply:
        """The document.

        Args:
            root_path: the prefix of the path behind a proxy, which it names as its server; empty for none.
        """
        reply = self._written.get(root_path)
        if reply is None:
            document = self._app.openapi()
            if root_path:
                document = {**document, "servers": [{"url": root_path}, *document.get("servers", [])]}
            reply = Reply(bytes(JSONResponse(document).body))
            self._written = {root_path: reply}  # one server has one prefix
        return reply


def documents(operations: Operations, openapi: OpenApiDocument, root_path: str) -> tuple[Endpoint, ...]:
    """The endpoints of the documents.

    Args:
        operations: describes the flows.
        openapi: the OpenAPI document.
        root_path: the prefix of the path behind a proxy; empty for none.
    """

    def models(exchange: Exchange) -> Plan[Reply]:
        wire.require_json(exchange.accept)
        return _given(operations.models)

    def model(exchange: Exchange) -> Plan[Reply]:
        wire.require_json(exchange.accept)
        return _given(lambda: operations.model(exchange.name or "", exchange.version))

    def described(_: Exchange) -> Plan[Reply]:
        return _given(lambda: openapi.reply(root_path))

    return (
        Endpoint(method="GET", path="/models", verb=models, prefixes=PREFIXES[:1], document=True),
        Endpoint(method="GET", path="", verb=model, prefixes=PREFIXES[1:], document=True),
        Endpoint(method="GET", path=OPENAPI_PATH, verb=described, prefixes=PREFIXES[:1], document=True),
    )


def _given(reply: Callable[[], Reply]) -> Plan[Reply]:
    """The plan of what takes no run."""
    yield from ()
    return reply()


def add_document(app: FastAPI, document: OpenApiDocument) -> None:
    """Add the OpenAPI document to an application, which answers where the connection does not.

    Args:
        app: the application.
        document: of it.
    """

    async def openapi(request: Request) -> Response:
        return respond(document.reply(request.scope.get("root_path", "").rstrip("/")))

    app.add_api_route(OPENAPI_PATH, openapi, methods=["GET", "HEAD"], include_in_schema=False)
