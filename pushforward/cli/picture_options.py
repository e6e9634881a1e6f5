"""The options of a picture: what they ask for, the file that it is written to, and its preview in a terminal.

A preview is made of half blocks: each cell of the terminal shows two pixels, the upper in its text's colour and the
lower in its background's, of 24 bits. Imports neither httpx nor the server.
"""

from __future__ import annotations

import functools
import io
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import numpy as np

__all__ = ["PictureRequest", "half_blocks", "picture_options"]

_UPPER_HALF: Final = "\N{UPPER HALF BLOCK}"
_LINES_LEFT: Final = 2


class PictureRequest(NamedTuple):
    """The picture that a command is asked for.

    Args:
        file: to write it to; "-" for the standard output, None for none.
        preview: whether to show it in the terminal.
        columns: images in a row, or columns of a table.
        size: in pixels.
    """

    file: str | None
    preview: bool
    columns: int | None
    size: int | None

    @property
    def arguments(self) -> dict[str, int | None]:
        """The arguments of a picture, as the HTTP API calls them."""
        return {"columns": self.columns, "size": self.size}

    def show(self, picture: bytes) -> None:
        """Write the file, and show the preview.

        Args:
            picture: a PNG file.
        """
        if self.file == "-":
            sys.stdout.buffer.write(picture)
        elif self.file is not None:
            Path(self.file).write_bytes(picture)
        if self.preview:
            width, height = shutil.get_terminal_size()
            click.echo(half_blocks(picture, width, 2 * max(1, height - _LINES_LEFT)), color=True)


def picture_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add --png, --preview, --columns and --size; the command gets them as its argument `picture`, None for none.

    With a picture no rows are written, so that --out and --format have no use.
    """

    @functools.wraps(command)
    def collected(
        *,
        png: str | None,
        preview: bool,
        columns: int | None,
        size: int | None,
        **given: Any,  # noqa: ANN401
    ) -> None:
        wanted = PictureRequest(png, preview, columns, size)
        if png is None and not preview:
            if columns is not None or size is not None:
                raise click.UsageError("--columns and --size belong to a picture: give --png FILE or --preview")
            return command(picture=None, **given)
        if given["out"] != "-" or given["form"] is not None:
            raise click.UsageError("a picture is drawn instead of rows: leave out --out and --format")
        if preview and not _on_terminal():
            raise click.UsageError("--preview draws on a terminal, and the standard output is none: use --png FILE")
        return command(picture=wanted, **given)

    for option in (
        click.option(
            "--size", type=click.IntRange(min=1), help="Size of a picture: pixels of each image, or of a chart."
        ),
        click.option(
            "--columns",
            type=click.IntRange(min=1),
            help="Columns of a picture: images in a row, or columns of a table.",
        ),
        click.option("--preview", is_flag=True, help="Show a picture in the terminal, instead of rows."),
        click.option("--png", metavar="FILE", help="Write a picture to FILE, instead of rows."),
    ):
        collected = option(collected)
    return collected


def half_blocks(picture: bytes, width: int, height: int) -> str:
    """A picture as text for a terminal of 24-bit colours.

    Args:
        picture: a PNG file.
        width: characters in a line, at most.
        height: pixels, two to a line, at most.

    Returns:
        Lines, each of which ends with the colours set back.
    """
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    factor = min(1.0, width / image.width, height / image.height)
    across, down = max(1, int(image.width * factor)), max(2, int(image.height * factor) // 2 * 2)
    pixels = np.asarray(image.resize((across, down), Image.Resampling.BOX))
    lines = []
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        cells = (_cell(tuple(above), tuple(below)) for above, below in zip(upper, lower, strict=True))
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


@functools.lru_cache(maxsize=4096)
def _cell(above: tuple[int, int, int], below: tuple[int, int, int]) -> str:
    colours = "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m"
    return colours.format(*above, *below) + _UPPER_HALF


def _on_terminal() -> bool:
    return sys.stdout.isatty()
