"""The drawing of samples: their noise, and the requests that a large number of them is cut into.

Imports neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Literal, NamedTuple

from pushforward.client.answers import Samples
from pushforward.client.arrays import FLOAT32, FLOAT64, FloatArray, FloatType, dump_numbers, to_context, widen_tie
from pushforward.client.delivery import HttpRequest
from pushforward.client.errors import UnexpectedAnswer
from pushforward.client.payload import Payload
from pushforward.client.requests import FlowChoice, post_request

__all__ = ["FIRST_ROWS", "ContextNoise", "Method", "Noise", "SampleBlocks"]

Method = Literal["random", "sobol"]
"""The way in which the rows of a seed are spread."""

ContextNoise = Literal["independent", "common"]
"""The latents of several contexts: a stream for each context, or one stream that all share."""

FIRST_ROWS: Final = 256
"""So many samples are asked for at first. Their answer tells how wide an event is, and so how many fit the next."""

_QUERY_NUMBERS: Final = 256
"""So many numbers of context are sent in an address."""


class Noise(NamedTuple):
    """The latents that samples are made of; arguments as of `pushforward.Client.sample`."""

    temperature: float = 1.0
    truncation: float | None = None
    method: Method = "random"
    noise: ContextNoise = "independent"

    def arguments(self) -> dict[str, Any]:
        """The arguments of a request. Defaults that an older server does not know are left out."""
        truncation = {"truncation": self.truncation} if self.truncation is not None else {}
        method = {"method": self.method} if self.method != "random" else {}
        noise = {"noise": self.noise} if self.noise != "independent" else {}
        return {"temperature": self.temperature, **truncation, **method, **noise}


class SampleBlocks(AsyncIterator[Samples]):
    """Samples in consecutive blocks, one request each. The first answer fixes flow and seed for the rest.

    Row i of a seed and a context is one value in every answer. A block whose answer broke off is asked for again.

    Args:
        ask: sends a request and gives the JSON object of its answer.
        n: how many rows; for each context where there are several.
        seed: None for one that the server draws.
        offset: the number of the first row in the seed's sequence.
        noise: the latents.
        contexts: ``[C]`` or ``[K, C]``, as they are given; None for a flow without.
        flow: that is asked.
        round_trip: whether to ask for round_trip_error.
        max_values: an answer holds about so many numbers at most.
        find_contexts: finds the flow and its contexts before the first request; None where they are as they are.
        dtype: that the contexts are sent in, as far as it is known.
    """

    def __init__(
        self,
        ask: Callable[[HttpRequest], Awaitable[Payload]],
        *,
        n: int,
        seed: int | None,
        offset: int,
        noise: Noise,
        contexts: FloatArray | None,
        flow: FlowChoice,
        round_trip: bool,
        max_values: int,
        find_contexts: Callable[[], Awaitable[tuple[FlowChoice, FloatArray]]] | None = None,
        dtype: FloatType = FLOAT32,
    ) -> None:
        self._ask = ask
        self._left = n
        self._begun = False
        self._offset = offset
        self._contexts = contexts
        self._dtype = dtype
        self._find_contexts = find_contexts
        self._flow = flow
        self._max_values = max_values
        self._block_rows = FIRST_ROWS
        self._fixed: dict[str, Any] = {} if seed is None else {"seed": seed}
        self._fixed |= noise.arguments()
        if round_trip:
            self._fixed["return"] = ["round_trip_error"]

    @property
    def axis(self) -> int:
        """The axis of the rows."""
        return 0 if self._contexts is None or self._contexts.ndim == 1 else 1

    async def __anext__(self) -> Samples:
        if self._find_contexts is not None:
            self._flow, self._contexts = await self._find_contexts()
            self._find_contexts = None
        if self._begun and self._left == 0:
            raise StopAsyncIteration
        # A first block of no rows is asked for too: it is for the server to refuse.
        self._begun = True
        asked = min(self._block_rows, self._left)
        block = Samples.read(await self._ask(self._request(asked)))
        if self._contexts is not None and block.precision == FLOAT64.name != self._dtype.name:
            self._dtype = FLOAT64  # the contexts were rounded further than this flow does
            block = Samples.read(await self._ask(self._request(asked)))
        rows = block.x.shape[self.axis]
        if rows < 1:
            raise UnexpectedAnswer("the answer has no rows")
        if rows > asked:
            raise UnexpectedAnswer(f"the answer has {rows} rows, and {asked} were asked for")
        self._left -= rows
        self._offset += rows
        self._flow = FlowChoice(block.model, block.version)
        self._fixed["seed"] = block.seed
        self._block_rows = max(1, self._max_values // max(1, block.x.size // rows))
        return block

    def _request(self, n: int) -> HttpRequest:
        """``GET /sample``, or ``POST /sample`` for several contexts, and for one that is long for an address."""
        arguments = {"n": n, "offset": self._offset, **self._fixed}
        contexts = None if self._contexts is None else to_context(self._contexts, self._dtype)
        if contexts is not None and (contexts.ndim > 1 or contexts.size > _QUERY_NUMBERS):
            return post_request(self._flow, "sample", {**arguments, "context": contexts})
        arguments = {**self._flow.arguments(), **arguments}
        query = {key: ",".join(value) if isinstance(value, list) else str(value) for key, value in arguments.items()}
        if contexts is not None:
            query["context"] = dump_numbers(widen_tie(contexts)).decode().strip("[]")
        return HttpRequest("GET", "sample", query)
