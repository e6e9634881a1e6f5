"""The delivery of a request: when it is sent again, how long the pause before is, when it is given up.

Imports neither httpx nor the server. `pushforward.client.connection` sends and waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final, Protocol

from pushforward.client.errors import ApiError, ClientError, ConnectionFailed, api_error

__all__ = ["Connection", "Delivery", "HttpAnswer", "HttpRequest"]

_RETRIED_STATUSES: Final = frozenset({429, 503})
_NEVER_RETRIED_CODES: Final = frozenset({"engine_lost"})
"""The engine crashed or hung with these rows, and each try may cost another one."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request.

    Args:
        method: of HTTP.
        path: the path below the base URL, quoted.
        query: the query parameters.
        body: the content; None for none.
        retried: whether it may be sent again. The verbs only read, so that they may. A probe may not, for it asks for
            the state of this moment, nor a change that could have been made although no answer came.
        accept: the media type of the answer; None for the server's own, JSON.
        content_type: the media type of the body.
    """

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    retried: bool = True
    accept: str | None = None
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One HTTP answer, read whole.

    Args:
        status: the HTTP status.
        content: the body.
        retry_after: the text of the Retry-After header; None where there is none.
    """

    status: int
    content: bytes
    retry_after: str | None = None


class Connection(Protocol):
    """A connection to a server, over which requests are sent."""

    async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        """Send a request once.

        Args:
            request: to send.
            deadline: the moment, on the delivery's clock, at which to give up.

        Raises:
            ConnectionFailed: no answer came.
            TimedOut: none came by the deadline.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """The rules by which requests are sent, and sent again.

    The k-th pause is drawn from (0, min(`longest_pause`, `first_pause` * 2^k)): full jitter, so that clients that were
    refused together do not come back together. A Retry-After of the server is waited for in full, and the jitter
    after it.

    Args:
        connection: sends and waits.
        timeout: seconds that one request may take, its retries and pauses included.
        retries: how many times at most a request is sent again: after a connection that failed, and after 429 and 503.
        first_pause: seconds, the bound of the first pause.
        longest_pause: seconds, the bound of any pause that the server did not ask for.
        clock: gives seconds, never backwards.
        random: gives the jitter.
        wall_clock: gives seconds since 1970, for a Retry-After that is a date.
    """

    connection: Connection
    timeout: float = 60.0
    retries: int = 3
    first_pause: float = 0.1
    longest_pause: float = 5.0
    clock: Callable[[], float] = time.monotonic
    random: Random = field(default_factory=Random)
    wall_clock: Callable[[], float] = time.time

    async def deliver(self, request: HttpRequest) -> HttpAnswer:
        """Send a request until it is answered.

        Returns:
            The answer, its status below 400.

        Raises:
            ConnectionFailed, TimedOut: no answer came.
            ApiError: the server refused, and did so again after the last pause.
        """
        deadline = self.clock() + self.timeout
        retries = self.retries if request.retried else 0
        attempt = 0
        while True:
            try:
                answer = await self.connection.send(request, deadline)
            except ConnectionFailed as error:
                failure: ClientError = error
                asked = 0.0
            else:
                if answer.status < 400:
                    return answer
                refusal = self._read_refusal(answer)
                if answer.status not in _RETRIED_STATUSES or refusal.code in _NEVER_RETRIED_CODES:
                    raise refusal
                failure, asked = refusal, refusal.retry_after or 0.0
            pause = asked + self.random.uniform(0.0, min(self.longest_pause, self.first_pause * 2.0**attempt))
            if attempt >= retries or self.clock() + pause >= deadline:
                raise failure
            attempt += 1
            await self.connection.sleep(pause)

    def _read_refusal(self, answer: HttpAnswer) -> ApiError:
        return api_error(answer.status, answer.content, self._read_retry_after(answer.retry_after))

    def _read_retry_after(self, text: str | None) -> float | None:
        """Retry-After in seconds: it is a number of them, or a date (RFC 9110, section 10.2.3)."""
        if text is None:
            return None
        if text.strip().isdecimal():
            return float(text)
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        return max(0.0, date.timestamp() - self.wall_clock())
