from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from models.architectures import ARCHITECTURES, IMAGES, build_flow
from models.flows.base_options import BASES
from models.flows.conditional import Coupling
from models.flows.conditioners import ACTIVATIONS
from models.flows.preprocess import Flatten, Logit, Standardize, Whiten
from service.bundle.bases import NormalBase, UniformBase
from service.bundle.manifest import Support
from service.errors import DataError
from tests.laws.table import randomize

ROWS = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1


def build(options: dict[str, Any] | None = None, **arguments: Any) -> Any:
    return build_flow("real_nvp", {"transforms": 2, "hidden": [8], **(options or {})}, **{"rows": ROWS, **arguments})


def test_as_built_it_is_the_gaussian_of_its_columns() -> None:
    flow = build()
    gaussian = torch.distributions.Normal(ROWS.mean(0), ROWS.std(0, correction=0))
    torch.testing.assert_close(flow.log_prob(ROWS), gaussian.log_prob(ROWS).sum(1), rtol=1e-4, atol=1e-4)


def test_whitened_it_is_a_gaussian_with_their_correlations() -> None:
    rows = torch.randn(5000, 3, generator=torch.Generator().manual_seed(1)) @ torch.tensor(
        [[1.0, 0.8, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 2.0]]
    )
    gaussian = torch.distributions.MultivariateNormal(rows.mean(0), torch.cov(rows.T))
    torch.testing.assert_close(
        build({"whiten": True}, rows=rows).log_prob(rows).mean(), gaussian.log_prob(rows).mean(), rtol=0, atol=0.01
    )


def test_a_table_needs_no_flattening_and_an_image_does() -> None:
    assert [type(b) for b in build().bijections] == [Standardize, Coupling, Coupling]
    images = torch.rand(20, 2, 3, 1)
    flow = build({"whiten": True}, rows=images, support=Support(low=-0.5, high=1.5))
    assert [type(b) for b in flow.bijections] == [Flatten, Logit, Standardize, Whiten, Coupling, Coupling]
    assert flow.event_shape == (2, 3, 1)
    assert flow.base == NormalBase()
    assert flow.support == Support(low=-0.5, high=1.5)


def test_every_column_is_moved_and_every_column_conditions() -> None:
    for masks in ("alternating", "random"):
        couplings = [b for b in build({"masks": masks, "transforms": 6}).bijections if isinstance(b, Coupling)]
        for one, other in zip(couplings[::2], couplings[1::2], strict=True):
            assert sorted([*one.first.tolist(), *other.first.tolist()]) == [0, 1, 2, 3]
            assert torch.equal(one.first, other.second)


def test_the_same_seed_gives_the_same_weights_and_torch_s_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    states = [build({"masks": "random"}, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(states[0].values(), states[2].values(), strict=True))


def test_a_state_dict_is_all_that_a_checkpoint_needs() -> None:
    context = torch.randn(60, 2)
    flow = build({"masks": "random"}, seed=1, context=context)
    other = build({"masks": "random"}, seed=2, rows=ROWS * 7 - 1, context=context * 3)
    other.load_state_dict(flow.state_dict())
    assert torch.equal(other.log_prob(ROWS, context), flow.log_prob(ROWS, context))


@pytest.mark.parametrize("base", ["diagonal_normal", "mixture"])
def test_a_learnt_base_is_in_the_state_dict_and_starts_from_the_seed(base: str) -> None:
    flows = [build({"base": base}, seed=seed) for seed in (1, 1, 2)]
    with torch.no_grad():
        for parameter in flows[0].latent.parameters():
            parameter.add_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    assert flows[1].base != flows[0].base
    flows[2].load_state_dict(flows[0].state_dict())
    assert flows[2].base == flows[0].base
    assert torch.equal(flows[2].log_prob(ROWS), flows[0].log_prob(ROWS))
    assert build({"base": base}, seed=1).base == flows[1].base


def test_a_base_leaves_the_weights_of_the_couplings_as_they_were() -> None:
    plain = build(seed=3).state_dict()
    for base in BASES:
        state = build({"base": base}, seed=3).state_dict()
        assert all(torch.equal(state[name], value) for name, value in plain.items())


def test_a_uniform_base_has_a_chain_that_ends_inside_its_box() -> None:
    flow = build({"base": "uniform"})
    assert flow.base == UniformBase(low=-1.0, high=1.0)
    far = torch.cat((ROWS, 1e6 * ROWS))
    z, _ = flow(far)
    assert bool((z.abs() <= 1).all())
    assert bool(torch.isfinite(flow.log_prob(far)).all())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation: str) -> None:
    flow = build({"activation": activation, "dropout": 0.5})
    modules = list(flow.modules())
    assert any(isinstance(m, nn.Dropout) for m in modules)
    assert sum(isinstance(m, type(ACTIVATIONS[activation]())) for m in modules) == 2


def test_the_scale_is_bounded() -> None:
    """However large the conditioner's answer, one coupling scales by 1 / slope at most."""
    flow = build({"transforms": 1, "slope": 0.25})
    with torch.no_grad():
        for parameter in flow.bijections[-1].parameters():
            parameter.fill_(1e4)
    ladj = flow.bijections[-1](torch.randn(50, 4))[1].detach()
    assert 2 < float(ladj.abs().max()) <= 2 * math.log(4) + 1e-6


def test_far_outside_the_data_a_conditioner_says_what_it_says_at_its_reach() -> None:
    flow = build({"transforms": 1, "reach": 3.0})
    coupling = flow.bijections[-1]
    randomize(coupling)
    x = torch.ones(3, 4, dtype=torch.float64)
    x[:, coupling.first] = torch.tensor([2.9, 3.0, 1e6], dtype=torch.float64)[:, None]
    y, ladj = coupling(x)
    moved = y[:, coupling.second]
    assert torch.equal(moved[1], moved[2])
    assert not torch.equal(moved[0], moved[1])
    assert ladj[1] == ladj[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": 2}, "did you mean 'transforms'"),
        ({"depth": 2}, "known: transforms, hidden"),
        ({"architecure": "maf"}, "did you mean 'architecture'"),
        ({"architecture": "maf"}, "architecture is no option of real_nvp"),
        ({"transforms": 0}, "transforms must be a number from 1"),
        ({"transforms": 2.5}, "transforms must be a whole number"),
        ({"transforms": True}, "transforms must be a whole number"),
        ({"hidden": 8}, "hidden must be a list of whole numbers"),
        ({"hidden": [8, "8"]}, "hidden must be a list of whole numbers"),
        ({"hidden": []}, "1 to 32 layer widths"),
        ({"hidden": [0]}, "1 to 32 layer widths"),
        ({"activation": "rellu"}, "did you mean 'relu'"),
        ({"activation": 3}, "activation must be a name"),
        ({"slope": 0}, "slope must be a number between 0 and 1"),
        ({"slope": "0.1"}, "slope must be a number"),
        ({"reach": 0}, "reach must be a number above zero"),
        ({"dropout": 1.0}, "dropout must be a number from 0"),
        ({"masks": "randon"}, "did you mean 'random'"),
        ({"whiten": 1}, "whiten must be true or false"),
        ({"whitten": True}, "did you mean 'whiten'"),
        ({"base": "mixtur"}, "did you mean 'mixture'"),
        ({"base": "mixture", "component": 3}, "did you mean 'components'"),
        ({"degrees_of_freedom": 3}, "an option of base = 'student_t'"),
    ],
)
def test_an_option_that_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        build(options)


def test_an_unknown_architecture_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="did you mean 'real_nvp'"):
        build_flow("realnvp", {}, rows=ROWS)


def test_every_architecture_is_built_by_its_name() -> None:
    pictures = torch.randn(60, 4, 4, 1, generator=torch.Generator().manual_seed(0))
    for name in ARCHITECTURES:
        rows = pictures if name in IMAGES else ROWS
        options = {"leading": 4, "residual": 3} if name == "image_principal" else {}
        assert build_flow(name, options, rows=rows).log_prob(rows).shape == (60,)


def test_one_column_cannot_be_coupled() -> None:
    with pytest.raises(DataError, match="at least 2 columns"):
        build(rows=ROWS[:, :1])


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (4,), (4, 0)])
def test_too_few_rows_or_columns(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="at least 2 rows"):
        build(rows=torch.randn(shape))


@pytest.mark.parametrize("shape", [(59, 2), (60,), (60, 0)])
def test_context_must_come_with_the_rows(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="context must be"):
        build(context=torch.randn(shape))


def test_a_constant_column_is_named() -> None:
    rows = ROWS.clone()
    rows[:, 2] = 5.0
    with pytest.raises(DataError) as raised:
        build(rows=rows)
    assert [reason.column for reason in raised.value.errors] == [2]


def test_a_training_row_outside_the_support_is_named() -> None:
    rows = torch.rand(10, 2)
    rows[7, 1] = 1.0
    with pytest.raises(DataError) as raised:
        build(rows=rows, support=Support(low=-1.0, high=1.0))
    assert [(reason.row, reason.column) for reason in raised.value.errors] == [(7, 1)]


def test_half_a_support_is_refused_and_an_empty_one_is_all_of_space() -> None:
    with pytest.raises(DataError, match="both sides"):
        build(rows=torch.rand(10, 2), support=Support(low=-1.0))
    assert [type(b) for b in build(support=Support()).bijections] == [Standardize, Coupling, Coupling]


def test_a_support_is_rounded_to_float32_so_that_graph_and_reference_agree() -> None:
    flow = build(rows=torch.rand(10, 2) * 0.5 + 0.2, support=Support(low=0.1, high=0.9))
    assert flow.support.low == float(torch.tensor(0.1))
