"""`POST /edit`: rows moved along a direction of latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.api.codecs import wire
from service.api.codecs.codec import answer_fields
from service.api.codecs.items import Items, block_items
from service.api.codecs.query import query_number
from service.api.native.answers import answer_writer, flow_identity, require_room
from service.api.native.arrays import event_rows
from service.api.native.backend import Backend
from service.api.native.places import Place, locate_errors, refusal
from service.api.native.schemas import EditRequest
from service.api.native.validation import validate
from service.bundle.precision import FloatType
from service.drawing import edit_drawing
from service.engine.verbs import edits as engine
from service.engine.verbs.edits import Between, Direction
from service.engine.verbs.flow import ServedFlow
from service.errors import OverWorkBudget, Reason, WrongShape
from service.exchange import Exchange, Reply
from service.pictures.options import Extent
from service.plan import Floats, Plan

__all__ = ["edit"]

_MOST_STRENGTHS: Final = 1 << 20


def edit(backend: Backend, exchange: Exchange) -> Plan[Reply]:
    """The rows moved by each strength."""
    codec = wire.accepted(exchange, pictures=True)
    given, place = backend.decode(exchange, "x")
    strength = given.get("strength")
    if isinstance(strength, Items):
        given = {**given, "strength": _listed(strength, place)}
    asked = validate(EditRequest, given, place)
    writer = answer_writer(codec, asked, "x", place)
    require_room(codec, "x", place, "return" if asked.returns else None)
    flow = backend.find_flow(exchange, asked, place)
    strengths = len(asked.strength)
    x, context = backend.read_rows(flow, "x", asked.x, asked.context, place, steps=("strength", strengths))
    direction = _direction(flow, asked.direction, place)
    rows = len(x) * strengths
    writer.check(flow, Extent(rows, "x", columns=strengths, strip=True, walks=len(x), walks_argument="x"))
    writer.check_map(flow, rows, backend.max_work, (place, "strength"))
    plan = engine.edit(flow, x, direction, asked.strength, context, round_trip=bool(asked.returns))
    found = yield from locate_errors(plan, "x", place)
    answer = flow_identity(flow) | answer_fields(found)
    return (yield from writer.write(flow, answer, "x", edit_drawing(found, asked.strength, context)))


def _listed(strength: Items, place: Place) -> list[Any]:
    """Strengths as a list.

    Raises:
        OverWorkBudget: they are too many.
    """
    found: list[Any] = []
    for block in strength.blocks():
        found += block_items(block)
        if len(found) > _MOST_STRENGTHS:
            raise refusal("strength", f"there are more than {_MOST_STRENGTHS}", place, OverWorkBudget)
    return found


def _direction(
    flow: ServedFlow,
    value: Any,  # noqa: ANN401  as a codec gave it
    place: Place,
) -> Direction:
    """The direction of an edit: by name, as it stands, or between two rows.

    Args:
        flow: whose latent space.
        value: a name, an array of numbers, or a mapping of ``from`` and ``to`` to a row each.
        place: where it stands.

    Raises:
        InvalidArgument: it is none of these.
        WrongShape, MalformedBody, NotFinite: from `service.api.native.arrays.event_rows`.
    """
    loc = (place, "direction")
    if place == "query" and isinstance(value, str) and value not in flow.manifest.directions:
        value = _numbers_or_name(value)
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        if value.keys() != {"from", "to"}:
            found = ", ".join(value)[:64] or "nothing"
            raise refusal("direction", f"expected two rows of data, from and to, and found {found}", place)
        return Between(*(_one_row(value[end], flow.event_shape, (*loc, end), flow.dtype) for end in ("from", "to")))
    if not isinstance(value, (list, np.ndarray, Items)):
        raise refusal("direction", "expected a name, an array of numbers, or two rows, from and to", place)
    direction: npt.NDArray[np.float64] = _one_row(value, (flow.width,), loc, flow.dtype)[0].astype(np.float64)
    return direction


def _numbers_or_name(text: str) -> str | npt.NDArray[np.float64]:
    """A query's text that names no direction of the flow: numbers with commas between them, if it is that."""
    try:
        return np.array([query_number(part) for part in text.split(",")])
    except ValueError:
        return text


def _one_row(
    value: Any,  # noqa: ANN401  as a codec gave it
    shape: Sequence[int],
    loc: tuple[str, ...],
    dtype: FloatType,
) -> Floats:
    rows = event_rows(value, shape, loc, dtype=dtype)
    if len(rows) > 1:
        reason = f"expected one row, and found {len(rows)}"
        raise WrongShape(f"{'.'.join(loc[1:])}: {reason}", (Reason(loc, reason),))
    return rows
