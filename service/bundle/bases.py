"""The base distributions that a manifest may name, with the parameters of each.

The exporter computes their densities (`models.flows.bases`) and the server draws from them
(`service.engine.sampling.latents`). Both read the parameters from these classes. Must not import torch or anything of
HTTP.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

__all__ = [
    "MAX_COMPONENTS",
    "MAX_DEGREES_OF_FREEDOM",
    "AnyBase",
    "Base",
    "DiagonalNormalBase",
    "ManifestPart",
    "MixtureBase",
    "NormalBase",
    "StudentTBase",
    "UniformBase",
]

MAX_DEGREES_OF_FREEDOM: Final = 100
"""The most degrees of freedom of a Student-t base. With more it is close to a normal distribution, and a draw costs one
random word for every two of them."""

MAX_COMPONENTS: Final = 1024
"""The most components of a mixture."""

_SUM_TOLERANCE: Final = 1e-6
_LOG_2_PI: Final = math.log(2 * math.pi)

Positive = Annotated[FiniteFloat, Field(gt=0)]
Float64 = npt.NDArray[np.float64]


class ManifestPart(BaseModel):  # noqa: PLW1641  pydantic adds a hash to what is frozen
    """A strict, frozen part of the manifest: an unknown or misspelt key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def __eq__(self, other: object) -> bool:
        """Whether the keys are equal. Arrays that were made of them are not looked at: those have no one truth."""
        return type(other) is type(self) and all(
            getattr(self, name) == getattr(other, name) for name in type(self).model_fields
        )


class _Base(ManifestPart):
    """A base distribution.

    Attributes:
        title: its name in a sentence.
        tempered: whether `temperature` may scale its standard deviations. It may where the base is made of normal
            distributions.
        path: the default path between two latents.
    """

    title: ClassVar[str]
    tempered: ClassVar[bool] = False
    path: ClassVar[Literal["slerp", "linear"]] = "linear"

    @property
    def width(self) -> int | None:
        """The number of coordinates that its parameters are given for; None where it fits any number."""
        return None

    @property
    def reading(self) -> str:
        """A short description."""
        return self.title

    def log_prob(self, z: Float64) -> Float64:
        """Log p_Z(z) in nats, in float64.

        Args:
            z: ``[N, D]``.

        Returns:
            ``[N]``; -inf where the density is zero.
        """
        raise NotImplementedError


class NormalBase(_Base):
    """z ~ N(0, I): log p_Z(z) = -|z|^2 / 2 - D log(2 pi) / 2."""

    title: ClassVar[str] = "normal"
    tempered: ClassVar[bool] = True
    path: ClassVar[Literal["slerp", "linear"]] = "slerp"

    family: Literal["normal"] = "normal"

    @property
    def reading(self) -> str:
        """A short description."""
        return "N(0, 1) in each"

    def log_prob(self, z: Float64) -> Float64:
        """See `_Base.log_prob`."""
        return np.asarray(-0.5 * (z * z).sum(axis=1) - 0.5 * z.shape[1] * _LOG_2_PI, np.float64)


class DiagonalNormalBase(_Base):
    """z_i ~ N(m_i, s_i^2), independent: log p_Z(z) = sum -((z_i - m_i) / s_i)^2 / 2 - log s_i - log(2 pi) / 2.

    Args:
        mean: m ``[D]``.
        standard_deviation: s ``[D]``, above zero.

    Example:
        >>> DiagonalNormalBase(mean=[0.0, 5.0], standard_deviation=[1.0, 2.0]).width
        2
    """

    title: ClassVar[str] = "normal in each coordinate"
    tempered: ClassVar[bool] = True
    path: ClassVar[Literal["slerp", "linear"]] = "slerp"

    family: Literal["diagonal_normal"] = "diagonal_normal"
    mean: Annotated[list[FiniteFloat], Field(min_length=1)]
    standard_deviation: Annotated[list[Positive], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.mean) != len(self.standard_deviation):
            raise ValueError(
                f"a diagonal normal base needs as many standard deviations as means, and has "
                f"{len(self.standard_deviation)} and {len(self.mean)}"
            )
        return self

    @property
    def width(self) -> int:
        """D."""
        return len(self.mean)

    @property
    def reading(self) -> str:
        """A short description."""
        ranges = f"{_extent('means', self.mean)}, {_extent('deviations', self.standard_deviation)}"
        return f"N(mean, deviation^2) in each, {ranges}"

    @cached_property
    def frame(self) -> tuple[Float64, Float64]:
        """`mean` and `standard_deviation`, ``[D]`` each."""
        return np.array(self.mean, np.float64), np.array(self.standard_deviation, np.float64)

    def log_prob(self, z: Float64) -> Float64:
        """See `_Base.log_prob`."""
        mean, deviation = self.frame
        return _diagonal_normal(z, mean, deviation)


class StudentTBase(_Base):
    """z_i of a Student-t distribution with n degrees of freedom, independent: tails that fall as |z|^-(n + 1).

    log p_Z(z) = sum log G((n + 1) / 2) - log G(n / 2) - log(n pi) / 2 - (n + 1) / 2 log(1 + z_i^2 / n), G the gamma
    function.

    Args:
        degrees_of_freedom: n, from 1 (Cauchy) to `MAX_DEGREES_OF_FREEDOM`.
    """

    title: ClassVar[str] = "Student-t"

    family: Literal["student_t"] = "student_t"
    degrees_of_freedom: Annotated[int, Field(ge=1, le=MAX_DEGREES_OF_FREEDOM)]

    @property
    def reading(self) -> str:
        """A short description."""
        plural = "" if self.degrees_of_freedom == 1 else "s"
        return f"Student-t with {self.degrees_of_freedom} degree{plural} of freedom in each"

    def log_prob(self, z: Float64) -> Float64:
        """See `_Base.log_prob`."""
        n = self.degrees_of_freedom
        constant = math.lgamma((n + 1) / 2) - math.lgamma(n / 2) - 0.5 * math.log(n * math.pi)
        # log(1 + z^2 / n) as twice the logarithm of a hypotenuse: z^2 would overflow far out.
        tails = 2.0 * np.log(np.hypot(1.0, z / math.sqrt(n)))
        return np.asarray((constant - 0.5 * (n + 1) * tails).sum(axis=1), np.float64)


class MixtureBase(_Base):
    """A mixture of K diagonal normals: p_Z(z) = sum_k w_k N(z; m_k, diag(s_k^2)).

    Args:
        weights: w ``[K]``, above zero. Their sum is one to within a millionth. The difference is rounding, and
            every use divides by the sum.
        means: m ``[K, D]``.
        standard_deviations: s ``[K, D]``, above zero.
    """

    title: ClassVar[str] = "a mixture of normals"
    tempered: ClassVar[bool] = True

    family: Literal["mixture"] = "mixture"
    weights: Annotated[list[Positive], Field(min_length=1, max_length=MAX_COMPONENTS)]
    means: list[Annotated[list[FiniteFloat], Field(min_length=1)]]
    standard_deviations: list[list[Positive]]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        count = len(self.weights)
        if abs(math.fsum(self.weights) - 1) > _SUM_TOLERANCE:
            raise ValueError(f"the weights of a mixture must sum to 1, and sum to {math.fsum(self.weights):.9g}")
        for name, rows in (("means", self.means), ("standard_deviations", self.standard_deviations)):
            if len(rows) != count:
                raise ValueError(f"a mixture with {count} weights needs {count} rows of {name}, and has {len(rows)}")
            for k, row in enumerate(rows):
                if len(row) != self.width:
                    raise ValueError(f"row {k} of {name} has {len(row)} values, and row 0 of means has {self.width}")
        return self

    @property
    def width(self) -> int:
        """D."""
        return len(self.means[0])

    @property
    def reading(self) -> str:
        """A short description."""
        deviations = [value for row in self.standard_deviations for value in row]
        return (
            f"a mixture of {len(self.weights)} diagonal normals, {_extent('weights', self.weights)}, "
            f"{_extent('means', [value for row in self.means for value in row])}, {_extent('deviations', deviations)}"
        )

    @cached_property
    def frames(self) -> tuple[Float64, Float64]:
        """`means` and `standard_deviations`, ``[K, D]`` each."""
        return np.array(self.means, np.float64), np.array(self.standard_deviations, np.float64)

    @cached_property
    def thresholds(self) -> Float64:
        """The cumulative weights without the last, ``[K - 1]``; a uniform number between two picks a component."""
        # Python adds one by one, which NumPy does not promise. So the bits are the same on every machine.
        total, sums = 0.0, []
        for weight in self.weights:
            total += weight
            sums.append(total)
        return np.array(sums[:-1], np.float64) / total

    def log_prob(self, z: Float64) -> Float64:
        """See `_Base.log_prob`."""
        total = math.fsum(self.weights)
        result = np.full(len(z), -np.inf)
        for weight, mean, deviation in zip(self.weights, *self.frames, strict=True):
            result = np.logaddexp(result, math.log(weight / total) + _diagonal_normal(z, mean, deviation))
        return result


class UniformBase(_Base):
    """z ~ U(low, high) in each coordinate: log p_Z(z) = -D log(high - low) inside, -inf outside."""

    title: ClassVar[str] = "uniform"

    family: Literal["uniform"] = "uniform"
    low: FiniteFloat
    high: FiniteFloat

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"a uniform base needs low < high, and has {self.low} and {self.high}")
        return self

    @property
    def reading(self) -> str:
        """A short description."""
        return f"U({self.low:g}, {self.high:g}) in each"

    def log_prob(self, z: Float64) -> Float64:
        """See `_Base.log_prob`."""
        inside = ((z >= self.low) & (z <= self.high)).all(axis=1)
        return np.where(inside, -z.shape[1] * math.log(self.high - self.low), -np.inf)


Base = NormalBase | DiagonalNormalBase | StudentTBase | MixtureBase | UniformBase
"""Any base distribution."""

AnyBase = Annotated[Base, Field(discriminator="family")]
"""Any base distribution as a key of the manifest. `family` names its class."""


def _diagonal_normal(z: Float64, mean: Float64, deviation: Float64) -> Float64:
    scaled = (z - mean) / deviation
    constant = float(np.log(deviation).sum()) + 0.5 * z.shape[1] * _LOG_2_PI
    return np.asarray(-0.5 * (scaled * scaled).sum(axis=1) - constant, np.float64)


def _extent(name: str, values: list[float]) -> str:
    return f"{name} {min(values):.3g} to {max(values):.3g}"
