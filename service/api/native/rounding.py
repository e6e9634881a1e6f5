"""The rounding of numbers that were read, to the precision of a flow.

From a text to float64 and on to float32, a number is rounded twice. There is one shortest text of a float32, with its
negative, that comes out as another float32 in this way: 7.038531e-26. All of them were tried.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from service.bundle.precision import FloatType
from service.plan import Floats

__all__ = ["ROUNDED_TWICE", "round_numbers"]

_TIE: Final = 7.038531e-26
_TIE_FLOAT32: Final = np.uint32(0x15AE43FD).view(np.float32)
"""What the text of `_TIE` means."""
ROUNDED_TWICE: Final = tuple(np.float32(sign * _TIE).tobytes() for sign in (1, -1))
"""The bytes of the float32 that come out for `_TIE` and its negative: what holds them may be meant otherwise."""


def round_numbers(numbers: npt.NDArray[np.floating[Any]], dtype: FloatType) -> Floats:
    """Numbers in the precision of a flow, each the nearest; one beyond its range is infinite.

    Args:
        numbers: float32 or float64 of any shape, float64 where they were read from text.
        dtype: of the flow.

    Returns:
        The same shape; the same array where it is of that dtype.

    Example:
        >>> hex(round_numbers(np.array([7.038531e-26]), np.dtype(np.float32)).view(np.uint32)[0])
        '0x15ae43fd'
    """
    with np.errstate(over="ignore"):
        rounded: Floats = numbers.astype(dtype, copy=False)
    if rounded.dtype.itemsize < numbers.dtype.itemsize:
        tie = np.abs(numbers) == _TIE
        if tie.any():
            rounded[tie] = np.copysign(_TIE_FLOAT32, rounded[tie])
    return rounded
