"""The guarded application: every request is held against the access policy, has an id, and may be logged.

The middleware stands before all routes, so that what no route has is guarded too. It and the connection, for the
requests that it answers by itself, ask the same policy.
"""

from __future__ import annotations

import logging
from typing import Any, Final
from urllib.parse import quote

import orjson
from starlette._utils import get_route_path  # the path as the router sees it: no other reading may decide who may ask
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.keys import Caller
from service.access.origins import is_preflight
from service.access.policy import AccessPolicy, by_name
from service.access.request_ids import ID_FIELD, RequestIds, read_request_id
from service.api.door import CALLER, REQUEST_ID, respond
from service.api.problems import problem_reply
from service.errors import ForeignOrigin, PushforwardError
from service.exchange import Reply

__all__ = ["GuardedApplication", "LoggedApplication"]

_log = logging.getLogger("pushforward.access")

_SAFE: Final = "/:@!$&'()*+,;=-._~%"


class GuardedApplication:
    """A middleware of plain ASGI that answers what may not pass.

    Args:
        app: what answers the rest.
        policy: says what may pass.
        ids: makes the ids of requests that have none.
        admin_port: the port of administration and metrics; None where they have none of their own.
    """

    def __init__(self, app: ASGIApp, policy: AccessPolicy, ids: RequestIds, admin_port: int | None = None) -> None:
        self._app = app
        self._policy = policy
        self._ids = ids
        self._admin_port = admin_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields = by_name(scope["headers"])
        given = fields.get(ID_FIELD)
        request_id = (given and read_request_id(given.encode("latin-1"))) or self._ids.make()
        scope[REQUEST_ID] = request_id
        named = self._policy.origins.answer_fields(fields.get("origin"))
        more = [
            (ID_FIELD.encode(), request_id),
            *((key.lower().encode(), text.encode()) for key, text in named.items()),
        ]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        await self._answer(scope, fields)(scope, receive, send_with_id)

    def _answer(self, scope: Scope, fields: dict[str, str]) -> ASGIApp:
        """What answers a request: the application, or a refusal."""
        policy, method = self._policy, scope["method"]
        try:
            if is_preflight(method, fields):  # a browser asks so without the key that it would send
                policy.check_host(fields)
                return _preflight(policy, fields) if policy.origins.any_named else self._app
            port = (scope.get("server") or ("", None))[1]
            at_admin_port = self._admin_port is not None and port == self._admin_port
            scope[CALLER] = policy.admit(method, get_route_path(scope), fields, at_admin_port=at_admin_port)
        except PushforwardError as error:
            return respond(_refusal(error, get_route_path(scope)))
        return self._app


def _refusal(error: PushforwardError, path: str) -> Reply:
    """What a refusal says: a problem, or what the Open Inference Protocol has for one.

    Args:
        error: the refusal.
        path: of the request.
    """
    reply = problem_reply(error)
    if path != "/v2" and not path.startswith("/v2/"):
        return reply
    return reply._replace(body=orjson.dumps({"error": error.detail}), media_type="application/json")


def _preflight(policy: AccessPolicy, fields: dict[str, str]) -> Response:
    """The answer to a browser that asks whether a page may call.

    Raises:
        ForeignOrigin: it may not.
    """
    origin = fields["origin"]
    if not policy.origins.allow(origin):
        raise ForeignOrigin(
            f"pages of {origin[:100]!r} may not call this server; start it with --cors-origin and that origin if they "
            "may"
        )
    return Response(status_code=204, headers=policy.origins.preflight_fields(fields))


class LoggedApplication:
    """A middleware of plain ASGI that logs a line for each request, once its status is known.

    Args:
        app: what answers.
        queries: whether the line has the query string, which may hold rows of a client.
    """

    def __init__(self, app: ASGIApp, *, queries: bool) -> None:
        self._app = app
        self._queries = queries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""

        async def send_and_log(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._log(scope, message["status"])
            await send(message)

        await self._app(scope, receive, send_and_log if scope["type"] == "http" else send)

    def _log(self, scope: Scope, status: int) -> None:
        client: tuple[str, int] | None = scope.get("client")
        caller: Caller | None = scope.get(CALLER)
        request_id: Any = scope.get(REQUEST_ID, b"")
        target = quote(scope["path"], safe=_SAFE)
        if self._queries and scope["query_string"]:
            target += "?" + quote(scope["query_string"].decode("latin-1"), safe=_SAFE + "?")
        _log.info(
            '%s "%s %s HTTP/%s" %d %s key=%s',
            "-" if client is None else f"{quote(client[0], safe=_SAFE)}:{client[1]}",  # it may be a proxy's word
            scope["method"],
            target,
            scope["http_version"],
            status,
            quote(request_id.decode("latin-1"), safe=_SAFE),
            "-" if caller is None else caller.stored.name,
        )
