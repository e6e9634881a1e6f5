"""The messages between the supervisor and its workers, beside the job of a worker and the status of its server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from service.bundle.catalogue import Catalogue, Key
from service.engine.changes import Change, Outcome
from service.errors import PushforwardError
from service.process.preflight import ServerStatus

__all__ = [
    "Abort",
    "ChangeAnswer",
    "ChangeRequest",
    "Commit",
    "Committed",
    "FromWorker",
    "Loaded",
    "Prepare",
    "Prepared",
    "StartFailure",
    "ToWorker",
]


class StartFailure(NamedTuple):
    """A worker cannot serve.

    Args:
        detail: the reason.
    """

    detail: str


class Loaded(NamedTuple):
    """A worker has tried every version of the catalogue that it was started with.

    Args:
        failures: the versions that it does not serve.
    """

    failures: Mapping[Key, PushforwardError]


class Prepare(NamedTuple):
    """A worker is to load what is new in a catalogue, and to answer with `Prepared`."""

    catalogue: Catalogue


class Prepared(NamedTuple):
    """A worker has loaded what is new.

    Args:
        number: of the catalogue.
        failures: the versions that cannot be served.
    """

    number: int
    failures: Mapping[Key, PushforwardError]


class Commit(NamedTuple):
    """A worker is to serve a catalogue, and to answer with `Committed`."""

    catalogue: Catalogue


class Committed(NamedTuple):
    """A worker serves the catalogue of this number."""

    number: int


class Abort(NamedTuple):
    """A worker is to drop what it has prepared."""


class ChangeRequest(NamedTuple):
    """A client of a worker asks for a change.

    Args:
        number: of the request, for the worker.
        change: of what is served.
    """

    number: int
    change: Change


class ChangeAnswer(NamedTuple):
    """The answer to a `ChangeRequest`.

    Args:
        number: of the request.
        result: what the change has led to, or why it was not made.
    """

    number: int
    result: Outcome | PushforwardError


FromWorker: TypeAlias = ServerStatus | StartFailure | Loaded | Prepared | Committed | ChangeRequest
ToWorker: TypeAlias = Prepare | Commit | Abort | ChangeAnswer
