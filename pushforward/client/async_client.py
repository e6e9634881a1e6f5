"""`AsyncClient`: a served flow as NumPy functions, from asynchronous code.

Its calls are those of `pushforward.client.calls`, over a connection that waits for an event loop.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from types import TracebackType
from typing import Self

import anyio
import httpx

from pushforward.client.calls import MAX_VALUES, Calls
from pushforward.client.connection import DEFAULT_TIMEOUT, DEFAULT_URL, AsyncConnection

__all__ = ["AsyncClient"]


class AsyncClient(Calls):
    """A Pushforward server, from asynchronous code. It has the calls of `Client`, to be awaited.

    Args:
        base_url: the server's address.
        model: the flow that answers where a call names none; None for the server's default flow.
        version: its version, or an alias; None for the newest.
        timeout: seconds that one request may take, its retries and pauses included.
        retries: how often at most a request is sent again, after a connection that failed and after 429 and 503
            (Retry-After is waited for). No other answer is asked for twice, nor is one of code `engine_lost`.
        max_values: the bound on the numbers in one request.
        key: the key that the server asks for; None for that of PUSHFORWARD_KEY in the environment.
        headers: sent with each request.
        transport: what carries the requests, in the place of the network.
        clock: gives seconds, for the timeout.
        sleep: waits for seconds, between retries.
        random: gives the retries' jitter.

    Raises:
        InvalidInput: `base_url` is no address, or `key` no key.

    Example::

        async with pushforward.AsyncClient(model="two-moons") as flow:
            densities = await flow.log_prob((await flow.sample(1000, seed=7)).x)
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        model: str | None = None,
        version: int | str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = 3,
        max_values: int = MAX_VALUES,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        random: Random | None = None,
    ) -> None:
        self.base_url = base_url
        self._connection = AsyncConnection(
            base_url, timeout=timeout, key=key, headers=headers, transport=transport, clock=clock, sleep=sleep
        )
        super().__init__(
            self._connection,
            model=model,
            version=version,
            timeout=timeout,
            retries=retries,
            max_values=max_values,
            clock=clock,
            random=random,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()
