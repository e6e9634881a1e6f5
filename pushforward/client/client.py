"""`Client`: a served flow as NumPy functions, from code that blocks.

Each call is run by `pushforward.client.calls`, over a connection that blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from random import Random
from types import TracebackType
from typing import Any, Literal, Self, overload

import httpx
import numpy.typing as npt

from pushforward.client.answers import (
    Decoded,
    Edited,
    Encoded,
    ModelInfo,
    Path,
    Samples,
    Scores,
    Trace,
)
from pushforward.client.arrays import FloatArray
from pushforward.client.call_numbers import Direction
from pushforward.client.calls import MAX_VALUES, Calls, LogTarget, PictureVerb, ScoreName
from pushforward.client.connection import DEFAULT_TIMEOUT, DEFAULT_URL, BlockingConnection, run_blocking
from pushforward.client.posterior_answers import Importance, Posterior, Weights
from pushforward.client.repository import Repository
from pushforward.client.sampling import ContextNoise, Method

__all__ = ["Client"]


class Client:
    """A Pushforward server, from code that blocks.

    Arrays go in and come out in the flow's precision, bit for bit: for a flow of float32, float64 is rounded first.
    Rows whose columns have names, such as a DataFrame, are matched with the flow's columns by name. An input of more
    than about `max_values` numbers travels in several requests, whose answers are joined. Threads may share a client.

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

        with pushforward.Client("http://127.0.0.1:8000", model="two-moons") as flow:
            x = flow.sample(1000, seed=7).x
            densities = flow.log_prob(x)
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
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Random | None = None,
    ) -> None:
        self.base_url = base_url
        self._connection = BlockingConnection(
            base_url, timeout=timeout, key=key, headers=headers, transport=transport, clock=clock, sleep=sleep
        )
        self._calls = Calls(
            self._connection,
            model=model,
            version=version,
            timeout=timeout,
            retries=retries,
            max_values=max_values,
            clock=clock,
            random=random,
        )
        self.repository = Repository(self._calls.repository)
        """The versions that the server has, to list and to change."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    @overload
    def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        correct: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> FloatArray: ...

    @overload
    def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        returns: Sequence[ScoreName],
        alarm_rate: float | None = None,
        correct: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Scores: ...

    @overload
    def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        returns: Sequence[ScoreName] | None = None,
        alarm_rate: float,
        correct: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Scores: ...

    def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        returns: Sequence[ScoreName] | None = None,
        alarm_rate: float | None = None,
        correct: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> FloatArray | Scores:
        """Log-densities of rows: log p(x) = log p_Z(f(x)) + log|det df/dx|.

        Args:
            x: ``[N, *event]``, or one event; in the units of the data. More than `max_values` numbers are always rows.
            returns: further scores, such as ``["z", "quantile"]``; an empty list gives `Scores` of log_prob alone.
            alarm_rate: in (0, 1); a row is an anomaly where at most this share of held-out rows has a log_prob as low.
            correct: whether to divide the density by the mass inside the flow's prior; `Scores` then has it.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            ``[N]`` in nats, -inf outside the support; `Scores` where `returns` or `alarm_rate` is given.

        Raises:
            InvalidInput: x holds NaN, text or no rows; nothing was sent.
            ApiError: the server refused.
            ConnectionFailed, TimedOut: no answer came.
        """
        call = self._calls.log_prob(
            x,
            returns=returns or (),
            alarm_rate=alarm_rate,
            correct=correct,
            context=context,
            model=model,
            version=version,
        )
        scores = run_blocking(call)
        return scores.log_prob if returns is None and alarm_rate is None else scores

    def sample(
        self,
        n: int = 1,
        *,
        seed: int | None = None,
        offset: int = 0,
        temperature: float = 1.0,
        truncation: float | None = None,
        method: Method = "random",
        noise: ContextNoise = "independent",
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Samples:
        """Draw rows from the flow. Row i of a seed and a context is one value, whatever n, offset and other contexts.

        Args:
            n: how many rows, at least 1; for each context where there are several.
            seed: a whole number from 0; None for one that the server draws and names in the answer.
            offset: the number of the first row in the seed's sequence.
            temperature: scales the standard deviations of a normal base, diagonal one or mixture.
            truncation: ends a normal base on both sides, after so many standard deviations.
            method: ``"random"``, or ``"sobol"`` for rows that together are spread more evenly: averages over them
                converge sooner, best where offset and n are powers of two.
            noise: ``"independent"``, or ``"common"`` for the same latents at every context (common random numbers):
                answers then differ by their contexts alone.
            round_trip: whether to give round_trip_error too; it costs a second run.
            context: ``[C]``, or ``[K, C]`` for n rows of each of K contexts; None for a flow without.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            `Samples`; x is ``[n, *event]``, or ``[K, n, *event]``.

        Raises:
            ApiError: the server refused.
            ConnectionFailed, TimedOut: no answer came.
        """
        call = self._calls.sample(
            n,
            seed=seed,
            offset=offset,
            temperature=temperature,
            truncation=truncation,
            method=method,
            noise=noise,
            round_trip=round_trip,
            context=context,
            model=model,
            version=version,
        )
        return run_blocking(call)

    def stream_sample(
        self,
        n: int = 1,
        *,
        seed: int | None = None,
        offset: int = 0,
        temperature: float = 1.0,
        truncation: float | None = None,
        method: Method = "random",
        noise: ContextNoise = "independent",
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Iterator[Samples]:
        """Draw rows in consecutive blocks of about `max_values` numbers, with one block in memory at a time.

        A block whose answer breaks off is asked for again, as any request is, and row i of a seed and a context is one
        value from any replica: the blocks are, bit for bit, the rows of one unbroken answer. A stream that was stopped
        goes on with the `seed` of a block, and ``offset=block.offset + len(block.x)``.

        Args:
            n: how many rows in all, at least 1; for each context where there are several.
            seed: a whole number from 0; None for one that the server draws and names in each block.
            offset: the number of the first row in the seed's sequence.
            temperature: scales the standard deviations of a normal base, diagonal one or mixture.
            truncation: ends a normal base on both sides, after so many standard deviations.
            method: ``"random"``, or ``"sobol"`` for rows that together are spread more evenly.
            noise: ``"independent"``, or ``"common"`` for the same latents at every context.
            round_trip: whether to give round_trip_error too; it costs a second run.
            context: ``[C]``, or ``[K, C]`` for n rows of each of K contexts; None for a flow without.
            model: the flow's name.
            version: its version, or an alias.

        Yields:
            `Samples`, each with its own offset; all of one seed.

        Raises:
            InvalidInput: the context holds NaN or text; nothing was sent.
            ApiError: the server refused.
            ConnectionFailed, TimedOut: no answer came.
        """
        blocks = self._calls.stream_sample(
            n,
            seed=seed,
            offset=offset,
            temperature=temperature,
            truncation=truncation,
            method=method,
            noise=noise,
            round_trip=round_trip,
            context=context,
            model=model,
            version=version,
        )
        with suppress(StopAsyncIteration):
            while True:
                yield run_blocking(blocks.__anext__())

    def interpolate(
        self,
        points: npt.ArrayLike,
        *,
        space: Literal["x", "z"] = "x",
        steps: int = 11,
        path: Literal["slerp", "linear"] | None = None,
        spacing: Literal["parameter", "arc_length"] = "parameter",
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Path:
        """Walk from point to point through latent space.

        Args:
            points: at least two, ``[K, *event]``, or ``[K, D]``; ``[B, K, ...]`` for B walks.
            space: whether the points are data, ``"x"``, or latents, ``"z"``.
            steps: the rows of each segment, both ends included; at least 2. Neighbouring segments share a row, so that
                K points give T = (K - 1) (steps - 1) + 1 rows.
            path: ``"slerp"``, ``"linear"``, or None for the flow's own: slerp for a normal base, linear for any
                other.
            spacing: whether the rows are equally far apart in t, ``"parameter"``, or along the walk through latent
                space, ``"arc_length"``: then the steps are shared out to the segments by their lengths.
            context: ``[C]`` or ``[1, C]`` for the whole walk, ``[2, C]`` for its ends or ``[K, C]`` for its points,
                linear in t between them; None for a flow without.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            `Path`, T rows; it passes through every point.

        Raises:
            InvalidInput: the points hold NaN, text or nothing; nothing was sent.
            ApiError: the server refused.
            ConnectionFailed, TimedOut: no answer came.
        """
        call = self._calls.interpolate(
            points, space=space, steps=steps, path=path, spacing=spacing, context=context, model=model, version=version
        )
        return run_blocking(call)

    def encode(
        self,
        x: npt.ArrayLike,
        *,
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Encoded:
        """Encode rows as latents: z = f(x).

        Args:
            x: ``[N, *event]``, or one event.
            round_trip: whether to give round_trip_error too; it costs a second run.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            `Encoded`; z is ``[N, D]``.

        Raises:
            InvalidInput: the rows hold NaN, text or nothing; nothing was sent.
            ApiError: the server refused.
            ConnectionFailed, TimedOut: no answer came.
        """
        call = self._calls.encode(x, round_trip=round_trip, context=context, model=model, version=version)
        return run_blocking(call)

    def decode(
        self,
        z: npt.ArrayLike,
        *,
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Decoded:
        """Decode latents to data: x = g(z).

        Args:
            z: ``[N, D]``, or one latent.
            round_trip: whether to give round_trip_error too; it costs a second run.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            `Decoded`; x is ``[N, *event]``.

        Raises:
            InvalidInput: the rows hold NaN, text or nothing; nothing was sent.
            ApiError: the server refused.
            ConnectionFailed, TimedOut: no answer came.
        """
        call = self._calls.decode(z, round_trip=round_trip, context=context, model=model, version=version)
        return run_blocking(call)

    def trace(
        self,
        x: npt.ArrayLike | None = None,
        *,
        z: npt.ArrayLike | None = None,
        n: int | None = None,
        seed: int | None = None,
        noise: ContextNoise = "independent",
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Trace:
        """The event after each step of the chain, from x to z, and each step's log-determinant.

        Args:
            x: ``[N, *event]``, or one event. Without it, z is given, or n and seed.
            z: latents ``[N, D]``, whose data are followed.
            n: how many rows to draw and follow.
            seed: of the rows that are drawn.
            noise: of the rows that are drawn, as for `sample`.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            `Trace`; its steps' log-determinants sum to the whole.

        Raises:
            InvalidInput: the rows hold NaN, text or nothing; nothing was sent.
            ApiError: the server refused; the flow may have been exported without its chain.
            ConnectionFailed, TimedOut: no answer came.
        """
        call = self._calls.trace(x, z=z, n=n, seed=seed, noise=noise, context=context, model=model, version=version)
        return run_blocking(call)

    def edit(
        self,
        x: npt.ArrayLike,
        direction: Direction,
        strength: Sequence[float],
        *,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Edited:
        """Move rows along a direction of latent space: f, then z + strength * direction, then g.

        Args:
            x: ``[N, *event]``, or one event.
            direction: the name of one of the flow's own (`ModelInfo.directions`), a vector ``[D]``, or two
                rows of data, ``[2, *event]``, of which strength 1 takes the first onto the second.
            strength: S numbers; 0 is the round trip.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            `Edited`; x is ``[S, N, *event]``.

        Raises:
            InvalidInput: an argument holds NaN or text; nothing was sent.
            ApiError: the server refused: an unknown direction, with the names that there are, or a zero one.
            ConnectionFailed, TimedOut: no answer came.
        """
        return run_blocking(self._calls.edit(x, direction, strength, context=context, model=model, version=version))

    def weights(
        self,
        log_target: npt.ArrayLike,
        x: npt.ArrayLike | None = None,
        *,
        n: int | None = None,
        seed: int | None = None,
        noise: ContextNoise = "independent",
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Weights:
        """Weigh rows for a target whose log-density is known up to a constant: importance weights.

        Args:
            log_target: ``[N]``, at each row, in nats; -inf where the target is zero.
            x: ``[N, *event]``, drawn from the flow. Without it, n and seed are given.
            n: how many rows were drawn.
            seed: that they were drawn with.
            noise: that they were drawn with, as for `sample`.
            context: as for `log_prob`; one row for rows of a seed.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            `Weights`, with the effective sample size and the Pareto k-hat.

        Raises:
            InvalidInput: an argument holds NaN or text; nothing was sent.
            ApiError: the server refused.
            ConnectionFailed, TimedOut: no answer came.
        """
        call = self._calls.weights(
            log_target, x, n=n, seed=seed, noise=noise, context=context, model=model, version=version
        )
        return run_blocking(call)

    def importance(
        self,
        log_target: LogTarget,
        n: int,
        seed: int | None = None,
        *,
        noise: ContextNoise = "independent",
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Importance:
        """Draw from the flow and weigh the draws for a target.

        Args:
            log_target: called once with x ``[n, *event]``; gives the target's log-density at each row ``[n]``, up to
                a constant, -inf where it is zero.
            n: how many rows to draw.
            seed: None for one that the server draws.
            noise: as for `sample`.
            context: ``[C]``; None for a flow without.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            `Importance`: the draws, their weights and the measures of those.

        Raises:
            InvalidInput: the target gave NaN, or not a number for each row.
            ApiError: the server refused.
            ConnectionFailed, TimedOut: no answer came.

        Example::

            found = flow.importance(lambda x: -0.5 * (x**2).sum(axis=1), n=10_000, seed=1)
            mean = found.mean(found.x)
        """
        call = self._calls.importance(log_target, n, seed, noise=noise, context=context, model=model, version=version)
        return run_blocking(call)

    def posterior(
        self,
        context: npt.ArrayLike | None = None,
        n: int = 1000,
        *,
        seed: int | None = None,
        offset: int = 0,
        quantiles: npt.ArrayLike = (0.05, 0.5, 0.95),
        hpd: npt.ArrayLike = (0.9,),
        correlation: bool = True,
        method: Method = "random",
        noise: ContextNoise = "independent",
        model: str | None = None,
        version: int | str | None = None,
    ) -> Posterior:
        """Summarize draws of each context, which stay on the server.

        Args:
            context: ``[K, C]``, or ``[C]``; None for a flow without.
            n: how many draws of each context.
            seed: that of `sample` with the same draws; None for one that the server draws.
            offset: as for `sample`, as are method and noise.
            quantiles: levels, from 0 to 1; ``()`` for none.
            hpd: the shares of the draws that the highest-density intervals hold; ``()`` for none.
            correlation: whether to give it.
            method: of the draws.
            noise: of the draws.
            model: the flow's name.
            version: its version, or an alias.

        Returns:
            `Posterior`: mean, std, quantiles, hpd and correlation of each context.

        Raises:
            InvalidInput: an argument holds NaN or text; nothing was sent.
            ApiError: the server refused.
            ConnectionFailed, TimedOut: no answer came.
        """
        call = self._calls.posterior(
            context,
            n,
            seed=seed,
            offset=offset,
            quantiles=quantiles,
            hpd=hpd,
            correlation=correlation,
            method=method,
            noise=noise,
            model=model,
            version=version,
        )
        return run_blocking(call)

    def picture(
        self,
        verb: PictureVerb,
        *,
        columns: int | None = None,
        size: int | None = None,
        model: str | None = None,
        version: int | str | None = None,
        **arguments: Any,  # noqa: ANN401  of whichever verb it is
    ) -> bytes:
        """Draw a verb's answer: a grid or strips of images; a map, a chart or a pair plot of a table.

        Args:
            verb: ``"logprob"``, ``"sample"``, ``"decode"``, ``"interpolate"`` or ``"edit"``.
            columns: images in a row of a grid, or columns of a table to show; None for the server to choose.
            size: in pixels, the longer side of each image, or the side of a chart; None for the server to choose.
            model: the flow's name.
            version: its version, or an alias.
            arguments: of the verb, by their names in the HTTP API; they travel in one request.

        Returns:
            A PNG file; the same arguments give the same bytes.

        Raises:
            InvalidInput: rows hold NaN, text or nothing; nothing was sent.
            ApiError: the server refused; the picture may be too large.
            ConnectionFailed, TimedOut: no answer came.

        Example::

            Path("grid.png").write_bytes(flow.picture("sample", n=64, seed=7, columns=8))
        """
        call = self._calls.picture(verb, columns=columns, size=size, model=model, version=version, **arguments)
        return run_blocking(call)

    def models(self) -> list[ModelInfo]:
        """The flows that are served."""
        return run_blocking(self._calls.models())

    def model(self, name: str | None = None, version: int | str | None = None) -> ModelInfo:
        """Describe one flow: its newest version, or the one given.

        Args:
            name: the flow's name; None for the client's own, or the server's default.
            version: its version, or an alias.

        Raises:
            NotFound: there is no such flow or version.
        """
        return run_blocking(self._calls.model(name, version))

    def live(self) -> bool:
        """Whether the server's process answers. One request is sent."""
        return run_blocking(self._calls.live())

    def ready(self) -> bool:
        """Whether the server is ready to serve every flow; false where none answers. One request is sent."""
        return run_blocking(self._calls.ready())
