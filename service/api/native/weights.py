"""`POST /weights`: importance weights of rows for a target."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.api.codecs import wire
from service.api.codecs.codec import Columns
from service.api.native.answers import answer_form, flow_identity
from service.api.native.backend import Backend, own_columns
from service.api.native.places import locate_errors, refusal
from service.api.native.schemas import WeightsRequest
from service.api.native.seeded_rows import check_one_of, draw_rows
from service.api.native.targets import log_target_rows
from service.api.native.validation import validate
from service.engine.verbs.flow import Densities, Samples
from service.engine.verbs.importance import Importance, importance
from service.exchange import Exchange, Reply
from service.plan import Plan

__all__ = ["weights"]

_TARGET: Final = ("log_target",)
"""The column of a table that is the target, and not one of x."""


def weights(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """Weights of x, or of the rows of a seed. A body that holds one array is x, or the target beside `n` and `seed`."""
    codec = wire.accepted(exchange)
    drawn = any(name == "n" for name, _ in exchange.query)
    given, place = backend.decode(exchange, "log_target" if drawn else "x", instead=("n",))
    asked = validate(WeightsRequest, given, place)
    flow = backend.find_flow(exchange, asked, place)
    check_one_of(asked, ("x", "n"), place)
    target: Any = asked.log_target
    plan: Plan[Densities] | Plan[Samples]
    if asked.n is None:
        besides = _TARGET if own_columns(flow).isdisjoint(_TARGET) else ()
        if target is None and isinstance(asked.x, Columns) and asked.x.has(besides):
            target = asked.x.rows(besides, ("body", "log_target"))
        x, context = backend.read_rows(flow, "x", asked.x, asked.context, place, besides=besides)
        count, plan = len(x), flow.log_prob(x, context)
    else:
        count, plan = asked.n, draw_rows(backend, flow, asked.n, asked, place)
    if isinstance(target, Columns):
        held = None if target.has(_TARGET) else target.argument("log_target")
        target = target.rows(_TARGET, ("body", "log_target")) if held is None else held
    if target is None:
        raise refusal("log_target", "this argument is needed: the target's log-density at each row", place)
    found = yield from locate_errors(_weighed(plan, log_target_rows(target, count, (place, "log_target"))), "x", place)
    return wire.encode(codec, flow_identity(flow) | found._asdict(), answer_form(flow, "weights"))


def _weighed(plan: Plan[Densities] | Plan[Samples], log_target: npt.NDArray[np.float64]) -> Plan[Importance]:
    found = yield from plan
    weighed = importance(log_target, found.log_prob)
    if not isinstance(found, Samples) or found.acceptance is None:
        return weighed
    # Draws that lie inside the prior have a density that is greater by 1 / acceptance.
    return weighed._replace(log_evidence=weighed.log_evidence + math.log(found.acceptance[0]))
