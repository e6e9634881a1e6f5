"""The prior of a flow that stands for a posterior: where it has mass, as a box with simplexes in it.

A flow is fitted to draws of the prior, and puts some of its mass outside of it all the same: its density there is
leakage. The server measures how much lies inside (`service.engine.verbs.acceptance`) and draws again what lies outside
(`service.engine.verbs.rejection`).

Must not import onnxruntime or torch.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, FiniteFloat, model_validator

from service.bundle.bases import ManifestPart

__all__ = ["Prior", "Simplex"]

_MAX_WIDTH: Final = 1 << 20

_Bounds = Annotated[list[FiniteFloat | None], Field(min_length=1, max_length=_MAX_WIDTH)]


class Simplex(ManifestPart):
    """Neighbouring coordinates that are the first K - 1 of K shares: none is negative, and their sum is at most 1.

    Args:
        first: the first of them, counted from 0.
        count: how many they are, K - 1.
    """

    first: Annotated[int, Field(ge=0, lt=_MAX_WIDTH)]
    count: Annotated[int, Field(ge=1, le=_MAX_WIDTH)]


class Prior(ManifestPart):
    """The region outside of which the prior's density is zero.

    Args:
        low: the lower end of each coordinate of the flattened event, in the units of x; null for none.
        high: the upper end of each; null for none.
        simplexes: groups of coordinates that are shares of a whole.
    """

    low: _Bounds
    high: _Bounds
    simplexes: Annotated[list[Simplex], Field(max_length=_MAX_WIDTH)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check_region(self) -> Self:
        if len(self.low) != len(self.high):
            raise ValueError(f"low has {len(self.low)} ends, and high has {len(self.high)}")
        for at, (low, high) in enumerate(zip(self.low, self.high, strict=True)):
            if low is not None and high is not None and not low < high:
                raise ValueError(f"coordinate {at} lies between {low} and {high}: the prior excludes everything")
        taken = 0
        for simplex in self.simplexes:
            if simplex.first < taken or simplex.first + simplex.count > self.width:
                raise ValueError(
                    f"a simplex from coordinate {simplex.first} on overlaps another, or ends past the last"
                )
            taken = simplex.first + simplex.count
            least = sum(max(0.0, low or 0.0) for low in self.low[simplex.first : taken])
            if least >= 1 or any(high is not None and high <= 0 for high in self.high[simplex.first : taken]):
                raise ValueError(
                    f"the simplex from coordinate {simplex.first} on excludes everything within the bounds"
                )
        return self

    @property
    def width(self) -> int:
        """The number of coordinates."""
        return len(self.low)

    def inside(self, x: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
        """Whether each row lies in the prior, its ends included: bool ``[N]``, false for one that is not finite.

        Args:
            x: ``[N, D]``.

        Example:
            >>> Prior(low=[0.0, None], high=[1.0, None]).inside(np.array([[0.5, 9.0], [1.5, 0.0]])).tolist()
            [True, False]
        """
        low = np.array([-math.inf if end is None else end for end in self.low])
        high = np.array([math.inf if end is None else end for end in self.high])
        found: npt.NDArray[np.bool_] = (np.isfinite(x) & (x >= low) & (x <= high)).all(axis=1)
        for simplex in self.simplexes:
            shares = x[:, simplex.first : simplex.first + simplex.count]
            found &= (shares >= 0).all(axis=1) & (shares.sum(axis=1, dtype=np.float64) <= 1)
        return found

    def describe(self, at: int) -> str:
        """The bounds of one coordinate, in words."""
        low, high = self.low[at], self.high[at]
        if low is not None and high is not None:
            words = f"from {low:g} to {high:g}"
        elif low is not None:
            words = f"{low:g} and above"
        else:
            words = "anything" if high is None else f"{high:g} and below"
        shared = any(each.first <= at < each.first + each.count for each in self.simplexes)
        return f"{words}, a share of a whole" if shared else words
