"""Rows and walks as PNG files: the chart or the grid that fits their events, from arrays alone."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.pictures.charts import DensityGrid, WalkLines, curve_chart, pair_plot, plane_chart, walk_chart
from service.pictures.colours import Bytes
from service.pictures.events import EventDescription, is_image
from service.pictures.figure import png
from service.pictures.grids import image_grid
from service.pictures.options import MAX_PAIRS, PictureOptions

__all__ = ["PlottedRows", "PlottedWalks"]

Floats = npt.NDArray[np.floating[Any]]
Float64 = npt.NDArray[np.float64]

_USUAL_SIZE: Final = 480
_PAIR_SIZE: Final = 180


class PlottedRows(NamedTuple):
    """Rows by themselves, in no order: a grid of images; a histogram, a scatter plot or a pair plot of a table.

    Args:
        x: ``[..., *event]``; of images with two axes before that the second runs along the grid's rows.
        log_prob: ``[...]``, in nats.
    """

    x: Floats
    log_prob: Floats

    def render(self, events: EventDescription, options: PictureOptions, density: DensityGrid | None = None) -> bytes:
        """Draw the rows.

        Args:
            events: what a row is.
            options: within `service.pictures.options.check_picture`.
            density: around the rows, for a table of one or two columns; None for none.

        Returns:
            A PNG file.
        """
        rows = self.x.reshape(-1, *events.shape)
        if is_image(events.shape):
            columns = options.columns or (self.log_prob.shape[1] if self.log_prob.ndim > 1 else None)
            return png(image_grid(rows, options._replace(columns=columns), events.black_and_white(rows)))
        return png(_chart(events, rows, self.log_prob, options, density))


class PlottedWalks(NamedTuple):
    """Rows that belong together, as walks: of images a strip for each segment, of a table a line for each walk.

    Args:
        x: ``[B, T, *event]``.
        log_prob: ``[B, T]``, in nats.
        along: ``[T]`` or ``[B, T]``, the number that leads from row to row.
        along_name: of that number.
        segment: rows of a strip. T is one more than a multiple of `segment` - 1, as neighbours share a row; or T.
    """

    x: Floats
    log_prob: Floats
    along: Float64
    along_name: str
    segment: int

    def render(self, events: EventDescription, options: PictureOptions, density: DensityGrid | None = None) -> bytes:
        """Draw the walks.

        Args:
            events: what a row is.
            options: within `service.pictures.options.check_picture`.
            density: around the rows, for a table of two columns; None for none.

        Returns:
            A PNG file.
        """
        if is_image(events.shape):
            strips = _strips(self.x, self.segment)
            return png(image_grid(strips, options._replace(columns=self.segment), events.black_and_white(strips)))
        along = np.broadcast_to(self.along, self.log_prob.shape)
        lines = WalkLines(self.x.astype(np.float64), along, self.along_name)
        if events.shape == (1,):
            return png(walk_chart(lines, events.features[0], options.size or _USUAL_SIZE))
        rows = self.x.reshape(-1, *events.shape)
        return png(_chart(events, rows, self.log_prob, options, density, lines))


def _strips(x: Floats, segment: int) -> Floats:
    """Walks ``[B, T, ...]`` cut into strips of `segment` rows, each of which begins where the one before it ended."""
    starts = np.arange(0, x.shape[1] - 1, segment - 1) if segment > 1 else np.arange(x.shape[1])
    rows: Floats = x[:, starts[:, None] + np.arange(segment)]
    return rows.reshape(-1, *x.shape[2:])


def _chart(
    events: EventDescription,
    x: Floats,
    log_prob: Floats,
    options: PictureOptions,
    density: DensityGrid | None,
    walks: WalkLines | None = None,
) -> Bytes:
    """The chart of a table.

    Args:
        events: what a row is.
        x: ``[N, D]``.
        log_prob: N of them, in nats.
        options: columns and size.
        density: around the rows; None for none.
        walks: lines through the rows; None for none.
    """
    rows, log_probs = x.astype(np.float64), log_prob.reshape(-1).astype(np.float64)
    width, size = events.shape[0], options.size or _USUAL_SIZE
    if width == 1:
        return curve_chart(rows[:, 0], log_probs, events.features[0], size, density)
    if width == 2:
        return plane_chart(rows, log_probs, events.features, size, density, walks)
    count = options.columns or min(MAX_PAIRS, width)
    size = options.size or max(_USUAL_SIZE, _PAIR_SIZE * count)
    shown = None if walks is None else walks._replace(x=walks.x[..., :count])
    return pair_plot(rows[:, :count], log_probs, events.features[:count], size, width - count, shown)
