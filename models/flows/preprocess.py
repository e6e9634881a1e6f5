"""Preprocessing of the user's numbers before a flow sees them: bijections of the chain, with their Jacobians.

Dequantization alone is no bijection: it adds noise to integers while a flow is fitted. In a graph an integer row
is simply a row, the centre of its bin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from models.flows.flow import Bijection
from models.flows.linear import FixedLinear
from models.flows.precision import round_number
from service.bundle.manifest import Support
from service.bundle.precision import Precision
from service.errors import DataError, Reason

__all__ = [
    "Flatten",
    "Logit",
    "Standardize",
    "Whiten",
    "correlation_matrix",
    "dequantize",
    "quantized_support",
]

_INTENSITIES: Final = torch.logspace(-5, 0, 41, dtype=torch.float64)
"""How far a correlation matrix may be drawn towards the identity. The least keeps W = C^(-1/2) below 316, so that a
float32 row is resolved after it."""


class Flatten(Bijection):
    """Lay an event out as one axis, last axis fastest: ``[N, *event]`` <-> ``[N, D]``. Its log-determinant is 0.

    Args:
        event_shape: the shape of one event.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, *event]`` -> ``[N, D]``."""
        y = x.flatten(1)
        return y, torch.zeros_like(y[:, 0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> ``[N, *event]``."""
        return y.reshape(-1, *self.event_shape), torch.zeros_like(y[:, 0])


class Standardize(Bijection):
    """Shift and scale each column: y = (x - mean) / std, log|det dy/dx| = -sum log std.

    Args:
        mean: ``[*event]``, in the units of x.
        std: ``[*event]``, in the units of x; above zero.
        dtype: of the step.

    Raises:
        DataError: where a mean is not finite, or a std is not a finite number of the dtype above zero; the column is
            named.

    Example:
        >>> import torch
        >>> step = Standardize(torch.tensor([10.0]), torch.tensor([2.0]))
        >>> y, log_abs_det_jacobian = step(torch.tensor([[14.0]]))
        >>> float(y)
        2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("mean", mean.detach().to(dtype).clone())
        self.register_buffer("std", std.detach().to(dtype).clone())
        bad = ~(torch.isfinite(self.mean) & torch.isfinite(self.std) & (self.std > 0)).flatten()
        if bad.any():
            columns = torch.nonzero(bad).flatten().tolist()
            raise DataError(
                f"{len(columns)} of {bad.numel()} columns cannot be standardized: each needs a finite mean and a "
                "standard deviation above zero",
                tuple(Reason(("rows",), "the column is constant, or not finite", column=c) for c in columns),
            )

    @classmethod
    def of(cls, rows: Tensor, dtype: torch.dtype = torch.float32) -> Standardize:
        """The step that gives `rows` ``[N, *event]`` mean 0 and standard deviation 1 (divisor N) in each column."""
        exact = rows.detach().to(torch.float64)
        return cls(exact.mean(dim=0), exact.std(dim=0, correction=0), dtype)

    @classmethod
    def of_channels(cls, rows: Tensor, channels: int, dtype: torch.dtype = torch.float32) -> Standardize:
        """The same for flat images ``[N, H W C]``, with one mean and one standard deviation for each of C channels.

        Then equal pixels stay equal wherever they lie, as convolutions would have it.
        """
        pixels = rows.detach().to(torch.float64).reshape(-1, channels)
        places = rows.shape[1] // channels
        return cls(pixels.mean(dim=0).repeat(places), pixels.std(dim=0, correction=0).repeat(places), dtype)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, *event]`` -> (x - mean) / std."""
        y = (x - self.mean) / self.std
        return y, (-self.std.log().sum()).expand(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, *event]`` -> y * std + mean."""
        return y * self.std + self.mean, self.std.log().sum().expand(y.shape[0])


class Whiten(FixedLinear):
    """Take the linear correlations out: y = W x with W = C^(-1/2), log|det dy/dx| = -(log det C) / 2.

    W is symmetric, so that y_i stays near x_i. A flow that starts here starts as the full-covariance Gaussian, and
    has only the rest to learn. It follows a `Standardize`: x has mean 0 and variance 1, and C is its correlation
    matrix as `correlation_matrix` estimates it.

    Args:
        correlation: C ``[D, D]``, symmetric and positive definite.
        dtype: of the step.

    Raises:
        DataError: where C is not positive definite.

    References:
        Kessy et al., 2018, https://arxiv.org/abs/1512.00809 (ZCA).
    """

    def __init__(self, correlation: Tensor, dtype: torch.dtype = torch.float32) -> None:
        values, vectors = torch.linalg.eigh(correlation.detach().to(torch.float64))
        if not float(values[0]) > 0:
            raise DataError("the columns cannot be whitened: their correlation matrix is not positive definite")
        super().__init__(((vectors * values.rsqrt()) @ vectors.T).to(dtype))

    @classmethod
    def of(cls, rows: Tensor, dtype: torch.dtype = torch.float32, noise: Tensor | None = None) -> Whiten:
        """The step for standardized rows, as the fit sees them.

        Args:
            rows: ``[N, D]``.
            dtype: of the step.
            noise: ``[D]``, the standard deviations of what the fit adds to each column by itself; None for nothing. Its
                variances stand beside C: a direction narrower than the noise is not blown up to many times its width.
        """
        matrix = correlation_matrix(rows)
        return cls(matrix if noise is None else matrix + noise.detach().to(matrix).square().diag(), dtype)


def correlation_matrix(rows: Tensor) -> Tensor:
    """Estimate the correlation matrix of standardized rows: (1 - a) S + a I, with S that of the sample.

    The intensity a is the one by which each half of the rows gives the other the greatest Gaussian likelihood, with
    half its odds a / (1 - a), since S is of twice as many rows. A narrow direction that the rows resolve so stays as
    narrow as it is, where an intensity by squared error (Ledoit and Wolf) would widen it.

    Args:
        rows: ``[N, D]``, of mean 0 and variance 1 in each column; N at least 2.

    Returns:
        C ``[D, D]`` float64, positive definite.

    References:
        Friedman, 1989, https://doi.org/10.1080/01621459.1989.10478752, on intensities by cross-validation.
    """
    exact = rows.detach().to(torch.float64)
    halves = exact[::2], exact[1::2]
    intensity = _INTENSITIES[:, None]
    score = torch.zeros(len(_INTENSITIES), dtype=torch.float64)
    for half, other in (halves, halves[::-1]):
        values, vectors = torch.linalg.eigh(half.T @ half / len(half))
        shrunk = (1 - intensity) * values.clamp(min=0) + intensity
        score += len(other) * (shrunk.log() + (other @ vectors).square().mean(dim=0) / shrunk).sum(dim=1)
    found = float(_INTENSITIES[int(score.argmin())])
    best = max(found / (2 - found), float(_INTENSITIES[0]))
    sample = exact.T @ exact / len(exact)
    return (1 - best) * sample + best * torch.eye(len(sample), dtype=torch.float64)


class Logit(Bijection):
    """An open interval to the reals: y = log(x - low) - log(high - x), the same in each coordinate.

    log|dy/dx| = log(high - low) - log(x - low) - log(high - x), and back x = low + (high - low) sigmoid(y).
    Taking the two distances apart, rather than (x - low) / (high - low) first, keeps float32 exact at both ends:
    near an end the subtraction has no rounding error.

    Args:
        low: the lower end, in the units of x. Rounded to the precision of the rows.
        high: the upper end.
        precision: of the rows.

    Raises:
        DataError: where low < high does not hold.

    References:
        Papamakarios et al., 2017, https://arxiv.org/abs/1705.07057, section 4.3 (there with x in (0, 1)).
    """

    def __init__(self, low: float, high: float, precision: Precision = "float32") -> None:
        super().__init__()
        self.low, self.high = round_number(low, precision), round_number(high, precision)
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DataError(f"a logit needs finite bounds with low < high, and has {low} and {high}")

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, *event]`` inside (low, high) -> y of all the reals."""
        below, above = (x - self.low).log(), (self.high - x).log()
        ladj = math.log(self.high - self.low) - below - above
        return below - above, ladj.flatten(1).sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, *event]`` -> x inside (low, high)."""
        width = self.high - self.low
        # log sigmoid(y) + log sigmoid(-y), without a sigmoid that underflows to 0 for large |y|
        distance = y.abs()
        ladj = math.log(width) - distance - 2 * torch.log1p(torch.exp(-distance))
        return self.low + width * torch.sigmoid(y), ladj.flatten(1).sum(dim=1)


def dequantize(x: Tensor, step: float | Tensor, generator: torch.Generator) -> Tensor:
    """Spread each integer over its bin: x + u, u ~ U(-step/2, step/2).

    The expectation of log p over u is a lower bound of the log-probability of the integer itself, for bins of
    width one (Theis et al., 2016, https://arxiv.org/abs/1511.01844, equation 6).

    Args:
        x: ``[N, *event]``, bin centres; float32 or float64.
        step: the width of a bin, in the units of x; or one for each column, ``[*event]``, 0 where a column is left
            as it is.
        generator: draws the noise.

    Returns:
        The same shape and dtype; every value strictly inside its bin after rounding.

    Raises:
        DataError: for a negative or endless step, or where the values are so large that their precision does not
            resolve a bin.
    """
    width = torch.as_tensor(step, dtype=x.dtype, device=x.device).expand(x.shape[1:])
    if x.shape[0] == 0:
        return x.clone()
    margin = 4 * torch.finfo(x.dtype).eps * (x.abs().amax(dim=0) + width)
    bad = ~((width >= 0) & torch.isfinite(width) & ((margin <= width / 100) | (width == 0))).flatten()
    if bad.any():
        precision = str(x.dtype).removeprefix("torch.")
        raise DataError(
            f"integers can be spread over their bins only where {precision} resolves a bin, and its width is not "
            "below zero",
            tuple(
                Reason(("rows",), f"a bin of width {float(width.flatten()[c])} cannot be used", column=c)
                for c in torch.nonzero(bad).flatten().tolist()
            ),
        )
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) - 0.5
    return x + noise * (width - 2 * margin).clamp(min=0)


def quantized_support(low: float, high: float, step: float = 1.0, precision: Precision = "float32") -> Support:
    """Where dequantized data lives: the bins of the integers low to high, ends not included.

    Example:
        >>> support = quantized_support(0, 16)
        >>> support.low, support.high
        (-0.5, 16.5)
    """
    return Support(low=round_number(low - step / 2, precision), high=round_number(high + step / 2, precision))
