"""The one text of a float32 that another float32 would be read from, and what JSON and CSV read in its place."""

from __future__ import annotations

import re
from typing import Final

from service.exchange import Body

__all__ = ["TIE", "tied"]

_TIE: Final = b"7.038531e-26"
"""The one shortest text of a float32 that, read as a float64, falls just between two float32 and would be rounded to
the wrong one. All of them were tried."""
TIE: Final = float(_TIE)
"""Its value: among numbers that have been read it is found sooner than its text among theirs."""
_TIE_ALONE: Final = re.compile(rb"(?<![\d.])" + re.escape(_TIE) + rb"(?!\d)")
_TIE_IN_FULL: Final = b"7.038530691851209e-26"


def tied(text: Body) -> Body:
    """A text of numbers, with `_TIE` replaced by a text that is rounded to the right float32."""
    return _TIE_ALONE.sub(_TIE_IN_FULL, text) if _TIE in text else text
