"""The exchange: what a verb sees of HTTP. An exchange comes in, a reply goes out, both plain data.

A verb knows no door: the driver fills an `Exchange` for a route of FastAPI and for a connection alike, as a test may.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from service.errors import ClientGone, DeadlineExceeded
from service.plan import Plan

__all__ = ["UNWATCHED", "Body", "Exchange", "Reply", "Watch"]

Body: TypeAlias = bytes | bytearray
"""A body, whole. A large one is put together in place, and nobody changes it afterwards."""


class Watch:
    """Whether anybody still waits for what is made of a body: long work looks every now and then.

    Args:
        deadline: after which nobody does, in seconds.
        clock: seconds, on which it is given.
    """

    __slots__ = ("_clock", "_deadline", "abandoned")

    def __init__(self, deadline: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self._deadline = deadline
        self._clock = clock
        self.abandoned = False

    def check(self) -> None:
        """Stop where nobody waits.

        Raises:
            ClientGone: the client has gone.
            DeadlineExceeded: the deadline has passed.
        """
        if self.abandoned:
            raise ClientGone("the client has gone")
        if self._clock() > self._deadline:
            raise DeadlineExceeded("the deadline passed while the body was read")


UNWATCHED: Final = Watch()
"""The watch of a short body, which is read before anybody can go."""


class Exchange(NamedTuple):
    """One call, as far as a verb needs it.

    Args:
        name: the flow named in the path, if one is.
        version: the version named in the path, as it was written.
        query: the query parameters in their order, decoded.
        content_type: the header, or None.
        accept: the header, or None.
        body: whole, at most the cap.
        deadline: on `time.monotonic`, in seconds; nobody waits for the answer any longer.
        watch: of the body's decoding.
    """

    name: str | None = None
    version: str | None = None
    query: tuple[tuple[str, str], ...] = ()
    content_type: str | None = None
    accept: str | None = None
    body: Body = b""
    deadline: float = math.inf
    watch: Watch = UNWATCHED


class Reply(NamedTuple):
    """The answer to one call.

    Args:
        body: the bytes; of an answer that streams, the first of them.
        status: of HTTP.
        media_type: of the body.
        headers: further ones.
        rest: of an answer that streams: each gives the bytes that come next.
        code: of an error, for the count of answers; None for an answer that was asked for.
    """

    body: bytes
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = MappingProxyType({})
    rest: Iterable[Plan[bytes]] = ()
    code: str | None = None
