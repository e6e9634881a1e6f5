"""The recipes to start from: each reads, and makes the flow that it promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models.recipes
from models.architectures import build_flow
from models.data.load import load_data
from models.data.split import split
from models.flows.preprocess import quantized_support
from models.recipe import Recipe

FOLDER = Path(models.recipes.__path__[0])
SHAPES = {"digits-image": (8, 8, 1), "mnist": (28, 28, 1)}


def test_all_of_them_are_held_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_it_reads_and_its_flow_is_built(name: str) -> None:
    recipe = Recipe.read(FOLDER / f"{name}.toml")
    assert recipe.name == name
    assert recipe.description
    low, high = recipe.data.low, recipe.data.high
    assert low is not None
    assert high is not None
    rows = low + (high - low) * torch.rand(20, *SHAPES[name], generator=torch.Generator().manual_seed(0))
    flow = build_flow(
        recipe.flow.architecture, recipe.flow.options, rows=rows, support=quantized_support(low, high)
    ).eval()
    with torch.no_grad():
        assert bool(torch.isfinite(flow.log_prob(rows)).all())


def test_the_digits_are_there_without_a_file() -> None:
    recipe = Recipe.read(FOLDER / "digits-image.toml")
    parts = split(load_data(recipe), recipe.data, recipe.seed)
    assert (len(parts.test), parts.test.shape[1:]) == (270, (8, 8, 1))
