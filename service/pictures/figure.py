"""A figure of labelled panels, and its PNG file. Lines and dots are drawn twice as fine and then averaged."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from service.pictures.axes import Axis
from service.pictures.colours import GREY, INK, PAPER, Bytes, Colour

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["Box", "Figure", "png"]

_FINE: Final = 2
_FONT: Final = 12.0
_LETTER: Final = 7
"""The width of a letter, about, in pixels."""

Float64 = npt.NDArray[np.float64]


class Box(NamedTuple):
    """The place of a panel, in pixels from the figure's top left corner."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """From left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """From top to bottom."""
        return self.bottom - self.top


class _Text(NamedTuple):
    at: tuple[int, int]
    text: str
    anchor: str
    upright: bool = False


class Figure:
    """A figure under construction; text is written last.

    Args:
        width: in pixels.
        height: in pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        self._fine: Bytes = np.full((height * _FINE, width * _FINE, 3), PAPER, np.uint8)
        self._texts: list[_Text] = []

    def raster(self, box: Box, pixels: Bytes) -> None:
        """Fill a box with an image of any size: its pixels are repeated."""
        ys = np.arange(box.height * _FINE) * pixels.shape[0] // (box.height * _FINE)
        xs = np.arange(box.width * _FINE) * pixels.shape[1] // (box.width * _FINE)
        top, left = box.top * _FINE, box.left * _FINE
        self._fine[top : top + len(ys), left : left + len(xs)] = pixels[ys][:, xs]

    def bars(self, box: Box, edges: Float64, heights: Float64, colour: Colour) -> None:
        """Bars that stand on the lower side of a box.

        Args:
            box: of the panel.
            edges: ``[B + 1]``, shares of its width, ascending.
            heights: ``[B]``, shares of its height.
            colour: of all of them.
        """
        xs = np.rint((box.left + np.clip(edges, 0, 1) * box.width) * _FINE).astype(int)
        tops = np.rint((box.bottom - np.clip(heights, 0, 1) * box.height) * _FINE).astype(int)
        for left, right, top in zip(xs[:-1], xs[1:], tops, strict=True):
            self._fine[top : box.bottom * _FINE, left : max(left + 1, right - 1)] = colour

    def dots(self, box: Box, x: Float64, y: Float64, colours: Bytes | Colour, radius: float) -> None:
        """Dots within a box, the later over the earlier; those that lie outside it are left out.

        Args:
            box: of the panel.
            x: ``[N]``, shares of its width, from the left.
            y: ``[N]``, shares of its height, from below.
            colours: ``[N, 3]``, or one for all.
            radius: in pixels.
        """
        inside = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1)
        across = np.rint((box.left + x[inside] * box.width) * _FINE).astype(int)
        down = np.rint((box.bottom - y[inside] * box.height) * _FINE).astype(int)
        given = np.broadcast_to(np.asarray(colours, np.uint8), (len(x), 3))[inside]
        reach = int(radius * _FINE)
        limit = (radius * _FINE) ** 2
        for dy in range(-reach, reach + 1):
            for dx in range(-reach, reach + 1):
                if dx * dx + dy * dy <= limit:
                    ys = np.clip(down + dy, box.top * _FINE, box.bottom * _FINE - 1)
                    xs = np.clip(across + dx, box.left * _FINE, box.right * _FINE - 1)
                    self._fine[ys, xs] = given

    def line(self, box: Box, x: Float64, y: Float64, colour: Colour, width: float = 1.5) -> None:
        """A line through points, as shares of a box; it is cut at its sides."""
        self.lines(box, [(x, y)], [(colour, width)])

    def lines(
        self, box: Box, lines: Iterable[tuple[Float64, Float64]], strokes: Sequence[tuple[Colour, float]]
    ) -> None:
        """Lines within a box, the later over the earlier: the panel is taken up once for all of them.

        Args:
            box: of the panel.
            lines: x and y of each, shares of its width and height; cut at its sides.
            strokes: colour and width, in pixels, of each time that a line is drawn.
        """
        from PIL import Image

        top, left = box.top * _FINE, box.left * _FINE
        height, wide = box.height * _FINE, box.width * _FINE
        image = Image.fromarray(np.ascontiguousarray(self._fine[top : top + height, left : left + wide]))
        draw = _draw(image)
        for x, y in lines:
            points = np.stack([x * wide, (1 - y) * height], axis=1)
            within = np.clip(points, -1e6, 1e6).ravel().tolist()
            for colour, width in strokes:
                draw.line(within, fill=colour, width=round(width * _FINE), joint="curve")
        self._fine[top : top + height, left : left + wide] = np.asarray(image)

    def frame(self, box: Box, across: Axis | None, up: Axis | None, *, ticks: tuple[int, int] = (5, 5)) -> None:
        """The sides of a panel, with the axes that are given: ticks, their numbers, and the names.

        Args:
            box: of the panel.
            across: the axis below it; None for no labels there.
            up: the axis on its left; None for no labels there.
            ticks: at most so many, below and on the left.
        """
        fine = self._fine
        top, left, bottom, right = (side * _FINE for side in (box.top, box.left, box.bottom, box.right))
        for side in (slice(top - _FINE, top), slice(bottom, bottom + _FINE)):
            fine[side, left - _FINE : right + _FINE] = GREY
        for side in (slice(left - _FINE, left), slice(right, right + _FINE)):
            fine[top - _FINE : bottom + _FINE, side] = GREY
        if across is not None:
            for value, text in across.ticks(ticks[0]):
                at = round(box.left + float(across.share(value)) * box.width)
                fine[bottom : bottom + 4 * _FINE, at * _FINE : at * _FINE + _FINE] = GREY
                self._texts.append(_Text((at, box.bottom + 6), text, "ma"))
            self._texts.append(
                _Text(((box.left + box.right) // 2, box.bottom + 22), _short(across.name, box.width), "ma")
            )
        if up is not None:
            for value, text in up.ticks(ticks[1]):
                at = round(box.bottom - float(up.share(value)) * box.height)
                fine[at * _FINE - _FINE : at * _FINE, left - 4 * _FINE : left] = GREY
                self._texts.append(_Text((box.left - 7, at), text, "rm"))
            self.name_up(box, up)

    def scale(self, box: Box, axis: Axis, pixels: Bytes) -> None:
        """A bar of colours, with its numbers on the right and its name above.

        Args:
            box: of the bar.
            axis: what its colours stand for, from below.
            pixels: ``[1 or more, 1, 3]``, from the top.
        """
        self.raster(box, pixels)
        self.frame(box, None, None)
        for value, text in axis.ticks(max(2, box.height // 60)):
            at = round(box.bottom - float(axis.share(value)) * box.height)
            self._texts.append(_Text((box.right + 6, at), text, "lm"))
        self._texts.append(_Text((box.right + 34, box.top - 6), axis.name, "rs"))

    def note(self, text: str) -> None:
        """A short text in the upper right corner."""
        self._texts.append(_Text((self._fine.shape[1] // _FINE - 8, 8), text, "rm"))

    def name_up(self, box: Box, axis: Axis) -> None:
        """The name of an axis, upright on the left of a panel."""
        middle = box.left - 46, (box.top + box.bottom) // 2
        self._texts.append(_Text(middle, _short(axis.name, box.height), "mm", upright=True))

    def pixels(self) -> Bytes:
        """The figure as it is seen, uint8 ``[height, width, 3]``."""
        from PIL import Image, ImageFont

        image = Image.fromarray(self._fine).reduce(_FINE)
        draw = _draw(image)
        font = ImageFont.load_default(_FONT)
        for at, text, anchor, upright in self._texts:
            if not upright:
                draw.text(at, text, fill=INK, font=font, anchor=anchor)
                continue
            left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
            patch = Image.new("L", (int(right - left) + 2, int(bottom - top) + 2))
            _draw(patch).text((1 - left, 1 - top), text, fill=255, font=font)
            turned = patch.transpose(Image.Transpose.ROTATE_90)
            image.paste(INK, (at[0] - turned.width // 2, at[1] - turned.height // 2), turned)
        return np.asarray(image)


def _draw(image: Image) -> ImageDraw:
    from PIL import ImageDraw

    return ImageDraw.Draw(image)


def png(pixels: Bytes) -> bytes:
    """Pixels ``[height, width, 3]`` as a PNG file: the same bytes for the same pixels."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG")
    return out.getvalue()


def _short(name: str, room: int) -> str:
    """A name, cut to the letters that fit so many pixels."""
    most = max(2, room // _LETTER)
    return name if len(name) <= most else name[: most - 1] + "…"
