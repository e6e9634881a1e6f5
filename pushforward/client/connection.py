"""The two connections of the client, over httpx: one that blocks, and one for an event loop.

A coroutine over the one that blocks never waits for a loop, and `run_blocking` runs it. That is how each call of the
API is written once, in `pushforward.client.calls`, for both clients.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import httpx

from pushforward.client.delivery import HttpAnswer, HttpRequest
from pushforward.client.errors import ClientError, ConnectionFailed, InvalidInput, TimedOut

__all__ = ["DEFAULT_TIMEOUT", "DEFAULT_URL", "AsyncConnection", "BlockingConnection", "run_blocking"]

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:8000"
DEFAULT_TIMEOUT: Final = 60.0

_SHORTEST_TIMEOUT: Final = 0.001  # seconds; httpx takes 0 for no time at all, and less for an error


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing but a `BlockingConnection`.

    Returns:
        What it returns.

    Raises:
        RuntimeError: it waits for something else.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a blocking call waits for an event loop")


class _HttpxConnection:
    """The parts that both connections share.

    Args:
        base_url: the server's address.
        timeout: seconds that one request may take, for the error.
        clock: gives seconds, the delivery's own.

    Raises:
        InvalidInput: `base_url` is no address.
    """

    def __init__(self, base_url: str, timeout: float, clock: Callable[[], float]) -> None:
        if httpx.URL(base_url).scheme not in ("http", "https"):
            raise InvalidInput(f"base_url must start with http:// or https://, and is {base_url!r}")
        self._base_url = base_url
        self._timeout = timeout
        self._clock = clock

    def _build(self, http: httpx.Client | httpx.AsyncClient, request: HttpRequest, deadline: float) -> httpx.Request:
        headers = {} if request.body is None else {"Content-Type": "application/json"}
        if request.accept is not None:
            headers["Accept"] = request.accept
        return http.build_request(
            request.method,
            request.path,
            params=request.query or None,
            content=request.body,
            headers=headers,
            timeout=max(_SHORTEST_TIMEOUT, deadline - self._clock()),
        )

    def _require_time(self, deadline: float) -> None:
        """Httpx bounds each wait for bytes; this bounds all of them together.

        Raises:
            httpx.ReadTimeout: the deadline has passed.
        """
        if self._clock() >= deadline:
            raise httpx.ReadTimeout("the answer is still coming")

    def _client_error(self, error: httpx.HTTPError) -> ClientError:
        if isinstance(error, httpx.TimeoutException):
            return TimedOut(f"{self._base_url} gave no answer in {self._timeout:g} seconds")
        return ConnectionFailed(f"no answer from {self._base_url}: {error or type(error).__name__}")


class BlockingConnection(_HttpxConnection):
    """A connection whose `send` and `sleep` block. They are coroutines that never wait for an event loop.

    Args:
        base_url: the server's address.
        timeout: seconds that one request may take, for the error.
        headers: sent with each request.
        transport: what carries the requests, in the place of the network.
        clock: gives seconds, the delivery's own.
        sleep: waits for seconds.

    Raises:
        InvalidInput: `base_url` is no address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None,
        transport: httpx.BaseTransport | None,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        super().__init__(base_url, timeout, clock)
        self._http = httpx.Client(base_url=base_url, headers=headers, transport=transport)
        self._sleep = sleep

    async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        """Send a request once; arguments and errors as `delivery.Connection.send`."""
        content: list[bytes] = []
        try:
            response = self._http.send(self._build(self._http, request, deadline), stream=True)
            try:
                for chunk in response.iter_bytes():
                    content.append(chunk)
                    self._require_time(deadline)
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise self._client_error(error) from error
        return HttpAnswer(response.status_code, b"".join(content), response.headers.get("retry-after"))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        self._sleep(seconds)

    def close(self) -> None:
        """Close the sockets."""
        self._http.close()


class AsyncConnection(_HttpxConnection):
    """A connection whose `send` and `sleep` wait for an event loop.

    Args:
        base_url: the server's address.
        timeout: seconds that one request may take, for the error.
        headers: sent with each request.
        transport: what carries the requests, in the place of the network.
        clock: gives seconds, the delivery's own.
        sleep: waits for seconds.

    Raises:
        InvalidInput: `base_url` is no address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None,
        transport: httpx.AsyncBaseTransport | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        super().__init__(base_url, timeout, clock)
        self._http = httpx.AsyncClient(base_url=base_url, headers=headers, transport=transport)
        self._sleep = sleep

    async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        """Send a request once; arguments and errors as `delivery.Connection.send`."""
        content: list[bytes] = []
        try:
            response = await self._http.send(self._build(self._http, request, deadline), stream=True)
            try:
                async for chunk in response.aiter_bytes():
                    content.append(chunk)
                    self._require_time(deadline)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise self._client_error(error) from error
        return HttpAnswer(response.status_code, b"".join(content), response.headers.get("retry-after"))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._sleep(seconds)

    async def close(self) -> None:
        """Close the sockets."""
        await self._http.aclose()
