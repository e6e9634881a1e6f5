"""Verbs whose answer is a picture, from arguments to a PNG file, without HTTP: for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from service.engine.sampling.noise import Method
from service.engine.verbs.edits import Direction, edit
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.interpolate import interpolate
from service.engine.verbs.paths import PathKind, Spacing
from service.pictures.options import Look, check_look
from service.pictures.views import Walk, of_densities, of_edit, of_rows, of_walks
from service.plan import Float32, Plan

__all__ = ["drawn_densities", "drawn_edit", "drawn_sample", "drawn_walk"]


def drawn_densities(flow: ServedFlow, look: Look, x: Float32, context: Float32 | None = None) -> Plan[bytes]:
    """Rows in their density, as `ServedFlow.log_prob` gives it.

    Args:
        flow: whose.
        look: how the picture is to look.
        x: ``[N, *event]``.
        context: ``[N, C]`` or ``[1, C]``; None for a flow without.

    Raises:
        InvalidArgument, NotAcceptable: from `check_look`.
        WrongShape, NotFinite: as `ServedFlow.log_prob`.
    """
    check_look(flow.event_shape, look, len(x), "x")
    found = yield from flow.log_prob(x, context)
    return (yield from of_densities(flow, x, found.log_prob, look, context))


def drawn_sample(
    flow: ServedFlow,
    look: Look,
    n: int,
    seed: int,
    offset: int,
    temperature: float,
    context: Float32 | None,
    truncation: float | None,
    method: Method,
) -> Plan[bytes]:
    """Rows of a seed, by themselves; arguments and errors as of `ServedFlow.sample` and `check_look`."""
    several = context is not None and context.ndim > 1
    if several and look.columns is None and len(flow.event_shape) > 1:
        look = look._replace(columns=n)
    check_look(flow.event_shape, look, n * (len(context) if several and context is not None else 1), "n")
    found = yield from flow.sample(n, seed, offset, temperature, context, truncation, method)
    return of_rows(flow, found.x, found.log_prob, look)


def drawn_walk(
    flow: ServedFlow,
    look: Look,
    points: Float32,
    steps: int,
    path: PathKind | None,
    space: Literal["x", "z"],
    context: Float32 | None,
    spacing: Spacing,
) -> Plan[bytes]:
    """A walk through points ``[K, ...]``; arguments and errors as of `interpolate` and `check_look`."""
    check_look(flow.event_shape, look, (len(points) - 1) * steps, "steps", across=steps)
    found = yield from interpolate(flow, points, steps, path, space, context, spacing)
    walk = Walk(found.x[None], found.log_prob[None], found.t, "t", steps)
    return (yield from of_walks(flow, walk, look, None if context is None else np.atleast_2d(context)))


def drawn_edit(
    flow: ServedFlow,
    look: Look,
    x: Float32,
    direction: Direction,
    strength: Sequence[float],
    context: Float32 | None,
) -> Plan[bytes]:
    """Rows moved by each strength, a strip or a line each; arguments and errors as of `edit` and `check_look`."""
    count = len(strength)
    check_look(flow.event_shape, look, len(x) * count, "strength", across=count, walks=("x", len(x)))
    found = yield from edit(flow, x, direction, strength, context)
    return (yield from of_edit(flow, found, strength, look, context))
