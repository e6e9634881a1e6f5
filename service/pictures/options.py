"""The options of a picture, and the limits on its size."""

from __future__ import annotations

from typing import Final, NamedTuple

from service.errors import InvalidArgument, PushforwardError, Reason
from service.pictures.events import is_image

__all__ = [
    "GAP",
    "MAX_PAIRS",
    "MAX_PIXELS",
    "MAX_ROWS",
    "MAX_SIZE",
    "MAX_WALKS",
    "Extent",
    "PictureOptions",
    "cell_shape",
    "check_picture",
    "grid_shape",
]

MAX_PIXELS: Final = 1 << 22
"""A picture has no more pixels: 12 MB before it is packed."""

MAX_SIZE: Final = 2048
"""The longest side of an image in a grid, and of a picture of a table."""

MAX_ROWS: Final = 100_000
"""So many rows of a table fit a picture."""

MAX_WALKS: Final = 4096
"""So many walks of a table fit a picture: a line each, in each of its panels."""

MAX_PAIRS: Final = 6
"""So many columns of a table fit a pair plot."""

GAP: Final = 2
"""Pixels between the images of a grid, and around them."""

_LEAST_TABLE: Final = 240
_LEAST_PAIR: Final = 100
"""Pixels that a column of a pair plot needs for its labels to be read."""

_USUAL_CELL: Final = 64


class PictureOptions(NamedTuple):
    """The choices of the caller; None leaves one to this package.

    Args:
        columns: images in a row of a grid; or columns of a table in a pair plot.
        size: in pixels: the longer side of each image; or the side of a picture of a table.
    """

    columns: int | None = None
    size: int | None = None


class Extent(NamedTuple):
    """The extent of a picture: how much it is to show, and the arguments of the call that say so.

    Args:
        rows: how many.
        argument: the one that says how many rows.
        columns: how many images stand in a row, where the options leave it open; None for a grid that is near square.
        strip: whether each row of images is a strip, whose columns the caller cannot choose.
        walks: how many walks the rows make.
        walks_argument: the one that says how many walks.
    """

    rows: int
    argument: str
    columns: int | None = None
    strip: bool = False
    walks: int = 1
    walks_argument: str = ""


def check_picture(event_shape: tuple[int, ...], options: PictureOptions, extent: Extent) -> None:
    """Hold a picture against its limits, before anything is computed.

    Args:
        event_shape: of a row.
        options: from the caller.
        extent: how much there is to show.

    Raises:
        InvalidArgument: it would be too large, or has no columns to choose.
        NotAcceptable: from `service.pictures.events.is_image`.
    """
    if is_image(event_shape):
        _check_grid(event_shape, options, extent)
    else:
        _check_chart(event_shape[0], options, extent)


def _check_grid(event_shape: tuple[int, ...], options: PictureOptions, extent: Extent) -> None:
    if extent.strip and options.columns is not None:
        raise _refused("columns", f"a strip has a column for each of its {extent.columns} steps; leave it out")
    down, across = grid_shape(extent.rows, options.columns or extent.columns)
    height, width = cell_shape(event_shape, options.size)
    pixels = (down * (height + GAP) + GAP) * (across * (width + GAP) + GAP)
    if pixels > MAX_PIXELS:
        fits = max(1, MAX_PIXELS // ((height + GAP) * (width + GAP)))
        raise _refused(
            extent.argument if options.size is None else "size",
            f"{extent.rows} images of {width} x {height} pixels make a picture of {pixels}, and it may have "
            f"{MAX_PIXELS}: ask for fewer, about {fits} of this size, or for a smaller size",
        )


def _check_chart(width: int, options: PictureOptions, extent: Extent) -> None:
    rows, walks = extent.rows, extent.walks
    if rows > MAX_ROWS:
        raise _refused(extent.argument, f"a picture shows at most {MAX_ROWS} rows, and these are {rows}")
    if walks > MAX_WALKS:
        reason = f"a picture of a table shows at most {MAX_WALKS} walks, and these are {walks}"
        raise _refused(extent.walks_argument, reason)
    most = min(MAX_PAIRS, width)
    shown = options.columns or most
    least = _LEAST_TABLE if width < 3 else max(_LEAST_TABLE, 80 + _LEAST_PAIR * shown)
    if options.size is not None and options.size < least:
        raise _refused(
            "size",
            f"a picture of {shown} {'columns' if shown > 1 else 'column'} of a table is {least} to {MAX_SIZE} pixels "
            f"wide, and not {options.size}",
        )
    if options.columns is not None and (width < 3 or not 2 <= options.columns <= most):
        reason = (
            f"the picture of a table of {width} has no columns to choose"
            if width < 3
            else f"a pair plot of this flow has 2 to {most} columns, and not {options.columns}"
        )
        raise _refused("columns", reason)


def grid_shape(count: int, columns: int | None) -> tuple[int, int]:
    """Rows and columns of a grid.

    Args:
        count: how many images.
        columns: in a row, at most; None for a grid that is near square, a little wider than high.

    Example:
        >>> grid_shape(10, None), grid_shape(10, 5)
        ((3, 4), (2, 5))
    """
    if columns is not None:
        across = max(1, min(count, columns))
    else:
        across = 1
        while across * across < count:
            across += 1
    return -(-count // across), across


def cell_shape(event_shape: tuple[int, ...], size: int | None) -> tuple[int, int]:
    """Height and width of one image in pixels.

    Args:
        event_shape: ``(H, W, ...)``.
        size: of the longer side; None for a whole multiple of 64 pixels or a little more.
    """
    height, width = event_shape[:2]
    longer = max(height, width)
    if size is None:
        times = max(1, -(-_USUAL_CELL // longer))
        return height * times, width * times
    return max(1, height * size // longer), max(1, width * size // longer)


def _refused(argument: str, reason: str) -> PushforwardError:
    return InvalidArgument(f"{argument}: {reason}", (Reason((argument,), reason),))
