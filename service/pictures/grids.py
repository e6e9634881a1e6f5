"""Images side by side: a grid of samples, or strips of walks. Pixels are repeated, never blended."""

from __future__ import annotations

import numpy as np

from service.bundle.manifest import Manifest
from service.pictures.colours import PALE, Bytes
from service.pictures.options import GAP, Look, cell_shape, grid_shape
from service.plan import Float32

__all__ = ["image_grid", "value_range"]


def value_range(manifest: Manifest, images: Float32) -> tuple[float, float]:
    """The values that are black and white: the ends of the levels or of the support, else the least and the greatest.

    Args:
        manifest: of the flow.
        images: of it.
    """
    levels, support = manifest.quantization, manifest.support
    if levels is not None and levels.low < levels.high:
        return levels.low, levels.high
    if support is not None and support.low is not None and support.high is not None:
        return support.low, support.high
    return float(images.min()), float(images.max())


def image_grid(images: Float32, look: Look, ends: tuple[float, float]) -> Bytes:
    """Images in rows, from left to right and from top to bottom.

    Args:
        images: ``[N, H, W, C]`` with C 1 or 3, or ``[N, H, W]``.
        look: columns and size.
        ends: the values that are black and white; what lies beyond is cut.

    Returns:
        uint8 ``[height, width, 3]``.
    """
    low, high = ends
    share = (images.astype(np.float64) - low) / (high - low if high > low else 1.0)
    levels = np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8).reshape(*images.shape[:3], -1)
    height, width = cell_shape(images.shape[1:], look.size)
    ys = np.arange(height) * images.shape[1] // height
    xs = np.arange(width) * images.shape[2] // width
    down, across = grid_shape(len(images), look.columns)
    sheet = np.empty((down * (height + GAP) + GAP, across * (width + GAP) + GAP, 3), np.uint8)
    sheet[:] = PALE
    for at, image in enumerate(levels):
        top, left = GAP + at // across * (height + GAP), GAP + at % across * (width + GAP)
        sheet[top : top + height, left : left + width] = image[ys][:, xs]
    return sheet
