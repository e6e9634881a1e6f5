"""The native verbs: each one function from an exchange to a reply, bytes to bytes, knowing no door.

Read one from top to bottom and you have read a request: decode, find the flow, hold the work against the budget,
ask the engine, encode. What is refused because the engine has too much to do is refused by the call itself, before
there is a plan: wherever the plan may be driven, a refusal waits for nobody.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from service.api.codecs import wire
from service.api.codecs.codec import Codec, Columns, Form, answered
from service.api.codecs.query import query_arguments
from service.api.native.arguments import (
    Asking,
    Place,
    context_names,
    located,
    named,
    optional_context,
    require_room,
)
from service.api.native.arrays import walks_of
from service.api.native.fields import validate
from service.api.native.pictures import check_picture, look_of, pictured
from service.api.native.schemas import (
    DecodeRequest,
    EncodeRequest,
    InterpolateRequest,
    LogProbRequest,
    SampleRequest,
)
from service.api.native.streams import STREAM_VALUES, Draw, streamed
from service.engine.registry import Registry
from service.engine.verbs.interpolate import interpolate
from service.exchange import Exchange, Reply
from service.guard import check_work
from service.pictures import views
from service.plan import Plan

__all__ = ["DRAWN_SEED_BITS", "Verbs"]

DRAWN_SEED_BITS: Final = 53
"""A seed that the server draws has so many bits: every JSON reader keeps it exact."""


class Verbs(Asking):
    """The verbs of one server.

    Args:
        registry: what is served.
        max_work: the work budget of a request, in values: rows * width * steps.
        max_stream_work: the same for a sample that is streamed, and never in memory whole.
    """

    def __init__(self, registry: Registry, max_work: int, max_stream_work: int) -> None:
        super().__init__(registry, max_work)
        self._max_stream_work = max_stream_work

    def log_prob(self, exchange: Exchange) -> Plan[Reply]:
        """POST /logprob."""
        codec = wire.accepted(exchange, pictures=True)
        self._admit(exchange, "forward")
        return self._log_prob(exchange, codec)

    def _log_prob(self, exchange: Exchange, codec: Codec) -> Plan[Reply]:
        given, place = wire.decode(exchange, "x")
        asked = validate(LogProbRequest, given, place)
        look = look_of(codec, asked, place)
        more = "return" if asked.returns else None if asked.alarm_rate is None else "alarm_rate"
        require_room(codec, "log_prob", place, more)
        flow = self._find(exchange, asked, place)
        x, context = self._rows(flow, "x", asked.x, asked.context, place)
        if look is not None:
            check_picture(flow, look, len(x), "x", "x", place)
            check_work(len(x) + views.extra_rows(flow), flow.width, 1, self._max_work, ("body", "x"))
        found = yield from located(flow.log_prob(x, context, asked.returns, asked.alarm_rate), "x", place)
        if look is not None:
            drawn = views.of_densities(flow, x, found.log_prob, look, context)
            return pictured(flow, (yield from located(drawn, "x", place)))
        extras: Mapping[Any, Any] = found.extras
        answer = {**named(flow), "log_prob": found.log_prob, **extras}
        if found.anomaly is not None:
            answer["anomaly"] = found.anomaly
        return wire.encode(codec, answer, "log_prob", flow.features)

    def encode(self, exchange: Exchange) -> Plan[Reply]:
        """POST /encode."""
        codec = wire.accepted(exchange)
        self._admit(exchange, "forward")
        return self._encode(exchange, codec)

    def _encode(self, exchange: Exchange, codec: Codec) -> Plan[Reply]:
        given, place = wire.decode(exchange, "x")
        asked = validate(EncodeRequest, given, place)
        require_room(codec, "z", place, "return" if asked.returns else None)
        flow = self._find(exchange, asked, place)
        x, context = self._rows(flow, "x", asked.x, asked.context, place)
        plan = flow.encode(x, context, round_trip=bool(asked.returns))
        found = yield from located(plan, "x", place)
        return wire.encode(codec, named(flow) | answered(found), "z", flow.features)

    def decode(self, exchange: Exchange) -> Plan[Reply]:
        """POST /decode."""
        codec = wire.accepted(exchange, pictures=True)
        self._admit(exchange, "inverse")
        return self._decode(exchange, codec)

    def _decode(self, exchange: Exchange, codec: Codec) -> Plan[Reply]:
        given, place = wire.decode(exchange, "z")
        asked = validate(DecodeRequest, given, place)
        look = look_of(codec, asked, place)
        require_room(codec, "x", place, "return" if asked.returns else None)
        flow = self._find(exchange, asked, place)
        z, context = self._rows(flow, "z", asked.z, asked.context, place)
        if look is not None:
            check_picture(flow, look, len(z), "z", "z", place)
        plan = flow.decode(z, context, round_trip=bool(asked.returns))
        found = yield from located(plan, "z", place)
        if look is not None:
            return pictured(flow, views.of_rows(flow, found.x, found.log_prob, look))
        return wire.encode(codec, named(flow) | answered(found), "x", flow.features)

    def sample(self, exchange: Exchange) -> Plan[Reply]:
        """POST /sample. A body that holds one array is the context."""
        codec = wire.accepted(exchange, pictures=True)
        given, place = wire.decode(exchange, "context")
        return (yield from self._sample(exchange, codec, given, place, "context"))

    def sample_by_query(self, exchange: Exchange) -> Plan[Reply]:
        """GET /sample: the same arguments as query parameters, the context as a list with commas."""
        codec = wire.accepted(exchange, pictures=True)
        return (yield from self._sample(exchange, codec, query_arguments(exchange.query), "query", ""))

    def interpolate(self, exchange: Exchange) -> Plan[Reply]:
        """POST /interpolate."""
        codec = wire.accepted(exchange, pictures=True)
        given, place = wire.decode(exchange, "points")
        asked = validate(InterpolateRequest, given, place)
        look = look_of(codec, asked, place)
        flow = self._find(exchange, asked, place)
        value, walks = walks_of(asked.points, (flow.width,) if asked.space == "z" else flow.event_shape)
        points, context = self._rows(
            flow, "points", value, asked.context, place, steps=("steps", asked.steps), space=asked.space
        )
        if walks is not None:
            points = points.reshape(walks, -1, *points.shape[1:])
        if look is not None:
            lead = points.shape[: 1 if walks is None else 2]
            rows = math.prod(lead[:-1]) * (lead[-1] - 1) * asked.steps
            check_picture(flow, look, rows, "points", "steps", place, across=asked.steps, walks=walks or 1)
            check_work(rows + views.extra_rows(flow), flow.width, 1, self._max_work, (place, "steps"))
        plan = interpolate(flow, points, asked.steps, asked.path, asked.space, context, asked.spacing)
        found = yield from located(plan, "points", place)
        if look is not None:
            x, log_prob = (found.x[None], found.log_prob[None]) if walks is None else (found.x, found.log_prob)
            walk = views.Walk(x, log_prob, found.t, "t", asked.steps)
            return pictured(flow, (yield from located(views.of_walks(flow, walk, look, context), "points", place)))
        if wire.streaming(codec) is not None:  # a table has a t in each row
            found = found._replace(t=np.broadcast_to(found.t, found.log_prob.shape))
        return wire.encode(codec, named(flow) | found._asdict(), "x", flow.features)

    def _sample(
        self, exchange: Exchange, codec: Codec, given: Mapping[str, Any], place: Place, main: str
    ) -> Plan[Reply]:
        asked = validate(SampleRequest, given, place)
        look = look_of(codec, asked, place)
        require_room(codec, "x", place, "return" if asked.returns else None)
        flow = self._find(exchange, asked, place)
        value = asked.context
        if isinstance(value, Columns):
            value = value.rows(context_names(flow, value), ("body", "context"))
        context = optional_context(flow, value, "body" if main else place)
        lead = (asked.n,) if context is None or context.ndim == 1 else (len(context), asked.n)
        stream = wire.streaming(codec) if math.prod(lead) * flow.width > STREAM_VALUES else None
        budget = self._max_work if stream is None else self._max_stream_work
        check_work(math.prod(lead), flow.width, 1, budget, (place, "n"))
        if look is not None:
            if look.columns is None and len(lead) > 1 and len(flow.event_shape) > 1:
                look = look._replace(columns=asked.n)
            check_picture(flow, look, math.prod(lead), main, "n", place)
        seed = secrets.randbits(DRAWN_SEED_BITS) if asked.seed is None else asked.seed
        drawn = {"seed": seed, "offset": asked.offset, "n": asked.n}
        how = (asked.temperature, context, asked.truncation, asked.method, bool(asked.returns))
        draw = Draw(flow, asked.n, seed, asked.offset, *how)
        if stream is not None:
            told = wire.told_beside(named(flow) | drawn)
            return (yield from located(streamed(stream, Form("x", flow.features), draw, lead, told), main, place))
        found = yield from located(draw.whole(), main, place)
        if look is not None:
            return pictured(flow, views.of_rows(flow, found.x, found.log_prob, look), **drawn)
        return wire.encode(codec, named(flow) | drawn | answered(found), "x", flow.features)
