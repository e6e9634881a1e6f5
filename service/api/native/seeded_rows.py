"""Rows that a call gives, or has drawn for a seed: the arguments that trace and weights share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.api.native.backend import Backend, read_context
from service.api.native.places import Place, refusal
from service.api.native.schemas import TraceRequest, WeightsRequest
from service.engine.verbs.flow import Samples, ServedFlow
from service.errors import WrongShape
from service.plan import Floats, Plan

__all__ = ["check_one_of", "draw_rows", "one_context"]


def check_one_of(asked: WeightsRequest | TraceRequest, names: Sequence[str], place: Place) -> None:
    """Hold against each other the arguments that say which rows are meant.

    Args:
        asked: the arguments.
        names: of which one must be given; the last is ``n``.
        place: where they stand.

    Raises:
        InvalidArgument: none is given or several, or a seed, an offset or a noise without ``n``.
    """
    given = [name for name in names if getattr(asked, name) is not None]
    if len(given) != 1:
        *rows, drawn = names
        found = " and ".join(given) or "none of them"
        reason = f"expected {' or '.join(rows)}, or {drawn} and seed, and found {found}"
        raise refusal(given[-1] if given else names[0], reason, place)
    strays = {"seed": asked.seed is not None, "offset": bool(asked.offset), "noise": asked.noise != "independent"}
    if given != ["n"] and any(strays.values()):
        stray = next(name for name, found in strays.items() if found)
        raise refusal(stray, f"it belongs to n, and the rows are {given[0]}", place)


def draw_rows(
    backend: Backend,
    flow: ServedFlow,
    n: int,
    asked: WeightsRequest | TraceRequest,
    place: Place,
    steps: int = 1,
) -> Plan[Samples]:
    """The rows that /sample draws.

    Args:
        backend: of the server.
        flow: to draw from.
        n: how many.
        asked: with seed, offset, noise and context.
        place: where they stand.
        steps: how often each row is run.

    Raises:
        InvalidArgument: there is no seed.
        OverWorkBudget, BudgetSpent: they are too many.
        WrongShape: there are several rows of context.
    """
    if asked.seed is None:
        raise refusal("seed", "this argument is needed: it says which rows are drawn", place)
    backend.take_on(n, flow.event_width, steps, (place, "n"))
    context = one_context(flow, asked.context, place)
    one = None if context is None else context[0]
    return flow.sample(n, seed=asked.seed, offset=asked.offset, context=one, noise=asked.noise)


def one_context(flow: ServedFlow, value: Any, place: Place) -> Floats | None:  # noqa: ANN401  as a codec gave it
    """The context ``[1, C]`` of rows that are drawn.

    Args:
        flow: whose.
        value: ``[C]`` or ``[1, C]``; None where there is none.
        place: where it stands.

    Raises:
        WrongShape: there are several rows.
    """
    context = read_context(flow, value, place)
    if context is not None and context.ndim > 1 and len(context) > 1:
        reason = f"rows that are drawn take one row of context, and there are {len(context)}"
        raise refusal("context", reason, place, WrongShape)
    return None if context is None else context.reshape(1, -1)
