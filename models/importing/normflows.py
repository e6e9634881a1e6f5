"""Flows of normflows (https://github.com/VincentStimper/normalizing-flows, 1.7) as steps of this project.

normflows runs the other way: `forward` of a flow is z -> x, and its `inverse` is the normalizing direction. Some flows
make their log-determinant by `len(x)`, which export turns into the batch size of its example; the splines pick their
entries by boolean masks; LU solves have no operator. Each has a step of its own here.
"""

from __future__ import annotations

import math
from typing import Any, Final

import normflows as nf
import torch
from normflows.distributions import base as distributions  # normflows.distributions has an encoder called Uniform
from normflows.flows.affine.autoregressive import Autoregressive as AnyAutoregressive
from normflows.flows.mixing import _LULinear
from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
from torch import Tensor, nn

from models.flows.conditional import Autoregressive, Coupling
from models.flows.flow import Bijection
from models.flows.inverted import invert_chain
from models.importing import bases
from models.importing.adapted import AdaptedFlow, Unsupported, unsupported_layer
from models.importing.neural_splines import (
    CumulativeDensity,
    LayerFunction,
    LibrarySpline,
    autoregressive_step,
    coupling_step,
    read_spline,
    size_scale,
)
from models.importing.steps import Affine, ConditionalAffine, LibraryLayer, Permutation, linear_step, per_row
from models.importing.support import box_of
from service.bundle.bases import Base, NormalBase

__all__ = ["adapt"]

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
    nf.flows.CCAffineConst: ("it takes a class beside the context", "Give the class to the couplings as context"),
}


def adapt(source: nn.Module) -> AdaptedFlow:
    """Take a `NormalizingFlow` or a `ConditionalNormalizingFlow` apart.

    Args:
        source: in float64 and evaluation mode.

    Raises:
        Unsupported: a layer or the base cannot be exported, or it is another class.
    """
    if not isinstance(source, nf.NormalizingFlow):
        raise Unsupported(
            f"normflows {type(source).__name__} cannot be imported: a NormalizingFlow or a ConditionalNormalizingFlow "
            "can. A flow with a base for each class, or with a latent at several scales, has no counterpart in a bundle"
        )
    base, extra = _base(source.q0)
    conditional = isinstance(source, nf.ConditionalNormalizingFlow)
    shape = getattr(source.q0, "shape", None) or ((source.q0.dim,) if hasattr(source.q0, "dim") else None)

    def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
        result: Tensor = source.log_prob(x, context=context) if conditional else source.log_prob(x)
        return result

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        for step in reversed(extra):
            z, _ = step.inverse(z, context)
        z = z.reshape(-1, *(shape or z.shape[1:]))
        result: Tensor = source.forward(z, context=context) if conditional else source.forward(z)
        return result

    return AdaptedFlow(
        "normflows",
        [step for flow in reversed(source.flows) for step in steps_of(flow)],
        base,
        None if shape is None else tuple(shape),
        log_prob,
        generate,
        context_width=None if conditional else 0,
        base_steps=extra,
    )


def _base(q0: Any) -> tuple[Base, list[Bijection]]:  # noqa: ANN401
    temperature = getattr(q0, "temperature", None)
    shift = 0.0 if temperature is None else math.log(temperature)
    if bases.is_own(q0, distributions.DiagGaussian):
        return bases.of_normal(q0.loc, q0.log_scale + shift), []
    if bases.is_own(q0, distributions.GlowBase) and not q0.class_cond:
        loc = q0.loc * torch.exp(q0.loc_logs * q0.logscale_factor)
        log_scale = q0.log_scale * torch.exp(q0.log_scale_logs * q0.logscale_factor) + shift
        return bases.of_normal(loc.expand(1, *q0.shape), log_scale.expand(1, *q0.shape)), []
    if bases.is_own(q0, distributions.GaussianMixture):
        return bases.of_mixture(q0.weight_scores[0], q0.loc[0], q0.log_scale[0]), []
    if bases.is_own(q0, distributions.Uniform):
        return bases.of_uniform(q0.low, q0.high)
    conditional = getattr(distributions, "ConditionalDiagGaussian", None)  # not in every version
    if conditional is not None and bases.is_own(q0, conditional) and len(q0.shape) == 1:
        return NormalBase(), [ConditionalAffine(q0.context_encoder)]
    raise bases.unsupported_base(q0, "a normflows flow")


def steps_of(flow: Any) -> list[Bijection]:  # noqa: ANN401  a flow of normflows, which has no types
    """The steps of a flow, from data to latent: those of its `inverse`.

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
    if isinstance(flow, (flows.InvertibleAffine, flows.LULinearPermute)):
        width = flow.num_channels if isinstance(flow, flows.InvertibleAffine) else flow.linear.features
        return [linear_step(flow.inverse, width)]
    if isinstance(flow, _LULinear):
        return invert_chain([linear_step(flow.forward, flow.features)])
    if isinstance(flow, flows.ActNorm):
        return [_act_norm(flow)]
    if isinstance(flow, flows.PeriodicShift):
        return [_PeriodicShift(flow)]
    if isinstance(flow, flows.CoupledRationalQuadraticSpline):
        return [_coupling(flow.prqct)]
    if isinstance(flow, flows.AutoregressiveRationalQuadraticSpline):
        return [_autoregressive(flow.mprqat)]
    if isinstance(flow, AnyAutoregressive):
        return invert_chain([_autoregressive(flow)])
    step = LibraryLayer(flow, "inverse", "forward")
    if isinstance(flow, nf.transforms.Logit):
        margin = flow.alpha / (1 - 2 * flow.alpha)
        step.domain = box_of(-margin, 1 + margin)
    return [step]


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
    if not float(flow.data_dep_init_done):
        raise unsupported_layer(
            flow,
            "it has seen no data: its first batch would set its scale",
            "Import the flow after it was fitted, or load its weights",
        )
    if flow.s.ndim == 2:
        return Affine(flow.t, flow.s)
    return LibraryLayer(_Scaling(flow))


class _Scaling(nn.Module):
    """An `ActNorm` of images that has seen its data: without the question whether it has."""

    def __init__(self, flow: Any) -> None:  # noqa: ANN401
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Any:  # noqa: ANN401
        return nf.flows.AffineConstFlow.inverse(self.flow, x)

    def inverse(self, y: Tensor) -> Any:  # noqa: ANN401
        return nf.flows.AffineConstFlow.forward(self.flow, y)


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
