from __future__ import annotations

import pytest
import torch

from models.flows.analytic import Square
from models.flows.flow import Flow
from models.flows.linear import FixedLinear, LULinear, Scaling
from service.bundle.bases import NormalBase
from tests.laws.table import normal, randomize


def test_a_matrix_starts_as_the_identity_and_folds_into_the_product_of_its_factors() -> None:
    step = LULinear(3)
    x = torch.randn(4, 3)
    assert torch.equal(step(x)[0], x)
    randomize(step)
    folded = step.folded()
    assert isinstance(folded, FixedLinear)
    lower, upper = step.lower.tril(-1) + torch.eye(3), step.upper.triu(1)
    matrix = lower @ (
        upper + torch.diag((step.diagonal / (1 + (step.diagonal / torch.log(torch.tensor(0.05))).abs())).exp())
    )
    torch.testing.assert_close(folded.matrix.double().T, matrix.detach(), rtol=1e-6, atol=1e-6)


def test_however_large_its_weights_a_matrix_can_be_inverted() -> None:
    step = LULinear(3, slope=0.1)
    with torch.no_grad():
        step.diagonal.copy_(torch.tensor([-1e6, 0.0, 1e6]))
    y, ladj = step(torch.ones(1, 3))
    torch.testing.assert_close(y, torch.tensor([[0.1, 1.0, 10.0]]), rtol=1e-4, atol=0)
    torch.testing.assert_close(ladj, torch.zeros(1), rtol=0, atol=1e-4)


def test_the_constants_of_float32_come_from_float64_and_float64_keeps_the_exact_inverse() -> None:
    """A badly conditioned matrix: inverted in float32 it would be wrong in the third digit."""
    rows = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 2.0**-12]], dtype=torch.float64)
    step = FixedLinear(rows)
    torch.testing.assert_close(step.inverse_matrix.double(), torch.linalg.inv(rows), rtol=1e-7, atol=0)
    exact = step.double()
    torch.testing.assert_close(exact.inverse(exact(rows)[0])[0], rows, rtol=1e-10, atol=1e-10)


def test_a_flow_is_folded_step_by_step() -> None:
    flow = Flow((2,), [Scaling(2), LULinear(2)], NormalBase())
    assert [type(step) for step in flow.fold().bijections] == [Scaling, FixedLinear]


def test_a_flow_says_whether_a_step_s_inverse_is_a_search() -> None:
    class Searched(Square):
        numeric_inverse = True

    assert not Flow((1,), [Square()], NormalBase()).numeric_inverse
    assert Flow((1,), [Square(), Searched()], NormalBase()).numeric_inverse


def test_a_scale_is_the_same_for_every_row() -> None:
    step = Scaling(2)
    randomize(step)
    x = normal(5, 2)
    torch.testing.assert_close(step(x)[0] / x, step.log_scale.exp().expand(5, 2).detach(), rtol=1e-9, atol=1e-9)
    assert step(x)[1].unique().numel() == 1


def test_a_constant_matrix_keeps_the_precision_it_is_given_and_shifts_after_it() -> None:
    matrix, offset, x = normal(3, 3), normal(3, seed=4), normal(5, 3, seed=5)
    step = FixedLinear(matrix, offset)
    assert torch.equal(step.matrix, matrix)
    torch.testing.assert_close(step(x)[0], x @ matrix + offset, rtol=0, atol=0)
    torch.testing.assert_close(step.inverse(step(x)[0])[0], x, rtol=1e-12, atol=1e-12)
    assert FixedLinear(matrix.float()).inverse_matrix.dtype == torch.float32
    assert FixedLinear(matrix).offset is None


def test_a_matrix_without_an_inverse_is_refused() -> None:
    with pytest.raises(ValueError, match="whose matrix has no inverse"):
        FixedLinear(torch.ones(2, 2))
