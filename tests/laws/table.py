"""The one table of what the laws hold for: every bijection and every architecture, by name.

A new bijection or architecture is one line here, and every law of this folder is then held for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import zuko
from torch import Tensor, nn

from models.architectures import IMAGES as IMAGE_FLOWS
from models.architectures import build_flow
from models.flows.analytic import ANALYTIC, Affine, Exp, Rotation, Square, Tanh, tanh_box
from models.flows.autoregressive import iaf
from models.flows.base_options import Squash
from models.flows.bases import LearntBase
from models.flows.conditioners import Conditioner
from models.flows.couplings import bernstein, neural_spline_coupling
from models.flows.flow import Bijection, Flow
from models.flows.images.architectures import glow, image_spline
from models.flows.images.couplings import (
    ConvolutionalConditioner,
    Convolutions,
    affine_coupling,
    channel_halves,
    checkerboard,
    spline_coupling,
)
from models.flows.images.layers import (
    ActNorm,
    ChannelsFirst,
    FixedConvolution,
    InvertibleConvolution,
    MultiScale,
    Squeeze,
)
from models.flows.images.principal import Columns, Decoder, Encoder, PrincipalAxes, ResidualAxes
from models.flows.linear import FixedLinear, LULinear, Scaling
from models.flows.preprocess import Flatten, Logit, Standardize, Whiten, quantized_support
from models.flows.zuko_steps import from_zuko
from service.bundle.manifest import Support

ROWS = 6


def randomize(module: nn.Module, seed: int = 0, scale: float = 0.4) -> None:
    """Random weights in float64: as built, a coupling is the identity, and most mistakes hide behind it."""
    module.double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform(low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@dataclass(frozen=True)
class BijectionCase:
    make: Callable[[], Bijection]
    x: Tensor
    context_width: int = 0
    scale: float = 0.4

    def build(self) -> Bijection:
        bijection = self.make()
        randomize(bijection, scale=self.scale)
        return bijection.eval()

    @property
    def context(self) -> Tensor | None:
        return normal(self.x.shape[0], self.context_width, seed=3) if self.context_width else None


def coupling(width: int, context: int = 0, **options: Any) -> Bijection:
    return from_zuko(zuko.flows.RealNVP(width, context, transforms=1, hidden_features=(16,), **options).transform)[0]


def maf(width: int, context: int = 0) -> Bijection:
    return from_zuko(zuko.flows.MAF(width, context, transforms=1, hidden_features=(16,)).transform)[0]


def permutation() -> Bijection:
    order = torch.tensor([2, 0, 1])
    return from_zuko(zuko.lazy.UnconditionalTransform(zuko.transforms.PermutationTransform, order, buffer=True))[0]


def elementwise(context: int) -> Bijection:
    return from_zuko(zuko.flows.ElementWiseTransform(3, context, hidden_features=(8,)))[0]


def whiten(width: int) -> Bijection:
    mixing = normal(width, width)
    correlation = mixing @ mixing.T + torch.eye(width)
    return Whiten(correlation)


ONE: dict[str, Any] = {"transforms": 1, "conditioner": Conditioner(hidden=(16,))}
SPLINE = {"univariate": zuko.transforms.MonotonicRQSTransform, "shapes": [(4,), (4,), (3,)]}


def convolutions(channels: tuple[int, int], context: int = 0) -> Convolutions:
    return Convolutions(channels, (2, 3), context, hidden=6, blocks=1, activation=nn.ReLU, reach=10.0)


def image_chain(make: Callable[..., list[Bijection]], context: int = 0, **options: Any) -> Bijection:
    return make((4, 4, 2), context, transforms=2, conditioner=ConvolutionalConditioner(hidden=6), **options)[1]


def multi_scale() -> Bijection:
    return MultiScale([[Squeeze(), ActNorm(4)], [Squeeze(), ActNorm(8)]], (1, 4, 4))


def principal_axes(width: int, leading: int, *, folded: bool = False) -> Bijection:
    step = PrincipalAxes(width, leading).double()
    step.initialize(normal(40, width) @ normal(width, width, seed=4) + 3.0)
    return step.folded() if folded else step


def small_network(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 8), nn.SiLU(), nn.Linear(8, outputs))


PLANES = normal(ROWS, 4, 2, 3)

BIJECTIONS: dict[str, BijectionCase] = {
    "flatten": BijectionCase(lambda: Flatten((2, 2, 1)), normal(ROWS, 2, 2, 1)),
    "standardize": BijectionCase(lambda: Standardize(normal(3), normal(3).abs() + 0.1), normal(ROWS, 3)),
    "standardize, image": BijectionCase(
        lambda: Standardize(normal(2, 2, 1), normal(2, 2, 1).abs() + 0.1), normal(ROWS, 2, 2, 1)
    ),
    "whiten": BijectionCase(lambda: whiten(4), normal(ROWS, 4)),
    "fixed linear": BijectionCase(lambda: FixedLinear(normal(4, 4)), normal(ROWS, 4)),
    "LU linear": BijectionCase(lambda: LULinear(4), normal(ROWS, 4)),
    "scaling": BijectionCase(lambda: Scaling(3), normal(ROWS, 3)),
    "logit": BijectionCase(lambda: Logit(-0.5, 16.5), uniform(-0.5, 16.5, ROWS, 3)),
    "logit, image": BijectionCase(lambda: Logit(0.0, 1.0), uniform(0.0, 1.0, ROWS, 2, 2, 1)),
    "square": BijectionCase(Square, uniform(0.0, 4.0, ROWS, 2)),
    "affine": BijectionCase(lambda: Affine(normal(3, 3).tolist(), [1.0, -2.0, 3.0]), normal(ROWS, 3)),
    "rotation": BijectionCase(lambda: Rotation(2.0), normal(ROWS, 2)),
    "exp": BijectionCase(Exp, uniform(0.0, 9.0, ROWS, 2)),
    "tanh": BijectionCase(Tanh, uniform(-1.0, 1.0, ROWS, 2)),
    "squash": BijectionCase(Squash, 3 * normal(ROWS, 3)),
    "affine coupling": BijectionCase(lambda: coupling(5), normal(ROWS, 5)),
    "affine coupling, conditional": BijectionCase(lambda: coupling(4, 3), normal(ROWS, 4), 3),
    "spline coupling": BijectionCase(lambda: coupling(4, **SPLINE), normal(ROWS, 4)),
    "bernstein coupling": BijectionCase(lambda: bernstein(4, 2, **ONE)[0], 3 * normal(ROWS, 4), 2),
    "rational-quadratic coupling": BijectionCase(
        lambda: neural_spline_coupling(4, 2, **ONE)[0], 3 * normal(ROWS, 4), 2
    ),
    "inverse autoregressive, conditional": BijectionCase(lambda: iaf(4, 2, **ONE)[0], normal(ROWS, 4), 2),
    "affine autoregressive": BijectionCase(lambda: maf(4), normal(ROWS, 4)),
    "affine autoregressive, conditional": BijectionCase(lambda: maf(3, 2), normal(ROWS, 3), 2),
    "elementwise": BijectionCase(lambda: elementwise(0), normal(ROWS, 3)),
    "elementwise, conditional": BijectionCase(lambda: elementwise(2), normal(ROWS, 3), 2),
    "permutation": BijectionCase(permutation, normal(ROWS, 3)),
    "channels first": BijectionCase(lambda: ChannelsFirst((2, 3, 2)), normal(ROWS, 12)),
    "squeeze": BijectionCase(Squeeze, normal(ROWS, 2, 4, 6)),
    "actnorm": BijectionCase(lambda: ActNorm(4), PLANES),
    "1x1 convolution": BijectionCase(lambda: InvertibleConvolution(torch.tensor([2, 0, 3, 1])), PLANES),
    "1x1 convolution, folded": BijectionCase(lambda: FixedConvolution(normal(4, 4)), PLANES),
    "image affine coupling": BijectionCase(lambda: affine_coupling(checkerboard(4), convolutions, 0.05), PLANES),
    "image affine coupling, conditional": BijectionCase(
        lambda: affine_coupling(channel_halves(4), partial(convolutions, context=2), 0.05), PLANES, 2
    ),
    "image spline coupling": BijectionCase(
        lambda: spline_coupling(~channel_halves(4), convolutions, 4, 2.0, 0.01), PLANES
    ),
    "image spline coupling, conditional": BijectionCase(
        lambda: spline_coupling(checkerboard(4), partial(convolutions, context=2), 4, 2.0, 0.01), PLANES, 2
    ),
    "principal axes": BijectionCase(lambda: principal_axes(7, 3), normal(ROWS, 7)),
    "principal axes, folded": BijectionCase(lambda: principal_axes(7, 3, folded=True), normal(ROWS, 7)),
    "encoder": BijectionCase(lambda: Encoder(2, small_network(3, 2)), normal(ROWS, 5)),
    "encoder, conditional": BijectionCase(lambda: Encoder(2, small_network(5, 2)), normal(ROWS, 5), 2),
    "decoder": BijectionCase(lambda: Decoder(2, small_network(2, 3)), normal(ROWS, 5)),
    "decoder, conditional": BijectionCase(lambda: Decoder(2, small_network(4, 3)), normal(ROWS, 5), 2),
    "residual axes": BijectionCase(lambda: ResidualAxes(7, 3), normal(ROWS, 7)),
    "columns": BijectionCase(lambda: Columns(1, 4, LULinear(3)), normal(ROWS, 5)),
    "columns, conditional": BijectionCase(lambda: Columns(0, 4, coupling(4, 3)), normal(ROWS, 6), 3),
    "multi-scale": BijectionCase(multi_scale, normal(ROWS, 1, 4, 4)),
    "multi-scale, glow": BijectionCase(lambda: image_chain(glow), normal(ROWS, 2, 4, 4), scale=0.15),
    "multi-scale, spline, conditional": BijectionCase(
        lambda: image_chain(image_spline, 3, bins=3), normal(ROWS, 2, 4, 4), 3, 0.15
    ),
}


@dataclass(frozen=True)
class FlowCase:
    make: Callable[[], Flow]
    x: Tensor
    context: Tensor | None = None
    scale: float = 0.3

    def build(self) -> Flow:
        flow = self.make()
        for bijection in flow.bijections:
            randomize(bijection, scale=self.scale)
        if isinstance(flow.latent, LearntBase):
            randomize(flow.latent, scale=self.scale)
        return flow.double().eval()


def architecture(
    x: Tensor, name: str, options: dict[str, Any], context: Tensor | None = None, support: Support | None = None
) -> FlowCase:
    # through a logit, weights of any size send draws from the base onto the ends of the support; and a 3 x 3
    # convolution adds up nine times as many of them
    scale = 0.3 if support is None and name not in IMAGE_FLOWS else 0.1
    return FlowCase(partial(build_flow, name, options, rows=x, context=context, support=support), x, context, scale)


def table_of(width: int) -> Tensor:
    return normal(40, width) * torch.linspace(0.1, 50.0, width) + torch.linspace(-100.0, 100.0, width)


def of_family(name: str, options: dict[str, Any]) -> dict[str, FlowCase]:
    """Every family at two columns, and wider with context."""
    return {
        f"{name}, D = 2": architecture(table_of(2), name, options),
        f"{name}, D = 6, conditional": architecture(table_of(6), name, options, normal(40, 3) * 5 + 7),
    }


IMAGES = torch.floor(uniform(0.0, 17.0, 40, 4, 4, 1))
COLOURS = 3.0 * normal(40, 4, 4, 2) + 10.0
CONVOLUTIONAL: dict[str, Any] = {"transforms": 2, "hidden": 6}
PRINCIPAL: dict[str, Any] = {
    "leading": 4,
    "encoder": [12, 8],
    "decoder": [12],
    "residual": 3,
    "transforms": 2,
    "hidden": [8],
    "activation": "silu",
}
SMALL: dict[str, Any] = {"transforms": 2, "hidden": [12]}


def based(base: str, **options: Any) -> FlowCase:
    return architecture(table_of(3), "real_nvp", {**SMALL, "base": base, **options})


FLOWS: dict[str, FlowCase] = {
    "real_nvp, D = 2": architecture(table_of(2), "real_nvp", SMALL),
    "real_nvp, D = 16, conditional": architecture(table_of(16), "real_nvp", SMALL, normal(40, 3) * 5 + 7),
    "real_nvp, D = 64, random masks, whitened": architecture(
        table_of(64), "real_nvp", {**SMALL, "masks": "random", "activation": "tanh", "whiten": True}
    ),
    "real_nvp, image, bounded": architecture(IMAGES, "real_nvp", SMALL, support=quantized_support(0, 16)),
    "real_nvp, image, conditional": architecture(IMAGES, "real_nvp", SMALL, normal(40, 2)),
    "real_nvp, D = 3, dropout": architecture(table_of(3), "real_nvp", {**SMALL, "dropout": 0.2, "activation": "silu"}),
    "real_nvp, D = 3, base diagonal_normal": based("diagonal_normal"),
    "real_nvp, D = 3, base student_t": based("student_t", degrees_of_freedom=3),
    "real_nvp, D = 3, base mixture": based("mixture", components=3),
    "real_nvp, D = 3, base uniform": based("uniform"),
    **of_family("nice", SMALL),
    **of_family("maf", SMALL),
    **of_family("iaf", SMALL),
    **of_family("neural_spline_coupling", SMALL),
    **of_family("neural_spline_autoregressive", SMALL),
    **of_family("neural_spline_mixed", {"blocks": 1, "hidden": [12]}),
    **of_family("bernstein", SMALL),
    "neural_spline_autoregressive, D = 1": architecture(table_of(1), "neural_spline_autoregressive", SMALL),
    "maf, D = 3, without an order, conditional": architecture(
        table_of(3), "maf", {**SMALL, "orders": "none"}, normal(40, 3) * 5 + 7
    ),
    "maf, D = 1, conditional": architecture(table_of(1), "maf", SMALL, normal(40, 3) * 5 + 7),
    "neural_spline_mixed, affine couplings, spline autoregression": architecture(
        table_of(3),
        "neural_spline_mixed",
        {"blocks": 2, "hidden": [12], "couplings": "affine", "autoregression": "spline", "masks": "random"},
    ),
    "square": FlowCase(ANALYTIC["square"], uniform(0.0, 4.0, 40, 1)),
    "affine": FlowCase(ANALYTIC["affine"], 3 * normal(40, 2)),
    "exp": FlowCase(ANALYTIC["exp"], uniform(0.0, 5.0, 40, 1)),
    "tanh_box": FlowCase(partial(tanh_box, 2), uniform(-1.0, 1.0, 40, 2)),
    "rotation": FlowCase(ANALYTIC["rotation"], 3 * normal(40, 2)),
    "chain": FlowCase(ANALYTIC["chain"], uniform(-1.0, 1.0, 40, 2)),
    "image_real_nvp, bounded": architecture(IMAGES, "image_real_nvp", CONVOLUTIONAL, support=quantized_support(0, 16)),
    "image_real_nvp, two channels": architecture(COLOURS, "image_real_nvp", {**CONVOLUTIONAL, "blocks": 1}),
    "glow": architecture(IMAGES, "glow", {**CONVOLUTIONAL, "dropout": 0.2}),
    "glow, two channels, conditional": architecture(COLOURS, "glow", CONVOLUTIONAL, normal(40, 3) * 5 + 7),
    "image_spline, bounded": architecture(
        IMAGES, "image_spline", {**CONVOLUTIONAL, "transforms": 1, "bins": 4}, support=quantized_support(0, 16)
    ),
    "image_principal, bounded": architecture(IMAGES, "image_principal", PRINCIPAL, support=quantized_support(0, 16)),
    "image_principal, two channels, conditional": architecture(COLOURS, "image_principal", PRINCIPAL, normal(40, 3)),
    "image_spline, two channels, conditional": architecture(
        COLOURS, "image_spline", {**CONVOLUTIONAL, "bins": 4}, normal(40, 3)
    ),
}
