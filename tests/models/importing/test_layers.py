"""Every layer and flow of the installed versions of the libraries is taken, or refused by its name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import FrEIA
import FrEIA.framework as Ff
import FrEIA.modules as Fm
import nflows
import nflows.transforms
import normflows as nf
import numpy as np
import pytest
import torch
import zuko
from nflows import distributions, transforms
from nflows.flows import Flow, MaskedAutoregressiveFlow, SimpleRealNVP
from torch import Tensor, nn
from torch.distributions import Normal, Transform
from torch.distributions import transforms as torch_transforms
from zuko.lazy import LazyTransform, UnconditionalDistribution, UnconditionalTransform

from models.export.exported_graph import ExportedGraph
from models.export.graph import export_graph
from models.importing.adapted import Unsupported
from models.importing.agreement import check_agreement
from models.importing.load import draw_rows
from models.importing.take import take
from service.errors import DataError, ForbiddenGraph
from tests.models.importing.families import network, perceptron

IMAGE = (4, 4, 4)  # channels, rows, columns
TAKEN = ""


@dataclass(frozen=True)
class Layer:
    """One class of a library.

    Args:
        make: a flow with it.
        refusal: a part of the message that refuses it; "" where it is taken.
        export: a part of the message that refuses it as a graph; "" where it is one.
    """

    make: Callable[[], object]
    refusal: str = TAKEN
    export: str = TAKEN


def classes(package: ModuleType, kind: type, *, tests: str = "_test") -> set[str]:
    """The names of the classes of a package that inherit from one."""
    found = set()
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if info.name.endswith(tests) or info.name.endswith("conftest"):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = importlib.import_module(info.name)
        found |= {
            each.__name__
            for each in vars(module).values()
            if inspect.isclass(each) and issubclass(each, kind) and _defined(each, package.__name__)
        }
    return found


def _defined(kind: type, package: str) -> bool:
    """Whether a class is one of a package under its own name; an old name warns, and is a class of its own."""
    return kind.__module__.startswith(package) and hasattr(importlib.import_module(kind.__module__), kind.__name__)


def normal(width: int) -> nn.Module:
    return UnconditionalDistribution(zuko.distributions.DiagNormal, torch.zeros(width), torch.ones(width))


def box(low: float, high: float) -> nn.Module:
    return UnconditionalDistribution(
        zuko.distributions.BoxUniform, torch.full((2,), float(low)), torch.full((2,), float(high))
    )


def lazy(transform: nn.Module, base: nn.Module | None = None) -> Callable[[], nn.Module]:
    return lambda: zuko.lazy.Flow([transform], base or normal(2))


def constant(kind: Any, *args: Any, base: nn.Module | None = None, inverse: bool = False, **named: Any) -> Any:
    """A flow of one transform of zuko's or torch's, which is the same for every context."""

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            buffer = any(isinstance(v, Tensor) and not v.is_floating_point() for v in (*args, *named.values()))
            transform = UnconditionalTransform(kind, *args, buffer=buffer, **named)
        return zuko.lazy.Flow([transform.inv if inverse else transform], base or normal(2))

    return make


class Sums(nn.Module):
    """What an autoregressive or a free-form transform of zuko asks for: a transform for each row, or a derivative."""

    def forward(self, x: Tensor) -> Any:
        shifted = nn.functional.pad(x[..., :-1], (1, 0))
        return zuko.transforms.DependentTransform(zuko.transforms.AdditiveTransform(0.5 * shifted), 1)


G = torch.Generator().manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=G)


NO_BIJECTION = "it is no bijection"
FAKE = "fake tensor"
T = zuko.transforms
ZUKO_TRANSFORMS = {
    "Transform": Layer(constant(Transform), "Transform"),
    "AbsTransform": Layer(constant(T.AbsTransform), NO_BIJECTION),
    "LowerCholeskyTransform": Layer(constant(T.LowerCholeskyTransform), NO_BIJECTION),
    "PositiveDefiniteTransform": Layer(constant(T.PositiveDefiniteTransform), NO_BIJECTION),
    "SoftmaxTransform": Layer(constant(T.SoftmaxTransform), NO_BIJECTION),
    "CorrCholeskyTransform": Layer(constant(T.CorrCholeskyTransform), "does not run on rows of shape"),
    "StickBreakingTransform": Layer(constant(T.StickBreakingTransform, base=normal(3)), "does not run on rows"),
    "ReshapeTransform": Layer(constant(T.ReshapeTransform, (2,), (2, 1)), "does not run on rows of shape"),
    "AdditiveTransform": Layer(constant(T.AdditiveTransform, random(2))),
    "AffineTransform": Layer(constant(T.AffineTransform, 0.5, 2.0)),
    "AutoregressiveTransform": Layer(constant(T.AutoregressiveTransform, meta=Sums(), passes=2)),
    "BernsteinTransform": Layer(constant(T.BernsteinTransform, random(2, 6)), export=FAKE),
    "BoundedBernsteinTransform": Layer(constant(T.BoundedBernsteinTransform, random(2, 6)), export=FAKE),
    "CatTransform": Layer(constant(T.CatTransform, [T.IdentityTransform(), T.IdentityTransform()], dim=-1)),
    "CircularShiftTransform": Layer(constant(T.CircularShiftTransform, 1.0, base=box(-1, 1))),
    "ComposeTransform": Layer(constant(T.ComposeTransform, [T.IdentityTransform(), T.AffineTransform(1.0, 2.0)])),
    "ComposedTransform": Layer(constant(T.ComposedTransform, T.IdentityTransform(), T.AffineTransform(1.0, 2.0))),
    "CosTransform": Layer(constant(T.CosTransform, base=box(-1, 1)), export="Acos"),
    "CouplingTransform": Layer(
        constant(T.CouplingTransform, meta=Sums(), mask=torch.tensor([True, False])),
        "CouplingTransform cannot be exported: it looks for its columns anew",
    ),
    "CumulativeDistributionTransform": Layer(
        constant(T.CumulativeDistributionTransform, Normal(0.0, 1.0), base=box(0, 1)), export="cannot be written"
    ),
    "DependentTransform": Layer(constant(T.DependentTransform, T.IdentityTransform(), 1)),
    "ExpTransform": Layer(constant(T.ExpTransform, inverse=True)),
    "FreeFormJacobianTransform": Layer(
        constant(partial(T.FreeFormJacobianTransform, f=Sums(), t0=0.0, t1=1.0)), "it solves a differential equation"
    ),
    "GaussianizationTransform": Layer(
        constant(T.GaussianizationTransform, random(2, 3), random(2, 3)), export="cannot"
    ),
    "IdentityTransform": Layer(constant(T.IdentityTransform)),
    "IndependentTransform": Layer(constant(T.IndependentTransform, T.AffineTransform(1.0, 2.0), 1)),
    "LULinearTransform": Layer(constant(T.LULinearTransform, torch.eye(2) + 0.3 * random(2, 2))),
    "MonotonicAffineTransform": Layer(constant(T.MonotonicAffineTransform, random(2), random(2))),
    "MonotonicRQSTransform": Layer(constant(T.MonotonicRQSTransform, random(2, 4), random(2, 4), random(2, 3))),
    "MonotonicTransform": Layer(constant(partial(T.MonotonicTransform, f=torch.sinh)), export="Sinh"),
    "PermutationTransform": Layer(constant(T.PermutationTransform, torch.tensor([1, 0]))),
    "PowerTransform": Layer(constant(T.PowerTransform, torch.tensor([2.0, 0.5]), base=box(0, 1))),
    "RotationTransform": Layer(constant(T.RotationTransform, random(2, 2))),
    "SOSPolynomialTransform": Layer(constant(T.SOSPolynomialTransform, random(2, 2, 3))),
    "SigmoidTransform": Layer(constant(T.SigmoidTransform, base=box(0, 1))),
    "SignedPowerTransform": Layer(constant(T.SignedPowerTransform, 0.1 * random(2))),
    "SinTransform": Layer(constant(T.SinTransform, base=box(-1, 1)), export="Asin"),
    "SoftclipTransform": Layer(constant(T.SoftclipTransform, 5.0, base=box(-5, 5))),
    "SoftplusTransform": Layer(constant(T.SoftplusTransform, inverse=True)),
    "StackTransform": Layer(
        constant(T.StackTransform, [T.IdentityTransform(), T.AffineTransform(1.0, 2.0)], dim=-1), "does not run on rows"
    ),
    "TanhTransform": Layer(constant(T.TanhTransform, base=box(-1, 1)), export="Atanh"),
    "UnconstrainedMonotonicTransform": Layer(constant(T.UnconstrainedMonotonicTransform, lambda x: 1 + x * x)),
}

ZUKO_LAZY = {
    "LazyTransform": Layer(lazy(type("Mine", (LazyTransform,), {"forward": lambda _, c: c * T.IdentityTransform()})()),
                           "does not run"),
    "LazyInverse": Layer(lazy(UnconditionalTransform(T.IdentityTransform).inv.inv)),
    "LazyComposedTransform": Layer(lazy(zuko.lazy.LazyComposedTransform(UnconditionalTransform(T.IdentityTransform)))),
    "UnconditionalTransform": Layer(lazy(UnconditionalTransform(T.IdentityTransform))),
    "ElementWiseTransform": Layer(lazy(zuko.flows.gaussianization.ElementWiseTransform(2))),
    "GeneralCouplingTransform": Layer(lazy(zuko.flows.coupling.GeneralCouplingTransform(2, hidden_features=(8,)))),
    "MaskedAutoregressiveTransform": Layer(
        lazy(zuko.flows.autoregressive.MaskedAutoregressiveTransform(2, hidden_features=(8,)))),
    "FFJTransform": Layer(lazy(zuko.flows.continuous.FFJTransform(2, hidden_features=(8,))), "a differential equation"),
}  # fmt: skip


def nflow(transform: Any, base: Any = None) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in transform.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Flow(transform, base or distributions.StandardNormal([2]))


def halves(kind: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nflow(kind(torch.tensor([0, 1]), network(0), **options))


def autoregressive(kind: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nflow(kind(features=2, hidden_features=8, num_blocks=1, **options))


def between_sigmoids(transform: Any) -> nn.Module:
    return nflow(transforms.CompositeCDFTransform(transforms.Sigmoid(), transform))


def fitted(make: Callable[[], nn.Module], rows: Callable[[], Tensor]) -> Callable[[], nn.Module]:
    """A flow whose ActNorms have seen data."""

    def made() -> nn.Module:
        flow: Any = make()
        flow.train().log_prob(rows())
        return flow.eval()  # type: ignore[no-any-return]

    return made


def cut(axis: int) -> nn.Module:
    transform = transforms.MultiscaleCompositeTransform(2, split_dim=axis)
    shape = transform.add_transform(transforms.OneByOneConvolution(4, identity_init=False), IMAGE)
    transform.add_transform(transforms.IdentityTransform(), shape)
    return nflow(transform, distributions.StandardNormal([64]))


def image_of_nflows(transform: Any, shape: tuple[int, ...] = IMAGE) -> nn.Module:
    return nflow(transform, distributions.StandardNormal(shape))


def rows_of(*shape: int) -> Callable[[], Tensor]:
    return lambda: 2 * torch.randn(50, *shape, generator=torch.Generator().manual_seed(1)) + 1


TAILS = {"tails": "linear", "tail_bound": 3.0, "num_bins": 4}
CUBIC = "it picks the roots of its cubic by boolean masks"
NFLOWS = {
    "Transform": Layer(lambda: nflow(transforms.Transform()), "does not run on rows of shape"),
    "AdditiveCouplingTransform": Layer(halves(transforms.AdditiveCouplingTransform)),
    "AffineCouplingTransform": Layer(halves(transforms.AffineCouplingTransform)),
    "PiecewiseLinearCouplingTransform": Layer(halves(transforms.PiecewiseLinearCouplingTransform, **TAILS)),
    "PiecewiseQuadraticCouplingTransform": Layer(halves(transforms.PiecewiseQuadraticCouplingTransform, **TAILS)),
    "PiecewiseRationalQuadraticCouplingTransform": Layer(
        halves(transforms.PiecewiseRationalQuadraticCouplingTransform, **TAILS)),
    "PiecewiseCubicCouplingTransform": Layer(halves(transforms.PiecewiseCubicCouplingTransform, **TAILS), CUBIC),
    "CouplingTransform": Layer(lambda: None), "PiecewiseCouplingTransform": Layer(lambda: None),
    "AutoregressiveTransform": Layer(lambda: None), "Linear": Layer(lambda: None),
    "MaskedAffineAutoregressiveTransform": Layer(autoregressive(transforms.MaskedAffineAutoregressiveTransform)),
    "MaskedPiecewiseLinearAutoregressiveTransform": Layer(lambda: between_sigmoids(
        transforms.MaskedPiecewiseLinearAutoregressiveTransform(4, 2, 8))),
    "MaskedPiecewiseQuadraticAutoregressiveTransform": Layer(
        autoregressive(transforms.MaskedPiecewiseQuadraticAutoregressiveTransform, **TAILS)),
    "MaskedPiecewiseRationalQuadraticAutoregressiveTransform": Layer(
        autoregressive(transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform, **TAILS)),
    "MaskedPiecewiseCubicAutoregressiveTransform": Layer(lambda: between_sigmoids(
        transforms.MaskedPiecewiseCubicAutoregressiveTransform(4, 2, 8)), CUBIC),
    "PiecewiseLinearCDF": Layer(lambda: between_sigmoids(transforms.PiecewiseLinearCDF([2], 4))),
    "PiecewiseQuadraticCDF": Layer(lambda: between_sigmoids(transforms.PiecewiseQuadraticCDF([2], 4))),
    "PiecewiseRationalQuadraticCDF": Layer(lambda: between_sigmoids(transforms.PiecewiseRationalQuadraticCDF([2], 4))),
    "PiecewiseCubicCDF": Layer(lambda: between_sigmoids(transforms.PiecewiseCubicCDF([2], 4)), CUBIC),
    "CompositeTransform": Layer(lambda: nflow(transforms.CompositeTransform([transforms.LULinear(2)]))),
    "InverseTransform": Layer(lambda: nflow(transforms.InverseTransform(transforms.LULinear(2)))),
    "CompositeCDFTransform": Layer(lambda: between_sigmoids(transforms.PiecewiseLinearCDF([2], 4))),
    "MultiscaleCompositeTransform": Layer(lambda: cut(1)),
    "MultiscaleCompositeTransform, other axis": Layer(lambda: cut(2), "it cuts its rows along axis 2"),
    "OneByOneConvolution": Layer(lambda: image_of_nflows(transforms.OneByOneConvolution(4))),
    "SqueezeTransform": Layer(lambda: image_of_nflows(transforms.SqueezeTransform(), (16, 2, 2))),
    "LULinear": Layer(lambda: nflow(transforms.LULinear(2))),
    "NaiveLinear": Layer(lambda: nflow(transforms.NaiveLinear(2))),
    "QRLinear": Layer(lambda: nflow(transforms.QRLinear(2, num_householder=2))),
    "SVDLinear": Layer(lambda: nflow(transforms.SVDLinear(2, num_householder=2))),
    "HouseholderSequence": Layer(lambda: nflow(transforms.HouseholderSequence(2, 2))),
    "Permutation": Layer(lambda: image_of_nflows(transforms.Permutation(torch.tensor([1, 0, 3, 2]), dim=3))),
    "RandomPermutation": Layer(lambda: nflow(transforms.RandomPermutation(2))),
    "ReversePermutation": Layer(lambda: nflow(transforms.ReversePermutation(2))),
    "ActNorm": Layer(lambda: nflow(transforms.ActNorm(2)), "it has seen no data"),
    "ActNorm, fitted": Layer(fitted(lambda: nflow(transforms.ActNorm(2)), rows_of(2))),
    "ActNorm, fitted to images": Layer(fitted(lambda: image_of_nflows(transforms.ActNorm(4)), rows_of(*IMAGE))),
    "BatchNorm": Layer(fitted(lambda: nflow(transforms.BatchNorm(2)), rows_of(2))),
    "IdentityTransform": Layer(lambda: nflow(transforms.IdentityTransform())),
    "PointwiseAffineTransform": Layer(
        lambda: nflow(transforms.PointwiseAffineTransform(0.5, torch.tensor([2.0, 3.0])))),
    "AffineTransform": Layer(lambda: nflow(transforms.AffineTransform(0.5, 2.0))),
    "LeakyReLU": Layer(lambda: nflow(transforms.LeakyReLU(0.2))),
    "LogTanh": Layer(lambda: nflow(transforms.LogTanh())),
    "Tanh": Layer(lambda: nflow(transforms.InverseTransform(transforms.Tanh()))),
    "Sigmoid": Layer(lambda: nflow(transforms.InverseTransform(transforms.Sigmoid()))),
    "Logit": Layer(lambda: nflow(transforms.Logit())),
    "CauchyCDF": Layer(lambda: nflow(nflows.transforms.nonlinearities.CauchyCDF()), "fails on draws from its base"),
    "CauchyCDFInverse": Layer(lambda: nflow(nflows.transforms.nonlinearities.CauchyCDFInverse()), export="cannot"),
    "GatedLinearUnit": Layer(lambda: nflow(transforms.GatedLinearUnit(), distributions.StandardNormal([1]))),
}  # fmt: skip
ABSTRACT = {"CouplingTransform", "PiecewiseCouplingTransform", "AutoregressiveTransform", "Linear"}
NFLOWS_FLOWS = {
    "Flow": Layer(lambda: nflow(transforms.LULinear(2))),
    "MaskedAutoregressiveFlow": Layer(lambda: MaskedAutoregressiveFlow(2, 8, 1, 1, batch_norm_within_layers=True)),
    "SimpleRealNVP": Layer(lambda: SimpleRealNVP(2, 8, 2, 1, batch_norm_within_layers=True)),
}


def norm(*layers: Any, shape: Any = 2, kind: Any = nf.NormalizingFlow) -> nn.Module:
    flow = nn.ModuleList(layers)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    made: nn.Module = kind(nf.distributions.base.DiagGaussian(shape), list(flow))
    return made


def mlp(inputs: int, outputs: int) -> nn.Module:
    net: nn.Module = nf.nets.MLP([inputs, 8, outputs])
    return net


def spline(kind: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: norm(kind(2, 1, 8, **options))


PARTS = "it gives or takes a row in two parts"
RANDOM = "it is random: it has no density"
NO_INVERSE = "it has no inverse of its own"
WRAPS = "which is not a bijection"
NORMFLOWS = {
    "Flow": Layer(lambda: norm(nf.flows.Flow()), "does not run on rows of shape"),
    "Reverse": Layer(lambda: norm(nf.flows.Reverse(nf.flows.LULinearPermute(2)))),
    "Composite": Layer(lambda: norm(nf.flows.Composite([nf.flows.InvertibleAffine(2)]))),
    "Merge": Layer(lambda: norm(nf.flows.Merge()), PARTS),
    "Split": Layer(lambda: norm(nf.flows.Split()), PARTS),
    "AffineCoupling": Layer(lambda: norm(nf.flows.AffineCoupling(mlp(1, 2))), PARTS),
    "Squeeze": Layer(lambda: norm(nf.flows.Squeeze(), shape=IMAGE)),
    "Permute": Layer(lambda: norm(nf.flows.Permute(2))),
    "InvertibleAffine": Layer(lambda: norm(nf.flows.InvertibleAffine(2))),
    "Invertible1x1Conv": Layer(lambda: norm(nf.flows.Invertible1x1Conv(4, use_lu=True), shape=IMAGE)),
    "LULinearPermute": Layer(lambda: norm(nf.flows.LULinearPermute(2))),
    "_LULinear": Layer(lambda: norm(nf.flows.mixing._LULinear(2))), "_Linear": Layer(lambda: None),
    "_Permutation": Layer(lambda: norm(nf.flows.mixing._Permutation(torch.tensor([1, 0])))),
    "_RandomPermutation": Layer(lambda: norm(nf.flows.mixing._RandomPermutation(2))),
    "PeriodicWrap": Layer(lambda: norm(nf.flows.PeriodicWrap([0])), WRAPS),
    "PeriodicShift": Layer(lambda: norm(nf.flows.PeriodicShift([0], bound=20.0, shift=1.0))),
    "Planar": Layer(lambda: norm(nf.flows.Planar((2,), "leaky_relu"))),
    "Radial": Layer(lambda: norm(nf.flows.Radial((2,))), NO_INVERSE),
    "AffineConstFlow": Layer(lambda: norm(nf.flows.AffineConstFlow((2,)))),
    "CCAffineConst": Layer(lambda: norm(nf.flows.CCAffineConst((2,), 3)), "it takes a class beside the row"),
    "MaskedAffineFlow": Layer(lambda: norm(nf.flows.MaskedAffineFlow(torch.tensor([0.0, 1.0]), mlp(2, 2), mlp(2, 2)))),
    "AffineCouplingBlock": Layer(lambda: norm(nf.flows.AffineCouplingBlock(mlp(1, 2)))),
    "AffineCouplingBlock, checkerboard": Layer(
        lambda: norm(nf.flows.AffineCouplingBlock(mlp(1, 2), split_mode="checkerboard_inv"))),
    "GlowBlock": Layer(lambda: norm(nf.flows.GlowBlock(4, 8), shape=IMAGE), "ActNorm 'flows.0.flows.2' cannot"),
    "GlowBlock, fitted": Layer(fitted(lambda: norm(nf.flows.GlowBlock(4, 8), shape=IMAGE), rows_of(*IMAGE))),
    "GlowBlock, checkerboard, ActNorm in its network": Layer(fitted(lambda: norm(nf.flows.GlowBlock(
        4, 8, split_mode="checkerboard", net_actnorm=True, use_lu=False), shape=IMAGE), rows_of(*IMAGE))),
    "MaskedAffineAutoregressive": Layer(lambda: norm(nf.flows.MaskedAffineAutoregressive(2, 8))),
    "Autoregressive": Layer(lambda: None), "Coupling": Layer(lambda: None), "PiecewiseCoupling": Layer(lambda: None),
    "MaskedPiecewiseRationalQuadraticAutoregressive": Layer(lambda: None),
    "PiecewiseRationalQuadraticCoupling": Layer(lambda: None), "PiecewiseRationalQuadraticCDF": Layer(lambda: None),
    "BatchNorm": Layer(lambda: norm(nf.flows.BatchNorm()), "a row's density depends on its neighbours"),
    "ActNorm": Layer(lambda: norm(nf.flows.ActNorm((2,))), "it has seen no data"),
    "ActNorm, of every pixel": Layer(fitted(lambda: norm(nf.flows.ActNorm(IMAGE), shape=IMAGE), rows_of(*IMAGE))),
    "Residual": Layer(lambda: norm(nf.flows.Residual(nf.nets.LipschitzMLP([2, 8, 2]))), "an estimate"),
       "CoupledRationalQuadraticSpline": Layer(spline(nf.flows.CoupledRationalQuadraticSpline)),
    "AutoregressiveRationalQuadraticSpline": Layer(spline(nf.flows.AutoregressiveRationalQuadraticSpline)),
    "CircularCoupledRationalQuadraticSpline": Layer(
        spline(nf.flows.CircularCoupledRationalQuadraticSpline, ind_circ=[0]), WRAPS),
    "CircularAutoregressiveRationalQuadraticSpline": Layer(
        spline(nf.flows.CircularAutoregressiveRationalQuadraticSpline, ind_circ=[0]), WRAPS),
    "MetropolisHastings": Layer(lambda: norm(nf.flows.MetropolisHastings(None, None, 1)), RANDOM),
    "HamiltonianMonteCarlo": Layer(
        lambda: norm(nf.flows.HamiltonianMonteCarlo(None, 1, torch.zeros(2), torch.zeros(2))), RANDOM),
    "Logit": Layer(lambda: norm(nf.transforms.Logit())),
    "Shift": Layer(lambda: norm(nf.transforms.Shift())),
}  # fmt: skip
INNER = {"_Linear", "Autoregressive", "Coupling", "PiecewiseCoupling", "PiecewiseRationalQuadraticCDF",
         "MaskedPiecewiseRationalQuadraticAutoregressive", "PiecewiseRationalQuadraticCoupling"}  # fmt: skip


def convolutions(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, outputs, 3, padding=1))


def inn(kind: Any, shape: tuple[int, ...] = (2,), **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            network = Ff.SequenceINN(*shape)
            network.append(kind, **options)
        return network

    return make


def seen(make: Callable[[], nn.Module], rows: Callable[[], Tensor]) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        flow = make()
        flow(rows())
        return flow

    return made


def branches(*, outputs: int, conditions: int = 0) -> nn.Module:
    """A graph with levels, as Glow: a part of the channels leaves after the first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start, given = Ff.InputNode(*IMAGE), [Ff.ConditionNode(3) for _ in range(conditions)]
        haar = Ff.Node(start, Fm.HaarDownsampling, {"order_by_wavelet": True, "rebalance": 0.5})
        coupling = Ff.Node(haar, Fm.GLOWCouplingBlock, {"subnet_constructor": convolutions})
        split = Ff.Node(coupling, Fm.Split, {"section_sizes": [4, 12]})
        leaves = Ff.Node(split.out1, Fm.Flatten, {})
        squeezed = Ff.Node(split.out0, Fm.IRevNetDownsampling, {})
        flat = Ff.Node(squeezed, Fm.Flatten, {})
        last = Ff.Node(flat, Fm.AllInOneBlock, {"subnet_constructor": perceptron}, conditions=given)
        joined = [Ff.Node([leaves.out0, last.out0], Fm.Concat, {})] if outputs == 1 else []
        ends = [Ff.OutputNode(node) for node in (joined or (leaves, last))]
        return Ff.GraphINN([start, *given, haar, coupling, split, leaves, squeezed, flat, last, *joined, *ends])


def two_inputs() -> nn.Module:
    starts = [Ff.InputNode(1), Ff.InputNode(1)]
    joined = Ff.Node([starts[0].out0, starts[1].out0], Fm.Concat, {})
    return Ff.GraphINN([*starts, joined, Ff.OutputNode(joined)])


class Both(Fm.InvertibleModule):
    """A user's module of two inputs and two outputs."""

    def forward(self, x: Any, rev: bool = False, jac: bool = True) -> Any:
        return (x[1], x[0]), 0.0

    def output_dims(self, input_dims: Any) -> Any:
        return list(reversed(input_dims))


def crossed() -> nn.Module:
    start = Ff.InputNode(2)
    split = Ff.Node(start, Fm.Split, {})
    both = Ff.Node([split.out0, split.out1], Both, {})
    joined = Ff.Node([both.out0, both.out1], Fm.Concat, {})
    return Ff.GraphINN([start, split, both, joined, Ff.OutputNode(joined)])


UNTRACKED = "it has no log-determinant"
WIDE = (16, 2, 2)
BLOCK = {"subnet_constructor": perceptron}
FREIA = {
    "InvertibleModule": Layer(lambda: None), "_BaseCouplingBlock": Layer(lambda: None),
    "AllInOneBlock": Layer(inn(Fm.AllInOneBlock, **BLOCK)),
    "NICECouplingBlock": Layer(inn(Fm.NICECouplingBlock, **BLOCK)),
    "RNVPCouplingBlock": Layer(inn(Fm.RNVPCouplingBlock, **BLOCK)),
    "GLOWCouplingBlock": Layer(inn(Fm.GLOWCouplingBlock, **BLOCK)),
    "GINCouplingBlock": Layer(inn(Fm.GINCouplingBlock, **BLOCK)),
    "AffineCouplingOneSided": Layer(inn(Fm.AffineCouplingOneSided, **BLOCK)),
    "ConditionalAffineTransform": Layer(inn(Fm.ConditionalAffineTransform, cond=0, cond_shape=(3,), **BLOCK)),
    "ActNorm": Layer(inn(Fm.ActNorm), "it has seen no data"),
    "ActNorm, fitted": Layer(seen(inn(Fm.ActNorm), rows_of(2))),
    "ActNorm, fitted to images": Layer(seen(inn(Fm.ActNorm, IMAGE), rows_of(*IMAGE))),
    "HouseholderPerm": Layer(inn(Fm.HouseholderPerm, n_reflections=2)),
    "OrthogonalTransform": Layer(inn(Fm.OrthogonalTransform)),
    "FixedLinearTransform": Layer(inn(Fm.FixedLinearTransform, M=torch.tensor([[2.0, 1.0], [0.5, 1.0]]))),
    "Fixed1x1Conv": Layer(inn(Fm.Fixed1x1Conv, IMAGE, M=torch.eye(4) + 0.2 * random(4, 4))),
    "PermuteRandom": Layer(inn(Fm.PermuteRandom)),
    "InvertibleSigmoid": Layer(inn(Fm.InvertibleSigmoid), "it squashes all rows into (0, 1)"),
    "IResNetLayer": Layer(inn(Fm.IResNetLayer), "an estimate"),
    "InvAutoAct": Layer(inn(Fm.InvAutoAct)),
    "InvAutoActFixed": Layer(inn(Fm.InvAutoActFixed)),
    "InvAutoActTwoSided": Layer(inn(Fm.InvAutoActTwoSided)),
    "InvAutoFC": Layer(inn(Fm.InvAutoFC), UNTRACKED),
    "InvAutoConv2D": Layer(inn(Fm.InvAutoConv2D, IMAGE), UNTRACKED),
    "LearnedElementwiseScaling": Layer(inn(Fm.LearnedElementwiseScaling)),
    "Split": Layer(lambda: branches(outputs=1)),
    "Concat": Layer(lambda: branches(outputs=1, conditions=1)),
    "IRevNetDownsampling": Layer(inn(Fm.IRevNetDownsampling, IMAGE)),
    "IRevNetDownsampling, legacy": Layer(inn(Fm.IRevNetDownsampling, IMAGE, legacy_backend=True)),
    "IRevNetUpsampling": Layer(inn(Fm.IRevNetUpsampling, WIDE)),
    "HaarDownsampling": Layer(inn(Fm.HaarDownsampling, IMAGE)),
    "HaarUpsampling": Layer(inn(Fm.HaarUpsampling, WIDE, order_by_wavelet=True)),
    "Flatten": Layer(inn(Fm.Flatten, IMAGE)),
    "Reshape": Layer(inn(Fm.Reshape, IMAGE, output_dims=(16, 2, 2))),
    "GaussianMixtureModel": Layer(inn(Fm.GaussianMixtureModel, cond=0, cond_shape=(2,)), "by the one component"),
    "SequenceINN": Layer(inn(Fm.PermuteRandom)), "ReversibleSequential": Layer(lambda: None),
    "GraphINN": Layer(lambda: branches(outputs=2, conditions=1)), "ReversibleGraphNet": Layer(lambda: None),
    "GraphINN, two inputs": Layer(two_inputs, "GraphINN with 2 inputs"),
    "GraphINN, a module of two inputs": Layer(crossed, "Both cannot be exported: it has 2 inputs and 2 outputs"),
}  # fmt: skip
BARE = {"InvertibleModule", "_BaseCouplingBlock", "ReversibleSequential", "ReversibleGraphNet"}


def plain(names: Iterable[str]) -> set[str]:
    """The classes that a table is about: a comma begins a variant."""
    return {name.partition(",")[0] for name in names}


def test_no_transform_of_zuko_is_missing() -> None:
    kinds = {name for name, kind in vars(T).items() if inspect.isclass(kind) and issubclass(kind, Transform)}
    assert kinds == plain(ZUKO_TRANSFORMS)
    assert set(T.__all__) | set(torch_transforms.__all__) - {"identity_transform"} <= kinds
    assert classes(zuko, LazyTransform) == plain(ZUKO_LAZY)


def test_no_transform_of_nflows_is_missing() -> None:
    assert classes(nflows, transforms.Transform) == plain(NFLOWS)
    assert classes(nflows, Flow) == plain(NFLOWS_FLOWS)


def test_no_layer_of_normflows_is_missing() -> None:
    assert classes(nf, nf.flows.Flow) == plain(NORMFLOWS)


def test_no_module_of_freia_is_missing() -> None:
    assert classes(FrEIA, Fm.InvertibleModule) == plain(FREIA)


LAYERS = {
    f"{library} {name}": layer
    for library, table in (
        ("zuko", ZUKO_TRANSFORMS | ZUKO_LAZY),
        ("nflows", {name: layer for name, layer in NFLOWS.items() if name not in ABSTRACT} | NFLOWS_FLOWS),
        ("normflows", {name: layer for name, layer in NORMFLOWS.items() if name not in INNER}),
        ("FrEIA", {name: layer for name, layer in FREIA.items() if name not in BARE}),
    )
    for name, layer in table.items()
}


def made(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of the libraries' code
        return LAYERS[name].make()


@pytest.mark.parametrize("name", [name for name, layer in LAYERS.items() if layer.refusal])
def test_a_layer_is_refused_by_its_name_with_the_reason(name: str) -> None:
    with pytest.raises((Unsupported, DataError)) as raised:
        draw_rows(take(made(name)), 20)
    assert LAYERS[name].refusal in raised.value.detail


@pytest.mark.parametrize("name", [name for name, layer in LAYERS.items() if not layer.refusal])
def test_a_layer_is_the_library_s_own(name: str) -> None:
    imported = take(made(name))
    rows = draw_rows(imported, 12)
    assert check_agreement(imported, rows.x, rows.context) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, layer in LAYERS.items() if not layer.refusal])
def test_a_layer_is_the_same_as_a_graph(name: str) -> None:
    imported = take(made(name))
    rows = draw_rows(imported, 12)
    flow = imported.flow.float().fold()
    if LAYERS[name].export:
        with pytest.raises(ForbiddenGraph, match=LAYERS[name].export):
            _ = export_graph(flow, "forward"), export_graph(flow, "inverse")
        return
    given = None if rows.context is None else torch.from_numpy(rows.context)
    with torch.no_grad():
        expected = flow.log_prob(torch.from_numpy(rows.x), given)
    forward = ExportedGraph(export_graph(flow, "forward"), "forward")(rows.x, rows.context, 7)
    np.testing.assert_allclose(forward.log_prob, expected, rtol=1e-4, atol=1e-4)
    inverse = ExportedGraph(export_graph(flow, "inverse"), "inverse")
    back = inverse(forward.value.astype(np.float32), rows.context, 7)
    np.testing.assert_allclose(back.value.reshape(rows.x.shape), rows.x, rtol=1e-3, atol=1e-3)
