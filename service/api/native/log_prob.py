"""`POST /logprob`: log-densities of rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from service.api.codecs import wire
from service.api.codecs.codec import Codec
from service.api.native.answers import answer_writer, flow_identity, require_room
from service.api.native.backend import Backend
from service.api.native.places import locate_errors
from service.api.native.schemas import LogProbRequest
from service.api.native.validation import validate
from service.drawing import density_drawing
from service.engine.verbs.acceptance import POINTS
from service.exchange import Exchange, Reply
from service.guard import WorkLimit
from service.pictures.options import Extent
from service.plan import Plan

__all__ = ["log_prob"]


def log_prob(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """Log-densities, and what is asked for beside them."""
    codec = wire.accepted(exchange, pictures=True)
    backend.admit(exchange, "forward")
    return _log_prob(backend, exchange, codec)


def _log_prob(backend: Backend, exchange: Exchange, codec: Codec) -> Plan[Reply]:
    given, place = backend.decode(exchange, "x")
    asked = validate(LogProbRequest, given, place)
    writer = answer_writer(codec, asked, "x", place)
    more = "return" if asked.returns else None if asked.alarm_rate is None else "alarm_rate"
    require_room(codec, "log_prob", place, more)
    flow = backend.find_flow(exchange, asked, place)
    x, context = backend.read_rows(flow, "x", asked.x, asked.context, place)
    writer.check(flow, Extent(len(x), "x"))
    writer.check_map(flow, len(x), backend.max_work, ("body", "x"))
    limit = WorkLimit(flow.event_width, 1, backend.max_work, ("correct",))
    if asked.correct:
        contexts = 1 if context is None else len(np.unique(context, axis=0))
        backend.check(contexts * POINTS, flow.event_width, (place, "correct"))
    plan = flow.log_prob(
        x, context, returns=asked.returns, alarm_rate=asked.alarm_rate, correct=asked.correct, check_points=limit.check
    )
    found = yield from locate_errors(plan, "x", place)
    extras: Mapping[Any, Any] = found.extras
    answer = {**flow_identity(flow), "log_prob": found.log_prob, **extras}
    if found.anomaly is not None:
        answer["anomaly"] = found.anomaly
    if found.acceptance is not None:
        share, error = (values.astype(flow.dtype) for values in found.acceptance)
        answer |= {"acceptance": share, "acceptance_se": error}
    return (yield from writer.write(flow, answer, "log_prob", density_drawing(x, found.log_prob, context)))
