"""A request as the driver takes it: the call that its line makes, what its fields say, its query and its body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, TypeVar

from service.access.keys import Caller
from service.api.endpoints import Endpoint
from service.exchange import Body

__all__ = ["Call", "Fields", "Member", "RawRequest", "by_endpoint"]

M = TypeVar("M", bound="Member")


class Call(NamedTuple):
    """What a request line asks for, but for its query.

    Args:
        endpoint: of the table.
        name: the flow named in the path, if one is.
        version: the version named in the path, as it was written.
        route: the template of the path.
    """

    endpoint: Endpoint
    name: str | None = None
    version: str | None = None
    route: str = ""


class Fields(NamedTuple):
    """What the header fields of a request say beside the length of its body.

    Args:
        content_type: the field, or None.
        accept: the field, or None.
        timeout: the field `service.guard.TIMEOUT_HEADER`, or None.
        keep_alive: whether the connection goes on after the answer.
        caller: whose key the request has; None where the server asks for none.
    """

    content_type: str | None = None
    accept: str | None = None
    timeout: str | None = None
    keep_alive: bool = True
    caller: Caller | None = None


class RawRequest(NamedTuple):
    """A whole request: the call that its line makes, its header fields, its query string and its body."""

    call: Call
    fields: Fields
    query: bytes = b""
    body: Body = b""


class Member(Protocol):
    """Whoever waits for the reply to a request."""

    request: RawRequest


def by_endpoint(waiting: list[list[M]], most: int) -> Iterator[tuple[Endpoint, list[list[M]]]]:
    """Whoever waits, by endpoint and by the time that the clients gave.

    Args:
        waiting: in lists, each of one head.
        most: how many are given at a time.
    """
    if len(waiting) == 1 and 0 < len(waiting[0]) <= most:
        yield waiting[0][0].request.call.endpoint, waiting
        return
    found: dict[tuple[Endpoint, str | None], list[list[M]]] = {}
    for members in waiting:
        if members:
            call, fields, _, _ = members[0].request
            found.setdefault((call.endpoint, fields.timeout), []).append(members)
    for (endpoint, _), heads in found.items():
        taken: list[list[M]] = []
        room = most
        for members in heads:
            start = 0
            while start < len(members):
                taken.append(members[start : start + room])
                start += len(taken[-1])
                room -= len(taken[-1])
                if room == 0:
                    yield endpoint, taken
                    taken, room = [], most
        if taken:
            yield endpoint, taken
