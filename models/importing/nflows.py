"""Flows and transforms of nflows (https://github.com/bayesiains/nflows, 0.14) as steps of this project.

nflows picks the entries of a spline by boolean masks, splits couplings by assignment to indices, solves triangular
systems in the inverse of its linear transforms, and sorts a permutation whenever it is undone. None of these can be in
a graph. `torch.solve`, which its `NaiveLinear` calls, is gone from torch altogether.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from nflows import distributions, flows, transforms
from nflows.transforms import autoregressive, coupling
from nflows.transforms.base import Transform
from nflows.transforms.linear import Linear as AnyLinear
from torch import Tensor, nn

from models.flows.bases import base_log_prob
from models.flows.conditional import Autoregressive, Coupling
from models.flows.flow import Bijection
from models.flows.images.layers import FixedConvolution, Levels, Squeeze
from models.flows.inverted import invert_chain
from models.importing import bases
from models.importing.adapted import AdaptedFlow, Unsupported, unsupported_layer
from models.importing.images import ChannelSwap, data_shape
from models.importing.neural_splines import (
    CumulativeDensity,
    Kind,
    LayerFunction,
    autoregressive_step,
    coupling_step,
    read_spline,
    size_scale,
)
from models.importing.squashing import LogTanh, Sigmoid, Tanh
from models.importing.steps import (
    ConditionalAffine,
    Embedding,
    LibraryLayer,
    Permutation,
    Translation,
    linear_step,
    per_row,
)
from service.bundle.bases import Base, NormalBase

__all__ = ["adapt"]

_COUPLINGS: Final[dict[type, Kind]] = {
    transforms.PiecewiseLinearCouplingTransform: "linear",
    transforms.PiecewiseQuadraticCouplingTransform: "quadratic",
    transforms.PiecewiseRationalQuadraticCouplingTransform: "rational_quadratic",
}
_AUTOREGRESSIVE: Final[dict[type, Kind]] = {
    transforms.MaskedPiecewiseLinearAutoregressiveTransform: "linear",
    transforms.MaskedPiecewiseQuadraticAutoregressiveTransform: "quadratic",
    transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform: "rational_quadratic",
}
_CUMULATIVE: Final[dict[type, Kind]] = {
    transforms.PiecewiseLinearCDF: "linear",
    transforms.PiecewiseQuadraticCDF: "quadratic",
    transforms.PiecewiseRationalQuadraticCDF: "rational_quadratic",
}
_SQUASHING: Final[dict[type, type]] = {
    transforms.Tanh: Tanh,
    transforms.LogTanh: LogTanh,
    transforms.Sigmoid: Sigmoid,
}
_CUBIC: Final = (
    transforms.PiecewiseCubicCouplingTransform,
    transforms.MaskedPiecewiseCubicAutoregressiveTransform,
    transforms.PiecewiseCubicCDF,
)


def adapt(source: nn.Module) -> AdaptedFlow:
    """Take a `Flow` or a `Transform` of nflows apart.

    Args:
        source: in float64 and evaluation mode. A transform alone has a standard normal base.

    Raises:
        Unsupported: a layer or the base cannot be exported.
    """
    if isinstance(source, Transform):

        def log_prob(x: Tensor, context: Tensor | None) -> Tensor:
            z, ladj = source(x, context)
            return base_log_prob(NormalBase(), z.flatten(1)) + per_row(ladj, x)

        return AdaptedFlow(
            "nflows",
            steps_of(source),
            NormalBase(),
            None,
            log_prob,
            lambda z, context: source.inverse(z, context)[0],
            notes=["a transform without a base: a standard normal was taken"],
        )
    if not isinstance(source, flows.Flow):
        raise Unsupported(f"nflows {type(source).__name__} is neither a Flow nor a Transform of nflows")
    base, extra = _base(source._distribution)  # noqa: SLF001  nflows has no public name for its parts
    shape = getattr(source._distribution, "_shape", None)  # noqa: SLF001
    embedding, transform = source._embedding_net, source._transform  # noqa: SLF001
    steps = steps_of(transform)

    def generate(z: Tensor, context: Tensor | None) -> Tensor:
        embedded = embedding(context)
        for step in reversed(extra):
            z, _ = step.inverse(z, embedded)
        result: Tensor = transform.inverse(z.reshape(-1, *(shape or z.shape[1:])), embedded)[0]
        return result

    return AdaptedFlow(
        "nflows",
        steps,
        base,
        None if shape is None else data_shape(steps, tuple(shape)),
        source.log_prob,
        generate,
        embedding=None if isinstance(embedding, nn.Identity) else Embedding(embedding),
        base_steps=extra,
    )


def _base(distribution: Any) -> tuple[Base, list[Bijection]]:  # noqa: ANN401
    if bases.is_own(distribution, distributions.StandardNormal, "_log_prob"):
        return NormalBase(), []
    if bases.is_own(distribution, distributions.DiagonalNormal, "_log_prob"):
        return bases.of_normal(distribution.mean_, distribution.log_std_), []
    if bases.is_own(distribution, distributions.ConditionalDiagonalNormal, "_log_prob"):
        encoder = distribution._context_encoder  # noqa: SLF001
        return NormalBase(), [ConditionalAffine(encoder if isinstance(encoder, nn.Module) else None)]
    return bases.of_distribution(distribution, "an nflows flow")


def steps_of(transform: Any) -> list[Bijection]:  # noqa: ANN401  a transform of nflows, which has no types
    """The steps of a transform, from data to latent.

    Raises:
        Unsupported: it holds one that cannot be exported.
    """
    kind = type(transform)
    if isinstance(transform, transforms.CompositeTransform):
        return [step for part in transform._transforms for step in steps_of(part)]  # noqa: SLF001
    if isinstance(transform, transforms.InverseTransform):  # a Logit among them
        return invert_chain(steps_of(transform._transform))  # noqa: SLF001
    if isinstance(transform, _CUBIC):
        raise unsupported_layer(
            transform,
            "it picks the roots of its cubic by boolean masks (aten.nonzero), and in float32 the roots are not exact",
            "Fit the rational-quadratic transform of the same name",
        )
    if kind in _CUMULATIVE:
        return [CumulativeDensity(transform, _CUMULATIVE[kind])]
    if isinstance(transform, coupling.CouplingTransform) and _inherits(transform, coupling.CouplingTransform):
        return [_coupling(transform)]
    if isinstance(transform, autoregressive.AutoregressiveTransform) and _inherits(
        transform, autoregressive.AutoregressiveTransform
    ):
        return [_autoregressive(transform)]
    if kind in _SQUASHING:
        return [_SQUASHING[kind](transform)]
    if kind is transforms.OneByOneConvolution:
        return _convolution(transform)
    if isinstance(transform, (AnyLinear, transforms.HouseholderSequence)):
        return [linear_step(_forward(transform), transform.features)]
    if isinstance(transform, transforms.Permutation):
        return [Permutation(transform._permutation, transform._dim)]  # noqa: SLF001
    if kind is transforms.SqueezeTransform:
        return [Squeeze(transform.factor)]
    if kind is transforms.MultiscaleCompositeTransform:
        return [_levels(transform)]
    return [LibraryLayer(transform)]


def _convolution(transform: Any) -> list[Bijection]:  # noqa: ANN401
    """A matrix and a shift of the channels, from what it makes of pixels of one channel each and of a black one."""
    channels = transform.features
    pixels = torch.cat((torch.eye(channels), torch.zeros(1, channels))).to(torch.float64)[:, :, None, None]
    made = transform(pixels)[0][:, :, 0, 0]
    return [FixedConvolution((made[:-1] - made[-1]).T), Translation(made[-1][:, None, None])]


def _levels(transform: Any) -> Levels:  # noqa: ANN401
    if transform._split_dim != 1:  # noqa: SLF001
        raise unsupported_layer(
            transform,
            f"it cuts its rows along axis {transform._split_dim}",  # noqa: SLF001
            "Cut them along the channels, split_dim=1",
        )
    *levels, last = [steps_of(part) for part in transform._transforms]  # noqa: SLF001
    # what nflows sends out first, the greater half, leaves last here
    return Levels([*([*level, ChannelSwap()] for level in levels), last], transform._output_shapes)  # noqa: SLF001


def _inherits(transform: nn.Module, base: type) -> bool:
    """Whether a layer's two directions are those of the library's base class: a user's own are called as they are."""
    kind = type(transform)
    return kind.forward is base.forward and kind.inverse is base.inverse  # type: ignore[attr-defined]


def _forward(transform: Any) -> Callable[[Tensor], Any]:  # noqa: ANN401
    # past the cache, whose weights may be older than the parameters
    function: Callable[[Tensor], Any] = transform.forward_no_cache if isinstance(transform, AnyLinear) else transform
    return function


def _coupling(transform: Any) -> Coupling:  # noqa: ANN401
    kind = _COUPLINGS.get(type(transform))
    unconditional = transform.unconditional_transform
    first = None if unconditional is None else steps_of(unconditional)[0]
    if kind is None:
        own = LayerFunction(transform, "_coupling_transform_forward", "_coupling_transform_inverse")
        return coupling_step(transform, own, first)
    scale = size_scale(transform.transform_net)
    return coupling_step(transform, read_spline(transform, kind, transform.num_bins, (scale, scale)), first)


def _autoregressive(transform: Any) -> Autoregressive:  # noqa: ANN401
    kind = _AUTOREGRESSIVE.get(type(transform))
    if kind is None:
        return autoregressive_step(transform, LayerFunction(transform, "_elementwise_forward", "_elementwise_inverse"))
    scale = size_scale(transform.autoregressive_net)
    # nflows scales the heights of its quadratic spline in couplings only
    scales = (scale, 1.0 if kind == "quadratic" else scale)
    return autoregressive_step(transform, read_spline(transform, kind, transform.num_bins, scales))
