"""Linear steps of a chain: a constant matrix, a trained one, and a trained scale for each column.

A graph has no operator that solves a triangular system, and float32 would lose digits in it: a trained matrix is folded
into a constant one before it is exported, and its inverse computed in float64.
"""

from __future__ import annotations

import math
from abc import ABC

import torch
from torch import Tensor, nn

from models.flows.flow import Bijection

__all__ = ["ConstantMatrix", "FixedLinear", "LULinear", "Scaling"]


class ConstantMatrix(Bijection, ABC):
    """A step by a constant matrix W, with the inverse and log|det W| that a graph needs beside it.

    Both are computed in float64, whatever the precision of the matrix. In a step of float64, which is the reference for
    a graph, they are those of the matrix as it stands there.

    Args:
        matrix: ``[D, D]``, not singular; its dtype is that of the step.

    Raises:
        ValueError: where the matrix has no inverse.
    """

    matrix: Tensor
    inverse_matrix: Tensor
    log_det: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        given = matrix.detach().clone()
        exact = given.to(torch.float64)
        sign, log_det = torch.linalg.slogdet(exact)
        if not float(sign):
            raise ValueError("a linear step whose matrix has no inverse")
        self.register_buffer("matrix", given)
        self.register_buffer("inverse_matrix", torch.linalg.inv(exact).to(given.dtype))
        self.register_buffer("log_det", log_det.to(given.dtype))

    def inverse_and_log_det(self) -> tuple[Tensor, Tensor]:
        """W^-1 and log|det W|: the constants in a graph and in float32; in float64, those of the matrix as it is."""
        if self.matrix.dtype == torch.float64 and not torch.compiler.is_exporting():
            return torch.linalg.inv(self.matrix), torch.linalg.slogdet(self.matrix)[1]
        return self.inverse_matrix, self.log_det


class FixedLinear(ConstantMatrix):
    """A constant matrix, and a shift: y = W x + b, log|det dy/dx| = log|det W|.

    Args:
        matrix: W^T ``[D, D]``, so that a row of x is multiplied from the left; not singular.
        offset: b ``[D]``; None for no shift.

    Raises:
        ValueError: where the matrix has no inverse.
    """

    offset: Tensor | None

    def __init__(self, matrix: Tensor, offset: Tensor | None = None) -> None:
        super().__init__(matrix)
        self.register_buffer("offset", None if offset is None else offset.detach().clone())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> W x + b."""
        y = x @ self.matrix
        return y if self.offset is None else y + self.offset, self.inverse_and_log_det()[1].expand(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> W^-1 (y - b)."""
        matrix, log_det = self.inverse_and_log_det()
        return (y if self.offset is None else y - self.offset) @ matrix, -log_det.expand(y.shape[0])


class LULinear(Bijection):
    """A trained matrix: y = L U x with L lower triangular of unit diagonal, U upper triangular.

    log|det dy/dx| = sum log U_ii. The diagonal of U is exp(s) with s = a / (1 + |a / log slope|), above zero and
    bounded, so that the matrix is never singular. Back, two triangular systems are solved. It starts as the identity.

    Args:
        width: D.
        slope: the least diagonal entry of U, in (0, 1); the greatest is 1 / slope.

    References:
        Kingma and Dhariwal, 2018, https://arxiv.org/abs/1807.03039, section 3.2. Oliva et al., 2018,
        https://arxiv.org/abs/1801.09819, section 3.1.
    """

    def __init__(self, width: int, slope: float = 0.05) -> None:
        super().__init__()
        self.slope = slope
        self.lower = nn.Parameter(torch.zeros(width, width))
        self.upper = nn.Parameter(torch.zeros(width, width))
        self.diagonal = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> L U x."""
        lower, upper, log_diagonal = self._factors()
        return x @ upper.T @ lower.T, log_diagonal.sum().expand(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> U^-1 L^-1 y."""
        lower, upper, log_diagonal = self._factors()
        half = torch.linalg.solve_triangular(lower.T, y, upper=True, left=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper.T, half, upper=False, left=False)
        return x, -log_diagonal.sum().expand(y.shape[0])

    def folded(self) -> Bijection:
        """L U as one constant matrix."""
        lower, upper, _ = self._factors(torch.float64)
        # rounded first, so that the reference has the matrix of the graph
        return FixedLinear((upper.T @ lower.T).to(self.lower.dtype))

    def _factors(self, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor]:
        lower, upper, raw = (p.to(dtype or p.dtype) for p in (self.lower, self.upper, self.diagonal))
        log_diagonal = raw / (1 + (raw / math.log(self.slope)).abs())
        unit = torch.eye(raw.shape[0], dtype=raw.dtype, device=raw.device)
        return lower.tril(-1) + unit, upper.triu(1) + torch.diag(log_diagonal.exp()), log_diagonal


class Scaling(Bijection):
    """A trained scale for each column: y_i = exp(s_i) x_i, log|det dy/dx| = sum s_i. It starts as the identity.

    Args:
        width: D.

    References:
        Dinh et al., 2015, https://arxiv.org/abs/1410.8516, section 3.3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> exp(s) x."""
        return x * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> exp(-s) y."""
        return y * (-self.log_scale).exp(), (-self.log_scale.sum()).expand(y.shape[0])
