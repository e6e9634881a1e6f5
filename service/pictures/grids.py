"""Grids of images: samples side by side, or strips of walks. Pixels are repeated, never blended."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.pictures.colours import PALE, Bytes
from service.pictures.options import GAP, PictureOptions, cell_shape, grid_shape

__all__ = ["image_grid"]


def image_grid(images: npt.NDArray[np.float32], options: PictureOptions, black_and_white: tuple[float, float]) -> Bytes:
    """Images in rows, from left to right and from top to bottom.

    Args:
        images: ``[N, H, W, C]`` with C 1 or 3, or ``[N, H, W]``.
        options: columns and size.
        black_and_white: the values that are black and white; those beyond are cut.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    low, high = black_and_white
    share = (images.astype(np.float64) - low) / (high - low if high > low else 1.0)
    levels = np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8).reshape(*images.shape[:3], -1)
    height, width = cell_shape(images.shape[1:], options.size)
    ys = np.arange(height) * images.shape[1] // height
    xs = np.arange(width) * images.shape[2] // width
    down, across = grid_shape(len(images), options.columns)
    sheet = np.empty((down * (height + GAP) + GAP, across * (width + GAP) + GAP, 3), np.uint8)
    sheet[:] = PALE
    for at, image in enumerate(levels):
        top, left = GAP + at // across * (height + GAP), GAP + at % across * (width + GAP)
        sheet[top : top + height, left : left + width] = image[ys][:, xs]
    return sheet
