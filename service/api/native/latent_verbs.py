"""The native verbs that look into a flow: trace, edits, importance weights. Each is one function, bytes to bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.api.codecs import wire
from service.api.codecs.codec import Columns, answered
from service.api.codecs.json import Json
from service.api.codecs.query import to_number
from service.api.native.arguments import Asking, Place, located, named, optional_context, require_room
from service.api.native.arrays import event_rows
from service.api.native.fields import validate
from service.api.native.latent_schemas import EditRequest, TraceRequest, WeightsRequest
from service.api.native.pictures import check_picture, look_of, pictured
from service.api.native.targets import log_target_rows
from service.engine.verbs.checks import check_inside
from service.engine.verbs.edits import Between, Direction, edit
from service.engine.verbs.flow import Densities, Samples, ServedFlow
from service.engine.verbs.importance import Importance, importance
from service.engine.verbs.traces import trace
from service.errors import InvalidArgument, PushforwardError, Reason, WrongShape
from service.exchange import Exchange, Reply
from service.guard import check_work
from service.pictures import views
from service.plan import Float32, Plan

__all__ = ["LatentVerbs"]

_JSON: Final = Json()
_TARGET: Final = ("log_target",)


class LatentVerbs(Asking):
    """The verbs of one server that look into a flow."""

    def edit(self, exchange: Exchange) -> Plan[Reply]:
        """POST /edit."""
        codec = wire.accepted(exchange, pictures=True)
        given, place = wire.decode(exchange, "x")
        asked = validate(EditRequest, given, place)
        look = look_of(codec, asked, place)
        require_room(codec, "x", place, "return" if asked.returns else None)
        flow = self._find(exchange, asked, place)
        steps = ("strength", len(asked.strength))
        x, context = self._rows(flow, "x", asked.x, asked.context, place, steps)
        direction = _direction(flow, asked.direction, place)
        if look is not None:
            rows = len(x) * steps[1]
            check_picture(flow, look, rows, "x", "x", place, across=steps[1], walks=len(x))
            check_work(rows + views.extra_rows(flow), flow.width, 1, self._max_work, (place, "strength"))
        plan = edit(flow, x, direction, asked.strength, context, round_trip=bool(asked.returns))
        found = yield from located(plan, "x", place)
        if look is not None:
            picture = views.of_edit(flow, found, asked.strength, look, context)
            return pictured(flow, (yield from located(picture, "x", place)))
        return wire.encode(codec, named(flow) | answered(found), "x", flow.features)

    def trace(self, exchange: Exchange) -> Plan[Reply]:
        """POST /trace. JSON holds a list of steps; any other type one array of them all, ``[N, S, D]``."""
        codec = wire.accepted(exchange)
        given, place = wire.decode(exchange, "x")
        asked = validate(TraceRequest, given, place)
        flow = self._find(exchange, asked, place)
        _check_one_of(asked, ("x", "z", "n"), place)
        steps = ("x" if asked.x is not None else "z", len(flow.manifest.trace) + 1)
        if asked.n is not None:
            plan = self._drawn(flow, asked.n, asked, place, steps=steps[1])
            x = (yield from located(plan, "", place)).x
            context = _one_context(flow, asked.context, place)
        elif asked.z is not None:
            z, context = self._rows(flow, "z", asked.z, asked.context, place, steps)
            x = yield from located(_decoded(flow, z, context), "z", place)
        else:
            x, context = self._rows(flow, "x", asked.x, asked.context, place, steps)
        found = yield from located(trace(flow, x, context), "x", place)
        if codec.media_type == _JSON.media_type:
            answer = {"steps": [step._asdict() for step in found.steps], "log_prob": found.log_prob}
            return Reply(_JSON.encode(named(flow) | answer))
        values = np.stack([step.value.reshape(len(x), flow.width) for step in found.steps], axis=1)
        terms = np.stack([step.log_abs_det_jacobian for step in found.steps], axis=1)
        whole = {"values": values, "log_abs_det_jacobians": terms, "log_prob": found.log_prob}
        return wire.encode(codec, named(flow) | whole, "values", flow.features)

    def weights(self, exchange: Exchange) -> Plan[Reply]:
        """POST /weights. A body that holds one array is x; or the target, where `n` and `seed` say which rows."""
        codec = wire.accepted(exchange)
        drawn = any(name == "n" for name, _ in exchange.query)
        given, place = wire.decode(exchange, "log_target" if drawn else "x")
        asked = validate(WeightsRequest, given, place)
        flow = self._find(exchange, asked, place)
        _check_one_of(asked, ("x", "n"), place)
        target: Any = asked.log_target
        plan: Plan[Densities] | Plan[Samples]
        if asked.n is None:
            if target is None and isinstance(asked.x, Columns) and asked.x.has(_TARGET):
                target = asked.x.rows(_TARGET, ("body", "log_target"))
            x, context = self._rows(flow, "x", asked.x, asked.context, place, besides=_TARGET)
            count, plan = len(x), flow.log_prob(x, context)
        else:
            count, plan = asked.n, self._drawn(flow, asked.n, asked, place)
        if isinstance(target, Columns):
            target = target.rows(_TARGET, ("body", "log_target"))
        if target is None:
            raise _refused("log_target", "this argument is needed: the target's log-density at each row", place)
        found = yield from located(_weighed(plan, log_target_rows(target, count, (place, "log_target"))), "x", place)
        return wire.encode(codec, named(flow) | found._asdict(), "weights", flow.features)

    def _drawn(
        self, flow: ServedFlow, n: int, asked: WeightsRequest | TraceRequest, place: Place, steps: int = 1
    ) -> Plan[Samples]:
        """The rows that /sample draws."""
        if asked.seed is None:
            raise _refused("seed", "this argument is needed: it says which rows are drawn", place)
        check_work(n, flow.width, steps, self._max_work, (place, "n"))
        context = _one_context(flow, asked.context, place)
        return flow.sample(n, asked.seed, asked.offset, context=None if context is None else context[0])


def _one_context(flow: ServedFlow, value: Any, place: Place) -> Float32 | None:  # noqa: ANN401  as a codec gave it
    """The context ``[1, C]`` of rows that are drawn."""
    context = optional_context(flow, value, place)
    if context is not None and context.ndim > 1 and len(context) > 1:
        reason = f"rows that are drawn take one row of context, and there are {len(context)}"
        raise _refused("context", reason, place, WrongShape)
    return None if context is None else context.reshape(1, -1)


def _weighed(plan: Plan[Densities] | Plan[Samples], log_target: npt.NDArray[np.float64]) -> Plan[Importance]:
    return importance(log_target, (yield from plan).log_prob.astype(np.float64))


def _decoded(flow: ServedFlow, z: Float32, context: Float32 | None) -> Plan[Float32]:
    decoded = yield from flow.decode(z, context)
    check_inside(decoded.log_prob, "z")
    return decoded.x


def _check_one_of(asked: WeightsRequest | TraceRequest, names: Sequence[str], place: Place) -> None:
    """Hold against each other the arguments that say which rows are meant."""
    given = [name for name in names if getattr(asked, name) is not None]
    if len(given) != 1:
        *rows, drawn = names
        found = " and ".join(given) or "none of them"
        reason = f"expected {' or '.join(rows)}, or {drawn} and seed, and found {found}"
        raise _refused(given[-1] if given else names[0], reason, place)
    if given != ["n"] and (asked.seed is not None or asked.offset):
        stray = "seed" if asked.seed is not None else "offset"
        raise _refused(stray, f"it belongs to n, and the rows are {given[0]}", place)


def _direction(
    flow: ServedFlow,
    value: Any,  # noqa: ANN401  as a codec gave it
    place: Place,
) -> Direction:
    """The direction of an edit: by name, as it stands, or between two rows."""
    loc = (place, "direction")
    if place == "query" and isinstance(value, str) and value not in flow.manifest.directions:
        value = _spelt(value)
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        if value.keys() != {"from", "to"}:
            found = ", ".join(value)[:64] or "nothing"
            raise _refused("direction", f"expected two rows of data, from and to, and found {found}", place)
        return Between(*(_one(value[end], flow.event_shape, (*loc, end)) for end in ("from", "to")))
    if not isinstance(value, (list, np.ndarray)):
        raise _refused("direction", "expected a name, an array of numbers, or two rows, from and to", place)
    direction: npt.NDArray[np.float64] = _one(value, (flow.width,), loc)[0].astype(np.float64)
    return direction


def _spelt(text: str) -> str | npt.NDArray[np.float64]:
    """A query's text that is no name: numbers with commas between them, if it is that."""
    try:
        return np.array([to_number(part) for part in text.split(",")])
    except ValueError:
        return text


def _one(value: Any, shape: Sequence[int], loc: tuple[str, ...]) -> Float32:  # noqa: ANN401  as a codec gave it
    rows = event_rows(value, shape, loc)
    if len(rows) > 1:
        reason = f"expected one row, and found {len(rows)}"
        raise WrongShape(f"{'.'.join(loc[1:])}: {reason}", (Reason(loc, reason),))
    return rows


def _refused(
    argument: str, reason: str, place: Place, kind: type[PushforwardError] = InvalidArgument
) -> PushforwardError:
    return kind(f"{argument}: {reason}", (Reason((place, argument), reason),))
