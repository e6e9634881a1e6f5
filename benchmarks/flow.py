"""The flow that is timed: 8 affine couplings, conditioners 128-128, random weights; width by choice."""

from __future__ import annotations

from pathlib import Path

import torch

from models.architectures import build_flow
from models.export import export_flow
from service.bundle.store import Repository


def make_bundle(folder: Path, width: int) -> Path:
    """Export the flow into a new repository in `folder`; the bundle's folder."""
    repository = Repository(folder)
    name = f"coupling-{width}"
    rows = torch.randn(2000, width, generator=torch.Generator().manual_seed(0))
    flow = build_flow("real_nvp", {"transforms": 8, "hidden": [128, 128]}, rows=rows, seed=0)
    return export_flow(flow, repository=repository, name=name, held_out=rows[:1000], data="normal noise", seed=0)
