"""Errors over HTTP: the one table from code to status, and the problem document (RFC 9457)."""

from __future__ import annotations

import logging
import math
from typing import Any, Final, NamedTuple

import orjson

from service.errors import (
    BudgetSpent,
    PushforwardError,
    QueueFull,
    Reason,
    RequestError,
    ServerError,
    release_frames,
)
from service.exchange import Reply

__all__ = ["MEDIA_TYPE", "PROBLEMS", "Problem", "identified", "problem", "problem_reply", "problem_type"]

_log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"


class Problem(NamedTuple):
    """How an error is told.

    Args:
        status: of HTTP.
        title: the same for every error of this code.
        retry_after: seconds after which the same request may succeed; None where it will not.
    """

    status: int
    title: str
    retry_after: int | None = None


PROBLEMS: Final[dict[str, Problem]] = {
    "bad_request": Problem(400, "The request cannot be read"),
    "malformed_body": Problem(400, "The body is not what its media type says"),
    "key_missing": Problem(401, "The server asks for a key"),
    "key_unknown": Problem(401, "The key is not known"),
    "scope_missing": Problem(403, "The key may not do this"),
    "foreign_origin": Problem(403, "The page's origin may not do this"),
    "flow_not_found": Problem(404, "No such flow"),
    "version_not_found": Problem(404, "No such version of the flow"),
    "route_not_found": Problem(404, "No such route"),
    "client_gone": Problem(400, "The client has gone"),
    "method_not_allowed": Problem(405, "The route has no such method"),
    "not_acceptable": Problem(406, "No acceptable media type"),
    "repository_conflict": Problem(409, "The repository holds something else"),
    "slow_request": Problem(408, "The request did not come in time"),
    "body_too_large": Problem(413, "The body is too large"),
    "unsupported_media_type": Problem(415, "The body's media type cannot be read"),
    "misdirected_request": Problem(421, "The server has another name"),
    "invalid_argument": Problem(422, "An argument is unknown or unusable"),
    "wrong_shape": Problem(422, "An array has another shape than the flow's"),
    "not_finite": Problem(422, "A number is not finite, or beyond the range of the flow's precision"),
    "out_of_support": Problem(422, "A row lies where the density is zero"),
    "not_traceable": Problem(422, "The flow's bundle holds no trace"),
    "bundle_refused": Problem(422, "The bundle may not be served"),
    "over_work_budget": Problem(422, "The request is over the work budget"),
    "header_too_large": Problem(431, "The header is too large"),
    "internal_error": Problem(500, "The server failed"),
    "engine_failed": Problem(500, "The flow could not be run"),
    "bundle_invalid": Problem(500, "The flow's bundle may not be served"),
    "queue_full": Problem(429, "Too much is waiting", retry_after=1),
    "budget_spent": Problem(429, "The key's budget is used up", retry_after=1),
    "too_many_connections": Problem(503, "There are too many connections", retry_after=1),
    "engine_lost": Problem(503, "The engine was lost", retry_after=1),
    "not_ready": Problem(503, "The flow is not ready", retry_after=1),
    "draining": Problem(503, "The server is shutting down", retry_after=1),
    "deadline_exceeded": Problem(504, "The deadline passed"),
    "repository_unwritable": Problem(507, "The repository cannot be written"),
}
"""Code -> status and title, for every error that HTTP can meet. The only place where a status is chosen."""


_CHALLENGE: Final = 'Bearer realm="pushforward"'
_CHALLENGES: Final = {
    "key_missing": _CHALLENGE,
    "key_unknown": f'{_CHALLENGE}, error="invalid_token"',
    "scope_missing": f'{_CHALLENGE}, error="insufficient_scope"',
}
"""What a client is to send, by code: the field WWW-Authenticate (RFC 6750, section 3)."""


def problem_reply(error: Exception) -> Reply:
    """The answer to a call that raised; what the caller cannot mend is logged. The error's way ends here.

    Args:
        error: one of the project's own is told as it is; of any other nothing goes to the client. Its traceback is gone
            afterwards.
    """
    try:
        if not isinstance(error, PushforwardError):
            _log.error("a request failed", exc_info=error)
            return problem(PushforwardError("the server failed on this request; the failure has been logged"))
        if not isinstance(error, (RequestError, ServerError)):
            _log.error("%s reached a client", error.code, exc_info=error)
        return problem(error)
    finally:
        release_frames(error)


def problem_type(code: str) -> str:
    """The URI that names a kind of problem, the same for ever."""
    return f"urn:pushforward:problem:{code}"


def problem(error: PushforwardError) -> Reply:
    """An error as `application/problem+json`.

    Args:
        error: its code is looked up in `PROBLEMS`; a code that is not there is told as an internal error, without
            its detail.
    """
    if error.code not in PROBLEMS:
        error = PushforwardError("an error that should not reach a client was raised; it has been logged")
    status, title, retry_after = PROBLEMS[error.code]
    document: dict[str, Any] = {
        "type": problem_type(error.code),
        "title": title,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "errors": [_reason(reason) for reason in error.errors],
    }
    if isinstance(error, QueueFull | BudgetSpent):
        retry_after = max(1, math.ceil(error.retry_seconds))
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if error.code in _CHALLENGES:
        headers["WWW-Authenticate"] = _CHALLENGES[error.code]
    return Reply(orjson.dumps(document, default=str), status, MEDIA_TYPE, headers, code=error.code)


def identified(reply: Reply, request_id: bytes) -> Reply:
    """A reply that is a problem, with the id of its request in it. A fault of the server's own is logged with the id.

    Args:
        reply: any; one that is no problem comes back as it is.
        request_id: printable ASCII.
    """
    if reply.media_type != MEDIA_TYPE:
        return reply
    text = request_id.decode("ascii")
    if reply.status == 500:
        _log.error("the failure above, or in the lines before it, was that of request %s: %s", text, reply.code)
    return reply._replace(body=b'%b,"request_id":%b}' % (reply.body[:-1], orjson.dumps(text)))


def _reason(reason: Reason) -> dict[str, Any]:
    known: dict[str, Any] = {"loc": list(reason.loc)}
    if reason.row is not None:
        known["row"] = reason.row
    if reason.column is not None:
        known["column"] = reason.column
    return {**known, "reason": reason.reason}
