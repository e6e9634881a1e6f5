"""The calls of the API, each written once: what is asked, in how many requests, and how answers are joined.

They are coroutines. `AsyncClient` has them as they are, and `Client` runs them over a connection that blocks. Imports
neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields, replace
from random import Random, SystemRandom
from types import NoneType
from typing import Any, Final, Literal, TypeAlias, overload
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import orjson

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
from pushforward.client.arrays import FloatArray, FloatType, to_context, to_float64
from pushforward.client.call_numbers import (
    Direction,
    as_given,
    as_levels,
    check_log_target,
    format_direction,
    given_numbers,
    read_rows,
)
from pushforward.client.columns import ROW_KINDS, ColumnMatcher
from pushforward.client.delivery import Connection, Delivery, HttpRequest
from pushforward.client.errors import (
    ConnectionFailed,
    InvalidInput,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
)
from pushforward.client.payload import ArrayAnswerT, Payload, join_answers
from pushforward.client.posterior_answers import Importance, Posterior, Weights
from pushforward.client.precisions import Precisions
from pushforward.client.repository_calls import RepositoryCalls
from pushforward.client.requests import FlowChoice, post_request
from pushforward.client.row_pieces import cut_contexts, cut_rows
from pushforward.client.sampling import FIRST_ROWS, ContextNoise, Method, Noise, SampleBlocks
from pushforward.client.tables import RowKind, require_same_rows

__all__ = ["MAX_VALUES", "Calls", "LogTarget", "PictureVerb", "ScoreName"]

ScoreName: TypeAlias = Literal[
    "z",
    "log_abs_det_jacobian",
    "base_log_prob",
    "quantile",
    "typicality",
    "bits_per_dim",
    "context_quantile",
    "round_trip_error",
]
"""The name of a score that `log_prob` gives beside the log-densities."""

PictureVerb: TypeAlias = Literal["logprob", "sample", "decode", "interpolate", "edit"]
"""A verb whose answer can be drawn, as the API calls it."""

LogTarget: TypeAlias = Callable[[FloatArray], npt.ArrayLike]
"""Rows x ``[N, *event]`` -> the log-density of a target at each, ``[N]``, up to a constant; -inf where it is zero."""

MAX_VALUES: Final = 1 << 18
"""A request, or its answer, holds about so many numbers at most: 3 MB of JSON, well below a server's caps."""

_ROUND_TRIP: Final = {"return": ["round_trip_error"]}
_PNG_MAGIC: Final = b"\x89PNG"


class Calls:
    """The calls of the native API. `pushforward.Client` says what each takes, gives and raises.

    Args:
        connection: sends the requests.
        model: the flow that answers where a call names none; None for the server's default.
        version: its version, or an alias; None for the newest.
        timeout: seconds that one request may take, its retries and pauses included.
        retries: how often at most a request is sent again.
        max_values: larger inputs are cut into requests of about so many numbers.
        clock: gives seconds, for the timeout.
        random: gives the retries' jitter.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        model: str | None,
        version: int | str | None,
        timeout: float,
        retries: int,
        max_values: int,
        clock: Callable[[], float],
        random: Random | None,
    ) -> None:
        jitter = random or SystemRandom()  # without a state, which a forked process would have in common
        self._delivery = Delivery(connection, timeout, retries, clock=clock, random=jitter)
        self._model = model
        self._version = version
        self._max_values = max_values
        self._columns = ColumnMatcher(self.model)
        self._precisions = Precisions(self.model)
        self.repository = RepositoryCalls(self._ask)

    @overload
    async def log_prob(
        self,
        x: npt.ArrayLike,
        *,
        correct: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> FloatArray: ...

    @overload
    async def log_prob(
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
    async def log_prob(
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

    async def log_prob(
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
        """As `Client.log_prob`."""
        more: dict[str, Any] = {"return": list(returns)} if returns else {}
        if alarm_rate is not None:
            more["alarm_rate"] = alarm_rate
        if correct:
            more["correct"] = True
        flow = self._choose_flow(model, version)

        async def ask(flow: FlowChoice, rows: Mapping[str, Any], dtype: FloatType) -> Scores:
            return await self._ask_by_rows("logprob", Scores.read, flow, "x", rows, more, dtype)

        scores = await self._ask_in_precision(flow, ask, {"x": x, "context": context})
        return scores.log_prob if returns is None and alarm_rate is None else scores

    async def sample(
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
        """As `Client.sample`."""

        async def ask(flow: FlowChoice, rows: Mapping[str, Any], dtype: FloatType) -> Samples:
            contexts = None if rows["context"] is None else to_context(rows["context"], dtype)
            return await self._draw(
                flow, n, seed=seed, offset=offset, noise=draw, contexts=contexts, round_trip=round_trip, dtype=dtype
            )

        draw = Noise(temperature, truncation, method, noise)
        return await self._ask_in_precision(self._choose_flow(model, version), ask, {"context": context})

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
    ) -> SampleBlocks:
        """As `Client.stream_sample`."""
        flow = self._choose_flow(model, version)
        given = ColumnMatcher.read({"context": context})
        labelled = ColumnMatcher.has_labels(given)

        async def find_contexts() -> tuple[FlowChoice, FloatArray]:
            choice, rows = await self._columns.match_newest(flow, given)
            return choice, as_given(rows["context"])

        return SampleBlocks(
            self._ask,
            n=n,
            seed=seed,
            offset=offset,
            noise=Noise(temperature, truncation, method, noise),
            contexts=None if context is None or labelled else as_given(context),
            flow=flow,
            round_trip=round_trip,
            max_values=self._max_values,
            find_contexts=find_contexts if labelled else None,
            dtype=self._precisions.known(flow),
        )

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
        version: int | str | None = None,
    ) -> Path:
        """As `Client.interpolate`; one request, for the path is one thing."""
        body: dict[str, Any] = {"space": space, "steps": steps}
        if path is not None:
            body["path"] = path
        if spacing != "parameter":
            body["spacing"] = spacing

        async def ask(flow: FlowChoice, rows: Mapping[str, Any], dtype: FloatType) -> Path:
            return Path.read(await self._ask(post_request(flow, "interpolate", {**read_rows(rows, dtype), **body})))

        given = {"points": points, "context": context}
        return await self._ask_in_precision(self._choose_flow(model, version), ask, given, points=space)

    async def encode(
        self,
        x: npt.ArrayLike,
        *,
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Encoded:
        """As `Client.encode`."""
        flow = self._choose_flow(model, version)
        more = _ROUND_TRIP if round_trip else {}

        async def ask(flow: FlowChoice, rows: Mapping[str, Any], dtype: FloatType) -> Encoded:
            return await self._ask_by_rows("encode", Encoded.read, flow, "x", rows, more, dtype)

        return await self._ask_in_precision(flow, ask, {"x": x, "context": context})

    async def decode(
        self,
        z: npt.ArrayLike,
        *,
        round_trip: bool = False,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Decoded:
        """As `Client.decode`."""
        flow = self._choose_flow(model, version)
        more = _ROUND_TRIP if round_trip else {}

        async def ask(flow: FlowChoice, rows: Mapping[str, Any], dtype: FloatType) -> Decoded:
            return await self._ask_by_rows("decode", Decoded.read, flow, "z", rows, more, dtype)

        return await self._ask_in_precision(flow, ask, {"z": z, "context": context})

    async def edit(
        self,
        x: npt.ArrayLike,
        direction: Direction,
        strength: Sequence[float],
        *,
        context: npt.ArrayLike | None = None,
        model: str | None = None,
        version: int | str | None = None,
    ) -> Edited:
        """As `Client.edit`."""
        strengths = np.atleast_1d(to_float64(strength, "strength"))
        if strengths.ndim != 1 or not np.isfinite(strengths).all():
            raise InvalidInput("strength must be finite numbers in a row")

        async def ask(flow: FlowChoice, rows: Mapping[str, Any], dtype: FloatType) -> Edited:
            more = {"direction": format_direction(rows["direction"], dtype), "strength": strengths.tolist()}
            return await self._ask_by_rows(
                "edit", Edited.read, flow, "x", rows, more, dtype, answers_per_row=len(strengths), axis=1
            )

        given = {"x": x, "context": context, "direction": direction}
        return await self._ask_in_precision(self._choose_flow(model, version), ask, given)

    async def trace(
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
        """As `Client.trace`; one request."""
        body = given_numbers(n, seed, noise)

        async def ask(flow: FlowChoice, rows: Mapping[str, Any], dtype: FloatType) -> Trace:
            return Trace.read(await self._ask(post_request(flow, "trace", {**body, **read_rows(rows, dtype)})))

        return await self._ask_in_precision(
            self._choose_flow(model, version), ask, {"x": x, "z": z, "context": context}
        )

    async def weights(
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
        """As `Client.weights`; one request, for the weights are normalized together."""
        targets = check_log_target(log_target).tolist()
        body = {"log_target": targets, **given_numbers(n, seed, noise)}
        require_same_rows({"x": x, "log_target": log_target})

        async def ask(flow: FlowChoice, rows: Mapping[str, Any], dtype: FloatType) -> Weights:
            return Weights.read(await self._ask(post_request(flow, "weights", {**body, **read_rows(rows, dtype)})))

        return await self._ask_in_precision(self._choose_flow(model, version), ask, {"x": x, "context": context})

    async def importance(
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
        """As `Client.importance`; over an event loop, the target is called from the loop."""
        drawn = await self.sample(n, seed=seed, noise=noise, context=context, model=model, version=version)
        targets = check_log_target(log_target(drawn.x))
        if targets.shape != (len(drawn.x),):
            shape, rows = list(targets.shape), len(drawn.x)
            raise InvalidInput(f"log_target must give a number for each of the {rows} rows, and gave the shape {shape}")
        weighed = await self.weights(
            targets, n=n, seed=drawn.seed, noise=noise, context=context, model=drawn.model, version=drawn.version
        )
        members = {field.name: getattr(weighed, field.name) for field in fields(weighed)}
        return Importance(**members, x=drawn.x, log_prob=drawn.log_prob, log_target=targets, seed=drawn.seed)

    async def posterior(
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
        """As `Client.posterior`; many contexts travel in several requests."""
        levels = {"quantiles": as_levels(quantiles, "quantiles"), "hpd": as_levels(hpd, "hpd")}
        how = {"n": n, "offset": offset, **levels, "correlation": correlation, "method": method, "noise": noise}

        async def ask(flow: FlowChoice, rows: Mapping[str, Any], dtype: FloatType) -> Posterior:
            contexts = None if rows["context"] is None else to_context(rows["context"], dtype)
            drawn, parts = given_numbers(None, seed, "independent"), list[Posterior]()
            for group in cut_contexts(contexts, n, self._max_values):
                body = how | drawn | ({} if group is None else {"context": group})
                parts.append(Posterior.read(await self._ask(post_request(flow, "posterior", body))))
                flow, drawn = FlowChoice(parts[0].model, parts[0].version), {"seed": parts[0].seed}
            return join_answers(parts)

        return await self._ask_in_precision(self._choose_flow(model, version), ask, {"context": context})

    async def picture(
        self,
        verb: PictureVerb,
        *,
        columns: int | None = None,
        size: int | None = None,
        model: str | None = None,
        version: int | str | None = None,
        **arguments: Any,  # noqa: ANN401  of whichever verb it is
    ) -> bytes:
        """As `Client.picture`; one request, with ``Accept: image/png``."""
        given = {name: value for name, value in arguments.items() if value is not None}
        rows = {name: given.pop(name) for name in ROW_KINDS if name in given}
        if not isinstance(given.get("direction"), (str, dict, NoneType)):
            rows["direction"] = given.pop("direction")
        kinds: dict[str, RowKind] = {"points": "z"} if given.get("space") == "z" else {}
        # A picture does not say which version drew it, so that the columns learnt before may be another's.
        flow, rows = await self._columns.match_newest(self._choose_flow(model, version), rows, **kinds)
        dtype = self._precisions.known(flow)
        if "direction" in rows:
            given["direction"] = format_direction(rows.pop("direction"), dtype)
        more = {name: value for name, value in (("columns", columns), ("size", size)) if value is not None}
        body = {**more, **given, **read_rows(rows, dtype)}
        answer = await self._delivery.deliver(replace(post_request(flow, verb, body), accept="image/png"))
        if not answer.content.startswith(_PNG_MAGIC):
            raise UnexpectedAnswer("the answer is no picture: this is not a Pushforward server, or an older one")
        return answer.content

    async def models(self) -> list[ModelInfo]:
        """As `Client.models`."""
        return ModelInfo.read_all(await self._ask(HttpRequest("GET", "models")))

    async def model(self, name: str | None = None, version: int | str | None = None) -> ModelInfo:
        """As `Client.model`."""
        name, version = self._choose_flow(name, version)
        if name is None:
            listed = await self._ask(HttpRequest("GET", "models"))
            name = listed.get("default")
            if not isinstance(name, str):
                names = [flow.name for flow in ModelInfo.read_all(listed)]
                raise InvalidInput(f"the server has no default flow: name one of {names}")
        path = f"models/{quote(name, safe='')}" + (
            "" if version is None else f"/versions/{quote(str(version), safe='')}"
        )
        return ModelInfo.read(await self._ask(HttpRequest("GET", path)))

    async def live(self) -> bool:
        """As `Client.live`."""
        return await self._probe("health/live")

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._probe("health/ready")

    async def _probe(self, path: str) -> bool:
        try:
            await self._delivery.deliver(HttpRequest("GET", path, retried=False))
        except (ConnectionFailed, TimedOut, Unavailable):
            return False
        return True

    def _choose_flow(self, model: str | None, version: int | str | None) -> FlowChoice:
        """The flow that a call means. The client's own version belongs to the client's own model."""
        if model is None:
            return FlowChoice(self._model, self._version if version is None else version)
        return FlowChoice(model, self._version if version is None and model == self._model else version)

    async def _ask_in_precision(
        self,
        flow: FlowChoice,
        ask: Callable[[FlowChoice, Mapping[str, Any], FloatType], Awaitable[ArrayAnswerT]],
        given: Mapping[str, Any],
        **kinds: RowKind,
    ) -> ArrayAnswerT:
        """Ask with rows in the flow's precision, and with their columns in its order, as `ColumnMatcher.ask`.

        Args:
            flow: that is asked.
            ask: asks a flow with such rows, and with the dtype that their numbers are sent in.
            given: the arguments that hold rows, by name; None for one that is not given.
            kinds: of their columns.
        """
        read = ColumnMatcher.read(given)

        async def in_precision(dtype: FloatType) -> ArrayAnswerT:
            return await self._columns.ask(flow, lambda choice, rows: ask(choice, rows, dtype), read, **kinds)

        numbers = any(values is not None for values in read.values())
        return await self._precisions.ask(flow, in_precision, sends_numbers=numbers)

    async def _draw(
        self,
        flow: FlowChoice,
        n: int,
        *,
        seed: int | None,
        offset: int,
        noise: Noise,
        contexts: FloatArray | None,
        round_trip: bool,
        dtype: FloatType,
    ) -> Samples:
        """Draw samples; arguments as of `SampleBlocks`. Many contexts travel in several requests."""
        of_groups: list[Samples] = []
        for group in cut_contexts(contexts, min(n, FIRST_ROWS), self._max_values):
            blocks = SampleBlocks(
                self._ask,
                n=n,
                seed=seed,
                offset=offset,
                noise=noise,
                contexts=group,
                flow=flow,
                round_trip=round_trip,
                max_values=self._max_values,
                dtype=dtype,
            )
            of_groups.append(join_answers([block async for block in blocks], blocks.axis))
            flow, seed = FlowChoice(of_groups[0].model, of_groups[0].version), of_groups[0].seed
        return join_answers(of_groups)

    async def _ask_by_rows(
        self,
        verb: str,
        read: Callable[[Payload], ArrayAnswerT],
        flow: FlowChoice,
        key: Literal["x", "z"],
        rows: Mapping[str, Any],
        more: Mapping[str, Any],
        dtype: FloatType,
        *,
        answers_per_row: int = 1,
        axis: int = 0,
    ) -> ArrayAnswerT:
        """Ask a verb that takes rows, in pieces that fit. The first answer fixes flow and version for the rest.

        Args:
            verb: as the API calls it.
            read: reads an answer.
            flow: that is asked.
            key: the argument that holds the rows.
            rows: that argument, and the context of the rows, which may be None.
            more: the arguments that every piece has.
            dtype: that numbers are sent in.
            answers_per_row: how often each row comes back.
            axis: of the rows in an answer.

        Raises:
            InvalidInput: the rows cannot be sent, or there are more or fewer rows of context.
        """
        parts: list[ArrayAnswerT] = []
        for piece in cut_rows(key, rows[key], rows["context"], answers_per_row, dtype, max_values=self._max_values):
            part = read(await self._ask(post_request(flow, verb, {**piece, **more})))
            parts.append(part)
            flow = FlowChoice(part.model, part.version)
        return join_answers(parts, axis)

    async def _ask(self, request: HttpRequest) -> Payload:
        """Send a request until it is answered, and read the JSON object of the answer.

        Raises:
            UnexpectedAnswer: the answer is none.
            ClientError: from the delivery.
        """
        answer = await self._delivery.deliver(request)
        try:
            payload = orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise UnexpectedAnswer("the answer is not JSON: this is not a Pushforward server") from error
        if not isinstance(payload, dict):
            raise UnexpectedAnswer("the answer is not a JSON object: this is not a Pushforward server")
        return payload
