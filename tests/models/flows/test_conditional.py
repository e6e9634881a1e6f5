"""What a coupling and an autoregressive step do with a conditional transform, whatever it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.flows.analytic import Exp
from models.flows.conditional import Autoregressive, ConditionalTransform, Coupling, apply, invert
from models.flows.univariate import RationalQuadratic
from tests.laws.table import normal


class Shift(ConditionalTransform):
    """Adds the sum of what it is shown; of columns before each, where it is shown all."""

    def __init__(self, *, numeric_inverse: bool = False) -> None:
        super().__init__()
        self.numeric_inverse = numeric_inverse

    def forward(
        self, x: Tensor, given: Tensor, context: Tensor | None = None, *, inverse: bool = False
    ) -> tuple[Tensor, Tensor]:
        shift = given.cumsum(dim=1) - given if given.shape == x.shape else given.sum(dim=1, keepdim=True)
        shift = shift if context is None else shift + context
        return x - shift if inverse else x + shift, (-1.0 if inverse else 1.0) * torch.ones_like(x[:, 0])


MASK = torch.tensor([True, False, True, True, False])


def test_a_coupling_moves_the_columns_outside_its_mask_by_what_those_inside_say() -> None:
    x, context = normal(4, 5), normal(4, 1, seed=7)
    y, ladj = Coupling(MASK, Shift())(x, context)
    assert torch.equal(y[:, MASK], x[:, MASK])
    assert torch.equal(y[:, ~MASK], x[:, ~MASK] + (x[:, MASK].sum(dim=1, keepdim=True) + context))
    assert ladj.tolist() == [1.0] * 4


def test_an_unconditional_step_moves_the_columns_inside_the_mask_and_counts() -> None:
    x = normal(4, 5).abs() + 0.1
    step = Coupling(MASK, Shift(), Exp())
    y, ladj = step(x)
    assert torch.equal(y[:, MASK], x[:, MASK].log())
    assert torch.equal(y[:, ~MASK], x[:, ~MASK] + x[:, MASK].sum(dim=1, keepdim=True))
    torch.testing.assert_close(ladj, 1.0 - x[:, MASK].log().sum(dim=1))
    back, back_ladj = step.inverse(y)
    torch.testing.assert_close((back, back_ladj), (x, -ladj))


def test_an_autoregressive_step_is_undone_in_as_many_passes_as_columns_and_no_fewer() -> None:
    x = normal(4, 5)
    y, ladj = Autoregressive(Shift(), passes=5)(x)
    back, back_ladj = Autoregressive(Shift(), passes=5).inverse(y)
    torch.testing.assert_close((back, back_ladj), (x, -ladj))
    assert not torch.allclose(Autoregressive(Shift(), passes=4).inverse(y)[0], x)


def test_a_step_searches_for_its_inverse_where_its_transform_does() -> None:
    for searches in (False, True):
        transform = Shift(numeric_inverse=searches)
        assert Coupling(MASK, transform).numeric_inverse is searches
        assert Autoregressive(transform, passes=5).numeric_inverse is searches


@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 4, 5)])
def test_a_log_determinant_is_summed_over_each_row_of_any_shape(shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    spline = RationalQuadratic(normal(*shape, 2, 6), normal(*shape, 5, seed=8))
    expected = spline.call_and_ladj(x)[1].flatten(1).sum(dim=1)
    torch.testing.assert_close(apply(spline, x)[1], expected)
    torch.testing.assert_close(invert(spline, apply(spline, x)[0])[1], -expected, rtol=1e-8, atol=1e-8)
