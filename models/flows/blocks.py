"""A masked network cut into blocks of columns, so that the passes of an autoregressive inverse cost less.

A unit belongs to the last block that it depends on. Once the columns of the first blocks are known, so are their
units, for good: the passes of a block compute its own units alone. Two blocks take a quarter of the products each, and
half as many columns come to rest in fewer passes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from zuko.nn import MaskedLinear

__all__ = ["Blocks", "Known"]

_ELEMENTWISE = (
    nn.Dropout,
    nn.ELU,
    nn.GELU,
    nn.Hardtanh,
    nn.Identity,
    nn.LeakyReLU,
    nn.ReLU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Tanh,
)

Known = list[list[Tensor]]
"""For each layer what goes into it from the blocks that are known: a list of ``[N, units]``, block after block."""


class Blocks:
    """How a network is cut. Its weights stay where they are, and are read whenever it runs.

    Args:
        network: `MaskedLinear` layers, and elementwise functions before and between them. Its inputs are the columns of
            x, and behind them those of a context, if there is one; they are block 0.
        places: for each column of x its place in the order of dependence, from 0. Columns may share one.
        shapes: of the parameters of a column, one after the other among the network's outputs for it.
        count: the number of blocks of x, at most that of places.

    Raises:
        ValueError: where the network has other layers, or a block has no unit in one of them.
    """

    def __init__(
        self, network: nn.Module, places: Sequence[int], shapes: Sequence[tuple[int, ...]], count: int = 2
    ) -> None:
        layers = list(_layers(network))
        if not all(isinstance(layer, (MaskedLinear, *_ELEMENTWISE)) for layer in layers):
            raise ValueError("the network has a layer that may mix units in a way of its own")
        linear = [layer for layer in layers if isinstance(layer, MaskedLinear)]
        context_width = linear[0].in_features - len(places)
        ends = max(places) + 1
        block = [1 + place * count // ends for place in places]
        self.count = count
        self._network, self._shapes = network, shapes
        self._passes = [len(set(_where(places, block, label))) for label in range(count + 1)]
        labels = torch.tensor([*block, *[0] * context_width])
        lowest = int(labels.amin())
        self._units = [self._members(labels)]
        for layer in linear[:-1]:
            labels = torch.where(layer.mask, labels, lowest).amax(dim=1)
            self._units.append(self._members(labels))
        if any(members.numel() == 0 for units in self._units for members in units[lowest:]):
            raise ValueError("a block has no unit in a layer")
        self._order = torch.argsort(torch.cat(self._units[0][1:]))
        self._outputs = [_rows(units, [math.prod(shape) for shape in shapes]) for units in self._units[0]]

    def passes(self, block: int) -> int:
        """After how many passes a block is settled: the number of its columns that do not share a place."""
        return self._passes[block]

    def columns(self, block: int) -> Tensor:
        """The columns of x of a block, ascending: int64 ``[B]``."""
        return self._units[0][block]

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """The columns of all blocks from 1, each ``[N, B]``, in the order of x: ``[N, D]``."""
        return torch.cat(list(parts), dim=1).index_select(1, self._order)

    def before(self, context: Tensor | None) -> Known:
        """What is known before any column: the units that depend on the context ``[N, C]`` alone."""
        known: Known = [[] for _ in self._units]
        if context is not None:
            self.settle(0, context, known)
        return known

    def parameters(self, block: int, x: Tensor, known: Known) -> list[Tensor]:
        """The parameters of the columns of a block.

        Args:
            block: from 1.
            x: ``[N, B]``, its columns.
            known: of all blocks before it.

        Returns:
            ``[N, B, *shape]`` for each shape.
        """
        *_, outputs = self._run(block, x, known)
        sizes = [math.prod(shape) * x.shape[1] for shape in self._shapes]
        return [
            part.reshape(-1, x.shape[1], *shape) if shape else part
            for part, shape in zip(outputs.split_with_sizes(sizes, dim=1), self._shapes, strict=True)
        ]

    def settle(self, block: int, x: Tensor, known: Known) -> None:
        """Add the units of a block to what is known, from its final columns x ``[N, B]``."""
        # in this order, so that the last layer is not run: one part more would be asked for
        added = [own for _, own in zip(known, self._run(block, x, known), strict=False)]
        for parts, own in zip(known, added, strict=True):
            parts.append(own)

    def _run(self, block: int, own: Tensor, known: Known) -> Iterator[Tensor]:
        """The units of a block: what goes into each `MaskedLinear`, and what comes out of the last one."""
        depth = 0
        for layer in _layers(self._network):
            if isinstance(layer, MaskedLinear):
                yield own
                own = self._linear(layer, depth, block, own, known[depth])
                depth += 1
            else:
                own = layer(own)
        yield own

    def _linear(self, layer: MaskedLinear, depth: int, block: int, own: Tensor, known: list[Tensor]) -> Tensor:
        last = depth + 1 == len(self._units)
        rows = self._outputs[block] if last else self._units[depth + 1][block]
        weight, bias = (layer.mask * layer.weight).index_select(0, rows), layer.bias.index_select(0, rows)
        inner = weight.index_select(1, self._units[depth][block])
        if not known:
            return functional.linear(own, inner, bias)
        outer = weight.index_select(1, torch.cat(self._units[depth][:block]))
        return torch.addmm(functional.linear(torch.cat(known, dim=1), outer, bias), own, inner.T)

    def _members(self, labels: Tensor) -> list[Tensor]:
        """The places of each label from 0."""
        return [torch.nonzero(labels == label).flatten() for label in range(self.count + 1)]


def _layers(network: nn.Module) -> Iterator[nn.Module]:
    """The layers in order, those of sequences within it included."""
    # a residual block is a sequence too, with a forward of its own
    if isinstance(network, nn.Sequential) and type(network).forward is nn.Sequential.forward:
        for part in network:
            yield from _layers(part)
    else:
        yield network


def _where(values: Sequence[int], labels: Sequence[int], label: int) -> list[int]:
    return [value for value, found in zip(values, labels, strict=True) if found == label]


def _rows(columns: Tensor, sizes: Sequence[int]) -> Tensor:
    """The outputs of some columns, parameter by parameter; those of one column lie together in the network."""
    starts = columns * sum(sizes)
    offsets = [sum(sizes[:number]) for number in range(len(sizes))]
    return torch.cat(
        [(starts[:, None] + offset + torch.arange(size)).flatten() for offset, size in zip(offsets, sizes, strict=True)]
    )
