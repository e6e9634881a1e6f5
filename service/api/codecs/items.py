"""The items of a long array or of the lines of a body, read block by block: no more than a block is there at once."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_BYTES", "LONGEST_BYTES", "Block", "Items", "block_items"]

BLOCK_BYTES: Final = 1 << 16
"""Bytes of text that are read at once. It takes a few milliseconds, during which other threads wait."""

LONGEST_BYTES: Final = 1 << 20
"""The most bytes of one item that are read at once: whatever they hold, what is made of them is a few dozen MB."""

Block: TypeAlias = list[Any] | npt.NDArray[np.float64]
"""Some items, one after the other: as JSON gives them, or all of them numbers, or rows of numbers, of one shape."""


class Items(ABC):
    """Items as they stand in a body. Each look at them reads the body again."""

    @abstractmethod
    def blocks(self) -> Iterator[Block]:
        """The items, block by block.

        Raises:
            MalformedBody, InvalidArgument: while they are taken, from the codec.
            ClientGone, DeadlineExceeded: nobody waits for them any more.
        """

    @functools.cached_property
    def first(self) -> Any:  # noqa: ANN401  what JSON holds
        """The first item, a row of numbers perhaps as an array; None where there is none."""
        block = next((block for block in self.blocks() if len(block)), None)
        return None if block is None else block[0]

    @property
    def of_objects(self) -> bool:
        """Whether the first item is an object."""
        return isinstance(self.first, dict)

    def changed(self, change: Callable[[list[Any], int], list[Any]]) -> Items:
        """Other items in the place of these.

        Args:
            change: gets the items of a block and the number of items before it, and gives as many.
        """
        return _Changed(self, change)


class _Changed(Items):
    def __init__(self, items: Items, change: Callable[[list[Any], int], list[Any]]) -> None:
        self._items = items
        self._change = change

    def blocks(self) -> Iterator[Block]:
        before = 0
        for block in self._items.blocks():
            yield self._change(block_items(block), before)
            before += len(block)


def block_items(block: Block) -> list[Any]:
    """The items of a block as JSON gives them."""
    return block if isinstance(block, list) else block.tolist()
