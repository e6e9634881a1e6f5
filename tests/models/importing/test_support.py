"""The support of an imported flow is read off its steps and its base: outside it the density is zero."""

from __future__ import annotations

import math

import normflows as nf
import numpy as np
import pytest
import torch
import zuko
from nflows import distributions, flows, transforms
from torch import nn
from zuko.lazy import Flow, LazyInverse, UnconditionalDistribution, UnconditionalTransform

from models.flows.inverted import Inverted
from models.importing.adapted import Unsupported
from models.importing.load import draw_rows, export_imported
from models.importing.squashing import Sigmoid, Tanh
from models.importing.steps import Affine, Permutation
from models.importing.support import box_of, find_support, place_rows, support_of_constraint
from models.importing.take import take
from models.importing.torch_module import adapt
from service.bundle.bases import NormalBase, UniformBase
from service.bundle.store import Repository, read_bundle
from service.engine.loading import load_flow
from service.plan import run_now

LOGIT = Inverted(Sigmoid(transforms.Sigmoid()))
ZERO = torch.zeros(2, dtype=torch.float64)


def affine(low, high):
    """[low, high] -> [0, 1], in each column."""
    low, high = (torch.tensor(end, dtype=torch.float64).expand(2) for end in (low, high))
    return Affine(low, (high - low).log())


def found(*steps, base=None):
    return find_support(list(steps), base or NormalBase(), (2,), None, "float32")


def ends(*steps, base=None):
    support, notes = found(*steps, base=base)
    assert notes == ()
    return None if support is None else (support.low, support.high, support.low_closed, support.high_closed)


def test_a_step_that_is_made_for_a_box_bounds_the_data():
    assert ends(LOGIT) == (0, 1, True, True)
    assert ends(Inverted(Tanh(transforms.Tanh()))) == (-1, 1, False, False)
    assert ends(Permutation(torch.tensor([1, 0])), LOGIT) == (0, 1, True, True)
    assert ends(affine(2.0, 4.0), LOGIT) == (2, 4, True, True)
    assert ends(affine(4.0, 2.5e5), Permutation(torch.tensor([1, 0])), LOGIT) == (4, 2.5e5, True, True)


def test_steps_that_bound_nothing():
    squash = Sigmoid(transforms.Sigmoid())
    assert ends(affine(2.0, 4.0)) is None
    assert ends(squash, LOGIT) is None
    assert ends(squash, base=UniformBase(low=0.0, high=1.0)) is None
    assert ends(squash, Permutation(torch.tensor([1, 0])), base=UniformBase(low=0.0, high=1.0)) is None


def test_a_uniform_base_bounds_the_data():
    box = UniformBase(low=0.0, high=1.0)
    assert ends(base=box) == (0, 1, True, True)
    assert ends(affine(2.0, 4.0), base=box) == (2, 4, True, True)
    assert ends(affine(2.0, 4.0)) is None


def test_what_is_no_box_of_equal_ends():
    support, (note,) = found(affine([2.0, 0.0], [4.0, 1.0]), LOGIT)
    assert support is None
    assert "ends differ between the columns" in note

    class Turned(Affine):
        def inverse(self, y, context=None):
            return torch.stack((y[:, 0] + y[:, 1], y[:, 0] - y[:, 1]), 1), y[:, 0] * 0

    assert found(Turned(ZERO, ZERO), LOGIT) == (None, ())


def test_rows_to_try_lie_in_the_box_of_the_data():
    shares = torch.tensor([[0.25, 0.5], [0.75, 0.0]], dtype=torch.float64)

    def placed(*steps, base=None):
        return place_rows(list(steps), base or NormalBase(), shares).tolist()

    swapped = Permutation(torch.tensor([1, 0]))
    assert placed(affine(2.0, 4.0)) == shares.tolist()
    assert placed(LOGIT) == shares.tolist()
    assert placed(affine(2.0, 4.0), LOGIT) == [[2.5, 3.0], [3.5, 2.0]]
    assert placed(swapped, affine([2.0, 6.0], [4.0, 8.0]), LOGIT) == [[7.0, 2.5], [6.0, 3.5]]
    assert placed(affine(2.0, 4.0), base=UniformBase(low=-1.0, high=1.0)) == [[1.0, 2.0], [3.0, 0.0]]
    half, other = Permutation(torch.tensor([0, 1])), Permutation(torch.tensor([0, 1]))
    half.domain, other.domain = box_of(7.0, None), box_of(None, -7.0)
    assert placed(half) == [[7.25, 7.5], [7.75, 7.0]]
    assert placed(other) == [[-7.75, -7.5], [-7.25, -8.0]]


def test_a_box_that_cannot_be_reached_leaves_the_rows_where_they_are():
    class OneWay(Affine):
        def inverse(self, y, context=None):
            raise NotImplementedError

    class Lost(Affine):
        def inverse(self, y, context=None):
            return y * math.nan, y[:, 0] * 0

    shares = torch.full((3, 2), 0.5, dtype=torch.float64)
    for step in (OneWay(ZERO, ZERO), Lost(ZERO, ZERO)):
        assert torch.equal(place_rows([step, LOGIT], NormalBase(), shares), shares)


@pytest.mark.parametrize(
    ("constraint", "box"),
    [
        (torch.distributions.constraints.unit_interval, (0.0, 1.0)),
        (torch.distributions.constraints.independent(torch.distributions.constraints.interval(-1, 2), 1), (-1.0, 2.0)),
        (torch.distributions.constraints.interval(ZERO, ZERO + 1), (0.0, 1.0)),
        (torch.distributions.constraints.interval(ZERO, torch.tensor([1.0, 2.0])), None),
        (torch.distributions.constraints.positive, (0.0, None)),
        (torch.distributions.constraints.real, None),
        (None, None),
    ],
)
def test_a_constraint_of_torch(constraint, box):
    assert support_of_constraint(constraint) == (None if box is None else box_of(*box))


class Scaled(nn.Module):
    """A module of a user's: rows on an interval, by a logit."""

    def __init__(self, support):
        super().__init__()
        self.support = support

    def forward(self, x, context=None):
        return x.logit(), -(x.log() + (1 - x).log()).sum(1)

    def inverse(self, z, context=None):
        x = z.sigmoid()
        return x, (x.log() + (1 - x).log()).sum(1)


def test_a_module_may_state_its_support():
    assert adapt(Scaled((0.0, 1.0))).steps[0].domain == box_of(0.0, 1.0)
    assert adapt(Scaled((0, None))).steps[0].domain == box_of(0.0, None)
    assert adapt(Scaled(None)).steps[0].domain is None
    for wrong in ((0.0,), ("low", "high")):
        with pytest.raises(Unsupported, match="must be a pair of numbers"):
            adapt(Scaled(wrong))


def of_zuko(*steps):
    maf = zuko.flows.MAF(2, transforms=1, hidden_features=[4])
    return Flow([*steps, *maf.transform.transforms], maf.base)


def bounded_spline():
    box = UnconditionalDistribution(zuko.distributions.BoxUniform, -5 * torch.ones(2), 5 * torch.ones(2))
    return Flow(zuko.flows.NSF(2, transforms=1, hidden_features=[4]).transform, box)


FLOWS = {
    "nflows": (
        lambda: flows.Flow(
            transforms.CompositeTransform(
                [
                    transforms.InverseTransform(transforms.Sigmoid()),
                    transforms.MaskedAffineAutoregressiveTransform(2, 4),
                ]
            ),
            distributions.StandardNormal([2]),
        ),
        (0.0, 1.0),
    ),
    "normflows": (
        lambda: nf.NormalizingFlow(nf.distributions.DiagGaussian(2), [nf.transforms.Logit(0.05)]),
        (-0.05 / 0.9, 1 + 0.05 / 0.9),
    ),
    "zuko": (lambda: of_zuko(LazyInverse(UnconditionalTransform(torch.distributions.SigmoidTransform))), (0.0, 1.0)),
    "zuko, positive": (
        lambda: of_zuko(LazyInverse(UnconditionalTransform(torch.distributions.ExpTransform))),
        (0.0, None),
    ),
    "zuko, angles": (lambda: zuko.flows.NCSF(2, transforms=1, hidden_features=[4]), (-math.pi, math.pi)),
    "zuko, uniform": (bounded_spline, (-5.0, 5.0)),
    "torch": (lambda: Scaled((0.0, 1.0)), (0.0, 1.0)),
}


@pytest.mark.parametrize(("make", "box"), FLOWS.values(), ids=FLOWS)
def test_a_row_outside_has_no_density(make, box):
    flow = take(make(), event_shape=(2,)).flow
    assert [flow.support.low, flow.support.high] == [
        None if end is None else pytest.approx(end, abs=1e-6) for end in box
    ]
    low, high = box[0], box[0] + 1 if box[1] is None else box[1]
    inside = torch.full((1, 2), (low + high) / 2).double()
    assert torch.isfinite(flow.log_prob(inside)).all()
    for outside in (low - 0.5, *(() if box[1] is None else (high + 0.5,))):
        rows = inside.clone()
        rows[0, 1] = outside
        assert flow.log_prob(rows).tolist() == [-math.inf]


@pytest.mark.slow
@pytest.mark.parametrize("library", ["nflows", "zuko", "zuko, positive"])
def test_a_bundle_answers_so(tmp_path, library):
    make, box = FLOWS[library]
    torch.manual_seed(0)
    imported = take(make())
    path = export_imported(
        imported, draw_rows(imported, 100), repository=Repository(tmp_path), name="bounded", source=""
    )
    bundle = read_bundle(path)
    assert (bundle.manifest.support.low, bundle.manifest.support.high) == box
    served = load_flow(bundle)
    assert np.isfinite(run_now(served.log_prob(bundle.golden.x[:8], None)).log_prob).all()
    assert run_now(served.log_prob(np.float32([[-0.5, 0.5]]), None)).log_prob.tolist() == [-math.inf]
