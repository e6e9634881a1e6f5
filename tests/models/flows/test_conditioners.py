from __future__ import annotations

import pytest
import torch

from models.flows.conditioners import column_orders, coupling_masks
from service.errors import DataError


@pytest.mark.parametrize("kind", ["alternating", "random"])
def test_orders_come_in_pairs_forwards_and_backwards(kind: str) -> None:
    torch.manual_seed(0)
    orders = list(column_orders(30, 6, kind))
    for order, back in zip(orders[::2], orders[1::2], strict=True):
        assert sorted(order.tolist()) == list(range(30))
        assert torch.equal(back, 29 - order)
    different = {tuple(order.tolist()) for order in orders[::2]}
    assert len(different) == (3 if kind == "random" else 1)


@pytest.mark.parametrize("kind", ["alternating", "random"])
def test_masks_come_in_pairs_that_move_every_column_once(kind: str) -> None:
    torch.manual_seed(0)
    masks = list(coupling_masks(31, 6, kind))
    for mask, other in zip(masks[::2], masks[1::2], strict=True):
        assert torch.equal(other, ~mask)
        assert int(mask.sum()) == 15
    assert len({tuple(mask.tolist()) for mask in masks[::2]}) == (3 if kind == "random" else 1)


def test_a_kind_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="alternating"):
        list(column_orders(3, 2, "reverse"))
    with pytest.raises(DataError, match="alternating"):
        list(coupling_masks(3, 2, "reverse"))
