"""Flows of each library, by family: what the adapters are held to. A new family is one line here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import normflows as nf
import torch
import zuko
from nflows import distributions, transforms
from nflows.flows import Flow, MaskedAutoregressiveFlow, SimpleRealNVP
from nflows.nn.nets import ResidualNet
from nflows.transforms.nonlinearities import CauchyCDF
from torch import nn

HIDDEN = 12
Make = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Family:
    """One family of one library.

    Args:
        library: its name.
        name: of the family.
        make: width, context width -> a flow with random weights.
        conditional: whether it takes a context: "never", "too" or "only".
        widths: the widths it is tried in.
        settle: whether it must see data before it is what it will stay.
        quick: whether it is tried in seconds: a numeric inverse costs more.
    """

    library: str
    name: str
    make: Make
    conditional: str = "too"
    widths: tuple[int, ...] = (2, 16, 64)
    settle: bool = False
    quick: bool = True

    def build(self, width: int, context: int, seed: int = 0) -> nn.Module:
        """A flow with random weights: as they are built, most are the identity, and mistakes hide behind it."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of the libraries' code
            torch.manual_seed(seed)
            flow = self.make(width, context)
            rotations = {id(m.weights) for m in flow.modules() if isinstance(m, Fm.OrthogonalTransform)}
            with torch.no_grad():
                for parameter in flow.parameters():
                    if parameter.requires_grad and id(parameter) not in rotations:
                        parameter.add_(0.3 * torch.randn_like(parameter) / fan_in(parameter) ** 0.5)
                if self.settle:
                    flow.train().log_prob(torch.randn(500, width), *([torch.randn(500, context)] if context else []))
        return flow.eval()


def fan_in(parameter: torch.Tensor) -> int:
    return parameter.shape[-1] if parameter.ndim else 1


def perceptron(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, outputs))


def of_zuko(constructor: Any, **options: Any) -> Make:
    def make(width: int, context: int) -> nn.Module:
        return constructor(width, context, transforms=2, hidden_features=(HIDDEN,), **options)

    return make


def inverse_maf(width: int, context: int) -> nn.Module:
    flow = zuko.flows.MAF(width, context, transforms=2, hidden_features=(HIDDEN,))
    return zuko.lazy.Flow(flow.transform.inv, flow.base)


def of_constants(*constants: Callable[[int], nn.Module]) -> Make:
    """Transforms of zuko that are the same for every context, and a coupling after them."""

    def make(width: int, context: int) -> nn.Module:
        coupling = zuko.flows.coupling.GeneralCouplingTransform(width, context, hidden_features=(HIDDEN,))
        base = zuko.lazy.UnconditionalDistribution(
            zuko.distributions.DiagNormal, torch.zeros(width), torch.ones(width), buffer=True
        )
        return zuko.lazy.Flow([*(constant(width) for constant in constants), coupling], base)

    return make


def rotation(width: int) -> nn.Module:
    return zuko.lazy.UnconditionalTransform(zuko.transforms.RotationTransform, torch.randn(width, width))


def lu_linear(width: int) -> nn.Module:
    return zuko.lazy.UnconditionalTransform(zuko.transforms.LULinearTransform, torch.eye(width))


def permutation(width: int) -> nn.Module:
    order = torch.randperm(width)
    return zuko.lazy.UnconditionalTransform(zuko.transforms.PermutationTransform, order, buffer=True)


def gmm_base(width: int, context: int) -> nn.Module:
    flow = of_constants(rotation)(width, context)
    return zuko.lazy.Flow(flow.transform, zuko.mixtures.GMM(width, components=3, covariance_type="diagonal"))


ZUKO = [
    Family("zuko", "RealNVP", of_zuko(zuko.flows.RealNVP)),
    Family("zuko", "NICE", of_zuko(zuko.flows.NICE)),
    Family("zuko", "MAF", of_zuko(zuko.flows.MAF)),
    Family("zuko", "MAF, inverted (IAF)", inverse_maf),
    Family("zuko", "NSF, autoregressive", of_zuko(zuko.flows.NSF, bins=4)),
    Family("zuko", "NSF, coupling", of_zuko(zuko.flows.NSF, bins=4, passes=2)),
    Family("zuko", "NCSF", of_zuko(zuko.flows.NCSF, bins=4)),
    Family("zuko", "SOSPF", of_zuko(zuko.flows.SOSPF), widths=(2, 16), quick=False),
    Family("zuko", "BPF", of_zuko(zuko.flows.BPF), widths=(2, 16), quick=False),
    Family("zuko", "NAF", of_zuko(zuko.flows.NAF), widths=(2, 16), quick=False),
    Family("zuko", "UNAF", of_zuko(zuko.flows.UNAF), widths=(2,), quick=False),
    Family("zuko", "GF", of_zuko(zuko.flows.GF), widths=(2, 16), quick=False),
    Family("zuko", "RotationTransform", of_constants(rotation)),
    Family("zuko", "LULinearTransform, PermutationTransform", of_constants(lu_linear, permutation)),
    Family("zuko", "GMM base", gmm_base, "never"),
    Family("zuko", "CNF", lambda width, context: zuko.flows.CNF(width, context, hidden_features=(HIDDEN,))),
]


def network(context: int) -> Callable[[int, int], nn.Module]:
    return partial(ResidualNet, hidden_features=HIDDEN, context_features=context or None, num_blocks=1)


def of_nflows(*makers: Callable[[int, int], Any]) -> Make:
    """A flow of some transforms of nflows, with a permutation between them."""

    def make(width: int, context: int) -> nn.Module:
        steps = [maker(width, context) for maker in makers]
        return Flow(transforms.CompositeTransform(steps), distributions.StandardNormal([width]))

    return make


def nflows_coupling(kind: Any, **options: Any) -> Make:
    def make(width: int, context: int) -> Any:
        return kind(torch.arange(width) % 2, network(context), **options)

    return of_nflows(make, lambda width, _: transforms.ReversePermutation(width), make)


def nflows_autoregressive(kind: Any, **options: Any) -> Make:
    def make(width: int, context: int) -> Any:
        return kind(
            features=width,
            hidden_features=max(HIDDEN, width),
            context_features=context or None,
            num_blocks=1,
            **options,
        )

    return of_nflows(make, lambda width, _: transforms.RandomPermutation(width), make)


def plain(constructor: Any, **options: Any) -> Make:
    """A linear or elementwise transform, and a coupling after it."""

    def coupling(width: int, context: int) -> Any:
        return transforms.AffineCouplingTransform(torch.arange(width) % 2, network(context))

    return of_nflows(lambda width, _: constructor(width, **options), coupling)


def batch_normed(width: int, context: int) -> nn.Module:
    flow = SimpleRealNVP(width, HIDDEN, 2, 1, batch_norm_between_layers=True)
    for module in flow.modules():
        if isinstance(module, transforms.BatchNorm):
            module.running_mean += 0.1 * torch.randn(width)
            module.running_var += 1 + torch.rand(width)
    return flow


def nflows_levels(width: int, context: int) -> nn.Module:
    """Half of the columns leave after the first transform."""
    whole = transforms.MultiscaleCompositeTransform(2)
    whole.add_transform(transforms.LULinear(width, identity_init=False), (width,))
    coupling = transforms.AffineCouplingTransform(torch.arange(width // 2) % 2, network(context))
    whole.add_transform(coupling, (width // 2,))
    return Flow(whole, distributions.StandardNormal([width]))


def squashed(width: int) -> Any:
    return transforms.CompositeCDFTransform(
        transforms.Sigmoid(), transforms.PiecewiseRationalQuadraticCDF([width], num_bins=5)
    )


def embedded(width: int, context: int) -> nn.Module:
    flow = nflows_autoregressive(transforms.MaskedAffineAutoregressiveTransform)(width, 4)
    return Flow(flow._transform, flow._distribution, embedding_net=nn.Sequential(nn.Linear(context, 4), nn.Tanh()))


def conditional_base(width: int, context: int) -> nn.Module:
    base = distributions.ConditionalDiagonalNormal([width], context_encoder=nn.Linear(context, 2 * width))
    return Flow(transforms.LULinear(width, identity_init=False), base)


def learnt_base(width: int, context: int) -> nn.Module:
    return Flow(transforms.LULinear(width, identity_init=False), distributions.DiagonalNormal([width]))


TAILS = {"tails": "linear", "tail_bound": 3.0, "num_bins": 5}

NFLOWS = [
    Family("nflows", "SimpleRealNVP", lambda width, context: SimpleRealNVP(width, HIDDEN, 2, 1), "never"),
    Family("nflows", "SimpleRealNVP, batch norm between", batch_normed, "never"),
    Family("nflows", "SimpleRealNVP, batch norm within", lambda width, context: SimpleRealNVP(
        width, HIDDEN, 2, 1, batch_norm_within_layers=True), "never", settle=True),
    Family("nflows", "affine coupling", nflows_coupling(transforms.AffineCouplingTransform)),
    Family("nflows", "additive coupling", nflows_coupling(transforms.AdditiveCouplingTransform)),
    Family("nflows", "rational-quadratic coupling",
           nflows_coupling(transforms.PiecewiseRationalQuadraticCouplingTransform, **TAILS)),
    Family("nflows", "rational-quadratic coupling, both halves", nflows_coupling(
        transforms.PiecewiseRationalQuadraticCouplingTransform, apply_unconditional_transform=True, **TAILS)),
    Family("nflows", "quadratic coupling", nflows_coupling(transforms.PiecewiseQuadraticCouplingTransform, **TAILS)),
    Family("nflows", "linear-spline coupling", nflows_coupling(transforms.PiecewiseLinearCouplingTransform, **TAILS)),
    Family("nflows", "cubic coupling", nflows_coupling(transforms.PiecewiseCubicCouplingTransform, **TAILS)),
    Family("nflows", "MaskedAutoregressiveFlow",
           lambda width, context: MaskedAutoregressiveFlow(width, max(HIDDEN, width), 2, 1), "never"),
    Family("nflows", "MaskedAutoregressiveFlow, batch norm within and between", lambda width, context: (
        MaskedAutoregressiveFlow(width, max(HIDDEN, width), 2, 1, batch_norm_within_layers=True,
                                 batch_norm_between_layers=True)), "never", settle=True),
    Family("nflows", "affine autoregressive, batch norm",
           nflows_autoregressive(transforms.MaskedAffineAutoregressiveTransform, use_batch_norm=True), settle=True),
    Family("nflows", "affine autoregressive, feedforward, batch norm", nflows_autoregressive(
        transforms.MaskedAffineAutoregressiveTransform, use_batch_norm=True, use_residual_blocks=False),
        "never", settle=True),
    Family("nflows", "affine autoregressive", nflows_autoregressive(transforms.MaskedAffineAutoregressiveTransform)),
    Family("nflows", "rational-quadratic autoregressive",
           nflows_autoregressive(transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform, **TAILS)),
    Family("nflows", "quadratic autoregressive",
           nflows_autoregressive(transforms.MaskedPiecewiseQuadraticAutoregressiveTransform, **TAILS)),
    Family("nflows", "LULinear", plain(transforms.LULinear, identity_init=False)),
    Family("nflows", "QRLinear", plain(transforms.QRLinear, num_householder=2)),
    Family("nflows", "SVDLinear", plain(transforms.SVDLinear, num_householder=2)),
    Family("nflows", "NaiveLinear", plain(transforms.NaiveLinear, orthogonal_initialization=False)),
    Family("nflows", "HouseholderSequence", plain(transforms.HouseholderSequence, num_transforms=2)),
    Family("nflows", "ActNorm", plain(transforms.ActNorm), settle=True),
    Family("nflows", "ActNorm that has seen no data", plain(transforms.ActNorm), "never", (2,)),
    Family("nflows", "LeakyReLU", plain(lambda width: transforms.LeakyReLU(0.3))),
    Family("nflows", "LogTanh", plain(lambda width: transforms.LogTanh())),
    Family("nflows", "CompositeCDFTransform, sigmoid and spline", plain(squashed)),
    Family("nflows", "CauchyCDF", plain(lambda width: CauchyCDF())),
    Family("nflows", "MultiscaleCompositeTransform", nflows_levels, widths=(16, 64)),
    Family("nflows", "embedding net", embedded, "only"),
    Family("nflows", "ConditionalDiagonalNormal base", conditional_base, "only"),
    Family("nflows", "DiagonalNormal base", learnt_base, "never"),
]  # fmt: skip


def of_normflows(
    *makers: Callable[[int, int], Any], base: Callable[[int], Any] = nf.distributions.DiagGaussian
) -> Make:
    def make(width: int, context: int) -> nn.Module:
        kind = nf.ConditionalNormalizingFlow if context else nf.NormalizingFlow
        return kind(base(width), [maker(width, context) for maker in makers])

    return make


def alone(constructor: Any, *more: Any, **options: Any) -> Callable[[int, int], Any]:
    return lambda width, context: constructor(width, *more, **options)


def couplings(per_column: int, **options: Any) -> Make:
    """Two affine couplings of normflows, and the halves swapped between them."""

    def make(width: int, context: int) -> Any:
        net = nf.nets.MLP([(width + 1) // 2, HIDDEN, per_column * (width // 2)])
        return nf.flows.AffineCouplingBlock(net, **options)

    return of_normflows(make, alone(nf.flows.Permute, mode="swap"), make)


def masked(width: int, context: int) -> Any:
    mask = (torch.arange(width) % 2).float()
    return nf.flows.MaskedAffineFlow(mask, nf.nets.MLP([width, HIDDEN, width]), nf.nets.MLP([width, HIDDEN, width]))


def nsf(constructor: Any) -> Make:
    def make(width: int, context: int) -> Any:
        return constructor(width, 1, max(HIDDEN, width), num_context_channels=context or None, num_bins=5)

    return of_normflows(make, alone(nf.flows.LULinearPermute), make)


def normflows_maf(width: int, context: int) -> Any:
    return nf.flows.MaskedAffineAutoregressive(width, max(HIDDEN, width), context_features=context or None)


def circular(width: int, context: int) -> Any:
    return nf.flows.CircularCoupledRationalQuadraticSpline(width, 1, HIDDEN, [0], num_context_channels=context or None)


def residual(width: int, context: int) -> Any:
    net = nf.nets.LipschitzMLP([width, HIDDEN, width], init_zeros=True, lipschitz_const=0.9)
    return nf.flows.Residual(net)


def mixture(width: int) -> Any:
    return nf.distributions.GaussianMixture(3, width)


def image_of(width: int) -> tuple[int, int, int]:
    """An image of so many pixels: channels, rows, columns."""
    side = round(width**0.5)
    return 1, side, side


def normflows_glow(width: int, context: int) -> nn.Module:
    """A Glow of two levels, whose bases know the class where there is a context."""
    shape = image_of(width)

    def base(*latent: int) -> Any:
        if context:
            return nf.distributions.base.ClassCondDiagGaussian(latent, context)
        return nf.distributions.base.GlowBase(latent)

    side = shape[1]
    levels = [[nf.flows.GlowBlock(channels, HIDDEN), nf.flows.Squeeze()] for channels in (8, 4)]
    bases = [base(8, side // 4, side // 4), base(2, side // 2, side // 2)]
    flow = nf.MultiscaleFlow(bases, levels, [nf.flows.Merge()], class_cond=context > 0)
    flow.log_prob(torch.randn(50, *shape), torch.eye(context)[torch.arange(50) % context] if context else None)
    return flow


def class_conditional(width: int, context: int) -> nn.Module:
    base = nf.distributions.base.ClassCondDiagGaussian(width, context)
    return nf.ClassCondFlow(base, [masked(width, 0), nf.flows.InvertibleAffine(width), masked(width, 0)])


NORMFLOWS = [
    Family("normflows", "AffineCouplingBlock, exp", couplings(2), "never"),
    Family("normflows", "AffineCouplingBlock, sigmoid", couplings(2, scale_map="sigmoid"), "never"),
    Family("normflows", "AffineCouplingBlock, no scale (NICE)", couplings(1, scale=False), "never"),
    Family("normflows", "MaskedAffineFlow", of_normflows(masked, alone(nf.flows.Permute), masked), "never"),
    Family("normflows", "CoupledRationalQuadraticSpline, LULinearPermute",
           nsf(nf.flows.CoupledRationalQuadraticSpline)),
    Family("normflows", "AutoregressiveRationalQuadraticSpline",
           nsf(nf.flows.AutoregressiveRationalQuadraticSpline)),
    Family("normflows", "MaskedAffineAutoregressive", of_normflows(normflows_maf, alone(nf.flows.Permute))),
    Family("normflows", "InvertibleAffine", of_normflows(alone(nf.flows.InvertibleAffine), masked), "never"),
    Family("normflows", "InvertibleAffine, no LU",
           of_normflows(alone(nf.flows.InvertibleAffine, use_lu=False), masked), "never"),
    Family("normflows", "ActNorm", of_normflows(masked, alone(nf.flows.ActNorm)), "never", settle=True),
    Family("normflows", "ActNorm that has seen no data", of_normflows(masked, alone(nf.flows.ActNorm)), "never", (2,)),
    Family("normflows", "Planar, leaky ReLU",
           of_normflows(lambda width, _: nf.flows.Planar((width,), "leaky_relu")), "never"),
    Family("normflows", "Planar, tanh", of_normflows(lambda width, _: nf.flows.Planar((width,))), "never", (2,)),
    Family("normflows", "Radial", of_normflows(lambda width, _: nf.flows.Radial((width,))), "never", (2,)),
    Family("normflows", "Residual", of_normflows(residual), "never", (2,)),
    Family("normflows", "BatchNorm", of_normflows(lambda width, _: nf.flows.BatchNorm()), "never", (2,)),
    Family("normflows", "CircularCoupledRationalQuadraticSpline", of_normflows(circular), "never", (2,)),
    Family("normflows", "PeriodicShift",
           of_normflows(masked, alone(lambda width: nf.flows.PeriodicShift([0], bound=20.0, shift=1.0))), "never"),
    Family("normflows", "MultiscaleFlow (Glow)", normflows_glow, widths=(16, 64)),
    Family("normflows", "ClassCondFlow", class_conditional, "only"),
    Family("normflows", "GaussianMixture base", of_normflows(masked, base=mixture), "never"),
]  # fmt: skip


def of_freia(*modules: tuple[Any, dict[str, Any]], takes: bool = True) -> Make:
    """Modules one after another; those that take conditions get one, where there is one."""

    def make(width: int, context: int) -> nn.Module:
        inn = Ff.SequenceINN(width)
        for kind, options in modules:
            given = {"cond": 0, "cond_shape": (context,)} if context and "subnet_constructor" in options else {}
            inn.append(kind, **given, **options)
        return inn

    return make


def twice(kind: Any, **options: Any) -> Make:
    module = (kind, {"subnet_constructor": perceptron, **options})
    return of_freia(module, (Fm.PermuteRandom, {}), module)


def with_glow(kind: Any, **options: Any) -> Make:
    return of_freia((kind, options), (Fm.GLOWCouplingBlock, {"subnet_constructor": perceptron}))


def fixed_linear(width: int, context: int) -> nn.Module:
    matrix = torch.eye(width) + 0.3 * torch.randn(width, width) / width**0.5
    return with_glow(Fm.FixedLinearTransform, M=matrix, b=torch.randn(width))(width, context)


def chain(width: int, context: int) -> nn.Module:
    start = Ff.InputNode(width)
    condition = [Ff.ConditionNode(context)] if context else []
    options = {"subnet_constructor": perceptron}
    first = Ff.Node(start, Fm.GLOWCouplingBlock, options, conditions=condition)
    second = Ff.Node(first, Fm.RNVPCouplingBlock, options, conditions=condition)
    return Ff.GraphINN([start, *condition, first, second, Ff.OutputNode(second)])


def branches(width: int, context: int) -> nn.Module:
    start = Ff.InputNode(width)
    split = Ff.Node(start, Fm.Split, {})
    scaled = Ff.Node(split.out0, Fm.InvAutoAct, {})
    bent = Ff.Node(split.out1, Fm.InvAutoActTwoSided, {})
    joined = Ff.Node([bent.out0, scaled.out0], Fm.Concat, {})
    last = Ff.Node(joined, Fm.GLOWCouplingBlock, {"subnet_constructor": perceptron})
    return Ff.GraphINN([start, split, scaled, bent, joined, last, Ff.OutputNode(last)])


def freia_levels(width: int, context: int) -> nn.Module:
    """A graph of images in two levels, with an output for each."""
    start = Ff.InputNode(*image_of(width))
    haar = Ff.Node(start, Fm.HaarDownsampling, {})
    coupling = Ff.Node(haar, Fm.GLOWCouplingBlock, {"subnet_constructor": convolutions})
    split = Ff.Node(coupling, Fm.Split, {})
    leaves = Ff.Node(split.out1, Fm.Flatten, {})
    squeezed = Ff.Node(split.out0, Fm.IRevNetDownsampling, {})
    flat = Ff.Node(squeezed, Fm.Flatten, {})
    last = Ff.Node(flat, Fm.AllInOneBlock, {"subnet_constructor": perceptron})
    nodes = [start, haar, coupling, split, leaves, squeezed, flat, last]
    return Ff.GraphINN([*nodes, Ff.OutputNode(leaves), Ff.OutputNode(last)])


def convolutions(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, HIDDEN, 3, padding=1), nn.Tanh(), nn.Conv2d(HIDDEN, outputs, 1))


FREIA = [
    Family("FrEIA", "AllInOneBlock", twice(Fm.AllInOneBlock)),
    Family("FrEIA", "AllInOneBlock, soft permutation, reversed",
           twice(Fm.AllInOneBlock, permute_soft=True, reverse_permutation=True)),
    Family("FrEIA", "AllInOneBlock, GIN", twice(Fm.AllInOneBlock, gin_block=True)),
    Family("FrEIA", "AllInOneBlock, learned Householder permutation",
           twice(Fm.AllInOneBlock, learned_householder_permutation=2)),
    Family("FrEIA", "NICECouplingBlock", twice(Fm.NICECouplingBlock)),
    Family("FrEIA", "RNVPCouplingBlock", twice(Fm.RNVPCouplingBlock)),
    Family("FrEIA", "GLOWCouplingBlock", twice(Fm.GLOWCouplingBlock)),
    Family("FrEIA", "GINCouplingBlock", twice(Fm.GINCouplingBlock)),
    Family("FrEIA", "AffineCouplingOneSided", twice(Fm.AffineCouplingOneSided)),
    Family("FrEIA", "ConditionalAffineTransform", twice(Fm.ConditionalAffineTransform), "only"),
    Family("FrEIA", "HouseholderPerm", with_glow(Fm.HouseholderPerm, n_reflections=2)),
    Family("FrEIA", "OrthogonalTransform", with_glow(Fm.OrthogonalTransform)),
    Family("FrEIA", "FixedLinearTransform", fixed_linear),
    Family("FrEIA", "LearnedElementwiseScaling", with_glow(Fm.LearnedElementwiseScaling)),
    Family("FrEIA", "InvAutoAct", with_glow(Fm.InvAutoAct)),
    Family("FrEIA", "GraphINN, one after another", chain),
    Family("FrEIA", "GraphINN with branches", branches, "never"),
    Family("FrEIA", "GraphINN in levels (Haar, i-RevNet, two outputs)", freia_levels, "never", (16, 64)),
    Family("FrEIA", "ActNorm that has seen no data", with_glow(Fm.ActNorm), "never", (2,)),
    Family("FrEIA", "IResNetLayer", lambda width, context: of_freia((Fm.IResNetLayer, {}))(width, 0), "never", (2,)),
]  # fmt: skip

FAMILIES = [*ZUKO, *NFLOWS, *NORMFLOWS, *FREIA]
CONTEXT = 3


@dataclass(frozen=True)
class Case:
    """One cell of the table: a family in one width, with a context or without."""

    family: Family
    width: int
    context: int

    def __str__(self) -> str:
        kind = ", conditional" if self.context else ""
        return f"{self.family.library} {self.family.name}, D = {self.width}{kind}"


def cases() -> list[Case]:
    """All cells."""
    return [Case(family, width, context) for family in FAMILIES for width in family.widths
            for context in _contexts(family)]  # fmt: skip


def quick_cases() -> list[Case]:
    """A cell of each family: the widths in turn, with a context where it takes one every other time at least."""
    chosen = []
    for number, family in enumerate(family for family in FAMILIES if family.quick):
        # an inverse in as many passes as columns is slow in torch
        slow = any(word in family.name for word in ("utoregressive", "MAF", "NCSF"))
        widths = [width for width in family.widths if width <= 16 or not slow]
        contexts = _contexts(family)
        chosen.append(Case(family, widths[number % len(widths)], contexts[number % len(contexts)]))
    return chosen


def _contexts(family: Family) -> tuple[int, ...]:
    return {"never": (0,), "too": (0, CONTEXT), "only": (CONTEXT,)}[family.conditional]
