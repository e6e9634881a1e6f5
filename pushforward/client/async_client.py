"""`AsyncClient`: a served flow as NumPy functions, from asynchronous code. `pushforward.client.client` says more."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Literal, Self, TypeVar, overload

import anyio
import httpx
import numpy.typing as npt

from pushforward.client.answers import Decoded, Encoded, ModelInfo, Path, Samples, Scores
from pushforward.client.arrays import Float32Array
from pushforward.client.connection import DEFAULT_TIMEOUT, DEFAULT_URL, Connection
from pushforward.client.delivery import Answer, Done, Pause, Send, Steps, advance
from pushforward.client.errors import ClientError
from pushforward.client.latent_calls import AsyncLatentCalls
from pushforward.client.picture_calls import AsyncPictureCalls
from pushforward.client.requests import MAX_VALUES, Method, Noise, Score

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient(Connection, AsyncLatentCalls, AsyncPictureCalls):
    """A Pushforward server, from asynchronous code.

    Args:
        base_url, model, version, timeout, retries, max_values, headers, clock, random: as for `Client`.
        transport: what carries the requests, in the place of the network.
        sleep: waits for seconds, between retries.

    Example::

        async with pushforward.AsyncClient(model="two-moons") as flow:
            densities = await flow.log_prob((await flow.sample(1000, seed=7)).x)
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        model: str | None = None,
        version: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = 3,
        max_values: int = MAX_VALUES,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        random: Random | None = None,
    ) -> None:
        super().__init__(base_url, model, version, timeout, retries, max_values, clock, random)
        self._http = httpx.AsyncClient(base_url=base_url, headers=headers, transport=transport)
        self._sleep = sleep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @overload
    async def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Float32Array: ...

    @overload
    async def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        returns: Sequence[Score],
        alarm_rate: float | None = None,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Scores: ...

    async def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        returns: Sequence[Score] | None = None,
        alarm_rate: float | None = None,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Float32Array | Scores:
        """As `Client.log_prob`."""
        steps = self._requests.log_prob(x, context, model, version, returns or (), alarm_rate)
        scores = await self._run(steps)
        return scores.log_prob if returns is None else scores

    async def sample(
        self,
        n: int = 1,
        *,
        seed: int | None = None,
        offset: int = 0,
        temperature: float = 1.0,
        truncation: float | None = None,
        method: Method = "random",
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Samples:
        """As `Client.sample`."""
        noise = Noise(temperature, truncation, method)
        steps = self._requests.sample(n, seed, offset, noise, context, model, version, round_trip=round_trip)
        return await self._run(steps)

    async def stream_sample(
        self,
        n: int = 1,
        *,
        seed: int | None = None,
        offset: int = 0,
        temperature: float = 1.0,
        truncation: float | None = None,
        method: Method = "random",
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> AsyncIterator[Samples]:
        """As `Client.stream_sample`."""
        noise = Noise(temperature, truncation, method)
        blocks = self._requests.blocks(n, seed, offset, noise, context, model, version, round_trip=round_trip)
        yield await self._run(blocks.following())
        while blocks.left:
            yield await self._run(blocks.following())

    async def interpolate(
        self,
        points: npt.ArrayLike,
        *,
        space: Literal["x", "z"] = "x",
        steps: int = 11,
        path: Literal["slerp", "linear"] | None = None,
        spacing: Literal["parameter", "arc_length"] = "parameter",
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Path:
        """As `Client.interpolate`."""
        return await self._run(self._requests.interpolate(points, space, steps, path, spacing, context, model, version))

    async def encode(
        self,
        x: npt.ArrayLike,
        *,
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Encoded:
        """As `Client.encode`."""
        return await self._run(self._requests.encode(x, context, model, version, round_trip=round_trip))

    async def decode(
        self,
        z: npt.ArrayLike,
        *,
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Decoded:
        """As `Client.decode`."""
        return await self._run(self._requests.decode(z, context, model, version, round_trip=round_trip))

    async def models(self) -> list[ModelInfo]:
        """As `Client.models`."""
        return await self._run(self._requests.models())

    async def model(self, name: str | None = None, version: int | None = None) -> ModelInfo:
        """As `Client.model`."""
        return await self._run(self._requests.described(name, version))

    async def live(self) -> bool:
        """As `Client.live`."""
        return await self._run(self._requests.health("live"))

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._run(self._requests.health("ready"))

    async def _run(self, steps: Steps[T]) -> T:
        step = advance(steps)
        while not isinstance(step, Done):
            step = advance(steps, await self._outcome(step))
        return step.value

    async def _outcome(self, step: Send | Pause) -> Answer | ClientError | None:
        if isinstance(step, Pause):
            await self._sleep(step.seconds)
            return None
        try:
            return await self._send(step)
        except httpx.HTTPError as error:
            return self._failed(error)

    async def _send(self, send: Send) -> Answer:
        response = await self._http.send(self._built(self._http, send), stream=True)
        content: list[bytes] = []
        try:
            async for chunk in response.aiter_bytes():
                content.append(chunk)
                self._in_time(send)
        finally:
            await response.aclose()
        return self._answer(response, content)
