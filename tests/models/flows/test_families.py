"""What each family of table flows is: its directions, its volume, its tails, its options."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.architectures import ARCHITECTURES, IMAGES, build_flow
from models.flows.autoregressive import iaf, maf
from models.flows.conditional import Coupling
from models.flows.conditioners import Conditioner, column_orders, coupling_masks
from models.flows.couplings import nice
from models.flows.flow import Bijection, Flow
from models.flows.inverted import Inverted
from models.flows.linear import FixedLinear, LULinear, Scaling
from models.flows.zuko_steps import ZukoAutoregressive
from service.errors import DataError
from tests.laws.table import randomize

ROWS = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
FAMILIES = [name for name in ARCHITECTURES if name not in IMAGES]
SMALL = Conditioner(hidden=(8,))
SPLINES = [name for name in FAMILIES if name.startswith("neural_spline")]

families = pytest.mark.parametrize("family", FAMILIES)


def build(family: str, rows: Tensor = ROWS, **options: Any) -> Flow:
    size = {"blocks": 1} if family == "neural_spline_mixed" else {"transforms": 2}
    return build_flow(family, {**size, "hidden": [8], **options}, rows=rows)


def tame(steps: list[Bijection], scale: float = 0.3) -> list[Bijection]:
    for step in steps:
        randomize(step, scale=scale)
    return steps


def conditioner_runs(step: Bijection, x: Tensor, *, inverse: bool) -> int:
    calls: list[int] = []
    for name, part in step.named_modules():
        if name.split(".")[-1] == "hyper":
            part.register_forward_hook(lambda *_: calls.append(1))
    step.inverse(x) if inverse else step(x)
    return len(calls)


@families
def test_as_built_it_is_the_gaussian_of_its_columns(family: str) -> None:
    gaussian = torch.distributions.Normal(ROWS.mean(0), ROWS.std(0, correction=0))
    expected = gaussian.log_prob(ROWS).sum(1)
    torch.testing.assert_close(build(family).log_prob(ROWS), expected, rtol=1e-4, atol=1e-4)


@families
def test_far_outside_the_data_the_scale_is_that_at_its_reach(family: str) -> None:
    """Log-determinants do not run away with the row, so that a far row is as exact as a near one."""
    flow = build(family)
    for bijection in flow.bijections:
        randomize(bijection, scale=0.3)
    flow = flow.double().eval()
    far = torch.full((1, 4), 1e4, dtype=torch.float64) * torch.tensor([1.0, -1.0, 1.0, -1.0])
    _, once = flow(far)
    _, twice = flow(2 * far)
    torch.testing.assert_close(once, twice, rtol=1e-9, atol=1e-9)


@families
def test_only_bernstein_searches_for_its_inverse(family: str) -> None:
    assert build(family).numeric_inverse == (family == "bernstein")


@families
def test_one_column_is_for_autoregressive_families_alone(family: str) -> None:
    if family in ("maf", "iaf", "neural_spline_autoregressive"):
        assert build(family, ROWS[:, :1]).log_prob(ROWS[:, :1]).shape == (60,)
    else:
        with pytest.raises(DataError, match=f"{family} .*at least 2 columns"):
            build(family, ROWS[:, :1])


def test_nice_keeps_the_volume_and_scales_all_rows_alike() -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    flat = tame(nice(4, transforms=3, conditioner=SMALL, scaling="none"))
    assert all(not bool(step(x)[1].any()) for step in flat)
    scaled = tame(nice(4, transforms=3, conditioner=SMALL))
    assert [type(step) for step in scaled] == [Coupling, Coupling, Coupling, Scaling]
    assert scaled[-1](x)[1].unique().numel() == 1


def test_iaf_is_maf_the_other_way_round() -> None:
    x = torch.randn(5, 4, dtype=torch.float64)
    options: dict[str, Any] = {"transforms": 1, "conditioner": SMALL}
    [there], [back] = tame(maf(4, **options)), tame(iaf(4, **options))
    assert isinstance(back, Inverted)
    torch.testing.assert_close(back.inverse(x), there(x), rtol=0, atol=0)
    assert conditioner_runs(there, x, inverse=False) == conditioner_runs(back, x, inverse=True) == 1
    assert conditioner_runs(there, x, inverse=True) > 1
    assert conditioner_runs(back, x, inverse=False) > 1


def test_mixed_has_a_matrix_couplings_and_an_autoregressive_step_in_each_block() -> None:
    block = [LULinear, Coupling, Coupling, ZukoAutoregressive]
    assert [type(b) for b in build("neural_spline_mixed", blocks=2).bijections[1:]] == block * 2
    parallel = build("neural_spline_mixed", autoregression="none")
    assert [type(b) for b in parallel.bijections[1:]] == block[:3]
    assert [type(b) for b in parallel.fold().bijections[1:]] == [FixedLinear, Coupling, Coupling]
    alone = build("neural_spline_mixed", couplings="none", autoregression="spline")
    assert [type(b) for b in alone.bijections[1:]] == [LULinear, ZukoAutoregressive]


@pytest.mark.parametrize("family", [*SPLINES, "bernstein"])
def test_outside_its_bound_a_spline_leaves_the_data_as_they_are(family: str) -> None:
    options = {"autoregression": "spline"} if family == "neural_spline_mixed" else {}
    flow = build(family, bound=2.0, **options)
    for bijection in list(flow.bijections)[1:]:
        if not isinstance(bijection, LULinear):
            randomize(bijection)
    far = ROWS.mean(0) + 3 * ROWS.std(0) * torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    standardized = (far - ROWS.mean(0)) / ROWS.std(0, correction=0)
    torch.testing.assert_close(flow.double()(far.double())[0], standardized.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        *((family, {"hiden": [8]}, "did you mean 'hidden'") for family in FAMILIES),
        *((family, {"reach": 0}, "reach must be a number above zero") for family in FAMILIES),
        *((family, {"bins": 1}, "bins must be a number from 2 to 64, not 1") for family in SPLINES),
        *((family, {"bound": 0.0}, "bound must be a number above zero") for family in [*SPLINES, "bernstein"]),
        *((f, {"slope": 1.5}, "slope must be a number between 0 and 1") for f in FAMILIES if f != "nice"),
        ("bernstein", {"degree": 5}, "degree must be a number from 6 to 32"),
        ("nice", {"scaling": "diagnal"}, "no scaling 'diagnal'; did you mean 'diagonal'"),
        ("maf", {"orders": "alternate"}, "no orders 'alternate'; did you mean 'alternating'"),
        ("iaf", {"transforms": 0}, "transforms must be a number from 1"),
        ("neural_spline_mixed", {"blocks": 65}, "blocks must be a number from 1 to 64"),
        ("neural_spline_mixed", {"couplings": "splines"}, "did you mean 'spline'"),
        ("neural_spline_mixed", {"autoregression": "afine"}, "did you mean 'affine'"),
    ],
)
def test_an_option_that_does_not_fit_is_named(family: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        build(family, **options)


@pytest.mark.parametrize("name", ["neural_spline", "neural_spline_couplings"])
def test_the_nearest_family_is_named(name: str) -> None:
    with pytest.raises(DataError, match=r"did you mean 'neural_spline_\w+'"):
        build_flow(name, {}, rows=ROWS)


def test_every_column_comes_first_and_last_in_turn() -> None:
    torch.manual_seed(0)
    for kind in ("alternating", "random"):
        for one, other in zip(*[iter(column_orders(5, 6, kind))] * 2, strict=True):
            assert sorted(one.tolist()) == [0, 1, 2, 3, 4]
            assert torch.equal(one, 4 - other)
        for one, other in zip(*[iter(coupling_masks(5, 6, kind))] * 2, strict=True):
            assert torch.equal(one, ~other)


def test_a_conditioner_starts_at_zero_and_sees_no_further_than_its_reach() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    Conditioner((3,), "tanh", 2.0, 0.0).initialize(network)
    assert not bool(network(torch.randn(4, 2)).any())
    randomize(network)
    far = torch.tensor([[2.0, -2.0], [1e9, -1e9]], dtype=torch.float64)
    assert torch.equal(network(far)[0], network(far)[1])


def test_a_mixture_of_no_step_that_takes_the_context_is_refused() -> None:
    options = {"couplings": "none", "autoregression": "none"}
    assert build("neural_spline_mixed", **options).context_width == 0
    with pytest.raises(DataError, match="both 'none', so that nothing would heed the context"):
        build_flow("neural_spline_mixed", options, rows=ROWS, context=ROWS[:, :1])


def test_without_an_order_no_column_sees_another() -> None:
    context = ROWS[:, :2]
    flow = build_flow("maf", {"transforms": 1, "hidden": [8], "orders": "none"}, rows=ROWS[:, 2:], context=context)
    randomize(flow.bijections)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x[None], context[:1])[0][0], ROWS[0, 2:])
    assert bool((jacobian.diagonal() != 0).all())
    assert float((jacobian - jacobian.diagonal().diag()).abs().max()) == 0.0
    moved = torch.autograd.functional.jacobian(lambda c: flow(ROWS[:1, 2:], c[None])[0][0], context[0])
    assert bool((moved != 0).any())
    with pytest.raises(DataError, match="is for conditional flows"):
        build_flow("maf", {"orders": "none"}, rows=ROWS)
