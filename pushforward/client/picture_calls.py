"""The call of both clients that gives a picture: it says what to ask, and leaves the sending to its client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

from pushforward.client.delivery import Steps
from pushforward.client.latent_requests import LatentRequests
from pushforward.client.requests import Pictured

__all__ = ["AsyncPictureCalls", "PictureCalls"]

T = TypeVar("T")


class PictureCalls(ABC):
    """What `pushforward.Client` can ask for as a picture."""

    _requests: LatentRequests

    @abstractmethod
    def _run(self, steps: Steps[T]) -> T: ...

    def picture(
        self,
        verb: Pictured,
        *,
        columns: int | None = None,
        size: int | None = None,
        model: str | None = None,
        version: int | None = None,
        **arguments: Any,  # noqa: ANN401  of whichever verb it is
    ) -> bytes:
        """A verb's answer as a picture: a grid or strips of images; a map, a chart or a pair plot of a table.

        Args:
            verb: ``"logprob"``, ``"sample"``, ``"decode"``, ``"interpolate"`` or ``"edit"``.
            columns: images in a row of a grid, or columns of a table to show; None for the server to choose.
            size: in pixels, the longer side of each image, or the side of a chart; None as above.
            model: the flow's name.
            version: its version.
            arguments: of the verb, by the names that the HTTP API gives them; they travel in one request.

        Returns:
            A PNG file; the same arguments give the same bytes.

        Raises:
            InvalidInput: rows hold NaN, text or nothing; nothing was sent.
            ApiError: the server said no; the picture may be too large.
            ConnectionFailed, TimedOut: no answer came.

        Example::

            Path("grid.png").write_bytes(flow.picture("sample", n=64, seed=7, columns=8))
        """
        return self._run(self._requests.picture(verb, arguments, columns, size, model, version))


class AsyncPictureCalls(ABC):
    """What `pushforward.AsyncClient` can ask for as a picture."""

    _requests: LatentRequests

    @abstractmethod
    async def _run(self, steps: Steps[T]) -> T: ...

    async def picture(
        self,
        verb: Pictured,
        *,
        columns: int | None = None,
        size: int | None = None,
        model: str | None = None,
        version: int | None = None,
        **arguments: Any,  # noqa: ANN401  of whichever verb it is
    ) -> bytes:
        """As `Client.picture`."""
        return await self._run(self._requests.picture(verb, arguments, columns, size, model, version))
