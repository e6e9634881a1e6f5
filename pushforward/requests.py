"""Each verb of the API once, without I/O: what it asks, in how many requests, and how the answers go together.

A verb is a generator of `pushforward.delivery` steps; `pushforward.client` drives the same ones for both clients.
Imports neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import orjson

from pushforward.answers import AnswerT, Decoded, Encoded, ModelInfo, Path, Samples, Scores, join
from pushforward.arrays import Float32Array, number_text, sendable, to_float32
from pushforward.delivery import Delivery, Request, Steps
from pushforward.errors import ConnectionFailed, InvalidInput, TimedOut, Unavailable, UnexpectedAnswer

__all__ = ["MAX_VALUES", "Method", "Noise", "Requests", "Score"]

Score = Literal[
    "z", "log_abs_det_jacobian", "base_log_prob", "quantile", "typicality", "bits_per_dim", "round_trip_error"
]
"""What `log_prob` can be asked for beside the log-densities."""

Method = Literal["random", "sobol"]
"""How the rows of a seed are spread."""

MAX_VALUES: Final = 1 << 18
"""A request, or its answer, holds about so many numbers at most: 3 MB of JSON, well below a server's caps."""

_ROUND_TRIP: Final = ["round_trip_error"]

_FIRST_ROWS: Final = 256
"""So many samples are asked for at first; their answer tells how wide an event is, and so how many fit the next."""


class Noise(NamedTuple):
    """Of what distribution samples are made, as `pushforward.Client.sample` takes it."""

    temperature: float = 1.0
    truncation: float | None = None
    method: Method = "random"

    def said(self) -> dict[str, Any]:
        """The arguments of a request; what is as usual goes unsaid, so that an older server takes it."""
        unusual = {"truncation": self.truncation} if self.truncation is not None else {}
        method = {"method": self.method} if self.method != "random" else {}
        return {"temperature": self.temperature, **unusual, **method}


@dataclass(frozen=True, slots=True)
class Requests:
    """The verbs of the native API.

    Args:
        delivery: the rules by which requests are tried again.
        model: the flow that answers where a call names none; None for the server's default.
        version: its version; None for the newest.
        max_values: larger inputs are cut into requests of about so many numbers.
    """

    delivery: Delivery
    model: str | None = None
    version: int | None = None
    max_values: int = MAX_VALUES

    def log_prob(
        self,
        x: npt.ArrayLike,
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
        returns: Sequence[Score] = (),
        alarm_rate: float | None = None,
    ) -> Steps[Scores]:
        """``POST /logprob``, in as many requests as x needs."""
        more: dict[str, Any] = {"return": list(returns)} if returns else {}
        if alarm_rate is not None:
            more["alarm_rate"] = alarm_rate
        return (yield from self._by_rows("logprob", Scores.read, "x", x, context, model, version, more))

    def encode(
        self,
        x: npt.ArrayLike,
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
        *,
        round_trip: bool = False,
    ) -> Steps[Encoded]:
        """``POST /encode``, in as many requests as x needs."""
        more = {"return": _ROUND_TRIP} if round_trip else {}
        return (yield from self._by_rows("encode", Encoded.read, "x", x, context, model, version, more))

    def decode(
        self,
        z: npt.ArrayLike,
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
        *,
        round_trip: bool = False,
    ) -> Steps[Decoded]:
        """``POST /decode``, in as many requests as z needs."""
        more = {"return": _ROUND_TRIP} if round_trip else {}
        return (yield from self._by_rows("decode", Decoded.read, "z", z, context, model, version, more))

    def sample(
        self,
        n: int,
        seed: int | None,
        offset: int,
        noise: Noise,
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
        *,
        round_trip: bool = False,
    ) -> Steps[Samples]:
        """``GET /sample``, or ``POST /sample`` for several contexts; offsets of one seed for a large n."""
        name, version = self._flow(model, version)
        contexts = None if context is None else to_float32(context, "context")
        more = {**noise.said(), **({"return": _ROUND_TRIP} if round_trip else {})}
        if contexts is None or contexts.ndim != 2:
            return (yield from self._samples(n, seed, offset, more, contexts, name, version))
        each = max(1, self.max_values // max(contexts.shape[1], min(n, _FIRST_ROWS)))
        parts: list[Samples] = []
        for start in range(0, len(contexts), each):
            group = contexts[start : start + each]
            part = yield from self._samples(n, seed, offset, more, group, name, version)
            parts.append(part)
            name, version, seed = part.model, part.version, part.seed
        return join(parts)

    def _samples(
        self,
        n: int,
        seed: int | None,
        offset: int,
        more: Mapping[str, Any],
        contexts: Float32Array | None,
        name: str | None,
        version: int | None,
    ) -> Steps[Samples]:
        """Rows of no context, of one, or of a few, in as many requests as n needs."""
        axis = 0 if contexts is None or contexts.ndim == 1 else 1
        rows = _FIRST_ROWS
        parts: list[Samples] = []
        while not parts or (parts[-1].offset - offset) + parts[-1].x.shape[axis] < n:
            done = sum(part.x.shape[axis] for part in parts)
            of_it = {"n": min(rows, n - done), "seed": seed, "offset": offset + done, **more}
            request = _sample_request(name, version, {k: v for k, v in of_it.items() if v is not None}, contexts)
            part = Samples.read((yield from self._ask(request)))
            parts.append(part)
            name, version, seed = part.model, part.version, part.seed
            rows = max(1, self.max_values // max(1, part.x.size // part.x.shape[axis]))
        return join(parts, axis)

    def interpolate(
        self,
        points: npt.ArrayLike,
        space: str,
        steps: int,
        path: str | None,
        spacing: str,
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
    ) -> Steps[Path]:
        """``POST /interpolate``, in one request: the path is one thing."""
        name, version = self._flow(model, version)
        body: dict[str, Any] = {"points": to_float32(points, "points"), "space": space, "steps": steps}
        if path is not None:
            body["path"] = path
        if spacing != "parameter":
            body["spacing"] = spacing
        if context is not None:
            body["context"] = to_float32(context, "context")
        return Path.read((yield from self._ask(_post(name, version, "interpolate", body))))

    def models(self) -> Steps[list[ModelInfo]]:
        """``GET /models``."""
        return _flows((yield from self._ask(Request("GET", "models"))))

    def described(self, name: str | None, version: int | None) -> Steps[ModelInfo]:
        """``GET /models/{name}`` or ``GET /models/{name}/versions/{v}``; without a name, of the server's default."""
        name, version = self._flow(name, version)
        if name is None:
            listed = yield from self._ask(Request("GET", "models"))
            name = listed.get("default")
            if not isinstance(name, str):
                raise InvalidInput(f"the server has no default flow: name one of {[f.name for f in _flows(listed)]}")
        path = f"models/{quote(name, safe='')}" + ("" if version is None else f"/versions/{version}")
        return ModelInfo.read((yield from self._ask(Request("GET", path))))

    def health(self, probe: Literal["live", "ready"]) -> Steps[bool]:
        """``GET /health/live`` or ``GET /health/ready``, once."""
        try:
            yield from self.delivery.deliver(Request("GET", f"health/{probe}", patient=False))
        except (ConnectionFailed, TimedOut, Unavailable):
            return False
        return True

    def _flow(self, model: str | None, version: int | None) -> tuple[str | None, int | None]:
        """The flow that a call means. The client's own version belongs to the client's own model."""
        if model is None:
            return self.model, self.version if version is None else version
        return model, self.version if version is None and model == self.model else version

    def _by_rows(
        self,
        verb: str,
        read: Callable[[Mapping[str, Any]], AnswerT],
        key: str,
        values: npt.ArrayLike,
        context: npt.ArrayLike | None,
        model: str | None,
        version: int | None,
        more: Mapping[str, Any],
    ) -> Steps[AnswerT]:
        """Ask a verb that takes rows, in pieces that fit; the first answer fixes flow and version for the rest."""
        name, version = self._flow(model, version)
        parts: list[AnswerT] = []
        for piece in self._pieces(key, values, context):
            part = read((yield from self._ask(_post(name, version, verb, {**piece, **more}))))
            parts.append(part)
            name, version = part.model, part.version
        return join(parts)

    def _pieces(
        self, key: str, values: npt.ArrayLike, context: npt.ArrayLike | None
    ) -> Iterator[dict[str, Float32Array]]:
        rows = to_float32(values, key)
        fixed: dict[str, Float32Array] = {}
        along: dict[str, Float32Array] = {key: rows}
        if context is not None:
            contexts = to_float32(context, "context")
            for_all = contexts.ndim < 2 or len(contexts) == 1
            (fixed if for_all else along)["context"] = contexts
        if sum(array.size for array in along.values()) <= self.max_values or rows.ndim < 2:
            yield {**along, **fixed}
            return
        if any(len(array) != len(rows) for array in along.values()):
            raise InvalidInput(f"context has {len(along['context'])} rows, and {key} has {len(rows)}")
        step = max(1, self.max_values // sum(array[0].size for array in along.values()))
        for start in range(0, len(rows), step):
            yield {**{name: array[start : start + step] for name, array in along.items()}, **fixed}

    def _ask(self, request: Request) -> Steps[Mapping[str, Any]]:
        answer = yield from self.delivery.deliver(request)
        try:
            payload = orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise UnexpectedAnswer("the answer is not JSON: this is not a Pushforward server") from error
        if not isinstance(payload, dict):
            raise UnexpectedAnswer("the answer is not a JSON object: this is not a Pushforward server")
        return payload


def _flows(payload: Mapping[str, Any]) -> list[ModelInfo]:
    flows = payload.get("models")
    if not isinstance(flows, list):
        raise UnexpectedAnswer("the answer has no list of models")
    return [ModelInfo.read(flow) for flow in flows]


def _post(name: str | None, version: int | None, verb: str, body: Mapping[str, Any]) -> Request:
    return Request("POST", verb, body=_json({**_flow_of(name, version), **body}))


def _sample_request(
    name: str | None, version: int | None, arguments: Mapping[str, Any], contexts: Float32Array | None
) -> Request:
    if contexts is not None and contexts.ndim > 1:
        return _post(name, version, "sample", {**arguments, "context": contexts})
    said = {**_flow_of(name, version), **arguments}
    query = {key: ",".join(value) if isinstance(value, list) else str(value) for key, value in said.items()}
    if contexts is not None:
        query["context"] = number_text(sendable(np.atleast_1d(contexts))).decode().strip("[]")
    return Request("GET", "sample", query)


def _flow_of(name: str | None, version: int | None) -> dict[str, Any]:
    return {key: value for key, value in (("model", name), ("version", version)) if value is not None}


def _json(body: Mapping[str, Any]) -> bytes:
    ready = {key: sendable(value) if isinstance(value, np.ndarray) else value for key, value in body.items()}
    return orjson.dumps(ready, option=orjson.OPT_SERIALIZE_NUMPY)
