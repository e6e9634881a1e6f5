"""A fit starts as the Gaussian of what it sees: the rows, and the noise that is added to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.data.load import load_data
from models.recipe import Recipe
from models.training.fit import log_prob
from models.training.fit_start import begin_fit


def narrow_grid(count: int = 3000) -> np.ndarray:
    """Two columns that are nearly equal, on a grid whose step is wider than their difference."""
    x = np.random.default_rng(0).normal(size=(count, 2))
    return np.round(np.stack([x[:, 0], x[:, 0] + 0.02 * x[:, 1]], axis=1), 1) * [1.0, 50.0]


@pytest.mark.parametrize("noise", [None, 0.05, 1.0])
def test_a_fit_of_repeated_values_starts_as_the_gaussian_of_the_rows_with_their_noise(
    tmp_path: Path, noise: float | None
) -> None:
    """A whitening of the rows alone would send the noise many standard deviations out."""
    np.save(tmp_path / "rows.npy", narrow_grid())
    fit = {} if noise is None else {"noise": noise}
    recipe = Recipe.parse({"data": {"source": str(tmp_path / "rows.npy")}, "flow": {"transforms": 1}, "fit": fit})
    start = begin_fit(recipe, load_data(recipe), None, tell=lambda _: None, watch=None)
    rows = start.perturbation(start.parts.train, torch.Generator().manual_seed(1)).double()
    gaussian = torch.distributions.MultivariateNormal(rows.mean(dim=0), torch.cov(rows.T))
    reached = float(log_prob(start.flow, rows.float()).mean())
    assert reached == pytest.approx(float(gaussian.log_prob(rows).mean()), abs=0.02)
