"""A network cut into blocks gives what it gives whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import zuko
from torch import nn

from models.flows.blocks import Blocks
from models.flows.zuko_steps import ZukoAutoregressive, from_zuko
from tests.laws.table import SPLINE, normal, randomize

WIDTH, HIDDEN = 32, {"hidden_features": (48, 40)}


def step(context: int = 0, **options: Any) -> ZukoAutoregressive:
    lazy = zuko.flows.MaskedAutoregressiveTransform(WIDTH, context, **(HIDDEN | options))
    randomize(lazy, scale=0.1)
    (adapted,) = from_zuko(lazy)
    assert isinstance(adapted, ZukoAutoregressive)
    return adapted


STEPS: dict[str, tuple[int, dict[str, Any]]] = {
    "affine": (0, {}),
    "affine, conditional": (3, {}),
    "spline, conditional": (3, SPLINE),
    "in another order": (0, {"order": torch.randperm(WIDTH, generator=torch.Generator().manual_seed(4))}),
    "in groups": (0, {"passes": 16}),
    "one hidden layer, tanh": (0, {"hidden_features": (64,), "activation": nn.Tanh}),
}


@pytest.mark.parametrize("name", STEPS)
def test_block_by_block_the_inverse_is_that_of_the_whole(name: str) -> None:
    context_width, options = STEPS[name]
    whole = step(context_width, **options)
    whole.transform.lazy.hyper.insert(0, nn.Hardtanh(-2.0, 2.0))  # as the families of this project begin a conditioner
    assert whole.blocks is not None
    y, context = normal(7, WIDTH) * 2, normal(7, context_width) if context_width else None
    torch.testing.assert_close(whole.inverse_in_blocks(whole.blocks, y, context), whole.inverse(y, context))


def test_the_passes_of_both_blocks_are_those_of_the_whole() -> None:
    for options, passes in (({}, 16), ({"passes": 16}, 8)):
        blocks = step(**options).blocks
        assert blocks is not None
        assert [blocks.passes(block) for block in (1, 2)] == [passes, passes]
        assert sorted(torch.cat([blocks.columns(1), blocks.columns(2)]).tolist()) == list(range(WIDTH))


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (nn.Sequential(*zuko.nn.MaskedMLP(torch.ones(8, 4).tril(-1).bool(), (6,)), nn.LayerNorm(8)), "mixes|may mix"),
        (zuko.nn.MaskedMLP(torch.ones(4, 4).tril(-1).bool(), (6, 6), residual=True), "may mix"),
        (zuko.nn.MaskedMLP(torch.ones(4, 4).tril(-1).bool(), (1,)), "no unit"),
    ],
    ids=["another layer", "residual", "too narrow"],
)
def test_a_network_that_cannot_be_cut_is_refused(network: nn.Module, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Blocks(network, range(4), [()])


def test_a_step_that_cannot_be_cut_or_need_not_be_stays_whole() -> None:
    assert step(residual=True).blocks is None
    assert step(passes=2).blocks is None
    narrow = from_zuko(zuko.flows.MaskedAutoregressiveTransform(8, **HIDDEN))[0]
    assert isinstance(narrow, ZukoAutoregressive)
    assert narrow.blocks is None
