"""Networks of FrEIA (https://github.com/vislearn/FrEIA, 0.2) as steps of this project.

FrEIA's modules take and give tuples, get their conditions as a list, and have no base: a standard normal is taken, to
which its loss trains them. A Haar transform scales its input in place on the way back; a learned Householder
permutation is made and stored in the module at each call; a linear module keeps M and an inverse of M in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from FrEIA import framework, modules
from torch import Tensor, nn

from models.flows.bases import base_log_prob
from models.flows.flow import Bijection
from models.flows.linear import FixedLinear
from models.importing.adapted import AdaptedFlow, Unsupported, unsupported_layer
from models.importing.descriptions import layer_name
from models.importing.steps import Affine, Permutation, linear_step, per_row
from service.bundle.bases import NormalBase

__all__ = ["adapt"]

_LINEAR = (modules.FixedLinearTransform, modules.OrthogonalTransform, modules.HouseholderPerm)


def adapt(source: nn.Module) -> AdaptedFlow:
    """Take a `SequenceINN` or a `GraphINN` apart.

    Args:
        source: in float64 and evaluation mode. Its conditions become one context, side by side in their order.

    Raises:
        Unsupported: a module cannot be exported, or it is another class.
    """
    if isinstance(source, framework.SequenceINN):
        shapes = _sequence_conditions(source)
        steps = [step for module, condition in zip(source.module_list, source.conditions, strict=True)
                 for step in _steps(module, [] if condition is None else [condition], shapes)]  # fmt: skip
        event = tuple(source.shapes[0])
    elif isinstance(source, framework.GraphINN):
        if len(source.in_nodes) != 1 or len(source.out_nodes) != 1:
            raise Unsupported(
                f"FrEIA GraphINN with {len(source.in_nodes)} inputs and {len(source.out_nodes)} outputs: a bundle's "
                "flow has one of each. Concatenate them inside the graph"
            )
        shapes = [tuple(node.dims) for node in source.condition_nodes]
        event = tuple(source.in_nodes[0].dims)
        steps = _graph_steps(source, shapes)
    else:
        raise Unsupported(f"FrEIA {type(source).__name__} cannot be imported: a SequenceINN or a GraphINN can")

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        z, ladj = source(x, c=_conditions(context, shapes))
        return base_log_prob(NormalBase(), z.flatten(1)) + per_row(ladj, x)

    latent = _latent_shape(source)

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        # a copy: some modules change what they undo
        result: Tensor = source(z.reshape(-1, *latent).clone(), c=_conditions(context, shapes), rev=True)[0]
        return result

    return AdaptedFlow(
        "FrEIA",
        steps,
        NormalBase(),
        event,
        log_prob,
        generate,
        context_width=sum(math.prod(shape) for shape in shapes),
        notes=["FrEIA's networks have no base: a standard normal was taken"],
    )


def _latent_shape(source: Any) -> tuple[int, ...]:  # noqa: ANN401
    shapes = source.shapes[-1] if isinstance(source, framework.SequenceINN) else source.global_out_shapes[0]
    return tuple(shapes)


def _sequence_conditions(source: Any) -> list[tuple[int, ...]]:  # noqa: ANN401
    """The shape of each condition, in the order in which `forward` takes them."""
    shapes: dict[int, tuple[int, ...]] = {}
    for module, condition in zip(source.module_list, source.conditions, strict=True):
        if condition is not None:
            shapes[condition] = tuple(module.dims_c[0])
    if sorted(shapes) != list(range(len(shapes))):
        raise Unsupported(f"FrEIA SequenceINN: the conditions {sorted(shapes)} are used, and others are not")
    return [shapes[index] for index in range(len(shapes))]


def _graph_steps(source: Any, shapes: Sequence[tuple[int, ...]]) -> list[Bijection]:  # noqa: ANN401
    """A step for each node where they follow one another; one for the whole graph where it branches."""
    special = [*source.in_nodes, *source.out_nodes, *source.condition_nodes]
    nodes = [node for node in source.node_list if all(node is not other for other in special)]
    if any(len(node.inputs) != 1 or len(node.outputs) != 1 for node in nodes):
        return [_WholeGraph(source, shapes)]
    positions = {id(node): index for index, node in enumerate(source.condition_nodes)}
    return [step for node in nodes
            for step in _steps(node.module, [positions[id(c)] for c in node.conditions], shapes)]  # fmt: skip


def _conditions(context: Tensor | None, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Cut a context ``[N, C]`` into the conditions ``[N, *shape]``."""
    if context is None:
        return []
    parts = torch.split_with_sizes(context, [math.prod(shape) for shape in shapes], dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def _steps(module: Any, conditions: list[int], shapes: Sequence[tuple[int, ...]]) -> list[Bijection]:  # noqa: ANN401
    if isinstance(module, modules.IResNetLayer):
        raise unsupported_layer(
            module,
            "its inverse is an iteration, and its log-determinant is an estimate",
            "Fit a coupling block to the same data",
        )
    if isinstance(module, modules.ActNorm) and module.init_on_next_batch:
        raise unsupported_layer(
            module,
            "it has seen no data: its first batch would set its scale",
            "Import the network after it was fitted, or load its weights",
        )
    if isinstance(module, _LINEAR) and not conditions:
        width = module.dims_in[0][0]
        return [linear_step(lambda x: module((x,)), width)]
    if isinstance(module, modules.PermuteRandom):
        return [Permutation(module.perm)]
    if isinstance(module, modules.LearnedElementwiseScaling) and len(module.dims_in[0]) == 1:
        # called as it is, its way back would have the log-determinant of the way there
        return [Affine(torch.zeros_like(module.s), -module.s)]
    if isinstance(module, modules.AllInOneBlock) and module.input_rank == 0:
        return _all_in_one(module, conditions, shapes)
    return [_FreiaModule(module, conditions, shapes)]


class _FreiaModule(Bijection):
    """A module of FrEIA with one input and one output, called as it is.

    Args:
        module: called with ``rev`` for the way back.
        conditions: which of the conditions it takes.
        shapes: the shape of each condition.
    """

    def __init__(self, module: nn.Module, conditions: list[int], shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.module, self.conditions, self.shapes = module, conditions, list(shapes)

    @property
    def name(self) -> str:
        """The module's own name."""
        return layer_name(self.module)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, ...]`` -> y."""
        return self._call(x, context, rev=False)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Y ``[N, ...]`` -> x; from a copy, which a Haar transform scales in place."""
        return self._call(y.clone(), context, rev=True)

    def _call(self, value: Tensor, context: Tensor | None, *, rev: bool) -> tuple[Tensor, Tensor]:
        given = _conditions(context, self.shapes)
        chosen = {"c": [given[index] for index in self.conditions]} if self.conditions else {}
        results, ladj = self.module((value,), rev=rev, **chosen)
        return results[0], per_row(ladj, value)


class _WholeGraph(Bijection):
    """A graph that branches, called as it is."""

    def __init__(self, graph: nn.Module, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.graph, self.shapes = graph, list(shapes)

    @property
    def name(self) -> str:
        """The graph's own name."""
        return layer_name(self.graph)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, ...]`` -> z."""
        z, ladj = self.graph(x, c=_conditions(context, self.shapes))
        return z, per_row(ladj, x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Z ``[N, ...]`` -> x."""
        x, ladj = self.graph(y.clone(), c=_conditions(context, self.shapes), rev=True)
        return x, per_row(ladj, y)


def _all_in_one(module: Any, conditions: list[int], shapes: Sequence[tuple[int, ...]]) -> list[Bijection]:  # noqa: ANN401
    """The coupling, and the scale, shift and permutation after it folded to one matrix; the pre-permutation before."""
    with torch.no_grad():
        learned = module._construct_householder_permutation if module.householder else None  # noqa: SLF001
        rotation = (module.w_perm if learned is None else learned()).detach()
        # the scale and the shift belong together: a GIN block has the shift alone
        scale = torch.ones(module.in_channels) if module.GIN else module.global_scale_activation(module.global_scale)
    scale, offset = scale.double().flatten(), module.global_offset.detach().double().flatten()
    after = FixedLinear(scale.unsqueeze(1) * rotation.double().T, offset @ rotation.double().T)
    coupling = _AllInOneCoupling(module, conditions, shapes)
    if module.reverse_pre_permute:
        return [FixedLinear(rotation.double()), coupling, after]
    return [coupling, after]


class _AllInOneCoupling(_FreiaModule):
    """The affine coupling inside an AllInOneBlock."""

    def _call(self, value: Tensor, context: Tensor | None, *, rev: bool) -> tuple[Tensor, Tensor]:
        module: Any = self.module
        given = _conditions(context, self.shapes)
        first, second = torch.split_with_sizes(value, module.splits, dim=1)
        shown = torch.cat((first, *(given[index] for index in self.conditions)), dim=1)
        second, ladj = module._affine(second, module.subnet(shown), rev=rev)  # noqa: SLF001
        return torch.cat((first, second), dim=1), per_row(ladj, value)
