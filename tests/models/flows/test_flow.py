from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from models.flows.bases import base_log_prob, sample_base
from models.flows.flow import Bijection, Flow
from models.flows.preprocess import Standardize
from service.bundle.bases import NormalBase, UniformBase
from service.bundle.manifest import Support


class Identity(Bijection):
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, torch.zeros_like(x[:, 0])

    inverse = forward


class Shift(Bijection):
    """Adds the context: shows what context a bijection sees."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert context is not None
        return x + context, torch.zeros_like(x[:, 0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert context is not None
        return y - context, torch.zeros_like(y[:, 0])


def flow(support: Support | None) -> Flow:
    return Flow((2,), [Identity()], NormalBase(), support)


def inside(flow: Flow, *row: float) -> bool:
    answer = flow.in_support(torch.tensor([row]))
    return True if answer is None else bool(answer[0])


def test_normal_base_is_torch_s() -> None:
    z = torch.randn(5, 3, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(base_log_prob(NormalBase(), z), expected)


def test_uniform_base_is_flat_in_its_closed_box_and_minus_infinity_outside() -> None:
    base = UniformBase(low=-1.0, high=3.0)
    z = torch.tensor([[0.0, 0.0], [-1.0, 3.0], [0.0, 3.1], [-1.1, 0.0]])
    expected = -2 * math.log(4)
    assert base_log_prob(base, z).tolist() == pytest.approx([expected, expected, -math.inf, -math.inf])


@pytest.mark.parametrize("base", [NormalBase(), UniformBase(low=2.0, high=4.0)])
def test_samples_follow_the_base(base: NormalBase | UniformBase) -> None:
    z = sample_base(base, 20_000, 2, torch.Generator().manual_seed(0), torch.float64)
    assert z.shape == (20_000, 2)
    mean, variance = (0.0, 1.0) if isinstance(base, NormalBase) else (3.0, 4 / 12)
    assert z.mean().item() == pytest.approx(mean, abs=0.02)
    assert z.var().item() == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize(
    ("support", "row", "expected"),
    [
        (None, (1e30, -1e30), True),
        (Support(), (1e30, -1e30), True),
        (Support(low=0.0, high=1.0), (0.5, 0.5), True),
        (Support(low=0.0, high=1.0), (0.0, 0.5), False),
        (Support(low=0.0, high=1.0, low_closed=True), (0.0, 0.5), True),
        (Support(low=0.0, high=1.0), (0.5, 1.0), False),
        (Support(low=0.0, high=1.0, high_closed=True), (0.5, 1.0), True),
        (Support(low=0.0, high=1.0, high_closed=True), (0.5, 1.1), False),
        (Support(low=0.0), (0.5, 1e9), True),
        (Support(low=0.0), (0.5, -1e-9), False),
        (Support(high=0.0), (-0.5, -1e9), True),
        (Support(high=0.0), (-0.5, 1e-9), False),
    ],
)
def test_every_coordinate_must_lie_in_the_support(
    support: Support | None, row: tuple[float, ...], expected: bool
) -> None:
    assert inside(flow(support), *row) is expected


def test_outside_the_support_the_density_is_zero_and_the_latent_that_of_the_nearest_point() -> None:
    bounded = flow(Support(low=0.0, high=1.0, high_closed=True))
    x = torch.tensor([[5.0, 0.25], [-5.0, 0.25]])
    z, ladj = bounded(x)
    assert bounded.log_prob(x).tolist() == [-math.inf, -math.inf]
    assert z[0].tolist() == [1.0, 0.25]
    assert 0 < z[1, 0] < 1e-40
    assert ladj.tolist() == [0.0, 0.0]


def test_generated_rows_lie_in_the_support_though_rounding_puts_them_on_its_end() -> None:
    bounded = flow(Support(low=0.0, high=1.0))
    x, _ = bounded.inverse(torch.tensor([[1.0, 0.0]]))
    assert inside(bounded, *x[0].tolist())


def test_a_latent_outside_the_box_has_no_density_and_a_finite_event() -> None:
    uniform = Flow((1,), [Identity()], UniformBase(low=0.0, high=2.0))
    x, ladj, log_prob = uniform.inverse_log_prob(torch.tensor([[1.0], [1e38], [-3.0]]))
    assert x.flatten().tolist() == [1.0, 2.0, 0.0]
    assert bool(torch.isfinite(ladj).all())
    assert log_prob.tolist() == pytest.approx([-math.log(2), -math.inf, -math.inf])


def test_context_is_scaled_before_any_bijection_sees_it_and_costs_no_density() -> None:
    scaling = Standardize(torch.tensor([10.0, 10.0]), torch.tensor([2.0, 2.0]))
    shifted = Flow((2,), [Shift()], NormalBase(), context_width=2, context_scaling=scaling)
    z, ladj = shifted(torch.zeros(1, 2), torch.tensor([[14.0, 10.0]]))
    assert z.tolist() == [[2.0, 0.0]]
    assert ladj.tolist() == [0.0]
    assert shifted.inverse(z, torch.tensor([[14.0, 10.0]]))[0].tolist() == [[0.0, 0.0]]
