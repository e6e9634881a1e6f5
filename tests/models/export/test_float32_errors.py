"""The error of float32 itself: large where a flow is steep, next to nothing elsewhere, and no excuse for NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from models.export.float32_errors import Float32Errors, answer_forward, answer_inverse, answer_round_trip, answer_trace
from models.export.gate import reference
from models.flows.flow import Bijection, Flow
from service.bundle.bases import NormalBase, UniformBase
from service.bundle.manifest import Support
from tests.models.export.steep import Steep, Thirds

ROWS = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)


def errors_of(flow: Flow, rows: np.ndarray = ROWS) -> Float32Errors:
    return Float32Errors(reference(flow), answer_forward, rows)


def test_it_is_the_greatest_over_what_rounds_to_a_row():
    flow = Flow((2,), [Steep(3e4)], NormalBase())
    exact = reference(flow)
    found = errors_of(flow)("log_prob", range(40))
    alone = (flow.log_prob(torch.from_numpy(ROWS)).double() - exact.log_prob(torch.from_numpy(ROWS).double())).abs()
    alone /= 1 + exact.log_prob(torch.from_numpy(ROWS).double()).abs()
    assert np.all(found >= alone.numpy() - 1e-15)
    assert found.max() > 1e-4
    assert np.median(found) > np.median(alone)  # a row that is right by luck is not taken for a gentle one


def test_a_gentle_flow_has_next_to_none_and_rows_are_looked_at_once():
    flow = Flow((2,), [Steep(1.0)], NormalBase())
    found = errors_of(flow)
    first = found("log_prob", [3, 5])
    assert first.max() < 1e-6
    assert found("log_prob", [5, 3]).tolist() == first[::-1].tolist()
    assert found("value", [5], unit=np.full((40, 1), 2.0)).max() < 1e-6


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (answer_forward, {"value", "log_abs_det_jacobian", "log_prob"}),
        (answer_inverse, {"value", "log_abs_det_jacobian", "log_prob"}),
        (answer_round_trip, {"value"}),
        (answer_trace, {"value", "log_abs_det_jacobian", "sum", "log_prob"}),
    ],
)
def test_each_direction_answers_each_of_its_quantities(answer, names):
    flow = Flow((2,), [Steep(10.0), Steep(3.0)], NormalBase())
    assert answer(flow, torch.from_numpy(ROWS), None).keys() == names
    found = Float32Errors(reference(flow), answer, ROWS)
    for name in names:
        assert 0 <= found(name, range(40)).max() < 1e-4


def test_the_context_is_rounded_too():
    class Given(Bijection):
        def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            scale = torch.sin(3e4 * context)
            return x * scale.exp(), scale.sum(dim=1)

        def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
            scale = torch.sin(3e4 * context)
            return y / scale.exp(), -scale.sum(dim=1)

    flow = Flow((2,), [Given()], NormalBase(), context_width=2)
    assert Float32Errors(reference(flow), answer_forward, ROWS, ROWS)("log_prob", range(40)).max() > 1e-4


class Gap(Bijection):
    """NaN in float32 beyond 1, where float64 has an answer."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        bad = (x > 1) & (x.dtype == torch.float32)
        return torch.where(bad, torch.nan, x), torch.zeros_like(x[:, 0])

    inverse = forward


def test_what_torch_cannot_answer_excuses_nothing():
    found = errors_of(Flow((2,), [Gap()], NormalBase()))
    assert found("log_prob", np.flatnonzero((ROWS > 1).any(axis=1))).tolist() == [0.0] * int(
        (ROWS > 1).any(axis=1).sum()
    )


def test_a_row_at_the_edge_of_a_box_is_told_from_those_inside_and_outside():
    rows = np.array([[3.0, 0.0], [2.9, 0.0], [3.1, 0.0], [0.0, -3.0]], np.float32)
    assert errors_of(Flow((2,), [Thirds()], UniformBase(low=-1.0, high=1.0)), rows).at_an_edge(range(4)).tolist() == [
        True, False, False, True,
    ]  # fmt: skip
    assert not errors_of(Flow((2,), [Thirds()], NormalBase()), rows).at_an_edge(range(4)).any()


def test_a_row_outside_the_support_is_at_no_edge_of_the_box():
    rows = np.array([[3.0, 0.0], [-3.0, 0.0]], np.float32)
    support = Support(low=-3.0, high=3.0, low_closed=True)
    flow = Flow((2,), [Thirds()], UniformBase(low=-1.0, high=1.0), support)
    assert errors_of(flow, rows).at_an_edge([0, 1]).tolist() == [False, True]


def test_rows_in_float64_are_excused_nothing():
    flow = Flow((2,), [Steep(3e4)], NormalBase())
    assert errors_of(flow, ROWS.astype(np.float64))("log_prob", range(40)).tolist() == [0.0] * 40
    box = Flow((2,), [Thirds()], UniformBase(low=-1.0, high=1.0))
    assert not errors_of(box, np.array([[3.0, 0.0]])).at_an_edge([0]).any()
