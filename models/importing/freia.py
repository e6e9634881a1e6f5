"""Networks of FrEIA (https://github.com/vislearn/FrEIA, 0.2) as steps of this project.

FrEIA's modules take and give tuples, get their conditions as a list, and have no base: a standard normal is taken, to
which its loss trains them. A Haar transform scales its input in place on the way back; a learned Householder
permutation is made and stored in the module at each call; a linear module keeps M and an inverse of M in float32. A
graph may branch, and may have several outputs: they are one latent, one behind the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from FrEIA import framework, modules
from torch import Tensor, nn

from models.flows.bases import base_log_prob
from models.flows.flow import Bijection
from models.flows.images.layers import FixedConvolution
from models.flows.linear import FixedLinear
from models.importing.adapted import AdaptedFlow, Unsupported, unsupported_layer
from models.importing.descriptions import layer_name
from models.importing.images import act_norm
from models.importing.steps import Affine, Permutation, linear_step, per_row
from service.bundle.bases import NormalBase

__all__ = ["adapt"]

_LINEAR: Final = (modules.FixedLinearTransform, modules.OrthogonalTransform, modules.HouseholderPerm)
_UNTRACKED: Final = (
    "it has no log-determinant: FrEIA gives 0 for it, and its inverse is one only where it was trained to be",
    "Use an OrthogonalTransform, or a coupling block",
)
_WAYS_OUT: Final[dict[type, tuple[str, str]]] = {
    modules.IResNetLayer: (
        "its inverse is an iteration, and its log-determinant is an estimate",
        "Fit a coupling block to the same data",
    ),
    modules.InvAutoFC: _UNTRACKED,
    modules.InvAutoConv2D: _UNTRACKED,
    modules.InvertibleSigmoid: (
        "it squashes all rows into (0, 1), where the standard normal that FrEIA's networks are given is no density",
        "Squash the data before they reach the network",
    ),
    modules.GaussianMixtureModel: (
        "it moves a row by the one component of a mixture that it is told, and so has no density of the mixture",
        "Condition a coupling block instead",
    ),
}


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
        if len(source.in_nodes) != 1:
            raise Unsupported(
                f"FrEIA GraphINN with {len(source.in_nodes)} inputs: a bundle's flow has one. Cut it into the others "
                "inside the graph, by a Split"
            )
        shapes = [tuple(node.dims) for node in source.condition_nodes]
        event = tuple(source.in_nodes[0].dims)
        steps = _graph_steps(source, shapes)
    else:
        raise Unsupported(f"FrEIA {type(source).__name__} cannot be imported: a SequenceINN or a GraphINN can")

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        z, ladj = source(x, c=_conditions(context, shapes))
        whole = torch.cat([part.flatten(1) for part in ([z] if isinstance(z, Tensor) else z)], dim=1)
        return base_log_prob(NormalBase(), whole) + per_row(ladj, x)

    latents = _latent_shapes(source)

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        # copies: some modules change what they undo
        cut = torch.split(z, [math.prod(shape) for shape in latents], dim=1)
        parts = [part.reshape(-1, *shape).clone() for part, shape in zip(cut, latents, strict=True)]
        x = source(parts if len(parts) > 1 else parts[0], c=_conditions(context, shapes), rev=True)[0]
        return x if isinstance(x, Tensor) else x[0]

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


def _latent_shapes(source: Any) -> list[tuple[int, ...]]:  # noqa: ANN401
    shapes = [source.shapes[-1]] if isinstance(source, framework.SequenceINN) else source.global_out_shapes
    return [tuple(shape) for shape in shapes]


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
    if len(source.out_nodes) > 1 or any(len(node.inputs) != 1 or len(node.outputs) != 1 for node in nodes):
        return [_Graph(source, nodes, shapes)]
    return [step for node in nodes for step in _node_steps(source, node, shapes)]


def _node_steps(source: Any, node: Any, shapes: Sequence[tuple[int, ...]]) -> list[Bijection]:  # noqa: ANN401
    positions = {id(condition): index for index, condition in enumerate(source.condition_nodes)}
    return _steps(node.module, [positions[id(condition)] for condition in node.conditions], shapes)


def _conditions(context: Tensor | None, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """Cut a context ``[N, C]`` into the conditions ``[N, *shape]``."""
    if context is None:
        return []
    parts = torch.split_with_sizes(context, [math.prod(shape) for shape in shapes], dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def _steps(module: Any, conditions: list[int], shapes: Sequence[tuple[int, ...]]) -> list[Bijection]:  # noqa: ANN401
    if type(module) in _WAYS_OUT:
        raise unsupported_layer(module, *_WAYS_OUT[type(module)])
    if isinstance(module, modules.ActNorm):
        return [_act_norm(module)]
    if isinstance(module, modules.Fixed1x1Conv):
        return [FixedConvolution(module.M.double()[:, :, 0, 0])]
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


def _act_norm(module: Any) -> Bijection:  # noqa: ANN401
    scale, bias = module.scale.double(), module.bias.double()
    shift = bias * torch.exp(-scale)
    if len(module.dims_in) == 1:
        return Affine(-shift, -scale)
    return act_norm(shift, scale)


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


_Place = tuple[int, int]
"""A value in a graph: the number of the node that gives it, and the place of it among what that node gives."""


class _Graph(Bijection):
    """A graph that branches: rows are cut into parts and put together between the steps of its nodes.

    Args:
        source: the graph; one input, and as many outputs as it has.
        nodes: those of it that do something, in order.
        shapes: the shape of each condition.

    Raises:
        Unsupported: a node with several inputs or outputs is neither a `Split` nor a `Concat`, or what a node gives
            leads nowhere.
    """

    def __init__(self, source: Any, nodes: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> None:  # noqa: ANN401
        super().__init__()
        numbers = {id(node): number for number, node in enumerate([*nodes, *source.in_nodes, *source.out_nodes])}
        self.label = layer_name(source)
        self.latents = _latent_shapes(source)
        self.chains = nn.ModuleList()
        self.cuts: list[tuple[int, list[int]] | None] = []
        for node in nodes:
            cut = _cut(node)
            self.cuts.append(cut)
            self.chains.append(nn.ModuleList([] if cut is not None else _node_steps(source, node, shapes)))

        def places(ends: Sequence[Any]) -> list[_Place]:
            return [(numbers[id(node)], place) for node, place in ends]

        # towards the latent a node takes what its inputs give, and towards the data what its outputs do
        self.inputs = [places(node.inputs) for node in nodes]
        self.outputs = [places(node.outputs) for node in nodes]
        self.data = (places([(source.in_nodes[0], 0)])[0], places(source.in_nodes[0].outputs)[0])
        self.latent = [(places([(node, 0)])[0], places(node.inputs)[0]) for node in source.out_nodes]

    @property
    def name(self) -> str:
        """The graph's own name."""
        return self.label

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """X ``[N, ...]`` -> z ``[N, D]``."""
        values, ladj = {self.data[0]: x}, per_row(0.0, x)
        for number in range(len(self.cuts)):
            ladj = ladj + self._pass(number, values, context, inverse=False)
        return torch.cat([values[end].flatten(1) for _, end in self.latent], dim=1), ladj

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Z ``[N, D]`` -> x ``[N, ...]``."""
        parts = torch.split(y.flatten(1), [math.prod(shape) for shape in self.latents], dim=1)
        values = {
            start: part.reshape(-1, *shape)
            for (start, _), part, shape in zip(self.latent, parts, self.latents, strict=True)
        }
        ladj = per_row(0.0, y)
        for number in reversed(range(len(self.cuts))):
            ladj = ladj + self._pass(number, values, context, inverse=True)
        return values[self.data[1]], ladj

    def _pass(self, number: int, values: dict[_Place, Tensor], context: Tensor | None, *, inverse: bool) -> Tensor:
        """Take values through one node, and put what it gives beside them; gives the log-determinant ``[N]``."""
        given = [values[place] for place in (self.outputs if inverse else self.inputs)[number]]
        ladj, cut = per_row(0.0, given[0]), self.cuts[number]
        if cut is not None:
            axis, sizes = cut
            given = [torch.cat(given, dim=axis)] if len(given) > 1 else list(torch.split(given[0], sizes, dim=axis))
        chain: Any = self.chains[number]
        for step in reversed(chain) if inverse else chain:
            moved, term = (step.inverse if inverse else step)(given[0], context)
            given, ladj = [moved], ladj + term
        values.update({(number, place): value for place, value in enumerate(given)})
        return ladj


def _cut(node: Any) -> tuple[int, list[int]] | None:  # noqa: ANN401
    """The axis along which a node cuts or joins rows, and the sizes of the parts; None for one of one in- and output.

    Raises:
        Unsupported: it has several, and is no `Split` or `Concat`; or one of its outputs leads nowhere.
    """
    module = node.module
    if any(end is None for end in node.outputs):
        raise unsupported_layer(module, "one of its outputs leads nowhere", "Give each part of a row an OutputNode")
    if len(node.inputs) == len(node.outputs) == 1:
        return None
    if not isinstance(module, modules.Split | modules.Concat):
        raise unsupported_layer(
            module,
            f"it has {len(node.inputs)} inputs and {len(node.outputs)} outputs",
            "Cut and join rows by Split and Concat, between modules of one input and one output",
        )
    parts = node.output_dims if isinstance(module, modules.Split) else node.input_dims
    return module.dim + 1, [part[module.dim] for part in parts]


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
