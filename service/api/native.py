"""The native verbs: each one function from an exchange to a reply, bytes to bytes, knowing no door.

Read one from top to bottom and you have read a request: decode, find the flow, hold the work against the budget,
ask the engine, encode.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

import numpy as np

from service.api import wire
from service.api.arrays import context_rows, event_rows
from service.api.codecs.codec import Codec, Columns, Form
from service.api.exchange import Exchange, Reply
from service.api.guard import check_work
from service.api.query import query_arguments
from service.api.schemas import (
    DecodeRequest,
    EncodeRequest,
    InterpolateRequest,
    LogProbRequest,
    Request,
    SampleRequest,
    validate,
)
from service.api.streams import STREAM_VALUES, Draw, streamed
from service.engine.flow import ServedFlow
from service.engine.plan import Float32, Plan
from service.engine.registry import Registry
from service.errors import InvalidArgument, PushforwardError, Reason, VersionNotFound, WrongShape

__all__ = ["DRAWN_SEED_BITS", "Verb", "Verbs", "path_version"]

T = TypeVar("T")
R = TypeVar("R", bound=Request)
Place = Literal["body", "query"]
Verb = Callable[[Exchange], Plan[Reply]]

_WORTH_A_LOOK: Final = 1 << 12
"""A body of fewer bytes is read as soon as it is refused."""

DRAWN_SEED_BITS: Final = 53
"""A seed that the server draws has so many bits: every JSON reader keeps it exact."""


class Verbs:
    """The verbs of one server.

    Args:
        registry: what is served.
        max_work: the work budget of a request, in values: rows * width * steps.
        max_stream_work: the same for a sample that is streamed, and never in memory whole.
    """

    def __init__(self, registry: Registry, max_work: int, max_stream_work: int) -> None:
        self._registry = registry
        self._max_work = max_work
        self._max_stream_work = max_stream_work

    def hot(self) -> Mapping[tuple[bytes, bytes], Verb]:
        """The verbs worth a door of their own: method and last part of the path -> verb."""
        return {
            (b"POST", b"logprob"): self.log_prob,
            (b"GET", b"sample"): self.sample_by_query,
            (b"POST", b"encode"): self.encode,
            (b"POST", b"decode"): self.decode,
        }

    def log_prob(self, exchange: Exchange) -> Plan[Reply]:
        """POST /logprob."""
        codec = wire.accepted(exchange)
        self._admit(exchange, "forward")
        given, place = wire.decode(exchange, "x")
        asked = validate(LogProbRequest, given, place)
        if codec.single and (asked.returns or asked.alarm_rate is not None):
            detail = f"{codec.media_type} has room for log_prob alone; accept another type"
            raise InvalidArgument(detail, (Reason((place, "return" if asked.returns else "alarm_rate"), detail),))
        flow = self._find(exchange, asked, place)
        x, context = self._rows(flow, "x", asked.x, asked.context, place)
        found = yield from _located(flow.log_prob(x, context, asked.returns, asked.alarm_rate), "x", place)
        extras: Mapping[Any, Any] = found.extras
        answer = {**_named(flow), "log_prob": found.log_prob, **extras}
        if found.anomaly is not None:
            answer["anomaly"] = found.anomaly
        return wire.encode(codec, answer, "log_prob", flow.features)

    def encode(self, exchange: Exchange) -> Plan[Reply]:
        """POST /encode."""
        codec = wire.accepted(exchange)
        self._admit(exchange, "forward")
        given, place = wire.decode(exchange, "x")
        asked = validate(EncodeRequest, given, place)
        flow = self._find(exchange, asked, place)
        x, context = self._rows(flow, "x", asked.x, asked.context, place)
        found = yield from _located(flow.encode(x, context), "x", place)
        return wire.encode(codec, _named(flow) | found._asdict(), "z", flow.features)

    def decode(self, exchange: Exchange) -> Plan[Reply]:
        """POST /decode."""
        codec = wire.accepted(exchange)
        self._admit(exchange, "inverse")
        given, place = wire.decode(exchange, "z")
        asked = validate(DecodeRequest, given, place)
        flow = self._find(exchange, asked, place)
        z, context = self._rows(flow, "z", asked.z, asked.context, place)
        found = yield from _located(flow.decode(z, context), "z", place)
        return wire.encode(codec, _named(flow) | found._asdict(), "x", flow.features)

    def sample(self, exchange: Exchange) -> Plan[Reply]:
        """POST /sample. A body that holds one array is the context."""
        codec = wire.accepted(exchange)
        given, place = wire.decode(exchange, "context")
        return (yield from self._sample(exchange, codec, given, place, "context"))

    def sample_by_query(self, exchange: Exchange) -> Plan[Reply]:
        """GET /sample: the same arguments as query parameters, the context as a list with commas."""
        codec = wire.accepted(exchange)
        return (yield from self._sample(exchange, codec, query_arguments(exchange.query), "query", ""))

    def interpolate(self, exchange: Exchange) -> Plan[Reply]:
        """POST /interpolate."""
        codec = wire.accepted(exchange)
        given, place = wire.decode(exchange, "points")
        asked = validate(InterpolateRequest, given, place)
        flow = self._find(exchange, asked, place)
        points, context = self._rows(
            flow, "points", asked.points, asked.context, place, steps=asked.steps, space=asked.space
        )
        if context is not None and len(context) > 1:
            detail = f"one row of context holds for the whole walk, and there are {len(context)}"
            raise WrongShape(detail, (Reason((place, "context"), detail),))
        plan = flow.interpolate(points, asked.steps, asked.path, asked.space, context)
        found = yield from _located(plan, "points", place)
        return wire.encode(codec, _named(flow) | found._asdict(), "x", flow.features)

    def _sample(
        self, exchange: Exchange, codec: Codec, given: Mapping[str, Any], place: Place, main: str
    ) -> Plan[Reply]:
        asked = validate(SampleRequest, given, place)
        flow = self._find(exchange, asked, place)
        value = asked.context
        if isinstance(value, Columns):
            value = value.rows(_context_names(flow), ("body", "context"))
        context = _optional_context(flow, value, "body" if main else place)
        lead = (asked.n,) if context is None or context.ndim == 1 else (len(context), asked.n)
        stream = wire.streaming(codec) if math.prod(lead) * flow.width > STREAM_VALUES else None
        budget = self._max_work if stream is None else self._max_stream_work
        check_work(math.prod(lead), flow.width, 1, budget, (place, "n"))
        seed = secrets.randbits(DRAWN_SEED_BITS) if asked.seed is None else asked.seed
        drawn = {"seed": seed, "offset": asked.offset, "n": asked.n}
        if stream is not None:
            draw = Draw(flow, asked.n, seed, asked.offset, asked.temperature, context)
            told = wire.told_beside(_named(flow) | drawn)
            return (yield from _located(streamed(stream, Form("x", flow.features), draw, lead, told), main, place))
        plan = flow.sample(asked.n, seed, asked.offset, asked.temperature, context)
        found = yield from _located(plan, main, place)
        return wire.encode(codec, _named(flow) | drawn | found._asdict(), "x", flow.features)

    def _rows(
        self,
        flow: ServedFlow,
        argument: str,
        value: Any,  # noqa: ANN401  as a codec gave it
        context: Any,  # noqa: ANN401
        place: Place,
        steps: int = 1,
        space: Literal["x", "z"] | None = None,
    ) -> tuple[Float32, Float32 | None]:
        """The rows of the main argument and their context, within the work budget."""
        loc = ("body", argument)
        of_data = (space or argument) == "x"
        if isinstance(value, Columns):
            conditions = _context_names(flow)
            if context is None and value.has(conditions):
                context = value.rows(conditions, ("body", "context"))
                place = "body"
            value = value.rows(flow.features if of_data else _latents(flow), loc, besides=conditions)
        blamed = loc if steps == 1 else (place, "steps")
        if isinstance(value, np.ndarray):  # as large as it may become, before it does
            check_work(value.size // flow.width, flow.width, steps, self._max_work, blamed)
        rows = event_rows(value, flow.event_shape if of_data else (flow.width,), loc)
        check_work(len(rows), flow.width, steps, self._max_work, blamed)
        return rows, _context(flow, context, place)

    def _admit(self, exchange: Exchange, direction: Literal["forward", "inverse"]) -> None:
        """Refuse what would not be answered in time before its body is read, which is most of the work of a refusal.

        Raises:
            QueueFull: from the lane of the flow that the path names, or of the default one, unless the arguments may
                name another.
        """
        body = exchange.body
        if len(body) <= _WORTH_A_LOOK or b'"model"' in body or any(name == "model" for name, _ in exchange.query):
            return
        flow = self._registry.find(exchange.name, path_version(exchange.version))
        lane = flow.forward if direction == "forward" else flow.inverse
        lane.admit(exchange.deadline)

    def _find(self, exchange: Exchange, asked: Request, place: Place) -> ServedFlow:
        """The flow that the path names, or else the arguments; where both do, they must agree."""
        name = _agreed("model", exchange.name, asked.model, place)
        version = _agreed("version", path_version(exchange.version), asked.version, place)
        return self._registry.find(name, version)


def path_version(text: str | None) -> int | None:
    """The version that a path names.

    Raises:
        VersionNotFound: it is no positive integer, so that there is none such.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and text[0] != "0"):
        raise VersionNotFound(f"a version is a positive integer, and {text[:64]!r} is none")
    return int(text)


def _agreed(argument: str, in_path: T | None, given: T | None, place: Place) -> T | None:
    if in_path is not None and given is not None and in_path != given:
        detail = f"{argument} is {given!r} in the {place}, and {in_path!r} in the path"
        raise InvalidArgument(detail, (Reason((place, argument), detail),))
    return given if in_path is None else in_path


def _optional_context(flow: ServedFlow, value: Any, place: Place) -> Float32 | None:  # noqa: ANN401  as JSON gave it
    if value is None:
        return None
    return context_rows(value, flow.manifest.context_width, (place, "context"))


def _context(flow: ServedFlow, value: Any, place: Place) -> Float32 | None:  # noqa: ANN401
    context = _optional_context(flow, value, place)
    return None if context is None else np.atleast_2d(context)


def _named(flow: ServedFlow) -> dict[str, Any]:
    return {"model": flow.manifest.name, "version": flow.manifest.version}


def _latents(flow: ServedFlow) -> Sequence[str]:
    return _numbered("z", flow.width)


def _context_names(flow: ServedFlow) -> Sequence[str]:
    return _numbered("context", flow.manifest.context_width)


@functools.lru_cache(maxsize=64)
def _numbered(name: str, count: int) -> Sequence[str]:
    return tuple(f"{name}{at}" for at in range(count))


def _located(plan: Plan[T], argument: str, place: Place) -> Plan[T]:
    """A flow's verb, whose errors name an argument, with the place of that argument put before it.

    The main argument always stands in the body, `place` is that of the others.
    """
    try:
        return (yield from plan)
    except PushforwardError as error:
        if not error.errors:
            raise
        located = tuple(
            dataclasses.replace(reason, loc=("body" if reason.loc[:1] == (argument,) else place, *reason.loc))
            for reason in error.errors
        )
        raise type(error)(error.detail, located) from error
