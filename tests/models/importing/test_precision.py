"""The precision that a flow is read in: its own, where it casts to float64 inside or has weights of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.importing.load import draw_rows, export_imported, find_precision_fault
from models.importing.take import own_precision, take
from service.bundle.store import Repository, read_bundle


class Affine(nn.Module):
    """y = x exp(s) + t(first column), where s and t come out of a network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 4), nn.SELU(), nn.Linear(4, 2))

    def parameters_of(self, first: Tensor) -> Tensor:
        made: Tensor = self.net(first)
        return made

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.parameters_of(x[:, :1]).unbind(dim=1)
        return torch.stack((x[:, 0], x[:, 1] * s.exp() + t), dim=1), s

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.parameters_of(z[:, :1]).unbind(dim=1)
        return torch.stack((z[:, 0], (z[:, 1] - t) * (-s).exp()), dim=1), -s


class CastsInside(Affine):
    """Fails on weights of float32."""

    def parameters_of(self, first: Tensor) -> Tensor:
        return super().parameters_of(first.double())


class GivesFloat64(Affine):
    """Runs in float32, and gives float64."""

    def parameters_of(self, first: Tensor) -> Tensor:
        return super().parameters_of(first).double()


class CastsForAStep(Affine):
    """Takes and gives float32, with one step in float64 between."""

    def parameters_of(self, first: Tensor) -> Tensor:
        made = super().parameters_of(first)
        return (made.double() @ (0.5 * torch.eye(2)).double()).to(made.dtype)


class Doubled(Affine):
    """Its weights are float64."""

    def __init__(self) -> None:
        super().__init__()
        self.double()


@pytest.mark.parametrize(
    ("module", "own", "fault"),
    [
        (Affine, "float32", None),
        (CastsInside, "float32", "must have the same dtype"),
        (GivesFloat64, "float32", "it makes float64 of z and x"),
        (CastsForAStep, "float32", None),
        (Doubled, "float64", None),
    ],
)
def test_a_cast_inside_is_understood(module: type[Affine], own: str, fault: str | None) -> None:
    flow = module()
    assert own_precision(flow) == own
    imported = take(flow, event_shape=(2,), precision=own_precision(flow))
    found = find_precision_fault(imported, draw_rows(imported, 8))
    assert (found is None) == (fault is None)
    assert fault is None or fault in str(found)
    assert next(imported.flow.parameters()).dtype == torch.float64, "the flow itself is left as it is read"


@pytest.mark.parametrize(("module", "precision"), [(CastsInside, "float64"), (CastsForAStep, "float32")])
@pytest.mark.slow
def test_a_module_that_casts_becomes_a_bundle(tmp_path: Path, module: type[Affine], precision: str) -> None:
    imported = take(module(), event_shape=(2,), precision=precision)  # type: ignore[arg-type]
    rows = draw_rows(imported, 40)
    folder = export_imported(imported, rows, repository=Repository(tmp_path), name="cast", source="here")
    manifest = read_bundle(folder).manifest
    assert manifest.precision == precision
    assert manifest.parity.log_prob < (1e-9 if precision == "float64" else 1e-5)
