"""The two connections of the client, over httpx: one that blocks, and one for an event loop.

A coroutine over the one that blocks never waits for a loop, and `run_blocking` runs it. That is how each call of the
API is written once, in `pushforward.client.calls`, for both clients.

A pool of sockets belongs to one process, and to one event loop where there is one. A process that was forked from
another would read the answers to its sibling's requests on the sockets that both have; it gets a pool of its own, and
so does a new event loop.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import httpx
from anyio.lowlevel import RunVar

from pushforward.client.delivery import HttpAnswer, HttpRequest
from pushforward.client.errors import ClientError, ConnectionFailed, InvalidInput, TimedOut
from pushforward.client.keys import find_key
from pushforward.client.proxies import find_proxy, without_password

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


_SOCKETLESS: Final = (httpx.MockTransport, httpx.ASGITransport, httpx.WSGITransport)
"""Transports of the caller's that a forked process may go on with."""


class _ClosedClient(ClientError, RuntimeError):
    """A client was used after it had been closed."""


class _HttpxConnection:
    """The parts that both connections share.

    Args:
        base_url: the server's address.
        timeout: seconds that one request may take, for the error.
        key: sent with each request; None for what the environment says. An Authorization among the headers goes before.
        headers: sent with each request.
        transport: what carries the requests, in the place of the network.
        clock: gives seconds, the delivery's own.

    Raises:
        InvalidInput: `base_url` is no address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        key: str | None = None,
        headers: Mapping[str, str] | None,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None,
        clock: Callable[[], float],
    ) -> None:
        url = _read_url(base_url)
        self._base_url = base_url
        self._headers = headers
        self._auth = None if "authorization" in httpx.Headers(headers) else find_key(key)
        self._given = transport
        self._clock = clock
        self._timeout = timeout
        self._closed = False
        self._process = os.getpid()
        self._proxy = None if transport is not None else find_proxy(url)
        self._asked = without_password(url) if url.userinfo else base_url
        if self._proxy is not None:
            self._asked += f" through {self._proxy}"

    @property
    def _proxy_url(self) -> str | None:
        return None if self._proxy is None else self._proxy.url

    def _require_usable(self) -> None:
        """Refuse to send.

        Raises:
            ClientError: the client was closed, or its caller's transport belongs to another process.
        """
        if self._closed:
            raise _ClosedClient(f"the client of {self._asked} has been closed")
        if self._given is not None and self._process != os.getpid() and not isinstance(self._given, _SOCKETLESS):
            raise ClientError("the transport of this client was made in another process: make a client in this one")

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        """Name what was tried, in an error of the code inside, which opens a pool.

        Raises:
            ClientError: in the place of an error of httpx, of the system or of TLS.
        """
        try:
            yield
        except ImportError as error:
            advice = "install httpx[socks], or name the server's host in NO_PROXY"
            raise ClientError(f"{self._asked} cannot be asked: {error}; {advice}") from error
        except (httpx.InvalidURL, TypeError, ValueError, OSError) as error:
            raise ClientError(f"{self._asked} cannot be asked: {error}") from error

    @contextmanager
    def _send_errors(self) -> Iterator[None]:
        """Turn the errors of a request into the client's own.

        Raises:
            ConnectionFailed, TimedOut: no answer came.
            ClientError: the request could not be sent.
        """
        try:
            yield
        except httpx.TimeoutException as error:
            raise TimedOut(f"{self._asked} gave no answer in {self._timeout:g} seconds") from error
        except httpx.HTTPError as error:
            raise ConnectionFailed(f"no answer from {self._asked}: {error or type(error).__name__}") from error
        except httpx.InvalidURL as error:
            raise InvalidInput(f"the request to {self._asked} cannot be addressed: {error}") from error
        except (RuntimeError, ValueError, OverflowError) as error:
            kind = _ClosedClient if self._closed else ClientError
            raise kind(f"the request to {self._asked} could not be sent: {error}") from error

    def _build(self, http: httpx.Client | httpx.AsyncClient, request: HttpRequest, deadline: float) -> httpx.Request:
        headers = {} if request.body is None else {"Content-Type": request.content_type}
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


def _read_url(base_url: str) -> httpx.URL:
    """The address of a server.

    Raises:
        InvalidInput: it is none.
    """
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError) as error:
        raise InvalidInput(f"base_url is no address: {base_url!r}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidInput(f"base_url must start with http:// or https://, and a host, and is {base_url!r}")
    if url.port is not None and not 0 < url.port < 1 << 16:
        raise InvalidInput(f"base_url has the port {url.port}, and a port is at most 65535")
    return url


class BlockingConnection(_HttpxConnection):
    """A connection whose `send` and `sleep` block. They are coroutines that never wait for an event loop.

    Args:
        base_url: the server's address.
        timeout: seconds that one request may take, for the error.
        key: sent with each request; None for what the environment says. An Authorization among the headers goes before.
        headers: sent with each request.
        transport: what carries the requests, in the place of the network.
        clock: gives seconds, the delivery's own.
        sleep: waits for seconds.

    Raises:
        InvalidInput: `base_url` is no address.
        ClientError: the environment names a proxy, or certificates, that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        key: str | None = None,
        headers: Mapping[str, str] | None,
        transport: httpx.BaseTransport | None,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        super().__init__(base_url, timeout=timeout, key=key, headers=headers, transport=transport, clock=clock)
        self._transport = transport
        self._sleep = sleep
        # The pools of parent processes stay, unused: to close them here might wait for a lock that a thread had there.
        self._pools = {self._process: self._open()}

    def _open(self) -> httpx.Client:
        with self._set_up():
            transport = self._transport or httpx.HTTPTransport(proxy=self._proxy_url)
            return httpx.Client(base_url=self._base_url, headers=self._headers, auth=self._auth, transport=transport)

    def _pool(self) -> httpx.Client:
        """The pool of this process."""
        self._require_usable()
        process = os.getpid()
        pool = self._pools.get(process)
        if pool is None:
            opened = self._open()
            pool = self._pools.setdefault(process, opened)  # of two threads, one opens it
            if pool is not opened:
                opened.close()
        return pool

    async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        """Send a request once; arguments and errors as `delivery.Connection.send`."""
        content: list[bytes] = []
        http = self._pool()
        with self._send_errors():
            response = http.send(self._build(http, request, deadline), stream=True)
            try:
                for chunk in response.iter_bytes():
                    content.append(chunk)
                    self._require_time(deadline)
            finally:
                response.close()
        return HttpAnswer(response.status_code, b"".join(content), response.headers.get("retry-after"))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        self._sleep(seconds)

    def close(self) -> None:
        """Close the sockets of this process."""
        self._closed = True
        pool = self._pools.get(os.getpid())
        if pool is not None:
            pool.close()


class AsyncConnection(_HttpxConnection):
    """A connection whose `send` and `sleep` wait for an event loop.

    Args:
        base_url: the server's address.
        timeout: seconds that one request may take, for the error.
        key: sent with each request; None for what the environment says. An Authorization among the headers goes before.
        headers: sent with each request.
        transport: what carries the requests, in the place of the network.
        clock: gives seconds, the delivery's own.
        sleep: waits for seconds.

    Raises:
        InvalidInput: `base_url` is no address.
        ClientError: the environment names a proxy, or certificates, that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        key: str | None = None,
        headers: Mapping[str, str] | None,
        transport: httpx.AsyncBaseTransport | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        super().__init__(base_url, timeout=timeout, key=key, headers=headers, transport=transport, clock=clock)
        self._transport = transport
        self._sleep = sleep
        self._unused: httpx.AsyncClient | None = self._open()
        """The first loop's, which there need not be yet. No socket is open in it."""
        self._pools: RunVar[tuple[int, httpx.AsyncClient]] = RunVar("pools")

    def _open(self) -> httpx.AsyncClient:
        with self._set_up():
            transport = self._transport or httpx.AsyncHTTPTransport(proxy=self._proxy_url)
            return httpx.AsyncClient(
                base_url=self._base_url, headers=self._headers, auth=self._auth, transport=transport
            )

    def _pool(self) -> httpx.AsyncClient:
        """The pool of this event loop in this process."""
        self._require_usable()
        process = os.getpid()
        owner, pool = self._pools.get((0, None))
        if pool is None or owner != process:
            pool, self._unused = self._unused or self._open(), None
            self._pools.set((process, pool))
        return pool

    async def send(self, request: HttpRequest, deadline: float) -> HttpAnswer:
        """Send a request once; arguments and errors as `delivery.Connection.send`."""
        content: list[bytes] = []
        http = self._pool()
        with self._send_errors():
            response = await http.send(self._build(http, request, deadline), stream=True)
            try:
                async for chunk in response.aiter_bytes():
                    content.append(chunk)
                    self._require_time(deadline)
            finally:
                await response.aclose()
        return HttpAnswer(response.status_code, b"".join(content), response.headers.get("retry-after"))

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._sleep(seconds)

    async def close(self) -> None:
        """Close the sockets of this event loop; those of another that still runs stay open as long as it does."""
        self._closed = True
        owner, pool = self._pools.get((0, None))
        for opened in (self._unused, pool if owner == os.getpid() else None):
            if opened is not None:
                await opened.aclose()
