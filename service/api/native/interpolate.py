"""`POST /interpolate`: walks through latent space, from point to point."""

from __future__ import annotations

import math

import numpy as np

from service.api.codecs import wire
from service.api.native.answers import answer_writer, flow_identity
from service.api.native.backend import Backend
from service.api.native.places import locate_errors
from service.api.native.schemas import InterpolateRequest
from service.api.native.validation import validate
from service.drawing import walks_drawing
from service.engine.verbs import interpolate as engine
from service.exchange import Exchange, Reply
from service.pictures.options import Extent
from service.plan import Plan

__all__ = ["interpolate"]


def interpolate(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """One walk through K points, or several walks."""
    codec = wire.accepted(exchange, pictures=True)
    given, place = backend.decode(exchange, "points")
    asked = validate(InterpolateRequest, given, place)
    writer = answer_writer(codec, asked, "points", place)
    flow = backend.find_flow(exchange, asked, place)
    points, context = backend.read_walks(flow, asked.points, asked.context, place, steps=asked.steps, space=asked.space)
    rank = 1 if asked.space == "z" else len(flow.event_shape)
    *several, count = points.shape[: points.ndim - rank]
    rows = math.prod(several) * (count - 1) * asked.steps
    extent = Extent(rows, "steps", columns=asked.steps, strip=True, walks=math.prod(several), walks_argument="points")
    writer.check(flow, extent)
    writer.check_map(flow, rows, backend.max_work, (place, "steps"))
    plan = engine.interpolate(
        flow, points, asked.steps, path=asked.path, space=asked.space, context=context, spacing=asked.spacing
    )
    found = yield from locate_errors(plan, "points", place)
    drawing = walks_drawing(found, asked.steps, context)
    if wire.streaming(codec) is not None:  # a table has a t in each row
        found = found._replace(t=np.broadcast_to(found.t, found.log_prob.shape))
    return (yield from writer.write(flow, flow_identity(flow) | found._asdict(), "x", drawing))
