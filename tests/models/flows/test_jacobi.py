"""Jacobi passes in torch: the sequential answer, its derivative, and no NaN on the way."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from models.flows.jacobi import jacobi
from tests.laws.table import normal

WIDTH = 6


class Chain:
    """y_i = x_i exp(-a_i) - t_i with a_i and t_i from the column before; counts its passes."""

    def __init__(self, y: Tensor, coupling: float = 0.5) -> None:
        self.y = y
        self.coupling = coupling
        self.passes = 0

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.passes += 1
        assert torch.isfinite(x).all(), "a step is handed finite numbers only"
        before = functional.pad(x[:, :-1], (1, 0))
        scale = self.coupling * torch.tanh(before)
        return (self.y + self.coupling * before) * torch.exp(scale), scale.sum(dim=1)


def sequential(chain: Chain) -> Tensor:
    x = torch.zeros_like(chain.y)
    for _ in range(WIDTH):
        x, _ = chain(x)
    return x


@pytest.mark.parametrize("first", [None, normal(5, WIDTH, seed=7)])
def test_it_gives_the_sequential_answer_bit_for_bit(first: Tensor | None) -> None:
    chain = Chain(normal(5, WIDTH))
    expected = sequential(chain)
    if first is not None:
        first = torch.cat((expected[:, :1], first[:, 1:]), dim=1)
    x, ladj = jacobi(chain, chain.y, WIDTH, first)
    assert torch.equal(x, expected)
    assert torch.equal(ladj, chain(expected)[1])


def test_it_stops_where_a_pass_changes_nothing_and_no_later_than_the_cap() -> None:
    still = Chain(normal(5, WIDTH), coupling=0.0)
    jacobi(still, still.y, WIDTH)
    assert still.passes == 2
    moving = Chain(normal(5, WIDTH))
    jacobi(moving, moving.y, WIDTH)
    assert moving.passes == WIDTH
    moving.passes = 0
    jacobi(moving, moving.y, WIDTH, moving.y)
    assert moving.passes == WIDTH - 1


def test_a_derivative_goes_through_every_pass() -> None:
    y = torch.zeros(1, WIDTH, dtype=torch.float64, requires_grad=True)
    x, _ = jacobi(Chain(y), y, WIDTH)
    (gradient,) = torch.autograd.grad(x[0, -1], y)
    expected = torch.tensor([0.5**power for power in reversed(range(WIDTH))], dtype=torch.float64)
    torch.testing.assert_close(gradient[0], expected)


def test_a_column_that_overflows_between_the_passes_poisons_no_other() -> None:
    y = torch.full((1, WIDTH), 1e38)
    x, ladj = jacobi(Chain(y, coupling=3.0), y, WIDTH)
    assert not torch.isnan(x).any()
    assert not torch.isnan(ladj).any()
    assert float(x[0, 0]) == pytest.approx(1e38)
    assert math.isinf(float(x[0, -1]))
