"""The errors of the client: one class for each failure that a caller would handle differently.

::

    service.errors.PushforwardError
    └── ClientError
        ├── InvalidInput (and ValueError)   an argument cannot be sent: a NaN, text, no rows
        ├── ConnectionFailed                no answer came: refused, reset, no such host
        ├── TimedOut                        no answer came in the time that the client allows
        ├── UnexpectedAnswer                an answer came, and it is not one of Pushforward's
        └── ApiError                        the server refused: status, code, detail, errors
            ├── InvalidRequest              400, 405, 406, 408, 409, 415, 421, 422
            ├── NotAuthorized               401, 403
            ├── NotFound                    404
            ├── TooLarge                    413, 431
            ├── Overloaded                  429: to be sent again after `retry_after` seconds
            ├── Unavailable                 503: loading, draining, or the engine is down
            ├── DeadlineExceeded            504 (and TimedOut): the server gave up in time
            └── ServerFailed                any other 5xx

The codes are the server's, those of `service.errors`. Imports neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.client import responses
from typing import Any, Final

import orjson

from service.errors import PushforwardError, Reason

__all__ = [
    "ApiError",
    "ClientError",
    "ConnectionFailed",
    "DeadlineExceeded",
    "InvalidInput",
    "InvalidRequest",
    "NotAuthorized",
    "NotFound",
    "Overloaded",
    "ServerFailed",
    "TimedOut",
    "TooLarge",
    "Unavailable",
    "UnexpectedAnswer",
    "api_error",
]


class ClientError(PushforwardError):
    """The root of the errors that `pushforward.Client` raises on purpose."""

    code = "client_error"


class InvalidInput(ClientError, ValueError):
    """An argument of a call cannot be sent; nothing was."""

    code = "invalid_input"


class ConnectionFailed(ClientError):
    """No answer came: the connection was refused, reset or never made."""

    code = "connection_failed"


class TimedOut(ClientError):
    """No answer came in the time that the client allows for one."""

    code = "timed_out"


class UnexpectedAnswer(ClientError):
    """An answer came that Pushforward does not give: another server, or a proxy between."""

    code = "unexpected_answer"


class ApiError(ClientError):
    """The server's refusal, as its problem document has it.

    Args:
        status: the HTTP status.
        code: the server's stable code, such as ``"wrong_shape"``; ``"http_<status>"`` where it gave none.
        detail: the server's sentence.
        errors: each single fault, with the row and column where it belongs to one.
        retry_after: seconds after which the server asks for another try; None where it does not say.
    """

    code: str  # type: ignore[misc]  # one for a class everywhere else; here the server says which

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: tuple[Reason, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail, errors)
        self.status = status
        self.code = code
        self.retry_after = retry_after

    def __str__(self) -> str:
        faults = "".join(f"\n  {fault}" for fault in self.unsaid())
        return f"{self.status} {self.code}: {self.detail}{faults}"


class InvalidRequest(ApiError):
    """The request cannot be served as it stands, and sending it again will not help."""


class NotAuthorized(ApiError):
    """A key is missing, wrong, or not for this call; or the request seems to be a foreign page's."""


class NotFound(ApiError):
    """No such flow, version or route."""


class TooLarge(ApiError):
    """A body or a header is over the server's cap."""


class Overloaded(ApiError):
    """The server's queue is full, or the budget of the key is used up."""


class Unavailable(ApiError):
    """The server is loading, draining, or its engine is down."""


class DeadlineExceeded(ApiError, TimedOut):
    """The server's deadline passed before it had an answer."""

    code: str  # type: ignore[misc]  # as in ApiError


class ServerFailed(ApiError):
    """The server failed by a fault of its own."""


_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    401: NotAuthorized,
    403: NotAuthorized,
    404: NotFound,
    413: TooLarge,
    429: Overloaded,
    431: TooLarge,
    503: Unavailable,
    504: DeadlineExceeded,
}


def api_error(status: int, content: bytes, retry_after: float | None = None) -> ApiError:
    """Make the exception for an answer of 400 or above.

    Args:
        status: the HTTP status.
        content: the body: a problem document (RFC 9457) from Pushforward, anything from a proxy.
        retry_after: the Retry-After header in seconds; None where there is none.

    Returns:
        The exception, to be raised.
    """
    kind = _BY_STATUS.get(status, ServerFailed if status >= 500 else InvalidRequest)
    try:
        problem = orjson.loads(content)
    except orjson.JSONDecodeError:
        problem = None
    if isinstance(problem, dict) and isinstance(problem.get("code"), str) and isinstance(problem.get("detail"), str):
        faults = problem.get("errors")
        errors = tuple(_reason(fault) for fault in faults) if isinstance(faults, list) else ()
        return kind(status, problem["code"], problem["detail"], errors, retry_after)
    phrase = responses.get(status, "a status of its own")
    return kind(status, f"http_{status}", f"the server answered {status} ({phrase})", (), retry_after)


def _reason(fault: Any) -> Reason:  # noqa: ANN401  whatever JSON holds
    if not isinstance(fault, dict):
        return Reason((), str(fault))
    loc = fault.get("loc")
    row, column = fault.get("row"), fault.get("column")
    return Reason(
        tuple(part for part in loc if isinstance(part, str | int)) if isinstance(loc, list) else (),
        str(fault.get("reason", "")),
        row if isinstance(row, int) else None,
        column if isinstance(column, int) else None,
    )
