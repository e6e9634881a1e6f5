"""`POST /trace`: the event after each step of the chain."""

from __future__ import annotations

import numpy as np

from service.api.codecs import wire
from service.api.native.answers import answer_form, flow_identity
from service.api.native.backend import Backend
from service.api.native.places import Place, locate_errors
from service.api.native.schemas import TraceRequest
from service.api.native.seeded_rows import check_one_of, draw_rows, one_context
from service.api.native.validation import validate
from service.engine.verbs import traces as engine
from service.engine.verbs.checks import check_inside
from service.engine.verbs.flow import ServedFlow
from service.exchange import Exchange, Reply
from service.plan import Floats, Plan

__all__ = ["trace"]


def trace(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """The chain of rows: JSON holds a list of steps, any other type one array of them all, ``[N, S, D]``."""
    codec = wire.accepted(exchange)
    given, place = backend.decode(exchange, "x", instead=("z", "n"))
    asked = validate(TraceRequest, given, place)
    flow = backend.find_flow(exchange, asked, place)
    check_one_of(asked, ("x", "z", "n"), place)
    x, context = yield from _data(backend, flow, asked, place)
    found = yield from locate_errors(engine.trace(flow, x, context), "x", place)
    if wire.is_json(codec.media_type):
        steps = {"steps": [step._asdict() for step in found.steps], "log_prob": found.log_prob}
        return wire.encode(codec, flow_identity(flow) | steps, answer_form(flow, "steps"))
    values = np.stack([_as_wide(step.value.reshape(len(x), -1), flow.event_width) for step in found.steps], axis=1)
    terms = np.stack([step.log_abs_det_jacobian for step in found.steps], axis=1)
    whole = {"values": values, "log_abs_det_jacobians": terms, "log_prob": found.log_prob}
    return wire.encode(codec, flow_identity(flow) | whole, answer_form(flow, "values"))


def _as_wide(value: Floats, width: int) -> Floats:
    """Values ``[N, B]`` with NaN for the columns that are gone after a step which leaves some out: ``[N, width]``."""
    if value.shape[1] == width:
        return value
    return np.pad(value, ((0, 0), (0, width - value.shape[1])), constant_values=np.nan)


def _data(backend: Backend, flow: ServedFlow, asked: TraceRequest, place: Place) -> Plan[tuple[Floats, Floats | None]]:
    """The rows to trace, ``[N, *event]``, and their context: as given, decoded from latents, or drawn."""
    times = len(flow.manifest.trace) + 1
    if asked.n is not None:
        drawn = yield from locate_errors(draw_rows(backend, flow, asked.n, asked, place, times), "", place)
        return drawn.x, one_context(flow, asked.context, place)
    if asked.z is not None:
        z, context = backend.read_rows(flow, "z", asked.z, asked.context, place, steps=("z", times))
        return (yield from locate_errors(_decoded(flow, z, context), "z", place)), context
    return backend.read_rows(flow, "x", asked.x, asked.context, place, steps=("x", times))


def _decoded(flow: ServedFlow, z: Floats, context: Floats | None) -> Plan[Floats]:
    decoded = yield from flow.decode(z, context)
    check_inside(decoded.log_prob, "z")
    return decoded.x
