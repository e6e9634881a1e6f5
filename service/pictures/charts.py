"""Charts of the rows of a table: one column, two, or a plot for each pair of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.pictures.axes import Axis, spanning
from service.pictures.colours import DARK, GREY, INK, PALE, PAPER, RED, Bytes, colour_map
from service.pictures.figure import Box, Figure

__all__ = ["DensityGrid", "WalkLines", "curve_chart", "pair_plot", "plane_chart", "walk_chart"]

Float64 = npt.NDArray[np.float64]

_LEFT: Final = 64
_RIGHT: Final = 16
_TOP: Final = 16
_BOTTOM: Final = 46
_SCALE: Final = 64
"""The width of the bar of colours, with its numbers."""

_NATS: Final = 10.0
"""The map's colours reach so far below its peak."""

_BINS: Final = 24
_GAP: Final = 12


class DensityGrid(NamedTuple):
    """The density around rows, on a lattice of cells.

    Args:
        low: float64 ``[D]``, the corner of the first cell.
        high: float64 ``[D]``, the opposite corner.
        log_prob: ``[S]`` or ``[S, S]``, the second axis along the first column, in nats.
    """

    low: Float64
    high: Float64
    log_prob: Float64


class WalkLines(NamedTuple):
    """The lines of walks: rows that belong together.

    Args:
        x: ``[B, T, D]``, in the units of x.
        along: ``[B, T]``, what leads from row to row.
        name: of that.
    """

    x: Float64
    along: Float64
    name: str


def plane_chart(
    x: Float64,
    log_prob: Float64,
    names: Sequence[str],
    size: int,
    grid: DensityGrid | None,
    walks: WalkLines | None = None,
) -> Bytes:
    """Rows of two columns: on a map of the density, brighter where it is higher; or by themselves, coloured by theirs.

    Args:
        x: ``[N, 2]``.
        log_prob: ``[N]``, in nats; rows of -inf are red.
        names: of the columns.
        size: side of the picture, in pixels.
        grid: the map; None for none.
        walks: lines through the rows; None for none.

    Returns:
        uint8 ``[size, size, 3]``.
    """
    figure = Figure(size, size)
    box = Box(_LEFT, _TOP, size - _RIGHT - _SCALE, size - _BOTTOM)
    if grid is None:
        across, up = (spanning(names[at], x[:, at]) for at in range(2))
        reach = _reach(log_prob, "quantile")
    else:
        across, up = (Axis(names[at], grid.low[at], grid.high[at]) for at in range(2))
        reach = _reach(grid.log_prob, "top")
        if reach is not None:
            cells = colour_map(reach.share(grid.log_prob))
            cells[np.isneginf(grid.log_prob)] = DARK
            figure.raster(box, cells[::-1])
        else:
            figure.raster(box, np.full((1, 1, 3), DARK, np.uint8))
    places = across.share(x[:, 0]), up.share(x[:, 1])
    outside = np.isneginf(log_prob)
    radius = _radius(len(x))
    if walks is not None:
        strokes = [(GREY, 1.5)] if grid is None else [(INK, 3.5), (PAPER, 1.5)]
        figure.lines(box, _lines(walks, (across, 0), (up, 1)), strokes)
    if grid is None:
        order = np.argsort(log_prob, kind="stable")
        shades = _shades(log_prob, reach)
        figure.dots(box, places[0][order], places[1][order], shades[order], radius)
    else:
        if len(x) <= 2000:
            figure.dots(box, *places, INK, radius + 1.0)
        figure.dots(box, *places, np.where(outside[:, None], RED, PAPER).astype(np.uint8), radius)
    figure.frame(box, across, up, ticks=(max(2, box.width // 70), max(2, box.height // 50)))
    _scale(figure, Box(box.right + 14, box.top + 16, box.right + 26, box.bottom), reach)
    return figure.pixels()


def curve_chart(x: Float64, log_prob: Float64, name: str, size: int, grid: DensityGrid | None) -> Bytes:
    """Rows of one column: their histogram, each row on the curve of the density.

    Args:
        x: ``[N]``.
        log_prob: ``[N]``, in nats; rows of -inf are red, and lie on the axis.
        name: of the column.
        size: side of the picture, in pixels.
        grid: the whole curve; None to show its points at the rows alone.

    Returns:
        uint8 ``[size, size, 3]``.
    """
    figure = Figure(size, size)
    box = Box(_LEFT, _TOP, size - _RIGHT, size - _BOTTOM)
    ends = [] if grid is None else [float(grid.low[0]), float(grid.high[0])]
    across = spanning(name, x, ends, margin=0.0 if ends else 0.04)
    heights = np.exp(np.minimum(log_prob, 700.0))
    seen = [heights] if grid is None else [heights, np.exp(np.minimum(grid.log_prob, 700.0))]
    counts, edges = np.histogram(x, _BINS, (across.low, across.high))
    density = counts / (len(x) * (edges[1] - edges[0]))
    drawn = len(x) >= _BINS
    # A density may have a pole: the axis ends where nearly all of what is shown lies below.
    top = max(*(float(np.quantile(values, 0.99)) for values in seen), float(density.max()) if drawn else 0.0)
    up = Axis("density", 0.0, 1.08 * top or 1.0)
    if drawn:
        figure.bars(box, across.share(edges), up.share(density), PALE)
    if grid is not None:
        cell = (grid.high[0] - grid.low[0]) / len(grid.log_prob)
        places = grid.low[0] + (np.arange(len(grid.log_prob)) + 0.5) * cell
        line = np.clip(up.share(np.exp(np.minimum(grid.log_prob, 700.0))), 0.0, 2.0)
        figure.line(box, across.share(places), line, (49, 104, 142), 2.0)
    marks = np.clip(up.share(heights), 0.0, 1.0)
    colours = np.where(np.isneginf(log_prob)[:, None], RED, INK if grid is not None else (49, 104, 142))
    figure.dots(box, across.share(x), marks, colours.astype(np.uint8), _radius(len(x)))
    figure.frame(box, across, up, ticks=(max(2, box.width // 70), max(2, box.height // 50)))
    return figure.pixels()


def walk_chart(walks: WalkLines, name: str, size: int) -> Bytes:
    """Walks of one column: x over what leads along them.

    Args:
        walks: with x ``[B, T, 1]``.
        name: of the column.
        size: side of the picture, in pixels.

    Returns:
        uint8 ``[size, size, 3]``.
    """
    figure = Figure(size, size)
    box = Box(_LEFT, _TOP, size - _RIGHT, size - _BOTTOM)
    across, up = spanning(walks.name, walks.along), spanning(name, walks.x)
    figure.lines(box, zip(across.share(walks.along), up.share(walks.x[..., 0]), strict=True), [((49, 104, 142), 1.5)])
    figure.dots(box, across.share(walks.along.ravel()), up.share(walks.x.ravel()), INK, _radius(walks.along.size))
    figure.frame(box, across, up, ticks=(max(2, box.width // 70), max(2, box.height // 50)))
    return figure.pixels()


def pair_plot(
    x: Float64, log_prob: Float64, names: Sequence[str], size: int, more: int = 0, walks: WalkLines | None = None
) -> Bytes:
    """Rows of several columns: a histogram of each, and below the diagonal each pair, coloured by log_prob.

    Args:
        x: ``[N, D]``.
        log_prob: ``[N]``, in nats; rows of -inf are red.
        names: of the D columns.
        size: side of the picture, in pixels.
        more: columns that are not shown.
        walks: lines through the rows, of the same columns; None for none.

    Returns:
        uint8 ``[size, size, 3]``.
    """
    figure = Figure(size, size)
    count = len(names)
    side = (size - _LEFT - _RIGHT - (count - 1) * _GAP) // count
    axes = [spanning(name, x[:, at]) for at, name in enumerate(names)]
    reach = _reach(log_prob, "quantile")
    order = np.argsort(log_prob, kind="stable")
    shades = _shades(log_prob, reach)[order]
    radius = max(1.2, _radius(len(x)) - 0.5)
    most = max(2, side // 40), max(2, side // 36)
    for row in range(count):
        for column in range(row + 1):
            left, top = _LEFT + column * (side + _GAP), _TOP + row * (side + _GAP)
            box = Box(left, top, left + side, top + side)
            across, up = axes[column], axes[row]
            if row == column:
                counts, edges = np.histogram(x[:, row], _BINS, (across.low, across.high))
                figure.bars(box, across.share(edges), counts / (1.05 * max(1, counts.max())), (157, 178, 199))
            else:
                if walks is not None:
                    figure.lines(box, _lines(walks, (across, column), (up, row)), [(GREY, 1.5)])
                figure.dots(box, across.share(x[order, column]), up.share(x[order, row]), shades, radius)
            below = across if row == count - 1 else None
            figure.frame(box, below, up if column == 0 and row > 0 else None, ticks=most)
            if row == 0 and column == 0:
                figure.name_up(box, up)
    right = size - _TOP
    _scale(figure, Box(right - 62, _TOP + 16, right - 50, _TOP + max(side, 80)), reach)
    if more:
        figure.note(f"and {more} more columns")
    return figure.pixels()


def _lines(walks: WalkLines, across: tuple[Axis, int], up: tuple[Axis, int]) -> Iterator[tuple[Float64, Float64]]:
    """Each walk as shares of a panel, whose axes stand for these columns."""
    xs, ys = (axis.share(walks.x[..., column]) for axis, column in (across, up))
    return zip(xs, ys, strict=True)


def _scale(figure: Figure, box: Box, reach: Axis | None) -> None:
    if reach is not None:
        figure.scale(box, reach, colour_map(np.linspace(1.0, 0.0, 128))[:, None])


def _reach(log_prob: Float64, kind: str) -> Axis | None:
    """The log-densities that the colours stand for; None where every one is -inf."""
    finite = log_prob[np.isfinite(log_prob)]
    if not finite.size:
        return None
    high = float(finite.max())
    low = max(float(finite.min() if kind == "top" else np.quantile(finite, 0.02)), high - _NATS)
    least = 1e-6 * max(1.0, abs(low))
    return Axis("log_prob", low, high if high - low > least else low + max(1.0, least))


def _shades(log_prob: Float64, reach: Axis | None) -> Bytes:
    """A colour for each row; the brightest yellow, which paper swallows, is left out."""
    shades = np.empty((len(log_prob), 3), np.uint8)
    if reach is not None:
        shades[:] = colour_map(reach.share(np.where(np.isfinite(log_prob), log_prob, reach.low)))
    shades[np.isneginf(log_prob)] = RED
    return shades


def _radius(count: int) -> float:
    """Of the dots, in pixels: smaller where there are many."""
    return float(np.clip(3.5 * (100 / max(count, 1)) ** 0.2, 1.2, 3.5))
