"""How a picture is asked for, and how large it may become."""

from __future__ import annotations

from typing import Final, NamedTuple

from service.errors import InvalidArgument, NotAcceptable, PushforwardError, Reason

__all__ = ["MAX_PAIRS", "MAX_PIXELS", "MAX_ROWS", "MAX_SIZE", "MAX_WALKS", "Look", "check_look", "is_image"]

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


class Look(NamedTuple):
    """What the caller says of a picture; None is for this module to choose.

    Args:
        columns: images in a row of a grid; or columns of a table in a pair plot.
        size: in pixels: the longer side of each image; or the side of a picture of a table.
    """

    columns: int | None = None
    size: int | None = None


def is_image(event_shape: tuple[int, ...]) -> bool:
    """Whether a row is an image, ``[H, W, C]`` or ``[H, W]``, and no row of a table, ``[D]``.

    Raises:
        NotAcceptable: it is neither, or an image of other than 1 or 3 channels.
    """
    if len(event_shape) == 1:
        return False
    if len(event_shape) == 2 or (len(event_shape) == 3 and event_shape[2] in (1, 3)):
        return True
    raise NotAcceptable(
        f"there is no picture of a row of shape {list(event_shape)}; images are [H, W, C] of 1 or 3 channels"
    )


def check_look(
    event_shape: tuple[int, ...],
    look: Look,
    count: int,
    argument: str,
    *,
    across: int | None = None,
    walks: tuple[str, int] = ("", 1),
) -> None:
    """Hold a picture that is asked for against its limits, before anything is computed.

    Args:
        event_shape: of a row.
        look: how it is to look.
        count: how many rows it is to show.
        argument: the one that says how many rows.
        across: of a strip, how many images stand in a row; None for a grid.
        walks: the argument that says how many walks the rows make, and how many.

    Raises:
        InvalidArgument: it would be too large, or has no columns to choose.
        NotAcceptable: from `is_image`.
    """
    if is_image(event_shape):
        if across is not None and look.columns is not None:
            raise _refused("columns", f"a strip has a column for each of its {across} steps; leave it out")
        down, wide = grid_shape(count, look.columns if across is None else across)
        height, width = cell_shape(event_shape, look.size)
        pixels = (down * (height + GAP) + GAP) * (wide * (width + GAP) + GAP)
        if pixels > MAX_PIXELS:
            fits = max(1, MAX_PIXELS // ((height + GAP) * (width + GAP)))
            raise _refused(
                argument if look.size is None else "size",
                f"{count} images of {width} x {height} pixels make a picture of {pixels}, and it may have "
                f"{MAX_PIXELS}: ask for fewer, about {fits} of this size, or for a smaller size",
            )
        return
    if count > MAX_ROWS:
        raise _refused(argument, f"a picture shows at most {MAX_ROWS} rows, and these are {count}")
    if walks[1] > MAX_WALKS:
        raise _refused(walks[0], f"a picture of a table shows at most {MAX_WALKS} walks, and these are {walks[1]}")
    most = min(MAX_PAIRS, event_shape[0])
    shown = look.columns or most
    least = _LEAST_TABLE if event_shape[0] < 3 else max(_LEAST_TABLE, 80 + _LEAST_PAIR * shown)
    if look.size is not None and look.size < least:
        raise _refused(
            "size",
            f"a picture of {shown} {'columns' if shown > 1 else 'column'} of a table is {least} to {MAX_SIZE} pixels "
            f"wide, and not {look.size}",
        )
    if look.columns is not None and (event_shape[0] < 3 or not 2 <= look.columns <= most):
        reason = (
            f"the picture of a table of {event_shape[0]} has no columns to choose"
            if event_shape[0] < 3
            else f"a pair plot of this flow has 2 to {most} columns, and not {look.columns}"
        )
        raise _refused("columns", reason)


def grid_shape(count: int, columns: int | None) -> tuple[int, int]:
    """Rows and columns of a grid: near square, a little wider than high, where nobody says.

    Example:
        >>> grid_shape(10, None), grid_shape(10, 5)
        ((3, 4), (2, 5))
    """
    across = 1
    while across * across < count:
        across += 1
    across = min(count, columns) if columns is not None else across
    return -(-count // across), across


def cell_shape(event_shape: tuple[int, ...], size: int | None) -> tuple[int, int]:
    """Height and width of one image in pixels: by default whole multiples, of 64 pixels or a little more."""
    height, width = event_shape[:2]
    longer = max(height, width)
    if size is None:
        times = max(1, -(-_USUAL_CELL // longer))
        return height * times, width * times
    return max(1, height * size // longer), max(1, width * size // longer)


def _refused(argument: str, reason: str) -> PushforwardError:
    return InvalidArgument(f"{argument}: {reason}", (Reason((argument,), reason),))
