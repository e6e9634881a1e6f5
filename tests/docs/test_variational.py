"""docs/variational.md: its targets can be fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.inference.constraints import constrain
from models.inference.target import take_target
from models.recipe import FlowRecipe
from tests.docs.readme import blocks

PAGE = (Path(__file__).parents[2] / "docs" / "variational.md").read_text()


def names_of(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "mine"}
    exec(code, names)
    return names


def test_the_eight_schools_are_those_of_the_benchmark():
    from benchmarks.posteriors import EightSchools

    target = take_target(names_of(blocks(PAGE, "python")[0])["target"], "eight_schools.py:target")
    z = torch.randn(20, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z[:, 1] = z[:, 1].exp()
    assert torch.allclose(target.log_density(z), EightSchools().log_density(z), atol=1e-9)
    step = constrain(target.constraints, target.dim, target.title)
    assert step is not None
    assert target.names[:2] == ("mu", "tau")


def test_the_autoencoder_is_a_joint_density_of_the_rows_that_the_page_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    exec(blocks(PAGE, "python")[2], {})
    rows = torch.from_numpy(np.load("digits.npy")).float()
    assert rows.shape == (1797, 61)
    vae = take_target(names_of(blocks(PAGE, "python")[1])["vae"], "vae.py:vae", rows=rows)
    found = vae.log_density(torch.zeros(5, 4), rows[:5])
    assert found.shape == (5,)
    assert vae.differentiable
    assert len(vae.parameters) == 5
    assert FlowRecipe(architecture="maf", transforms=1, orders="none").options["orders"] == "none"
