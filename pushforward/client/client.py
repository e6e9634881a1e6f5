"""`Client`: a served flow as NumPy functions, from code that blocks.

It is thin, as `AsyncClient` is: `pushforward.client.requests` says what to ask and reads the answers,
`pushforward.client.delivery` says when to try again, and what is left is to send bytes over httpx and to wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Literal, Self, TypeVar, overload

import httpx
import numpy.typing as npt

from pushforward.client.answers import Decoded, Encoded, ModelInfo, Path, Samples, Scores
from pushforward.client.arrays import Float32Array
from pushforward.client.connection import DEFAULT_TIMEOUT, DEFAULT_URL, Connection
from pushforward.client.delivery import Answer, Done, Pause, Send, Steps, advance
from pushforward.client.errors import ClientError
from pushforward.client.latent_calls import LatentCalls
from pushforward.client.picture_calls import PictureCalls
from pushforward.client.requests import MAX_VALUES, Method, Noise, Score

__all__ = ["Client"]

T = TypeVar("T")


class Client(Connection, LatentCalls, PictureCalls):
    """A Pushforward server, from code that blocks.

    Arrays go in and come out as float32, bit for bit; float64 that is handed in is rounded to it. Inputs of more than
    about `max_values` numbers travel in several requests, and come back joined. Safe to share between threads.

    Args:
        base_url: where the server is.
        model: the flow that answers where a call names none; None for the server's default flow.
        version: its version; None for the newest.
        timeout: seconds that one request may take, its retries and pauses included.
        retries: how often at most a request is sent again, after a connection that failed and after 429 and 503
            (Retry-After is waited for). No other answer is asked for twice.
        max_values: the bound on the numbers in one request.
        headers: sent with each request.
        transport: what carries the requests, in the place of the network.
        clock: gives seconds, for the timeout.
        sleep: waits for seconds, between retries.
        random: gives the retries' jitter.

    Raises:
        InvalidInput: where `base_url` is no address.

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
        version: int | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int = 3,
        max_values: int = MAX_VALUES,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Random | None = None,
    ) -> None:
        super().__init__(base_url, model, version, timeout, retries, max_values, clock, random)
        self._http = httpx.Client(base_url=base_url, headers=headers, transport=transport)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @overload
    def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Float32Array: ...

    @overload
    def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        returns: Sequence[Score],
        alarm_rate: float | None = None,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Scores: ...

    def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        returns: Sequence[Score] | None = None,
        alarm_rate: float | None = None,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Float32Array | Scores:
        """Log-densities of rows: log p(x) = log p_Z(f(x)) + log|det df/dx|.

        Args:
            x: ``[N, *event]``, or one event; in the units that the flow was fitted in. An array of more than the
                client's `max_values` numbers is taken as rows along its first axis.
            returns: what else to give back, such as ``["z", "quantile"]``; an empty list gives `Scores` of
                log_prob alone.
            alarm_rate: in (0, 1); a row is an anomaly where at most this share of held-out rows has a log_prob as low.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version.

        Returns:
            float32 ``[N]`` in nats, -inf outside the support; `Scores` where `returns` is given.

        Raises:
            InvalidInput: x holds NaN, text or no rows; nothing was sent.
            ApiError: the server said no.
            ConnectionFailed, TimedOut: no answer came.
        """
        steps = self._requests.log_prob(x, context, model, version, returns or (), alarm_rate)
        scores = self._run(steps)
        return scores.log_prob if returns is None else scores

    def sample(
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
        """Rows drawn from the flow; row i of a seed is one value, whatever n and offset.

        Args:
            n: how many rows, at least 1; for each context where there are several.
            seed: a whole number from 0; None for one that the server draws and names in the answer.
            offset: the number of the first row in the seed's sequence.
            temperature: scales the standard deviations of a normal base, diagonal one or mixture.
            truncation: ends a normal base on both sides, after so many standard deviations.
            method: ``"random"``, or ``"sobol"`` for rows that together are spread more evenly: averages over them
                converge sooner, best where offset and n are powers of two.
            round_trip: whether to give round_trip_error too; it costs a second run.
            context: ``[C]``, or ``[K, C]`` for n rows of each of K contexts; None for a flow without.
            model: the flow's name.
            version: its version.

        Returns:
            `Samples`; x is float32 ``[n, *event]``, or ``[K, n, *event]``.

        Raises:
            ApiError: the server said no.
            ConnectionFailed, TimedOut: no answer came.
        """
        noise = Noise(temperature, truncation, method)
        steps = self._requests.sample(n, seed, offset, noise, context, model, version, round_trip=round_trip)
        return self._run(steps)

    def stream_sample(
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
    ) -> Iterator[Samples]:
        """The rows of `sample` in consecutive blocks of about `max_values` numbers, with no more of them in memory.

        A block whose answer breaks off is asked for again, as any request is, and row i of a seed is one value from
        any replica: the blocks are, bit for bit, the rows of one unbroken answer. Whoever stops goes on later with the
        `seed` of a block, and ``offset=block.offset + len(block.x)``.

        Args:
            n: how many rows in all; the rest as for `sample`.
            seed: see there.
            offset: see there.
            temperature: see there.
            truncation: see there.
            method: see there.
            round_trip: see there.
            context: see there.
            model: see there.
            version: see there.

        Yields:
            `Samples`, each with its own offset; all of one seed.

        Raises:
            As `sample`.
        """
        noise = Noise(temperature, truncation, method)
        blocks = self._requests.blocks(n, seed, offset, noise, context, model, version, round_trip=round_trip)
        yield self._run(blocks.following())
        while blocks.left:
            yield self._run(blocks.following())

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
        version: int | None = None,
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
            version: its version.

        Returns:
            `Path`, T rows; it passes through every point.

        Raises:
            InvalidInput: the points hold NaN, text or nothing; nothing was sent.
            ApiError: the server said no.
            ConnectionFailed, TimedOut: no answer came.
        """
        return self._run(self._requests.interpolate(points, space, steps, path, spacing, context, model, version))

    def encode(
        self,
        x: npt.ArrayLike,
        *,
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Encoded:
        """Latents of rows: z = f(x).

        Args:
            x: ``[N, *event]``, or one event.
            round_trip: whether to give round_trip_error too; it costs a second run.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version.

        Returns:
            `Encoded`; z is float32 ``[N, D]``.

        Raises:
            As `log_prob`.
        """
        return self._run(self._requests.encode(x, context, model, version, round_trip=round_trip))

    def decode(
        self,
        z: npt.ArrayLike,
        *,
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | None = None,
    ) -> Decoded:
        """Data of latents: x = g(z).

        Args:
            z: ``[N, D]``, or one latent.
            round_trip: whether to give round_trip_error too; it costs a second run.
            context: ``[N, C]``, or ``[C]`` or ``[1, C]`` for all rows; None for a flow without.
            model: the flow's name.
            version: its version.

        Returns:
            `Decoded`; x is float32 ``[N, *event]``.

        Raises:
            As `log_prob`.
        """
        return self._run(self._requests.decode(z, context, model, version, round_trip=round_trip))

    def models(self) -> list[ModelInfo]:
        """What is served."""
        return self._run(self._requests.models())

    def model(self, name: str | None = None, version: int | None = None) -> ModelInfo:
        """One flow, as the server describes it: its newest version, or the one given.

        Args:
            name: the flow's name; None for the client's own, or the server's default.
            version: its version.

        Raises:
            NotFound: there is no such flow or version.
        """
        return self._run(self._requests.described(name, version))

    def live(self) -> bool:
        """Whether the server's process answers; false where none does. Asks once."""
        return self._run(self._requests.health("live"))

    def ready(self) -> bool:
        """Whether the server is ready to serve every flow; false too where none answers. Asks once."""
        return self._run(self._requests.health("ready"))

    def _run(self, steps: Steps[T]) -> T:
        step = advance(steps)
        while not isinstance(step, Done):
            step = advance(steps, self._outcome(step))
        return step.value

    def _outcome(self, step: Send | Pause) -> Answer | ClientError | None:
        if isinstance(step, Pause):
            self._sleep(step.seconds)
            return None
        try:
            return self._send(step)
        except httpx.HTTPError as error:
            return self._failed(error)

    def _send(self, send: Send) -> Answer:
        response = self._http.send(self._built(self._http, send), stream=True)
        content: list[bytes] = []
        try:
            for chunk in response.iter_bytes():
                content.append(chunk)
                self._in_time(send)
        finally:
            response.close()
        return self._answer(response, content)
