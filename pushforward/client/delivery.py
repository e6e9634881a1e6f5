"""How a request is delivered: when it is tried again, how long it waits, when it gives up. Does no I/O itself.

`deliver` is a generator that says what to do next, `Send` or `Pause`; whoever drives it, a blocking client or an
asynchronous one, does just that. Imports neither httpx nor the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from random import Random
from typing import Final, Generic, TypeAlias, TypeVar

from pushforward.client.errors import ApiError, ClientError, ConnectionFailed, api_error

__all__ = ["Answer", "Delivery", "Done", "Pause", "Request", "Send", "Steps", "advance"]

T = TypeVar("T")

_COME_AGAIN: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Args:
        method: ``"GET"`` or ``"POST"``.
        path: the path below the base URL, quoted.
        query: the query parameters.
        body: the JSON text; None for none.
        patient: whether it may be sent again. Every call of the native API only reads, so that all may but a probe,
            which asks how things are at this moment.
        accept: the media type of the answer; None for the server's own, JSON.
    """

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    patient: bool = True
    accept: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read whole.

    Args:
        status: the HTTP status.
        content: the body.
        retry_after: the Retry-After header as it stands; None where there is none.
    """

    status: int
    content: bytes
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Do this: send the request, and give back an `Answer`, or throw in a `ClientError`.

    Args:
        request: what to send.
        deadline: the moment, on the delivery's clock, at which to give up with `TimedOut`.
    """

    request: Request
    deadline: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Do this: wait so many seconds."""

    seconds: float


Steps: TypeAlias = Generator[Send | Pause, Answer | None, T]
"""What a call does, step by step, until it returns."""


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """The call has returned this."""

    value: T


def advance(steps: Steps[T], outcome: Answer | ClientError | None = None) -> Send | Pause | Done[T]:
    """Move a call on by one step. Its return comes as a value: no coroutine may raise StopIteration.

    Args:
        steps: the call.
        outcome: what became of its last step: the answer to a `Send`, or the error to throw in; None after a `Pause`,
            and to begin.
    """
    try:
        return steps.throw(outcome) if isinstance(outcome, ClientError) else steps.send(outcome)
    except StopIteration as stop:
        return Done(stop.value)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The rules by which requests are tried again.

    The k-th pause is drawn from (0, min(`longest_pause`, `first_pause` * 2^k)): full jitter, so that clients that were
    turned away together do not come back together. A Retry-After of the server is waited for in full, and the jitter
    after it.

    Args:
        timeout: seconds that one request may take, its retries and pauses included.
        retries: how many times at most a request is sent again: after a connection that failed, and after 429 and 503.
        first_pause: seconds, the bound of the first pause.
        longest_pause: seconds, the bound of any pause that the server did not ask for.
        clock: gives seconds, never backwards.
        random: gives the jitter.
        wall_clock: gives seconds since 1970, for a Retry-After that is a date.
    """

    timeout: float = 60.0
    retries: int = 3
    first_pause: float = 0.1
    longest_pause: float = 5.0
    clock: Callable[[], float] = time.monotonic
    random: Random = field(default_factory=Random)
    wall_clock: Callable[[], float] = time.time

    def deliver(self, request: Request) -> Steps[Answer]:
        """Send a request until it is answered.

        Returns:
            The answer, its status below 400.

        Raises:
            ConnectionFailed, TimedOut: no answer came.
            ApiError: the server said no, and kept to it.
        """
        deadline = self.clock() + self.timeout
        retries = self.retries if request.patient else 0
        attempt = 0
        while True:
            try:
                answer = yield Send(request, deadline)
            except ConnectionFailed as error:
                failure: ClientError = error
                asked = 0.0
            else:
                if not isinstance(answer, Answer):
                    raise TypeError("whoever drives a delivery gives an Answer to each Send")
                if answer.status < 400:
                    return answer
                refusal = self._refusal(answer)
                if answer.status not in _COME_AGAIN:
                    raise refusal
                failure, asked = refusal, refusal.retry_after or 0.0
            pause = asked + self.random.uniform(0.0, min(self.longest_pause, self.first_pause * 2.0**attempt))
            if attempt == retries or self.clock() + pause >= deadline:
                raise failure
            attempt += 1
            yield Pause(pause)

    def _refusal(self, answer: Answer) -> ApiError:
        return api_error(answer.status, answer.content, self._seconds(answer.retry_after))

    def _seconds(self, retry_after: str | None) -> float | None:
        """Retry-After in seconds: it is a number of them, or a date (RFC 9110, section 10.2.3)."""
        if retry_after is None:
            return None
        if retry_after.strip().isdecimal():
            return float(retry_after)
        try:
            date = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        return max(0.0, date.timestamp() - self.wall_clock())
