"""The reader of a folder of PNG images, as one array of pixels. Must not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from service.errors import DataError

__all__ = ["read_images"]

_MODES: Final = ("L", "RGB")


def read_images(folder: Path) -> tuple[npt.NDArray[np.uint8], tuple[str, ...]]:
    """Read every PNG that lies in a folder, in the order of the names; folders within are not looked into.

    Args:
        folder: files that do not end in .png are passed over.

    Returns:
        Pixels 0 to 255: ``[N, H, W, 1]`` for grey images, ``[N, H, W, 3]`` for colour; and the files' names.

    Raises:
        DataError: where there is no PNG, one cannot be read, is neither 8-bit grey nor RGB, or has another size or
            number of channels than the first; the file is named, with what it has and what was expected.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".png" and path.is_file())
    if not paths:
        raise DataError(f"{folder.name}: there is no PNG image in the folder")
    first = _read(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)
    for number, path in enumerate(paths):
        image = _read(path)
        if image.shape != first.shape:
            raise DataError(
                f"{folder.name}: all images must be of one size, and {path.name} is {_size(image)}, where "
                f"{paths[0].name} is {_size(first)}"
            )
        images[number] = image
    return images, tuple(path.name for path in paths)


def _read(path: Path) -> npt.NDArray[np.uint8]:
    """The pixels ``[H, W, C]`` of one file."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DataError("reading images needs Pillow: install the extra `train` of pushforward") from error
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in _MODES:
                raise DataError(
                    f"{path.name}: expected 8-bit grey (L) or RGB pixels, and the image's mode is {image.mode}"
                )
            pixels = np.asarray(image, np.uint8)
    except UnidentifiedImageError as error:
        raise DataError(f"{path.name}: this is not a PNG image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path.name}: the image cannot be read: {str(error)[:200]}") from error
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _size(image: npt.NDArray[np.uint8]) -> str:
    height, width, channels = image.shape
    return f"{width} x {height} pixels in {'grey' if channels == 1 else 'colour'}"
