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


def make_conditional_bundle(folder: Path, width: int = 13, context: int = 2) -> Path:
    """Export a smaller flow with a context into a repository in `folder`, as ``conditional``; the bundle's folder."""
    generator = torch.Generator().manual_seed(1)
    rows, given = make_rows(width), torch.randn(2000, context, generator=generator)
    flow = build_flow("real_nvp", {"transforms": 4, "hidden": [64, 64]}, rows=rows, context=given, seed=0)
    return export_flow(
        flow,
        repository=Repository(folder),
        name="conditional",
        held_out=rows[:1000],
        context=given[:1000],
        data="normal noise",
        seed=0,
    )


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
