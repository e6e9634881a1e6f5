"""Constraints as a step of a chain: coordinates with bounds to all of the reals, block by block.

A block is a stretch of columns of one kind. A simplex of K coordinates goes to K - 1 reals, so that the widths of the
two sides may differ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from models.flows.flow import Bijection
from models.flows.precision import next_number, round_number
from models.flows.preprocess import Logit
from service.bundle.constraints import Constraint
from service.bundle.precision import Precision
from service.errors import DataError

__all__ = ["Block", "Constrained", "Free", "HalfLine", "Interval", "Simplex"]

SIMPLEX_TOLERANCE: Final = 1e-5
"""The coordinates of a row of a simplex sum to 1 within this."""


class Block(Bijection, ABC):
    """A stretch of columns of one kind.

    Args:
        columns: how many columns of x.
    """

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    @property
    def reals(self) -> int:
        """How many columns of y."""
        return self.columns

    @abstractmethod
    def inside(self, x: Tensor) -> Tensor:
        """Which rows of x ``[N, columns]`` lie in the support: bool ``[N]``."""

    @abstractmethod
    def nearest(self, x: Tensor) -> Tensor:
        """X ``[N, columns]``, with rows outside moved to a place inside."""

    def tangents(self) -> Tensor:
        """The directions ``[columns, reals]`` in which a row may move, of determinant 1 in the density's measure."""
        return torch.eye(self.columns, dtype=torch.float64)

    def stated(self, start: int) -> Constraint | None:  # noqa: ARG002
        """The block as a manifest writes it; None where nothing is constrained.

        Args:
            start: its first column.
        """
        return None


class Free(Block):
    """Columns without a constraint: y = x."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, B]`` -> x."""
        return x, torch.zeros_like(x[:, 0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, B]`` -> y."""
        return y, torch.zeros_like(y[:, 0])

    def inside(self, x: Tensor) -> Tensor:
        """Every row."""
        return (x == x).all(dim=1)

    def nearest(self, x: Tensor) -> Tensor:
        """The same rows."""
        return x


class HalfLine(Block):
    """Columns above or below an end: y = log(x - end) or y = log(end - x), log|dy/dx| = -y.

    Args:
        columns: how many.
        end: in the units of x. Rounded to the precision.
        above: whether x lies above the end.
        precision: of the rows.
    """

    def __init__(self, columns: int, end: float, *, above: bool = True, precision: Precision = "float32") -> None:
        super().__init__(columns)
        self.end, self.sign = round_number(end, precision), 1.0 if above else -1.0
        least = float(torch.finfo(getattr(torch, precision)).tiny)
        inner = next_number(self.end, self.sign * math.inf, precision)
        self.least = max(abs(inner - self.end), least)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, B]`` on its side of the end -> y of all the reals."""
        y = (self.sign * (x - self.end)).log()
        return y, -y.sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, B]`` -> x on its side of the end."""
        return self.end + self.sign * y.exp(), y.sum(dim=1)

    def inside(self, x: Tensor) -> Tensor:
        """Rows whose columns all lie on their side of the end."""
        return ((x > self.end) if self.sign > 0 else (x < self.end)).all(dim=1)

    def nearest(self, x: Tensor) -> Tensor:
        """Columns no nearer to the end than the precision resolves."""
        edge = self.end + self.sign * self.least
        return x.clamp(min=edge) if self.sign > 0 else x.clamp(max=edge)

    def stated(self, start: int) -> Constraint:
        """The half-line."""
        low, high = (self.end, None) if self.sign > 0 else (None, self.end)
        return Constraint(kind="half_line", first=start, columns=self.columns, low=low, high=high)


class Interval(Block):
    """Columns between two ends: see `Logit`.

    Args:
        columns: how many.
        low: the lower end, in the units of x. Rounded to the precision.
        high: the upper end.
        precision: of the rows.
    """

    def __init__(self, columns: int, low: float, high: float, *, precision: Precision = "float32") -> None:
        super().__init__(columns)
        self.logit = Logit(low, high, precision)
        self.edges = (
            next_number(self.logit.low, math.inf, precision),
            next_number(self.logit.high, -math.inf, precision),
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, B]`` between the ends -> y of all the reals."""
        y, ladj = self.logit(x, context)
        return y, ladj

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, B]`` -> x between the ends."""
        return self.logit.inverse(y, context)

    def inside(self, x: Tensor) -> Tensor:
        """Rows whose columns all lie between the ends."""
        return ((x > self.logit.low) & (x < self.logit.high)).all(dim=1)

    def nearest(self, x: Tensor) -> Tensor:
        """Columns moved between the ends."""
        return x.clamp(*self.edges)

    def stated(self, start: int) -> Constraint:
        """The interval."""
        return Constraint(kind="interval", first=start, columns=self.columns, low=self.logit.low, high=self.logit.high)


class Simplex(Block):
    """K positive columns whose sum is 1, to K - 1 reals by breaking a stick.

    With r_k = x_(k+1) + ... + x_K what is left of the stick, y_k = log x_k - log r_k + log(K - k), as torch's
    `StickBreakingTransform` has it. The density is over the first K - 1 columns:
    log|dy/dx| = -sum_k (log x_k + log r_k - log(x_k + r_k)).

    Args:
        columns: K, at least 2.
        precision: of the rows.

    Raises:
        DataError: K is below 2.
    """

    left: Tensor
    before: Tensor
    own: Tensor
    offset: Tensor

    def __init__(self, columns: int, *, precision: Precision = "float32") -> None:
        super().__init__(columns)
        if columns < 2:
            raise DataError(f"a simplex spans at least 2 coordinates, and has {columns}")
        dtype = getattr(torch, precision)
        reals = columns - 1
        place = torch.arange(columns)
        # sums of columns as products of matrices, which graphs hold in one node
        self.register_buffer("left", (place[:, None] > place[None, :reals]).to(dtype))
        self.register_buffer("before", (place[:reals, None] < place[None, :]).to(dtype))
        self.register_buffer("own", (place[:reals, None] == place[None, :]).to(dtype))
        self.register_buffer("offset", torch.log(columns - 1.0 - place[:reals].to(torch.float64)).to(dtype))
        self.least = float(torch.finfo(dtype).tiny) * 2.0**24

    @property
    def reals(self) -> int:
        """K - 1."""
        return self.columns - 1

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, K]`` -> y ``[N, K - 1]``."""
        piece = x[:, : self.columns - 1]
        left = x @ self.left
        log_piece, log_left = piece.log(), left.log()
        ladj = log_piece + log_left - (piece + left).log()
        return log_piece - log_left + self.offset, -ladj.sum(dim=1)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, K - 1]`` -> x ``[N, K]``."""
        odds = y - self.offset
        log_piece, log_left = _log_sigmoid(odds), _log_sigmoid(-odds)
        logs = log_piece @ self.own + log_left @ self.before
        ladj = logs[:, : self.columns - 1] + log_left
        return logs.exp(), ladj.sum(dim=1)

    def inside(self, x: Tensor) -> Tensor:
        """Rows of positive columns whose sum is 1, to the rounding of what a client may send."""
        return (x > 0).all(dim=1) & ((x.sum(dim=1) - 1.0).abs() <= SIMPLEX_TOLERANCE)

    def nearest(self, x: Tensor) -> Tensor:
        """Columns made positive, and divided by their sum, which rounding leaves beside 1."""
        positive = x.clamp(min=self.least, max=1e6)
        return (positive / positive.sum(dim=1, keepdim=True)).clamp(min=self.least)

    def tangents(self) -> Tensor:
        """The first K - 1 columns are free, and the last one moves against their sum."""
        reals = self.columns - 1
        free = torch.eye(reals, dtype=torch.float64)
        return torch.cat([free, -torch.ones(1, reals, dtype=torch.float64)])

    def stated(self, start: int) -> Constraint:
        """The simplex."""
        return Constraint(kind="simplex", first=start, columns=self.columns, low=None, high=None)


class Constrained(Bijection):
    """Blocks side by side: each column of x belongs to one, in order.

    Args:
        blocks: at least one.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def _blocks(self) -> list[Block]:
        return [block for block in self.blocks if isinstance(block, Block)]

    @property
    def columns(self) -> int:
        """The width of x."""
        return sum(block.columns for block in self._blocks())

    @property
    def reals(self) -> int:
        """The width of y."""
        return sum(block.reals for block in self._blocks())

    @property
    def name(self) -> str:
        """What this step is called."""
        return "constraints"

    @property
    def narrows(self) -> int:  # type: ignore[override]  # of an instance: it depends on the blocks
        """One for each simplex."""
        return self.columns - self.reals

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, D]`` -> y ``[N, M]``."""
        parts = [block(part, context) for block, part in self._pairs(x, inverse=False)]
        return _joined([y for y, _ in parts]), _sum([ladj for _, ladj in parts])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, M]`` -> x ``[N, D]``."""
        parts = [block.inverse(part, context) for block, part in self._pairs(y, inverse=True)]
        x = _joined([x for x, _ in parts])
        return self.nearest(x), _sum([ladj for _, ladj in parts])  # rounding can move x onto an open end

    def inside(self, x: Tensor) -> Tensor:
        """Which rows of x ``[N, D]`` lie in the support of every block: bool ``[N]``."""
        kept = [block.inside(part) for block, part in self._pairs(x, inverse=False) if not isinstance(block, Free)]
        found = kept[0]
        for each in kept[1:]:
            found = found & each
        return found

    def nearest(self, x: Tensor) -> Tensor:
        """X ``[N, D]``, with rows outside moved to a place inside."""
        return _joined([block.nearest(part) for block, part in self._pairs(x, inverse=False)])

    def tangents(self) -> Tensor:
        """Those of all blocks ``[D, M]``."""
        made = torch.zeros(self.columns, self.reals, dtype=torch.float64)
        row = column = 0
        for block in self._blocks():
            made[row : row + block.columns, column : column + block.reals] = block.tangents()
            row, column = row + block.columns, column + block.reals
        return made

    def stated(self) -> list[Constraint]:
        """The constraints as a manifest writes them."""
        found, start = [], 0
        for block in self._blocks():
            constraint = block.stated(start)
            found += [] if constraint is None else [constraint]
            start += block.columns
        return found

    def _pairs(self, values: Tensor, *, inverse: bool) -> list[tuple[Block, Tensor]]:
        """Each block with its columns."""
        pairs, start = [], 0
        for block in self._blocks():
            end = start + (block.reals if inverse else block.columns)
            pairs.append((block, values[:, start:end]))
            start = end
        return pairs


def _log_sigmoid(x: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), for a graph by plain operators."""
    return torch.minimum(x, torch.zeros_like(x)) - torch.log1p(torch.exp(-x.abs()))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
