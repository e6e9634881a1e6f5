"""Each verb of the API once, without I/O: what it asks, in how many requests, and how the answers go together.

A verb is a generator of `pushforward.client.delivery` steps; `pushforward.client.client` drives the same ones for
both clients. Imports neither httpx nor the server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import orjson

from pushforward.client.answers import Decoded, Encoded, ModelInfo, Path, Samples, Scores
from pushforward.client.arrays import Float32Array, dump_numbers, to_float32, widen_tie
from pushforward.client.delivery import Delivery, Request, Steps
from pushforward.client.errors import ConnectionFailed, InvalidInput, TimedOut, Unavailable, UnexpectedAnswer
from pushforward.client.payload import AnswerT, join

__all__ = ["MAX_VALUES", "Blocks", "Method", "Noise", "Pictured", "Requests", "Score", "post"]

Score = Literal[
    "z", "log_abs_det_jacobian", "base_log_prob", "quantile", "typicality", "bits_per_dim", "round_trip_error"
]
"""What `log_prob` can be asked for beside the log-densities."""

Method = Literal["random", "sobol"]
"""How the rows of a seed are spread."""

Pictured = Literal["logprob", "sample", "decode", "interpolate", "edit"]
"""The verbs of whose answer there is a picture, as the API calls them."""

_ROWS: Final = frozenset({"x", "z", "points", "context"})
_PNG: Final = b"\x89PNG"

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
        contexts = None if context is None else to_float32(context, "context")
        name, version = self._flow(model, version)
        groups: list[Float32Array | None] = [contexts]
        if contexts is not None and contexts.ndim == 2:
            each = max(1, self.max_values // max(contexts.shape[1], min(n, _FIRST_ROWS)))
            groups = [contexts[start : start + each] for start in range(0, len(contexts), each)]
        whole: list[Samples] = []
        for group in groups:
            blocks = Blocks(self, n, seed, offset, noise, group, name, version, round_trip=round_trip)
            parts = [(yield from blocks.following())]
            while blocks.left:
                parts.append((yield from blocks.following()))
            whole.append(join(parts, blocks.axis))
            name, version, seed = whole[0].model, whole[0].version, whole[0].seed
        return join(whole)

    def blocks(
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
    ) -> Blocks:
        """The same, block by block, each for all contexts."""
        contexts = None if context is None else to_float32(context, "context")
        name, version = self._flow(model, version)
        return Blocks(self, n, seed, offset, noise, contexts, name, version, round_trip=round_trip)

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
        return Path.read((yield from self.ask(post(name, version, "interpolate", body))))

    def picture(
        self,
        verb: Pictured,
        arguments: Mapping[str, Any],
        columns: int | None,
        size: int | None,
        model: str | None,
        version: int | None,
    ) -> Steps[bytes]:
        """Any verb that has a picture, with ``Accept: image/png``, in one request."""
        name, version = self._flow(model, version)
        said = {"columns": columns, "size": size, **arguments}
        body = {
            key: to_float32(value, key) if key in _ROWS else value for key, value in said.items() if value is not None
        }
        request = replace(post(name, version, verb, body), accept="image/png")
        answer = yield from self.delivery.deliver(request)
        if not answer.content.startswith(_PNG):
            raise UnexpectedAnswer("the answer is no picture: this is not a Pushforward server, or an older one")
        return answer.content

    def models(self) -> Steps[list[ModelInfo]]:
        """``GET /models``."""
        return _flows((yield from self.ask(Request("GET", "models"))))

    def described(self, name: str | None, version: int | None) -> Steps[ModelInfo]:
        """``GET /models/{name}`` or ``GET /models/{name}/versions/{v}``; without a name, of the server's default."""
        name, version = self._flow(name, version)
        if name is None:
            listed = yield from self.ask(Request("GET", "models"))
            name = listed.get("default")
            if not isinstance(name, str):
                raise InvalidInput(f"the server has no default flow: name one of {[f.name for f in _flows(listed)]}")
        path = f"models/{quote(name, safe='')}" + ("" if version is None else f"/versions/{version}")
        return ModelInfo.read((yield from self.ask(Request("GET", path))))

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
        times: int = 1,
        axis: int = 0,
    ) -> Steps[AnswerT]:
        """Ask a verb that takes rows, in pieces that fit; the first answer fixes flow and version for the rest.

        `times` is how often each row comes back, and `axis` where the answer has its rows.
        """
        name, version = self._flow(model, version)
        parts: list[AnswerT] = []
        for piece in self._pieces(key, values, context, times):
            part = read((yield from self.ask(post(name, version, verb, {**piece, **more}))))
            parts.append(part)
            name, version = part.model, part.version
        return join(parts, axis)

    def _pieces(
        self, key: str, values: npt.ArrayLike, context: npt.ArrayLike | None, times: int = 1
    ) -> Iterator[dict[str, Float32Array]]:
        rows = to_float32(values, key)
        fixed: dict[str, Float32Array] = {}
        along: dict[str, Float32Array] = {key: rows}
        if context is not None:
            contexts = to_float32(context, "context")
            for_all = contexts.ndim < 2 or len(contexts) == 1
            (fixed if for_all else along)["context"] = contexts
        if times * sum(array.size for array in along.values()) <= self.max_values or rows.ndim < 2:
            yield {**along, **fixed}
            return
        if any(len(array) != len(rows) for array in along.values()):
            raise InvalidInput(f"context has {len(along['context'])} rows, and {key} has {len(rows)}")
        step = max(1, self.max_values // (times * sum(array[0].size for array in along.values())))
        for start in range(0, len(rows), step):
            yield {**{name: array[start : start + step] for name, array in along.items()}, **fixed}

    def ask(self, request: Request) -> Steps[Mapping[str, Any]]:
        """Send a request until it is answered, and read the answer's JSON object."""
        answer = yield from self.delivery.deliver(request)
        try:
            payload = orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise UnexpectedAnswer("the answer is not JSON: this is not a Pushforward server") from error
        if not isinstance(payload, dict):
            raise UnexpectedAnswer("the answer is not a JSON object: this is not a Pushforward server")
        return payload


class Blocks:
    """Samples in consecutive blocks, of which each is one request; the first answer fixes flow and seed for the rest.

    Row i of a seed is one value whatever it is asked with, so that a block whose answer broke off is asked for again.

    Args:
        requests: how they are sent.
        n: how many rows; for each context where there are several.
        seed: None for one that the server draws.
        offset: the row of the seed that comes first.
        noise: its distribution.
        contexts: ``[C]`` or ``[K, C]``; None for a flow without.
        name: of the flow; None for the server's default.
        version: of it; None for the newest.
        round_trip: whether to ask for round_trip_error.
    """

    def __init__(
        self,
        requests: Requests,
        n: int,
        seed: int | None,
        offset: int,
        noise: Noise,
        contexts: Float32Array | None,
        name: str | None,
        version: int | None,
        *,
        round_trip: bool,
    ) -> None:
        self.left = n
        """The rows that are still to come."""
        self.axis = 0 if contexts is None or contexts.ndim == 1 else 1
        """Where the rows are."""
        self._requests = requests
        self._offset = offset
        self._contexts = contexts
        self._flow = name, version
        self._rows = _FIRST_ROWS
        self._said: dict[str, Any] = {} if seed is None else {"seed": seed}
        self._said |= noise.said() | ({"return": _ROUND_TRIP} if round_trip else {})

    def following(self) -> Steps[Samples]:
        """The next block; also of no rows, for the server to refuse."""
        arguments = {"n": min(self._rows, self.left), "offset": self._offset, **self._said}
        part = Samples.read((yield from self._requests.ask(_sample_request(*self._flow, arguments, self._contexts))))
        rows = part.x.shape[self.axis]
        if rows < 1:
            raise UnexpectedAnswer("the answer has no rows")
        self.left -= rows
        self._offset += rows
        self._flow = part.model, part.version
        self._said["seed"] = part.seed
        self._rows = max(1, self._requests.max_values // max(1, part.x.size // rows))
        return part


def _flows(payload: Mapping[str, Any]) -> list[ModelInfo]:
    flows = payload.get("models")
    if not isinstance(flows, list):
        raise UnexpectedAnswer("the answer has no list of models")
    return [ModelInfo.read(flow) for flow in flows]


def post(name: str | None, version: int | None, verb: str, body: Mapping[str, Any]) -> Request:
    """The request of a verb that takes a body."""
    return Request("POST", verb, body=_json({**_flow_of(name, version), **body}))


def _sample_request(
    name: str | None, version: int | None, arguments: Mapping[str, Any], contexts: Float32Array | None
) -> Request:
    if contexts is not None and contexts.ndim > 1:
        return post(name, version, "sample", {**arguments, "context": contexts})
    said = {**_flow_of(name, version), **arguments}
    query = {key: ",".join(value) if isinstance(value, list) else str(value) for key, value in said.items()}
    if contexts is not None:
        query["context"] = dump_numbers(widen_tie(np.atleast_1d(contexts))).decode().strip("[]")
    return Request("GET", "sample", query)


def _flow_of(name: str | None, version: int | None) -> dict[str, Any]:
    return {key: value for key, value in (("model", name), ("version", version)) if value is not None}


def _json(body: Mapping[str, Any]) -> bytes:
    ready = {key: widen_tie(value) if isinstance(value, np.ndarray) else value for key, value in body.items()}
    return orjson.dumps(ready, option=orjson.OPT_SERIALIZE_NUMPY)
