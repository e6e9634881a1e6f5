"""The calls of both clients that look into a flow: each says what to ask, and leaves the sending to its client."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import numpy.typing as npt

from pushforward.client.answers import Edited, Importance, Trace, Weights
from pushforward.client.delivery import Steps
from pushforward.client.latent_requests import Direction, LatentRequests, LogTarget

__all__ = ["AsyncLatentCalls", "LatentCalls"]

T = TypeVar("T")


class LatentCalls(ABC):
    """What `pushforward.Client` can ask of a flow's inside."""

    _requests: LatentRequests

    @abstractmethod
    def _run(self, steps: Steps[T]) -> T: ...

    def trace(
        self,
        x: npt.ArrayLike | None = None,
        *,
        z: npt.ArrayLike | None = None,
        n: int | None = None,
        seed: int | None = None,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Trace:
        """The event after each step of the chain, from x to z, and each step's log-determinant.

        Args:
            x: ``[N, *event]``, or one event; or else one of the following.
            z: latents ``[N, D]``, whose data are followed.
            n: how many rows to draw and follow, of a seed.
            seed: of those.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version.

        Returns:
            `Trace`; its steps' log-determinants sum to the whole.

        Raises:
            InvalidInput: the rows hold NaN, text or nothing; nothing was sent.
            ApiError: the server said no; the flow may have been exported without its chain.
            ConnectionFailed, TimedOut: no answer came.
        """
        return self._run(self._requests.trace(x, z, n, seed, context, model, version))

    def edit(
        self,
        x: npt.ArrayLike,
        direction: Direction,
        strength: Sequence[float],
        *,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Edited:
        """Rows moved along a direction of latent space: f, then z + strength * direction, then g.

        Args:
            x: ``[N, *event]``, or one event.
            direction: the name of one of the flow's own (`ModelInfo.directions`), a vector ``[D]``, or two
                rows of data, ``[2, *event]``, of which strength 1 takes the first onto the second.
            strength: S numbers; 0 is the round trip.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version.

        Returns:
            `Edited`; x is float32 ``[S, N, *event]``.

        Raises:
            InvalidInput: an argument holds NaN or text; nothing was sent.
            ApiError: the server said no: an unknown direction, with the names that there are, or a zero one.
            ConnectionFailed, TimedOut: no answer came.
        """
        return self._run(self._requests.edit(x, direction, strength, context, model, version))

    def weights(
        self,
        log_target: npt.ArrayLike,
        x: npt.ArrayLike | None = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Weights:
        """Importance weights of rows for a target whose log-density is known up to a constant.

        Args:
            log_target: ``[N]``, at each row, in nats; -inf where the target is zero.
            x: ``[N, *event]``, drawn from the flow; or else n and seed.
            n: how many rows the seed was drawn for.
            seed: of `sample`.
            context: as for `log_prob`; one row for rows of a seed.
            model: the flow's name.
            version: its version.

        Returns:
            `Weights`, with the effective sample size and the Pareto k-hat.

        Raises:
            InvalidInput: an argument holds NaN or text; nothing was sent.
            ApiError: the server said no.
            ConnectionFailed, TimedOut: no answer came.
        """
        return self._run(self._requests.weights(log_target, x, n, seed, context, model, version))

    def importance(
        self,
        log_target: LogTarget,
        n: int,
        seed: int | None = None,
        *,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Importance:
        """Draw from the flow and weigh the draws for a target.

        Args:
            log_target: called once with x ``[n, *event]``; gives the target's log-density at each row ``[n]``, up to
                a constant, -inf where it is zero.
            n: how many rows to draw.
            seed: None for one that the server draws.
            context: ``[C]``; None for a flow without.
            model: the flow's name.
            version: its version.

        Returns:
            `Importance`: the draws, their weights and what those are worth.

        Raises:
            InvalidInput: the target gave NaN, or not a number for each row.
            ApiError: the server said no.
            ConnectionFailed, TimedOut: no answer came.

        Example::

            found = flow.importance(lambda x: -0.5 * (x**2).sum(axis=1), n=10_000, seed=1)
            mean = found.mean(found.x)
        """
        return self._run(self._requests.importance(log_target, n, seed, context, model, version))


class AsyncLatentCalls(ABC):
    """What `pushforward.AsyncClient` can ask of a flow's inside."""

    _requests: LatentRequests

    @abstractmethod
    async def _run(self, steps: Steps[T]) -> T: ...

    async def trace(
        self,
        x: npt.ArrayLike | None = None,
        *,
        z: npt.ArrayLike | None = None,
        n: int | None = None,
        seed: int | None = None,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Trace:
        """As `Client.trace`."""
        return await self._run(self._requests.trace(x, z, n, seed, context, model, version))

    async def edit(
        self,
        x: npt.ArrayLike,
        direction: Direction,
        strength: Sequence[float],
        *,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Edited:
        """As `Client.edit`."""
        return await self._run(self._requests.edit(x, direction, strength, context, model, version))

    async def weights(
        self,
        log_target: npt.ArrayLike,
        x: npt.ArrayLike | None = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Weights:
        """As `Client.weights`."""
        return await self._run(self._requests.weights(log_target, x, n, seed, context, model, version))

    async def importance(
        self,
        log_target: LogTarget,
        n: int,
        seed: int | None = None,
        *,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Importance:
        """As `Client.importance`; the target is called from the event loop."""
        return await self._run(self._requests.importance(log_target, n, seed, context, model, version))
