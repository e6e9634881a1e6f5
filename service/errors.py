"""The exceptions of the project, each with a stable code. Knows no HTTP.

::

    PushforwardError                internal_error          the root
    ├── RequestError                bad_request             the request of one caller cannot be served
    │   ├── MalformedBody           malformed_body          not JSON, ragged, a malformed frame
    │   ├── InvalidArgument         invalid_argument        an unknown or unusable argument
    │   ├── WrongShape              wrong_shape             rows or context of another width
    │   ├── NotFinite               not_finite              NaN or infinity among the numbers
    │   ├── OutOfSupport            out_of_support          a row where the density is zero has no latent
    │   ├── NotTraceable            not_traceable           the bundle holds no trace of its chain
    │   ├── OverWorkBudget          over_work_budget        rows * width * steps above the cap
    │   ├── FlowNotFound            flow_not_found          no flow of that name
    │   ├── VersionNotFound         version_not_found       the flow has no such version
    │   ├── RepositoryConflict      repository_conflict     what is asked of the repository contradicts what it holds
    │   ├── BundleRefused           bundle_refused          a bundle that was sent, or named, may not be served
    │   ├── RouteNotFound           route_not_found         no such path
    │   ├── MethodNotAllowed        method_not_allowed      the path exists, the method does not
    │   ├── NotAcceptable           not_acceptable          no media type of Accept can be written
    │   ├── UnsupportedMediaType    unsupported_media_type  the body's Content-Type cannot be read
    │   ├── BodyTooLarge            body_too_large          the body is over its cap
    │   ├── HeaderTooLarge          header_too_large        the request's header is over its cap
    │   ├── SlowRequest             slow_request            the request did not come in whole in time
    │   ├── MisdirectedRequest      misdirected_request     the Host field names another server
    │   ├── ForeignOrigin           foreign_origin          a page of another origin asks
    │   ├── KeyMissing              key_missing             the server asks for a key, and there is none
    │   ├── KeyUnknown              key_unknown             the key is none of the server's
    │   ├── ScopeMissing            scope_missing           the key may not do this
    │   ├── BudgetSpent             budget_spent            the key has used up its budget of this minute
    │   └── ClientGone              client_gone             the client no longer waits for the answer
    ├── ServerError                 internal_error          a fault that the caller cannot correct
    │   ├── QueueFull               queue_full              too many rows wait; retry later
    │   ├── TooManyConnections      too_many_connections    a cap on connections is reached
    │   ├── NotReady                not_ready               still loading, or a canary row failed
    │   ├── RepositoryUnwritable    repository_unwritable   the repository is read-only, or its disk is full
    │   ├── Draining                draining                shutting down
    │   ├── EngineFailed            engine_failed           a run of the flow failed
    │   ├── EngineLost              engine_lost             the engine crashed or hung in a run, or is not there
    │   └── DeadlineExceeded        deadline_exceeded       the answer came too late to be of use
    ├── BundleError                 bundle_invalid          a bundle that may not be served
    │   ├── ManifestInvalid         manifest_invalid        flow.json is not a manifest of this format
    │   ├── UnexpectedFile          unexpected_file         a missing, extra, linked or oversized file
    │   ├── DigestMismatch          digest_mismatch         a file is not the one the manifest names
    │   ├── ForbiddenGraph          forbidden_graph         an operator, or data, outside the allow-list
    │   └── ParityFailed            parity_failed           the graph does not give the golden answers
    └── DataError                   data_invalid            rows or a recipe that cannot be fitted

`service.api.problems` holds the table from code to HTTP status. `DataError` is in this tree so that the command line
prints every failure of the project in one way.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Self

__all__ = [
    "BodyTooLarge",
    "BudgetSpent",
    "BundleError",
    "BundleRefused",
    "ClientGone",
    "DataError",
    "DeadlineExceeded",
    "DigestMismatch",
    "Draining",
    "EngineFailed",
    "EngineLost",
    "FlowNotFound",
    "ForbiddenGraph",
    "ForeignOrigin",
    "HeaderTooLarge",
    "InvalidArgument",
    "KeyMissing",
    "KeyUnknown",
    "MalformedBody",
    "ManifestInvalid",
    "MethodNotAllowed",
    "MisdirectedRequest",
    "NotAcceptable",
    "NotFinite",
    "NotReady",
    "NotTraceable",
    "OutOfSupport",
    "OverWorkBudget",
    "ParityFailed",
    "PushforwardError",
    "QueueFull",
    "Reason",
    "RepositoryConflict",
    "RepositoryUnwritable",
    "RequestError",
    "RouteNotFound",
    "ScopeMissing",
    "ServerError",
    "SlowRequest",
    "TooManyConnections",
    "UnexpectedFile",
    "UnsupportedMediaType",
    "VersionNotFound",
    "WrongShape",
    "release_frames",
]


def release_frames(error: BaseException) -> None:
    """Let go of the frames that an error and its causes have passed, once it has been told.

    A traceback keeps those frames, and they keep a body and what was read of it. A frame that holds the error too, as
    one that waited for a future does, closes a circle with it, which is there until the next collection.
    """
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            left += (each.__cause__, each.__context__)


@dataclass(frozen=True, slots=True)
class Reason:
    """One fault, and its place.

    Args:
        loc: the path to the value, such as ``("body", "x")`` or ``("query", "n")``.
        reason: the expected and the actual value, as a sentence without a final full stop.
        row: the row, counted from 0, where the fault belongs to one.
        column: the column within the flattened event, counted from 0, where it belongs to one.
    """

    loc: tuple[str | int, ...]
    reason: str
    row: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.loc))}: {self.reason}"


class PushforwardError(Exception):
    """The root of every failure that Pushforward raises on purpose.

    Args:
        detail: one plain sentence for the caller. It never holds a path of the server, a traceback or an internal
            name.
        errors: each single fault, at most `MAX_REASONS` of them.
    """

    code: ClassVar[str] = "internal_error"
    MAX_REASONS: ClassVar[int] = 20

    def __init__(self, detail: str, errors: tuple[Reason, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors[: self.MAX_REASONS]

    def extended(self, more: str) -> Self:
        """The same failure, with more words behind its detail."""
        other = copy.copy(self)
        other.detail = f"{self.detail}{more}"
        other.args = (other.detail,)
        return other

    def unsaid(self) -> tuple[Reason, ...]:
        """The faults that the detail does not mention, to print after it."""
        return tuple(fault for fault in self.errors if fault.reason not in self.detail)


class RequestError(PushforwardError):
    """The request of one caller cannot be served; other requests are not affected."""

    code: ClassVar[str] = "bad_request"


class MalformedBody(RequestError):
    """The body is not what its media type says: not JSON, ragged rows, a broken frame."""

    code: ClassVar[str] = "malformed_body"


class NotTraceable(RequestError):
    """The flow was exported without its chain: there is no trace.onnx in its bundle."""

    code: ClassVar[str] = "not_traceable"


class InvalidArgument(RequestError):
    """An argument is unknown, of another type, or outside its range."""

    code: ClassVar[str] = "invalid_argument"


class WrongShape(RequestError):
    """Rows or context have another width than the flow's."""

    code: ClassVar[str] = "wrong_shape"


class NotFinite(RequestError):
    """A number is NaN or infinite, or beyond the range of the flow's precision."""

    code: ClassVar[str] = "not_finite"


class OutOfSupport(RequestError):
    """A row of density zero has no latent, so no path starts or ends there."""

    code: ClassVar[str] = "out_of_support"


class OverWorkBudget(RequestError):
    """The request asks for more values than the server is set to compute at once."""

    code: ClassVar[str] = "over_work_budget"


class FlowNotFound(RequestError):
    """No flow of that name is served."""

    code: ClassVar[str] = "flow_not_found"


class VersionNotFound(RequestError):
    """The flow is served, but not in that version."""

    code: ClassVar[str] = "version_not_found"


class RepositoryConflict(RequestError):
    """What is asked of the repository contradicts what it holds: a version that exists, or that an alias names."""

    code: ClassVar[str] = "repository_conflict"


class BundleRefused(RequestError):
    """A bundle that was sent, or named, may not be served. What was served before still is."""

    code: ClassVar[str] = "bundle_refused"


class RouteNotFound(RequestError):
    """No such path."""

    code: ClassVar[str] = "route_not_found"


class MethodNotAllowed(RequestError):
    """The path exists, but not with this method."""

    code: ClassVar[str] = "method_not_allowed"


class NotAcceptable(RequestError):
    """None of the media types in Accept can be written for this call."""

    code: ClassVar[str] = "not_acceptable"


class UnsupportedMediaType(RequestError):
    """The body's Content-Type cannot be read for this call."""

    code: ClassVar[str] = "unsupported_media_type"


class BodyTooLarge(RequestError):
    """The body has more bytes than the server's cap."""

    code: ClassVar[str] = "body_too_large"


class HeaderTooLarge(RequestError):
    """The request's line and header fields have more bytes than the server's cap."""

    code: ClassVar[str] = "header_too_large"


class SlowRequest(RequestError):
    """The request's header or body did not come in whole in time."""

    code: ClassVar[str] = "slow_request"


class MisdirectedRequest(RequestError):
    """The Host field names a server that this one is not known to be."""

    code: ClassVar[str] = "misdirected_request"


class ForeignOrigin(RequestError):
    """A page of an origin that is neither the server's own nor named asks for more than to read."""

    code: ClassVar[str] = "foreign_origin"


class KeyMissing(RequestError):
    """The server answers to keys alone, and the request has none."""

    code: ClassVar[str] = "key_missing"


class KeyUnknown(RequestError):
    """The request's key is none of the server's."""

    code: ClassVar[str] = "key_unknown"


class ScopeMissing(RequestError):
    """The key is one of the server's, and may not do what the request asks for."""

    code: ClassVar[str] = "scope_missing"


class BudgetSpent(RequestError):
    """The key has used up its budget of requests or of rows.

    Args:
        detail: as in `PushforwardError`.
        errors: as in `PushforwardError`.
        retry_seconds: the time after which there is enough of it again.
    """

    code: ClassVar[str] = "budget_spent"

    def __init__(self, detail: str, errors: tuple[Reason, ...] = (), retry_seconds: float = 1.0) -> None:
        super().__init__(detail, errors)
        self.retry_seconds = retry_seconds


class ClientGone(RequestError):
    """The client has closed its connection; what it asked for is dropped."""

    code: ClassVar[str] = "client_gone"


class ServerError(PushforwardError):
    """A fault that the caller cannot correct; most of these pass with time."""

    code: ClassVar[str] = "internal_error"


class QueueFull(ServerError):
    """Too many rows wait for an answer in time; retry later.

    Args:
        detail: as in `PushforwardError`.
        errors: as in `PushforwardError`.
        retry_seconds: the time after which there may be room.
    """

    code: ClassVar[str] = "queue_full"

    def __init__(self, detail: str, errors: tuple[Reason, ...] = (), retry_seconds: float = 1.0) -> None:
        super().__init__(detail, errors)
        self.retry_seconds = retry_seconds


class TooManyConnections(ServerError):
    """There are as many connections as the server takes, of all clients or of one."""

    code: ClassVar[str] = "too_many_connections"


class NotReady(ServerError):
    """The server is still loading, or a canary row did not give its golden answer."""

    code: ClassVar[str] = "not_ready"


class RepositoryUnwritable(ServerError):
    """The repository cannot be written: it is read-only, or its disk is full."""

    code: ClassVar[str] = "repository_unwritable"


class Draining(ServerError):
    """The server is shutting down and takes no new work."""

    code: ClassVar[str] = "draining"


class EngineFailed(ServerError):
    """A run of the flow failed."""

    code: ClassVar[str] = "engine_failed"


class EngineLost(ServerError):
    """The engine crashed or hung while it ran the batch of this request, or is not there to run it.

    Which rows of the batch are at fault is not known. None of them is tried again, as each try could cost an engine.
    """

    code: ClassVar[str] = "engine_lost"


class DeadlineExceeded(ServerError):
    """The request's deadline passed before it was answered; rows that had not run by then never did."""

    code: ClassVar[str] = "deadline_exceeded"


class BundleError(PushforwardError):
    """A bundle that may not be served."""

    code: ClassVar[str] = "bundle_invalid"


class ManifestInvalid(BundleError):
    """flow.json is not a manifest of this format."""

    code: ClassVar[str] = "manifest_invalid"


class UnexpectedFile(BundleError):
    """A file is missing, is not one of the bundle's, is a link, or is too large."""

    code: ClassVar[str] = "unexpected_file"


class DigestMismatch(BundleError):
    """A file's SHA-256 is not the one in the manifest."""

    code: ClassVar[str] = "digest_mismatch"


class ForbiddenGraph(BundleError):
    """A graph holds an operator, or points at data, outside the allow-list."""

    code: ClassVar[str] = "forbidden_graph"


class ParityFailed(BundleError):
    """A graph does not give the answers computed in float64 when it was exported."""

    code: ClassVar[str] = "parity_failed"


class DataError(PushforwardError):
    """Rows, or a recipe, that cannot be fitted."""

    code: ClassVar[str] = "data_invalid"
