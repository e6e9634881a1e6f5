"""The events of a flow, as a picture needs to know them: their shape, the names of their columns, black and white."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.errors import NotAcceptable

__all__ = ["EventDescription", "is_image"]


class EventDescription(NamedTuple):
    """The description of a row of x.

    Args:
        shape: ``(D,)`` for a table, ``(H, W, C)`` or ``(H, W)`` for an image.
        features: the names of a table's D columns.
        value_range: of images, the values that are black and white; None for the least and the greatest shown.
    """

    shape: tuple[int, ...]
    features: Sequence[str]
    value_range: tuple[float, float] | None = None

    def black_and_white(self, images: npt.NDArray[np.float32]) -> tuple[float, float]:
        """The values that are black and white in a picture of these images."""
        return self.value_range or (float(images.min()), float(images.max()))


def is_image(event_shape: tuple[int, ...]) -> bool:
    """Tell a row that is an image, ``[H, W, C]`` or ``[H, W]``, from the row of a table, ``[D]``.

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
