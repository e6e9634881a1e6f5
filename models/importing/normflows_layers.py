"""The layers of normflows (https://github.com/VincentStimper/normalizing-flows, 1.7) as steps of this project.

normflows runs the other way: `forward` of a layer is z -> x, and its `inverse` is the normalizing direction. Some
layers make their log-determinant by `len(x)`, which export turns into the batch size of its example; the splines pick
their entries by boolean masks; LU solves have no operator; a checkerboard is picked by `nonzero`. Each has a step of
its own.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import normflows as nf
import torch
from normflows.flows.affine.autoregressive import Autoregressive as AnyAutoregressive
from normflows.flows.mixing import _LULinear, _Permutation
from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
from normflows.utils.nn import ActNorm as NetworkActNorm
from torch import Tensor, nn

from models.flows.conditional import Autoregressive, Coupling
from models.flows.flow import Bijection
from models.flows.images.layers import FixedConvolution, Squeeze
from models.flows.inverted import Inverted, invert_chain
from models.importing.adapted import unsupported_layer
from models.importing.images import ChannelSwap, Checkerboard, act_norm
from models.importing.neural_splines import (
    CumulativeDensity,
    LayerFunction,
    LibrarySpline,
    autoregressive_step,
    coupling_step,
    read_spline,
    size_scale,
)
from models.importing.squashing import InsetLogit
from models.importing.steps import Affine, LibraryLayer, Permutation, Translation, linear_step, per_row

__all__ = ["merge_steps", "steps_of", "with_plain_networks"]

_IN_PARTS: Final = (
    "it gives or takes a row in two parts",
    "Put Split, AffineCoupling and Merge together as an AffineCouplingBlock, or levels into a MultiscaleFlow",
)
_WAYS_OUT: Final[dict[type, tuple[str, str]]] = {
    nf.flows.Radial: ("it has no inverse of its own, and a density needs one", "Fit a flow that has, such as a spline"),
    nf.flows.Residual: (
        "its inverse is an iteration that stops by looking at its rows, and its log-determinant is an estimate",
        "Fit a coupling flow to the same data",
    ),
    nf.flows.BatchNorm: (
        "it scales by the batch it is given, so that a row's density depends on its neighbours, and has no inverse",
        "Use ActNorm, which keeps those of one batch",
    ),
    nf.flows.MetropolisHastings: ("it is random: it has no density", "Leave it out of the flow"),
    nf.flows.HamiltonianMonteCarlo: ("it is random: it has no density", "Leave it out of the flow"),
    nf.flows.PeriodicWrap: (
        "it sends many rows to one, which is not a bijection",
        "Wrap the columns before they are sent",
    ),
    **dict.fromkeys(
        (nf.flows.CircularCoupledRationalQuadraticSpline, nf.flows.CircularAutoregressiveRationalQuadraticSpline),
        (
            "outside its interval normflows sends every value to zero, which is not a bijection",
            "Map the angles to the reals, and use the spline of that name without Circular",
        ),
    ),
    nf.flows.CCAffineConst: (
        "it takes a class beside the row, which no flow of normflows hands to a layer",
        "Give the class to the couplings as context, or to the base",
    ),
    **dict.fromkeys((nf.flows.Split, nf.flows.Merge, nf.flows.AffineCoupling), _IN_PARTS),
}


def with_plain_networks(source: nn.Module) -> nn.Module:
    """A copy of a flow whose networks do not ask at each call whether their ActNorms have seen data.

    Args:
        source: a flow of normflows, all of whose ActNorms have seen data.
    """
    copied = copy.deepcopy(source)
    for module in copied.modules():
        if isinstance(module, NetworkActNorm):
            module.actNorm = _FittedActNorm(module.actNorm)
    return copied


def steps_of(flow: Any) -> list[Bijection]:  # noqa: ANN401  a flow of normflows, which has no types
    """The steps of a layer, from data to latent: those of its `inverse`.

    Raises:
        Unsupported: it holds one that cannot be exported.
    """
    flows = nf.flows
    if type(flow) in _WAYS_OUT:
        raise unsupported_layer(flow, *_WAYS_OUT[type(flow)])
    if isinstance(flow, flows.Planar) and flow.act != "leaky_relu":
        raise unsupported_layer(
            flow,
            f"with {flow.act} it has no inverse of its own, and a density needs one",
            "Fit a flow that has, such as a spline",
        )
    if isinstance(flow, flows.Composite):
        return [step for part in reversed(flow._flows) for step in steps_of(part)]  # noqa: SLF001
    if isinstance(flow, flows.GlowBlock):
        return [step for part in reversed(flow.flows) for step in steps_of(part)]
    if isinstance(flow, flows.Reverse):
        return invert_chain(steps_of(flow.flow))
    if isinstance(flow, flows.Permute):
        order = torch.arange(flow.num_channels).unsqueeze(1)
        return [Permutation(flow.inverse(order.T)[0][0])]
    if isinstance(flow, _Permutation):
        return invert_chain([Permutation(flow._permutation, flow._dim)])  # noqa: SLF001
    if isinstance(flow, (flows.InvertibleAffine, flows.LULinearPermute)):
        width = flow.num_channels if isinstance(flow, flows.InvertibleAffine) else flow.linear.features
        return [linear_step(flow.inverse, width)]
    if isinstance(flow, _LULinear):
        return invert_chain([linear_step(flow.forward, flow.features)])
    if isinstance(flow, flows.Invertible1x1Conv):
        return [FixedConvolution(flow._assemble_W() if flow.use_lu else flow.W)]  # noqa: SLF001
    if isinstance(flow, flows.ActNorm):
        return [_act_norm(flow)]
    if isinstance(flow, flows.AffineCouplingBlock):
        return _coupling_block(flow)
    if isinstance(flow, flows.Squeeze):
        return [Squeeze()]
    if isinstance(flow, nf.transforms.Shift):
        # it adds in place, to what the caller holds
        return [Translation(torch.as_tensor(flow.shift, dtype=torch.float64))]
    if isinstance(flow, nf.transforms.Logit):
        return [InsetLogit(float(flow.alpha))]
    if isinstance(flow, flows.PeriodicShift):
        return [_PeriodicShift(flow)]
    if isinstance(flow, flows.CoupledRationalQuadraticSpline):
        return [_coupling(flow.prqct)]
    if isinstance(flow, flows.AutoregressiveRationalQuadraticSpline):
        return [_autoregressive(flow.mprqat)]
    if isinstance(flow, AnyAutoregressive):
        return invert_chain([_autoregressive(flow)])
    return [LibraryLayer(flow, "inverse", "forward")]


def merge_steps(merge: Any) -> list[Bijection]:  # noqa: ANN401
    """The steps before a level's channels are cut: after them the first half goes on, and the second leaves.

    Args:
        merge: what puts two parts together, z -> x.

    Raises:
        Unsupported: it is no `Merge`, nor a `Split` taken the other way round.
    """
    turned = isinstance(merge, nf.flows.Reverse)
    split = merge.flow if turned else merge
    if not isinstance(split, nf.flows.Split) or isinstance(split, nf.flows.Merge) == turned:
        raise unsupported_layer(
            merge, "levels are put together by a Merge or a Split taken the other way round", "Use normflows' Merge"
        )
    return _halving(split.mode)


def _halving(mode: str) -> list[Bijection]:
    """The steps after which the two parts of a `Split` are the halves of the channels."""
    steps: dict[str, list[Bijection]] = {
        "channel": [],
        "channel_inv": [ChannelSwap()],
        "checkerboard": [Checkerboard(odd_first=True)],
        "checkerboard_inv": [Checkerboard(odd_first=False)],
    }
    return steps[mode]


def _coupling_block(block: Any) -> list[Bijection]:  # noqa: ANN401
    split, coupling, _ = block.flows
    before = _halving(split.mode)
    return [*before, _Halves(coupling, greater_first=split.mode != "channel_inv"), *map(Inverted, reversed(before))]


class _Halves(Bijection):
    """An affine coupling of the halves of the channels: the first one conditions, the second one moves.

    Args:
        layer: `AffineCoupling`, which takes and gives both parts.
        greater_first: whether the first half is the greater one of an odd number of channels.
    """

    def __init__(self, layer: nn.Module, *, greater_first: bool) -> None:
        super().__init__()
        self.layer, self.greater_first = layer, greater_first

    @property
    def name(self) -> str:
        """What the step is called."""
        return "normflows AffineCouplingBlock"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, C, ...]`` -> y."""
        return self._call("inverse", x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, C, ...]`` -> x."""
        return self._call("forward", y)

    def _call(self, method: str, value: Tensor) -> tuple[Tensor, Tensor]:
        cut = (value.shape[1] + self.greater_first) // 2
        parts, ladj = getattr(self.layer, method)([value[:, :cut], value[:, cut:]])
        return torch.cat(parts, dim=1), per_row(ladj, value)


def _coupling(layer: PiecewiseRationalQuadraticCoupling) -> Coupling:
    first = layer.unconditional_transform
    unconditional = None if first is None else CumulativeDensity(first, "rational_quadratic")
    return coupling_step(layer, _spline(layer, layer.transform_net), unconditional)


def _autoregressive(layer: Any) -> Autoregressive:  # noqa: ANN401
    if isinstance(layer, MaskedPiecewiseRationalQuadraticAutoregressive):
        return autoregressive_step(layer, _spline(layer, layer.autoregressive_net))
    return autoregressive_step(layer, LayerFunction(layer, "_elementwise_forward", "_elementwise_inverse"))


def _spline(layer: Any, network: nn.Module) -> LibrarySpline:  # noqa: ANN401
    scale = size_scale(network)
    return read_spline(layer, "rational_quadratic", layer.num_bins, (scale, scale))


def _act_norm(flow: Any) -> Bijection:  # noqa: ANN401
    if flow.s.ndim == 2:
        return Affine(flow.t, flow.s)
    if flow.s.ndim == 4 and flow.s.shape[2:] == (1, 1):
        return act_norm(-flow.t, -flow.s)
    return LibraryLayer(_FittedActNorm(flow), "inverse", "forward")


class _FittedActNorm(nn.Module):
    """An `ActNorm` that has seen its data: without the question whether it has."""

    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, z: Tensor) -> Any:  # noqa: ANN401
        return nf.flows.AffineConstFlow.forward(self.flow, z)

    def inverse(self, x: Tensor) -> Any:  # noqa: ANN401
        return nf.flows.AffineConstFlow.inverse(self.flow, x)


class _PeriodicShift(Bijection):
    """Some columns shifted, and wrapped back into [-bound, bound)."""

    def __init__(self, flow: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """X ``[N, D]`` -> y."""
        return self._moved(x, -self.flow.shift), per_row(0.0, x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Y ``[N, D]`` -> x."""
        return self._moved(y, self.flow.shift), per_row(0.0, y)

    def _moved(self, x: Tensor, shift: Tensor | float) -> Tensor:
        bound, index = self.flow.bound, torch.as_tensor(self.flow.ind)
        moved = torch.remainder(x.index_select(1, index) + shift + bound, 2 * bound) - bound
        return x.index_copy(1, index, moved)
