"""Pictures of the verbs' answers: the runs of a flow that one takes, and the PNG file of it.

A picture is a plan, as a verb is: rows of a table of one or two columns lie on a map of the flow's density, which has
to be run. Everything after those runs is the work of `service.pictures`, which is handed arrays. The HTTP verbs and
the command line both draw here, and so draw alike. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from service.engine.verbs.density_map import density_map, density_map_rows
from service.engine.verbs.edits import Edited
from service.engine.verbs.flow import ServedFlow
from service.engine.verbs.interpolate import Interpolation
from service.pictures.charts import DensityGrid
from service.pictures.events import EventDescription
from service.pictures.options import Extent, PictureOptions, check_picture
from service.pictures.rendering import PlottedRows, PlottedWalks
from service.plan import Floats, Plan

__all__ = [
    "Drawing",
    "density_drawing",
    "draw",
    "draw_answer",
    "edit_drawing",
    "map_rows",
    "rows_drawing",
    "walks_drawing",
]

T = TypeVar("T")


class Drawing(NamedTuple):
    """The part of an answer that a picture shows.

    Args:
        plotted: the rows.
        context: ``[1, C]``, or a row for each of them; None for a flow without.
        mapped: the widths of the tables whose rows lie on a map of the density.
    """

    plotted: PlottedRows | PlottedWalks
    context: Floats | None = None
    mapped: Collection[int] = ()


def rows_drawing(x: Floats, log_prob: Floats) -> Drawing:
    """The drawing of rows by themselves.

    Args:
        x: ``[N, *event]``, or ``[K, n, *event]`` for n rows of each of K contexts.
        log_prob: ``[N]``, or ``[K, n]``, in nats.
    """
    return Drawing(PlottedRows(x, log_prob))


def density_drawing(x: Floats, log_prob: Floats, context: Floats | None) -> Drawing:
    """The drawing of rows in the density around them: a map for two columns, a curve for one.

    Args:
        x: ``[N, *event]``.
        log_prob: ``[N]``, in nats.
        context: ``[N, C]`` or ``[1, C]``; None for a flow without.
    """
    return Drawing(PlottedRows(x, log_prob), context, mapped=(1, 2))


def walks_drawing(found: Interpolation, steps: int, context: Floats | None) -> Drawing:
    """The drawing of walks from point to point.

    Args:
        found: from `service.engine.verbs.interpolate.interpolate`, one walk or several.
        steps: rows a segment.
        context: that of the points, as the verb took it; None for a flow without.
    """
    x, log_prob = (found.x[None], found.log_prob[None]) if found.log_prob.ndim == 1 else (found.x, found.log_prob)
    return Drawing(PlottedWalks(x, log_prob, along=found.t, along_name="t", segment=steps), context, mapped=(2,))


def edit_drawing(found: Edited, strengths: Sequence[float], context: Floats | None) -> Drawing:
    """The drawing of rows moved along a direction: a walk for each row, from strength to strength.

    Args:
        found: from `service.engine.verbs.edits.edit`.
        strengths: ``[S]``, in the order in which each walk goes.
        context: ``[N, C]`` or ``[1, C]``; None for a flow without.
    """
    walks = PlottedWalks(
        x=found.x.swapaxes(0, 1),
        log_prob=found.log_prob.T,
        along=np.asarray(strengths, np.float64),
        along_name="strength",
        segment=len(strengths),
    )
    return Drawing(walks, context, mapped=(2,))


def map_rows(flow: ServedFlow) -> int:
    """The number of rows that `draw` runs for a map of the density, beside the verb's own: for the work budget."""
    return density_map_rows(flow.event_width) if flow.event_shape in ((1,), (2,)) else 0


def draw(flow: ServedFlow, drawing: Drawing, options: PictureOptions) -> Plan[bytes]:
    """Draw an answer.

    Args:
        flow: whose answer it is.
        drawing: what to show.
        options: within `service.pictures.options.check_picture`.

    Returns:
        A PNG file.

    Raises:
        NotFinite, EngineFailed: from `service.engine.verbs.density_map.density_map`.
    """
    grid = None
    if _on_map(flow, drawing):
        context = None if drawing.context is None else drawing.context[0]
        found = yield from density_map(flow, drawing.plotted.x.reshape(-1, flow.event_width), context)
        grid = DensityGrid(found.low, found.high, found.log_prob.astype(np.float64))
    return drawing.plotted.render(_description(flow), options, grid)


def draw_answer(
    flow: ServedFlow, options: PictureOptions, extent: Extent, verb: Plan[T], drawing: Callable[[T], Drawing]
) -> Plan[bytes]:
    """Run a verb, and draw its answer.

    Args:
        flow: whose verb it is.
        options: from the caller; held against their limits before the verb runs.
        extent: how much there is to show.
        verb: the plan, not yet begun.
        drawing: the verb's answer -> what to show of it.

    Returns:
        A PNG file.

    Raises:
        InvalidArgument, NotAcceptable: from `service.pictures.options.check_picture`.
        PushforwardError: from the verb.
    """
    check_picture(flow.event_shape, options, extent)
    found = yield from verb
    return (yield from draw(flow, drawing(found), options))


def _on_map(flow: ServedFlow, drawing: Drawing) -> bool:
    """Tell whether there is one density to show: rows of several contexts have none in common."""
    if len(flow.event_shape) != 1 or flow.event_width not in drawing.mapped:
        return False
    return drawing.context is None or not (drawing.context != drawing.context[0]).any()


def _description(flow: ServedFlow) -> EventDescription:
    """The events of a flow; black and white are the ends of its levels, or else of its support."""
    ends = None
    levels, support = flow.manifest.quantization, flow.manifest.support
    if levels is not None and levels.low < levels.high:
        ends = levels.low, levels.high
    elif support is not None and support.low is not None and support.high is not None:
        ends = support.low, support.high
    return EventDescription(flow.event_shape, flow.features, ends)
