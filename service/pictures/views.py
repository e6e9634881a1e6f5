"""What a verb found, as a picture: which one, and what of the flow has to be run for it. Plans, as verbs are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.engine.verbs.density_map import surroundings, work
from service.engine.verbs.edits import Edited
from service.engine.verbs.flow import ServedFlow
from service.pictures.charts import Around, Walked, curve_chart, pair_plot, plane_chart, walk_chart
from service.pictures.colours import Bytes
from service.pictures.figure import png
from service.pictures.grids import image_grid, value_range
from service.pictures.options import MAX_PAIRS, Look, is_image
from service.plan import Float32, Plan

__all__ = ["Walk", "extra_rows", "of_densities", "of_edit", "of_rows", "of_walks"]

_USUAL_SIZE: Final = 480
_PAIR_SIZE: Final = 180
_MAPPED: Final = (1, 2)
"""Tables of so many columns are shown with the density around the rows."""


class Walk(NamedTuple):
    """Walks as a verb found them.

    Args:
        x: ``[B, T, *event]``.
        log_prob: ``[B, T]``, in nats.
        along: ``[T]`` or ``[B, T]``, what leads from row to row.
        name: of that.
        segment: rows of a strip. T is one more than a multiple of `segment` - 1, as neighbours share a row; or T.
    """

    x: Float32
    log_prob: Float32
    along: npt.NDArray[np.float64]
    name: str
    segment: int


def extra_rows(flow: ServedFlow) -> int:
    """How many rows `of_densities` and `of_walks` run beside the caller's own, for the work budget."""
    return work(flow.width) if flow.event_shape in ((1,), (2,)) else 0


def of_rows(flow: ServedFlow, x: Float32, log_prob: Float32, look: Look) -> bytes:
    """Rows by themselves: a grid of images; a histogram, a scatter plot or a pair plot of a table.

    Args:
        flow: whose.
        x: ``[..., *event]``; of images with two axes before that the second runs along the grid's rows.
        log_prob: ``[...]``, in nats.
        look: within `service.pictures.options.check_look`.
    """
    rows = x.reshape(-1, *flow.event_shape)
    if is_image(flow.event_shape):
        across = look.columns or (log_prob.shape[1] if log_prob.ndim > 1 else None)
        return png(image_grid(rows, Look(across, look.size), value_range(flow.manifest, rows)))
    return png(_chart(flow, rows, log_prob.reshape(-1), look, None))


def of_densities(
    flow: ServedFlow, x: Float32, log_prob: Float32, look: Look, context: Float32 | None = None
) -> Plan[bytes]:
    """Rows in the density around them: a map for two columns, a curve for one; of anything else as `of_rows`.

    Args:
        flow: whose.
        x: ``[N, *event]``.
        log_prob: ``[N]``, in nats.
        look: within `service.pictures.options.check_look`.
        context: ``[N, C]`` or ``[1, C]``. Rows of several contexts have no density in common, and no map.
    """
    around = yield from _around(flow, x, context)
    if around is None:
        return of_rows(flow, x, log_prob, look)
    return png(_chart(flow, x, log_prob, look, around))


def of_walks(
    flow: ServedFlow,
    walk: Walk,
    look: Look,
    context: Float32 | None = None,
) -> Plan[bytes]:
    """Walks: of images a strip each, of tables a line each, on a map of the density where there are two columns.

    Args:
        flow: whose.
        walk: what it found.
        look: within `service.pictures.options.check_look`.
        context: as for `of_densities`.
    """
    if is_image(flow.event_shape):
        strips = _strips(walk.x, walk.segment)
        return png(image_grid(strips, Look(walk.segment, look.size), value_range(flow.manifest, strips)))
    rows = walk.x.reshape(-1, *flow.event_shape)
    along = np.broadcast_to(walk.along, walk.log_prob.shape)
    walks = Walked(walk.x.astype(np.float64), along, walk.name)
    if flow.width == 1:
        return png(walk_chart(walks, flow.features[0], look.size or _USUAL_SIZE))
    around = yield from _around(flow, rows, context)
    return png(_chart(flow, rows, walk.log_prob.reshape(-1), look, around, walks))


def of_edit(
    flow: ServedFlow, found: Edited, strengths: Sequence[float], look: Look, context: Float32 | None = None
) -> Plan[bytes]:
    """Rows moved along a direction: a walk for each row, from strength to strength, as of `of_walks`.

    Args:
        flow: whose.
        found: what `service.engine.verbs.edits.edit` gave for S strengths.
        strengths: ``[S]``, in the order in which each walk goes.
        look: within `service.pictures.options.check_look`.
        context: as for `of_densities`.
    """
    along = np.asarray(strengths, np.float64)
    walk = Walk(found.x.swapaxes(0, 1), found.log_prob.T, along, "strength", len(strengths))
    return (yield from of_walks(flow, walk, look, context))


def _strips(x: Float32, segment: int) -> Float32:
    """Walks ``[B, T, ...]`` cut into strips of `segment` rows, each of which begins where the one before it ended."""
    starts = np.arange(0, x.shape[1] - 1, segment - 1) if segment > 1 else np.arange(x.shape[1])
    rows: Float32 = x[:, starts[:, None] + np.arange(segment)]
    return rows.reshape(-1, *x.shape[2:])


def _around(flow: ServedFlow, x: Float32, context: Float32 | None) -> Plan[Around | None]:
    if len(flow.event_shape) != 1 or flow.width not in _MAPPED:
        return None
    if context is not None and (context != context[0]).any():
        return None
    found = yield from surroundings(flow, x, None if context is None else context[0])
    return Around(found.low, found.high, found.log_prob.astype(np.float64))


def _chart(
    flow: ServedFlow, x: Float32, log_prob: Float32, look: Look, around: Around | None, walks: Walked | None = None
) -> Bytes:
    rows, densities = x.astype(np.float64), log_prob.astype(np.float64)
    size = look.size or _USUAL_SIZE
    if flow.width == 1:
        return curve_chart(rows[:, 0], densities, flow.features[0], size, around)
    if flow.width == 2:
        return plane_chart(rows, densities, flow.features, size, around, walks)
    count = look.columns or min(MAX_PAIRS, flow.width)
    size = look.size or max(_USUAL_SIZE, _PAIR_SIZE * count)
    shown = None if walks is None else walks._replace(x=walks.x[..., :count])
    return pair_plot(rows[:, :count], densities, flow.features[:count], size, flow.width - count, shown)
