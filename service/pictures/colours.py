"""Colours: a perceptual map from dark to bright, as 8-bit red, green and blue."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["DARK", "GREY", "INK", "PALE", "PAPER", "RED", "Bytes", "Colour", "colour_map"]

Bytes = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

PAPER: Final[Colour] = (255, 255, 255)
INK: Final[Colour] = (40, 40, 48)
GREY: Final[Colour] = (150, 150, 158)
PALE: Final[Colour] = (222, 222, 228)
RED: Final[Colour] = (230, 57, 70)
DARK: Final[Colour] = (12, 8, 20)
"""The colour of a density of zero: darker than the least colour of the map."""

_VIRIDIS: Final = np.array(
    [
        *((68, 1, 84), (72, 26, 108), (71, 47, 125), (65, 68, 135), (57, 86, 140), (49, 104, 142)),
        *((42, 120, 142), (35, 136, 142), (31, 152, 139), (34, 168, 132), (53, 183, 121), (84, 197, 104)),
        *((122, 209, 81), (165, 219, 54), (210, 226, 27), (253, 231, 37)),
    ],
    np.float64,
)
"""matplotlib's viridis (Smith and van der Walt, 2015; CC0) at 16 even places: linear in lightness."""


def colour_map(share: npt.ArrayLike) -> Bytes:
    """Numbers as colours.

    Args:
        share: ``[...]``, 0 for the darkest and 1 for the brightest; clipped to that.

    Returns:
        uint8 ``[..., 3]``.

    Example:
        >>> colour_map([0.0, 1.0]).tolist()
        [[68, 1, 84], [253, 231, 37]]
    """
    at = np.clip(np.asarray(share, np.float64), 0.0, 1.0)
    places = np.linspace(0.0, 1.0, len(_VIRIDIS))
    channels = [np.interp(at, places, _VIRIDIS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
