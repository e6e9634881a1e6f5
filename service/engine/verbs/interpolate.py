"""Interpolation: from points to their latents, along the paths between them, and back to data.

With several rows of context a walk changes from one condition to another on its way.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from service.bundle.bases import Base, UniformBase
from service.engine.verbs.checks import check_outputs
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.paths import Path, PathContext, PathKind, Spacing, context_at, default_path
from service.engine.verbs.round_trips import round_trip_error
from service.errors import NotFinite, OutOfSupport, Reason, WrongShape
from service.plan import Floats, Plan, Run

__all__ = ["Interpolation", "interpolate"]


class Interpolation(NamedTuple):
    """A walk of T rows, or B of them.

    Args:
        t: float64 ``[T]``; point k lies at t = k. ``[B, T]`` for B walks that are spaced by arc length.
        z: ``[T, D]``, or ``[B, T, D]``, as each below.
        x: ``[T, *event]``.
        log_prob: ``[T]``, in nats.
        round_trip_error: ``[T]``, the greatest abs(f(g(z)) - z) over the coordinates.
    """

    t: npt.NDArray[np.float64]
    z: Floats
    x: Floats
    log_prob: Floats
    round_trip_error: Floats


def interpolate(
    flow: ServedFlow,
    points: Floats,
    steps: int = 11,
    path: PathKind | None = None,
    space: Literal["x", "z"] = "x",
    context: Floats | None = None,
    spacing: Spacing = "parameter",
) -> Plan[Interpolation]:
    """Walk through latent space, from point to point.

    Args:
        flow: whose.
        points: ``[K, *event]``, or ``[K, D]`` for space z; K at least 2. With one axis more, ``[B, K, ...]``, B walks.
        steps: rows a segment, both ends included; at least 2.
        path: slerp or linear; None for the base's own (`service.engine.verbs.paths.default_path`).
        space: whether the points are data or latents.
        context: ``[C]`` or ``[1, C]``, for the whole walk; ``[2, C]`` for its ends, or ``[K, C]`` for its points, with
            the rows between them interpolated in t. The same for each of several walks. None for a flow without.
        spacing: whether the rows are equally far apart in t, or in latent space (`service.engine.verbs.paths.Path`).

    Raises:
        OutOfSupport: a point where the density is zero; the point is named.
        InvalidArgument: slerp between exactly opposite points.
        WrongShape: fewer than two points, or a context of another number of rows or columns.
        NotFinite: the answer for a row is beyond the range of the precision.
    """
    event = (flow.width,) if space == "z" else flow.event_shape
    lead = points.shape[: points.ndim - len(event)]
    count = lead[-1]
    if count < 2:
        detail = f"at least two points are needed, and there is {count}"
        raise WrongShape(detail, (Reason(("points",), detail),))
    contexts = _contexts(flow, context, count)
    flat = points.reshape(math.prod(lead), *event)
    latents = yield from _latents(flow, flat, space, contexts, count)
    walk = Path(
        latents.reshape(*lead, flow.width), steps, path or default_path(flow.manifest), flow.manifest.base, spacing
    )
    along = None if contexts is None else PathContext(contexts, walk, count)
    outputs = yield Run(flow.inverse, walk, along)
    check_outputs(outputs, "points", NotFinite)
    z = walk[0 : len(walk)]
    back = Run(flow.forward, outputs.value, along)
    error = yield from round_trip_error(back, z, "inverse", flow.round_trips, argument="points", error=NotFinite)
    rows = (*lead[:-1], len(walk) // math.prod(lead[:-1]))
    return Interpolation(
        walk.t,
        z.reshape(*rows, flow.width),
        outputs.value.reshape(*rows, *flow.event_shape),
        outputs.log_prob.reshape(rows),
        error.reshape(rows),
    )


def _latents(
    flow: ServedFlow, points: Floats, space: Literal["x", "z"], contexts: Floats | None, count: int
) -> Plan[Floats]:
    """The latents ``[B * K, D]`` of all points.

    Args:
        flow: whose.
        points: ``[B * K, *event]``, or ``[B * K, D]`` for space z.
        space: whether the points are data or latents.
        contexts: from `_contexts`.
        count: K.

    Raises:
        OutOfSupport: a point where the density is zero; the point is named.
        NotFinite: the latent of a point is beyond the range of the precision.
    """
    if space == "x":
        t = np.tile(np.arange(count, dtype=np.float64), len(points) // count)
        there = None if contexts is None else context_at(contexts, t, count)
        encoded = yield Run(flow.forward, points, there)
        check_outputs(encoded, "points", NotFinite)
        latents, outside = encoded.value, np.isneginf(encoded.log_prob)
    else:
        latents, outside = points, _outside(flow.manifest.base, points)
    if outside.any():
        reasons = tuple(
            Reason(("points",), "the density is zero here", int(k))
            for k in np.flatnonzero(outside)[: OutOfSupport.MAX_REASONS]
        )
        raise OutOfSupport(f"point {reasons[0].row} lies where the density is zero, so that it has no latent", reasons)
    return latents


def _contexts(flow: ServedFlow, context: Floats | None, count: int) -> Floats | None:
    """The contexts of a walk through `count` points: of one row, two or as many."""
    contexts = None if context is None else np.atleast_2d(context)
    flow.require_context(contexts)
    if contexts is not None and len(contexts) not in (1, 2, count):
        points = "" if count == 2 else f", or {count} for its points"
        detail = f"context must have one row for the walk, or two for its ends{points}, and has {len(contexts)}"
        raise WrongShape(detail, (Reason(("context",), detail),))
    return contexts


def _outside(base: Base, z: Floats) -> npt.NDArray[np.bool_]:
    """The latents to which the base gives no density, bool ``[N]``; a uniform base has its ends within."""
    if not isinstance(base, UniformBase):
        return np.zeros(len(z), dtype=np.bool_)
    outside: npt.NDArray[np.bool_] = np.any((z < base.low) | (z > base.high), axis=1)
    return outside
