"""The flow that is timed: 8 affine couplings, conditioners 128-128, or another family; random weights; any width."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch

from models.architectures import build_flow
from models.export.export import export_flow
from models.flows.flow import Flow
from service.bundle.store import Repository

TRANSFORMS = 8

FAMILIES: Final[dict[str, dict[str, Any]]] = {
    "real_nvp": {"transforms": TRANSFORMS, "hidden": [128, 128]},
    "neural_spline_coupling": {},
    "maf": {},
}
"""Family -> its options, where they are not the defaults."""


def make_flow(width: int, family: str = "real_nvp") -> Flow:
    """The flow, and behind its `Standardize` steps that move every row: a fit would start from the identity."""
    generator = torch.Generator().manual_seed(0)
    flow = build_flow(family, FAMILIES[family], rows=make_rows(width), seed=0)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return flow


def make_rows(width: int) -> torch.Tensor:
    """Rows that it might have been fitted to: ``[2000, width]``."""
    return torch.randn(2000, width, generator=torch.Generator().manual_seed(0))


def make_bundle(folder: Path, width: int) -> Path:
    """Export the flow into a new repository in `folder`; the bundle's folder."""
    repository = Repository(folder)
    held_out = make_rows(width)[:1000]
    return export_flow(
        make_flow(width),
        repository=repository,
        name=f"coupling-{width}",
        held_out=held_out,
        data="normal noise",
        seed=0,
    )
