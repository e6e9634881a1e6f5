"""The precisions of the flows that a client asks: learnt from their answers. Imports neither httpx nor the server.

A float32 is sent as its shortest text, which a flow of float64 would read as another number. What is sent therefore
depends on the flow's precision, and a client that does not know it yet takes it for float32.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from pushforward.client.answers import ModelInfo
from pushforward.client.arrays import FLOAT32, FLOAT64, BeyondFloat32, FloatType
from pushforward.client.errors import ClientError
from pushforward.client.payload import ArrayAnswerT
from pushforward.client.requests import FlowChoice

__all__ = ["Precisions"]


class Precisions:
    """The precision of each flow and version that has answered.

    Args:
        describe: asks the server about a flow, by its name and version.
    """

    def __init__(self, describe: Callable[[str | None, int | str | None], Awaitable[ModelInfo]]) -> None:
        self._describe = describe
        self._known: dict[FlowChoice, FloatType] = {}  # without a version: of the one that answered last

    def known(self, flow: FlowChoice) -> FloatType:
        """The dtype that numbers for a flow are sent in: float32 until something else is known."""
        return self._known.get(flow, FLOAT32)

    async def ask(
        self, flow: FlowChoice, ask: Callable[[FloatType], Awaitable[ArrayAnswerT]], *, sends_numbers: bool
    ) -> ArrayAnswerT:
        """Ask with numbers of the flow's precision. An answer to numbers that were rounded too far is not taken.

        Args:
            flow: that is asked.
            ask: asks it with numbers of a dtype.
            sends_numbers: whether there are any.

        Raises:
            BeyondFloat32: a number is beyond the range of float32, and the flow is one of float32.
        """
        sent = self.known(flow)
        try:
            answer = await ask(sent)
        except BeyondFloat32 as error:
            if await self._learn(flow, error) == FLOAT32:
                raise
            return await ask(FLOAT64)
        found: FloatType = np.dtype(answer.precision)
        self._known[flow] = self._known[FlowChoice(answer.model, answer.version)] = found
        return await ask(found) if sends_numbers and sent != found == FLOAT64 else answer

    async def _learn(self, flow: FlowChoice, refused: BeyondFloat32) -> FloatType:
        """Ask the server for the precision of a flow; where it does not say, a number was refused with good reason."""
        try:
            found: FloatType = np.dtype((await self._describe(*flow)).precision)
        except ClientError:
            raise refused from None
        self._known[flow] = found
        return found
