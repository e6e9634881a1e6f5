"""A flow that is none is refused before it is exported, and the reason says which law it breaks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from nflows import distributions, flows, transforms
from torch import Tensor, nn

from models.export.gate import check_flow, reference
from models.export.probes import make_probes
from models.importing.agreement import check_agreement
from models.importing.take import ImportedFlow, take
from service.errors import ParityFailed


class Shift(nn.Module):
    """z = 2 x + 1 in each of two columns, and ways to get it wrong."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault
        self.log_scale = nn.Parameter(torch.full((2,), float(np.log(2))))
        self.norm = nn.BatchNorm1d(2, affine=False, track_running_stats=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = x * self.log_scale.exp() + 1
        ladj = self.log_scale.sum().expand(x.shape[0])
        if self.fault == "sign":
            ladj = -ladj
        if self.fault == "statistics":
            z = z + self.norm(x)
        if self.fault == "frozen":
            ladj = torch.zeros(30) + self.log_scale.sum()
        if self.fault == "nan":
            z = torch.where(x[:, :1] > 0, torch.nan, z)
        return z, ladj

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        factor = 1.01 if self.fault == "inverse" else 1.0
        x = factor * (z - 1) * torch.exp(-self.log_scale)
        ladj = -self.log_scale.sum().expand(z.shape[0])
        return x, -ladj if self.fault == "sign" else ladj


ROWS = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)


def held(imported: ImportedFlow) -> None:
    check_agreement(imported, ROWS, None)
    check_flow(reference(imported.flow), make_probes(ROWS, None, None))


def take_module(flow: nn.Module, **given: Any) -> ImportedFlow:
    return take(flow, event_shape=(2,), context_width=0, **given)


def test_a_sound_flow_passes() -> None:
    held(take_module(Shift()))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("sign", "log_abs_det_jacobian, against the Jacobian by differentiation, in float64 is"),
        ("inverse", "the flow is broken: torch's inverse is not the inverse: x after forward and inverse is"),
        ("statistics", "the flow depends on the batch: log_prob of torch fails on a batch of 1 rows, though"),
        ("frozen", r"fails on a batch of 1 rows|has shape \[30\] for 1 rows"),
        ("nan", "the flow is broken: log_prob of torch is nan for held-out row"),
    ],
)
def test_a_flow_that_is_none_is_refused(fault: str, message: str) -> None:
    imported = take(Shift(), event_shape=(2,), context_width=0)
    step: Any = imported.flow.bijections[0]
    step.layer.fault = fault
    with pytest.raises(ParityFailed, match=message):
        held(imported)


def test_batch_norm_that_keeps_no_running_statistics_is_found_in_a_library_s_flow() -> None:
    flow = flows.SimpleRealNVP(2, 8, 2, 1, batch_norm_within_layers=True)
    for module in flow.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    with pytest.raises(ParityFailed, match="the flow depends on the batch: log_prob of nflows"):
        check_agreement(take(flow), ROWS, None)


def test_a_flow_in_training_mode_is_taken_as_it_is_in_evaluation_mode() -> None:
    flow = flows.SimpleRealNVP(2, 8, 2, 1, batch_norm_within_layers=True, dropout_probability=0.5).train()
    check_agreement(take(flow), ROWS, None)
    assert flow.training


def test_another_reading_than_the_library_s_is_found() -> None:
    """As when a subclass changes what its class says: here the reading is spoilt."""
    transform = transforms.AffineCouplingTransform(torch.tensor([0, 1]), Plain)
    imported = take(flows.Flow(transform, distributions.StandardNormal([2])))
    step: Any = imported.flow.bijections[0]
    with torch.no_grad():
        step.second, step.first = step.first.clone(), step.second.clone()
    with pytest.raises(ParityFailed, match="this project's reading of the nflows flow is wrong: log_prob is"):
        check_agreement(imported, ROWS, None)


class Plain(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.layer(x)
