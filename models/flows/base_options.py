"""The options of the base in a recipe, and the step that brings the latent into the box of a uniform one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from models.flows.bases import LearntBase
from models.flows.flow import Bijection
from models.flows.options import check, one_of
from service.bundle.bases import (
    MAX_COMPONENTS,
    MAX_DEGREES_OF_FREEDOM,
    Base,
    NormalBase,
    StudentTBase,
    UniformBase,
)
from service.errors import DataError

__all__ = ["BASES", "BaseOptions", "Squash"]

BASES: Final = ("normal", "diagonal_normal", "student_t", "mixture", "uniform")
"""The values of the option `base`: the families of `service.bundle.bases`."""

_OWN: Final[Mapping[str, str]] = {"degrees_of_freedom": "student_t", "components": "mixture"}  # option -> its base
_EDGE: Final = 1.0 - 2.0**-24  # the greatest float32 below 1


class Squash(Bijection):
    """All of the reals into the box (-1, 1), column by column: z = y / sqrt(1 + y^2), log|dz/dy| = -3/2 log(1 + y^2).

    Back y = z / sqrt((1 - z)(1 + z)). A uniform z makes y a Student-t of two degrees of freedom, over sqrt(2). Unlike
    a sigmoid or the normal distribution function, it leaves float32 room at the ends: y of 100 is still told from its
    neighbours to 3e-4. In the inverse z goes no nearer to an end than float32 does, where y is 2896.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> z inside the box; +-1 where float32 has nothing between."""
        # 1 + y^2 = m^2 (1/m^2 + (y/m)^2) with m = max(|y|, 1): no square overflows
        size = x.abs().clamp(min=1.0)
        share, rest = x / size, 1.0 / size
        sum_of_squares = rest * rest + share * share
        ladj = -3.0 * size.log() - 1.5 * sum_of_squares.log()
        return share / sum_of_squares.sqrt(), ladj.sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Z ``[N, D]`` -> y."""
        z = y.clamp(-_EDGE, _EDGE)
        below, above = 1.0 + z, 1.0 - z
        ladj = -1.5 * (below.log() + above.log())
        return z / (below.sqrt() * above.sqrt()), ladj.sum(dim=1)


@dataclass(frozen=True, slots=True)
class BaseOptions:
    """The options of the base in a recipe.

    Args:
        base: a name of `BASES`. "diagonal_normal" and "mixture" are learnt with the flow; "uniform" puts a `Squash`
            at the end of the chain.
        degrees_of_freedom: of a Student-t, 1 to 100: the fewer, the heavier the tails.
        components: how many normals a mixture has, from 2.

    Raises:
        DataError: where an option is out of its range, of another type, or not one of this base.
    """

    base: str = "normal"
    degrees_of_freedom: int = 5
    components: int = 8

    @classmethod
    def pop_from(cls, options: dict[str, Any]) -> BaseOptions:
        """Take the options that are the base's out of a recipe's, in place.

        Raises:
            DataError: where one of them is another base's, or as for the class.
        """
        given = {name: options.pop(name) for name in cls.__dataclass_fields__ if name in options}
        chosen = cls(**given)
        for name in given.keys() & _OWN.keys():
            if _OWN[name] != chosen.base:
                raise DataError(f"{name} is an option of base = {_OWN[name]!r}, and the base is {chosen.base!r}")
        return chosen

    def __post_init__(self) -> None:
        check("base", isinstance(self.base, str), self.base, "a name")
        one_of("base", self.base, BASES)
        for name, least, most in (
            ("degrees_of_freedom", 1, MAX_DEGREES_OF_FREEDOM),
            ("components", 2, MAX_COMPONENTS),
        ):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            check(name, whole and least <= value <= most, value, f"a whole number from {least} to {most}")

    def build(self, width: int) -> tuple[list[Bijection], Base | LearntBase]:
        """What ends the chain, and the base; torch's global generator says where a mixture starts.

        The chain starts out with columns of mean 0 and deviation 1, and so does a mixture on the average: the
        components' means are spread with half the variance, and the other half is each one's own.

        Args:
            width: D.
        """
        match self.base:
            case "diagonal_normal":
                return [], LearntBase(torch.zeros(1, width), torch.ones(1, width))
            case "student_t":
                return [], StudentTBase(degrees_of_freedom=self.degrees_of_freedom)
            case "mixture":
                half = math.sqrt(0.5)
                means = half * torch.randn(self.components, width)
                return [], LearntBase(means, torch.full_like(means, half))
            case "uniform":
                return [Squash()], UniformBase(low=-1.0, high=1.0)
            case _:
                return [], NormalBase()
