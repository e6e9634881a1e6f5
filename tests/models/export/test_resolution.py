from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models.export.gate import check_flow, reference
from models.export.probes import OUTSIDE, make_probes
from models.export.resolution import keep_resolvable
from models.flows.flow import Bijection, Flow
from models.flows.preprocess import Standardize
from service.bundle.bases import NormalBase
from service.bundle.manifest import Support
from service.errors import ParityFailed
from tests.laws.table import FLOWS


class Unbounded(Bijection):
    """x_1 scaled by exp(4 x_0): beyond |x_0| of 20 float32 overflows."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.stack((x[:, 0], x[:, 1] * torch.exp(4 * x[:, 0])), dim=1), 4 * x[:, 0]

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.stack((y[:, 0], y[:, 1] * torch.exp(-4 * y[:, 0])), dim=1), -4 * y[:, 0]


def test_far_rows_that_float32_cannot_answer_are_left_out_and_no_others() -> None:
    flow = Flow((2,), [Unbounded()], NormalBase())
    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    probes = make_probes(rows, None, None)
    kept = keep_resolvable(flow, reference(flow), probes)
    np.testing.assert_array_equal(kept.x[kept.held_out], rows)
    assert 0 < len(kept.labels) < len(probes.labels)
    exact = reference(flow)(torch.from_numpy(kept.x).double())[0]
    assert bool(torch.isfinite(exact.float()).all())
    assert any("30 standard" in label for label in kept.labels)


def test_rows_outside_the_support_stay() -> None:
    flow = Flow((2,), [Standardize(torch.zeros(2), torch.ones(2))], NormalBase(), Support(low=-5.0, high=5.0))
    rows = np.random.default_rng(0).normal(size=(50, 2)).clip(-4, 4).astype(np.float32)
    probes = make_probes(rows, None, flow.support, edges=False)
    assert OUTSIDE in keep_resolvable(flow, reference(flow), probes).labels


class Moved(Unbounded):
    """The same, of x + context."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(x + context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, ladj = super().inverse(y)
        return x - context, ladj


def test_rows_that_are_left_out_take_their_context_with_them() -> None:
    flow = Flow((2,), [Moved()], NormalBase(), context_width=2)
    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    context = np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32)
    probes = make_probes(rows, context, None)
    kept = keep_resolvable(flow, reference(flow), probes)
    assert 0 < len(kept.labels) < len(probes.labels)
    pairs = [{(x.tobytes(), c.tobytes()) for x, c in zip(each.x, each.context, strict=True)} for each in (probes, kept)]
    assert pairs[1] < pairs[0]


class Holes(Bijection):
    """NaN beyond 5 where it should be x."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.where(x.abs() > 5, torch.nan, x), torch.zeros_like(x[:, 0])

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return y, torch.zeros_like(y[:, 0])


def test_far_rows_of_which_a_step_makes_nan_stay_and_are_refused() -> None:
    flow = Flow((2,), [Holes()], NormalBase())
    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    probes = make_probes(rows, None, None)
    kept = keep_resolvable(flow, reference(flow), probes)
    assert len(kept.labels) == len(probes.labels)
    with pytest.raises(ParityFailed, match="the flow's z is not finite in float64 for a row 10 standard deviations"):
        check_flow(reference(flow), kept)


def test_a_flow_that_sees_no_further_than_its_data_keeps_all() -> None:
    flow = FLOWS["real_nvp, D = 2"].build().float()
    rows = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    probes = make_probes(rows, None, None)
    assert len(keep_resolvable(flow, reference(flow), probes).labels) == len(probes.labels)
