from __future__ import annotations

import copy
import io

import pytest
import torch

from models.flows.bases import base_log_prob, sample_base
from tests.laws.table import FLOWS, FlowCase

EXACT = {"rtol": 1e-7, "atol": 1e-7}

cases = pytest.mark.parametrize("case", FLOWS.values(), ids=FLOWS.keys())


@cases
def test_inverse_undoes_forward(case: FlowCase) -> None:
    flow = case.build()
    z, ladj = flow(case.x, case.context)
    x, inverse_ladj, log_prob = flow.inverse_log_prob(z, case.context)
    torch.testing.assert_close(x, case.x.double(), **EXACT)
    torch.testing.assert_close(inverse_ladj, -ladj, **EXACT)
    torch.testing.assert_close(log_prob, flow.log_prob(case.x, case.context), **EXACT)


@cases
def test_forward_undoes_inverse(case: FlowCase) -> None:
    flow = case.build()
    z = sample_base(flow.base, case.x.shape[0], flow.width, torch.Generator().manual_seed(0), torch.float64)
    x, _ = flow.inverse(z, case.context)
    assert bool(torch.isfinite(x).all())
    torch.testing.assert_close(flow(x, case.context)[0], z, rtol=1e-6, atol=1e-6)


@cases
def test_log_determinant_is_that_of_the_jacobian(case: FlowCase) -> None:
    flow = case.build()
    for row in (0, 7):
        x, context = case.x[row : row + 1], None if case.context is None else case.context[row : row + 1]
        matrix = torch.autograd.functional.jacobian(lambda event, c=context: flow(event[None], c)[0][0], x[0])
        expected = torch.linalg.slogdet(matrix.reshape(flow.width, flow.width))[1]
        torch.testing.assert_close(flow(x, context)[1][0], expected, **EXACT)


@cases
def test_log_determinants_of_the_chain_add_up(case: FlowCase) -> None:
    flow = case.build()
    context = case.context if flow.context_scaling is None else flow.context_scaling(case.context)[0]
    y, total = case.x, torch.zeros(case.x.shape[0], dtype=torch.float64)
    values, terms = flow.trace(case.x, case.context)
    for bijection, value, term in zip(flow.bijections, values, terms, strict=True):
        y, ladj = bijection(y, context)
        torch.testing.assert_close((value, term), (y, ladj), **EXACT)
        total = total + ladj
    assert len(set(flow.steps)) == len(values)
    z, whole = flow(case.x, case.context)
    torch.testing.assert_close((y, total), (z, whole), **EXACT)
    torch.testing.assert_close(flow.log_prob(case.x, case.context), flow.base_log_prob(z) + whole, **EXACT)


@cases
def test_the_base_that_is_stated_is_the_flow_s(case: FlowCase) -> None:
    flow = case.build()
    z, _ = flow(case.x, case.context)
    learnt, stated = flow.base_log_prob(z), base_log_prob(flow.base, z)
    torch.testing.assert_close(learnt, stated, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(flow.freeze_base().base_log_prob(z), stated, rtol=0, atol=0)


@cases
def test_a_row_is_alone_in_its_batch(case: FlowCase) -> None:
    flow = case.build()
    whole = flow.log_prob(case.x, case.context)
    alone = [
        flow.log_prob(case.x[i : i + 1], None if case.context is None else case.context[i : i + 1]) for i in (0, 9)
    ]
    torch.testing.assert_close(torch.cat(alone), whole[[0, 9]], **EXACT)


@cases
def test_context_matters_and_only_where_there_is_one(case: FlowCase) -> None:
    flow = case.build()
    assert (case.context is None) == (flow.context_width == 0)
    if case.context is not None:
        other = case.context.roll(1, dims=0)
        assert not torch.equal(flow.log_prob(case.x, case.context), flow.log_prob(case.x, other))


@cases
def test_far_tails_stay_finite(case: FlowCase) -> None:
    """In float32, as served: 30 standard deviations out and, for a support with ends, far outside it."""
    flow = case.build().float()
    rows = case.x.float()
    mean, deviation = rows.mean(dim=0), rows.std(dim=0) + 1e-3
    for distance in (-1000.0, -30.0, 30.0, 1000.0):
        far = (mean + distance * deviation).expand(rows.shape)
        z, ladj = flow(far, None if case.context is None else case.context.float())
        assert bool(torch.isfinite(z).all() and torch.isfinite(ladj).all())
        log_prob = flow.log_prob(far, None if case.context is None else case.context.float())
        inside = flow.in_support(far)
        assert bool(torch.isfinite(log_prob).all()) if inside is None else torch.equal(log_prob > -torch.inf, inside)


@cases
def test_training_and_evaluation_agree(case: FlowCase) -> None:
    flow = case.build()
    if any(isinstance(module, torch.nn.Dropout) for module in flow.modules()):
        torch.manual_seed(0)
        assert not torch.equal(flow.train().log_prob(case.x), flow.eval().log_prob(case.x))
        return
    training, evaluation = flow.train().log_prob(case.x, case.context), flow.eval().log_prob(case.x, case.context)
    torch.testing.assert_close(training, evaluation, rtol=0, atol=0)


@cases
def test_saved_and_loaded_into_a_fresh_one_it_is_the_same(case: FlowCase) -> None:
    flow = case.build()
    file = io.BytesIO()
    torch.save(flow.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(flow)
    with torch.no_grad():
        for tensor in fresh.state_dict().values():
            tensor.zero_()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(
        fresh.log_prob(case.x, case.context), flow.log_prob(case.x, case.context), rtol=0, atol=0
    )


@cases
def test_the_float64_copy_is_the_same_flow(case: FlowCase) -> None:
    flow = case.build().float()
    exact = copy.deepcopy(flow).double()
    x, context = case.x.float(), None if case.context is None else case.context.float()
    expected = exact.log_prob(x.double(), None if context is None else context.double())
    torch.testing.assert_close(flow.log_prob(x, context).double(), expected, rtol=1e-4, atol=1e-4)


@cases
def test_a_fit_reaches_every_weight(case: FlowCase) -> None:
    """The gradient of the density: finite, and not zero everywhere, for each weight that a fit is to move."""
    flow = case.build()
    weights = list(flow.named_parameters())
    if not weights:
        return  # a closed form: nothing is fitted
    flow.log_prob(case.x, case.context).mean().backward()
    for name, weight in weights:
        assert weight.grad is not None, name
        assert bool(torch.isfinite(weight.grad).all()), name
        assert bool(weight.grad.any()), name


@cases
def test_the_density_integrates_to_one(case: FlowCase) -> None:
    """Over a grid of the box that draws from the flow lie in, with room around it; for one and two columns."""
    flow = case.build()
    if flow.width > 2:
        return
    points = 100_000 if flow.width == 1 else 300
    with torch.no_grad():
        context = None if case.context is None else case.context[:1]
        z = sample_base(flow.base, 4000, flow.width, torch.Generator().manual_seed(0), torch.float64)
        drawn = flow.inverse(z, None if context is None else context.expand(4000, -1))[0]
        low, high = drawn.amin(dim=0), drawn.amax(dim=0)
        room = 0.3 * (high - low)
        low, high = flow.nearest(torch.stack((low - room, high + room)))
        edges = [torch.linspace(*ends, points + 1, dtype=torch.float64) for ends in zip(low, high, strict=True)]
        centres = torch.cartesian_prod(*((e[1:] + e[:-1]) / 2 for e in edges)).reshape(-1, flow.width)
        density = flow.log_prob(centres, None if context is None else context.expand(len(centres), -1)).exp()
        mass = density.sum() * torch.prod((high - low) / points)
    assert float(mass) == pytest.approx(1.0, abs=5e-3)
