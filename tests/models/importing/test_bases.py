"""Every base of the installed versions of the libraries is held as it is, or refused by its name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable

import nflows.distributions
import nflows.distributions.uniform
import normflows as nf
import normflows.distributions.base
import pytest
import torch
import zuko
from nflows import flows, transforms
from torch import Tensor, distributions, nn

from models.importing.adapted import Unsupported
from models.importing.agreement import check_agreement
from models.importing.load import draw_rows
from models.importing.take import library_precision, take
from service.errors import DataError

TWO = torch.tensor([0.5, 2.0])


def spread(base: nn.Module) -> nn.Module:
    """The same with other numbers: as they are built, most bases are standard normals."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return base


def of_normflows(base: nn.Module) -> nn.Module:
    layer = nf.flows.AutoregressiveRationalQuadraticSpline(2, 1, 8, num_context_channels=3)
    if isinstance(base, nf.distributions.base.ConditionalDiagGaussian):
        return nf.ConditionalNormalizingFlow(base, [layer])
    return nf.NormalizingFlow(base, [nf.flows.AutoregressiveRationalQuadraticSpline(2, 1, 8)])


NORMFLOWS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "BaseDistribution": (normflows.distributions.base.BaseDistribution, False),
    "DiagGaussian": (lambda: nf.distributions.base.DiagGaussian(2), True),
    "ConditionalDiagGaussian": (lambda: nf.distributions.base.ConditionalDiagGaussian(2, nn.Linear(3, 4)), True),
    "Uniform": (lambda: nf.distributions.base.Uniform(2, -5.0, 5.0), True),
    "UniformGaussian": (lambda: nf.distributions.base.UniformGaussian(2, [0]), False),
    "ClassCondDiagGaussian": (lambda: nf.distributions.base.ClassCondDiagGaussian(2, 3), False),
    "GlowBase": (lambda: nf.distributions.base.GlowBase(2), True),
    "AffineGaussian": (lambda: nf.distributions.base.AffineGaussian(2, (2,)), True),
    "GaussianMixture": (lambda: nf.distributions.base.GaussianMixture(3, 2), True),
    "GaussianPCA": (lambda: nf.distributions.base.GaussianPCA(2, 2), False),
}


def test_no_base_of_normflows_is_missing() -> None:
    module = normflows.distributions.base
    assert set(NORMFLOWS) == {
        name for name, kind in vars(module).items() if inspect.isclass(kind) and kind.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", NORMFLOWS)
def test_a_base_of_normflows(name: str) -> None:
    make, held = NORMFLOWS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what NumPy says of the library's code
        flow = of_normflows(spread(make()))
    outcome(flow, name, held=held)


def test_a_base_of_images_with_a_number_for_each_channel() -> None:
    base = spread(nf.distributions.base.GlowBase((2, 2, 2)))
    base.temperature = 0.7
    imported = take(nf.NormalizingFlow(base, [nf.flows.Invertible1x1Conv(2)]))
    check_agreement(imported, draw_rows(imported, 20).x, None)
    classes = nf.NormalizingFlow(nf.distributions.base.GlowBase((2, 2, 2), num_classes=3), [])
    with pytest.raises(Unsupported, match="the base GlowBase of a normflows flow"):
        take(classes)


OTHERS = sorted(
    {
        kind
        for module in (nf.distributions.encoder, nf.distributions.decoder, nf.distributions.prior,
                       nf.distributions.target, nf.distributions.mh_proposal, nf.distributions.linear_interpolation)
        for kind in vars(module).values()
        if inspect.isclass(kind) and kind.__module__ == module.__name__
    },
    key=lambda kind: kind.__qualname__,
)  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__qualname__)
def test_what_is_no_base_in_normflows_is_none_here(kind: type) -> None:
    """Encoders, targets, priors: without its numbers, which nobody asks for."""
    base = kind.__new__(kind)
    if isinstance(base, nn.Module):
        nn.Module.__init__(base)
    with pytest.raises(
        Unsupported, match=rf"the base {kind.__name__} of a normflows flow is not one that a bundle can"
    ):
        take(nf.NormalizingFlow(base, []))


NFLOWS: dict[str, tuple[Callable[[], object], bool]] = {
    "Distribution": (nflows.distributions.Distribution, False),
    "StandardNormal": (lambda: nflows.distributions.StandardNormal([2]), True),
    "DiagonalNormal": (lambda: nflows.distributions.DiagonalNormal([2]), True),
    "ConditionalDiagonalNormal": (
        lambda: nflows.distributions.ConditionalDiagonalNormal([2], nn.Linear(3, 4)), True),
    "ConditionalIndependentBernoulli": (
        lambda: nflows.distributions.ConditionalIndependentBernoulli([2], nn.Linear(3, 2)), False),
    "MADEMoG": (lambda: nflows.distributions.MADEMoG(2, 8, 3), False),
    "MG1Uniform": (lambda: nflows.distributions.MG1Uniform(torch.zeros(3), torch.ones(3)), False),
    "LotkaVolterraOscillating": (nflows.distributions.LotkaVolterraOscillating, False),
}  # fmt: skip


def test_no_base_of_nflows_is_missing() -> None:
    kinds = {name for name, kind in vars(nflows.distributions).items() if inspect.isclass(kind)}
    assert set(NFLOWS) == kinds - {"NoMeanException"}


@pytest.mark.parametrize("name", NFLOWS)
def test_a_base_of_nflows(name: str) -> None:
    make, held = NFLOWS[name]
    base = make()
    flow = flows.Flow(
        transforms.LULinear(2, identity_init=False), spread(base) if isinstance(base, nn.Module) else base
    )
    outcome(flow, name, held=held)


def test_a_base_of_torch_s_that_nflows_itself_cannot_call_is_told() -> None:
    box = nflows.distributions.uniform.BoxUniform(-9 * torch.ones(2), 9 * torch.ones(2))
    with pytest.raises(DataError, match=r"the flow's own log_prob does not run on rows of shape .* 'context'"):
        take(flows.Flow(transforms.LULinear(2), box), event_shape=(2,))


def zuko_flow(base: nn.Module, context: int = 0) -> nn.Module:
    coupling = zuko.flows.coupling.GeneralCouplingTransform(2, context, hidden_features=(8,))
    return zuko.lazy.Flow([coupling], base)


class Looks(zuko.lazy.LazyDistribution):
    """A base that has numbers of its own, and moves by the context where there is one."""

    def forward(self, c: Tensor | None = None) -> distributions.Distribution:
        return zuko.distributions.DiagNormal(TWO if c is None else TWO + c.sum(dim=-1, keepdim=True), TWO)


ZUKO: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    "GMM, diagonal": (lambda: zuko.mixtures.GMM(2, 0, 3, "diagonal"), 0, ""),
    "GMM, spherical": (lambda: zuko.mixtures.GMM(2, 0, 3, "spherical"), 0, ""),
    "GMM, full": (lambda: zuko.mixtures.GMM(2, 0, 3), 0, "the base Mixture of a zuko flow is not one that a bundle"),
    "GMM, given a context": (
        lambda: zuko.mixtures.GMM(2, 3, 3, "diagonal"), 3, "zuko GMM cannot be exported: a bundle's base does not"),
    "GMM, in a flow with a context": (
        lambda: zuko.mixtures.GMM(2, 0, 3, "diagonal"), 3, "does not run on rows of shape"),
    "a flow": (lambda: zuko.flows.MAF(2, 0, transforms=1, hidden_features=(8,)), 0, ""),
    "a flow, given a context": (lambda: zuko.flows.MAF(2, 3, transforms=1, hidden_features=(8,)), 3, ""),
    "a normal of a matrix": (
        lambda: zuko.lazy.UnconditionalDistribution(
            distributions.MultivariateNormal, TWO, torch.tensor([[2.0, 0.5], [0.5, 1.0]])), 3, ""),
    "columns that are not made one event": (
        lambda: zuko.lazy.UnconditionalDistribution(distributions.Normal, TWO, TWO), 0, ""),
    "one that looks at the context, without one": (Looks, 0, ""),
    "one that looks at the context": (Looks, 3, "does not run on rows of shape"),
    "no distribution": (
        lambda: zuko.lazy.UnconditionalDistribution(lambda: 3.0), 0, "the base float of a zuko flow is not one"),
    "one that cannot be made": (
        lambda: zuko.lazy.UnconditionalDistribution(distributions.Normal, TWO), 0,
        "zuko Flow cannot be taken apart: TypeError: Normal.__init__"),
}  # fmt: skip


@pytest.mark.parametrize("name", ZUKO)
def test_a_base_of_zuko_s_that_is_made_when_it_is_asked_for(name: str) -> None:
    make, context, message = ZUKO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        flow = zuko_flow(make(), context)
    if message:
        with pytest.raises((Unsupported, DataError), match=message):
            take(flow)
        return
    imported = take(flow)
    rows = draw_rows(imported, 30)
    assert imported.flow.event_shape == (2,)
    assert check_agreement(imported, rows.x, rows.context) < 1e-6


def two(kind: str) -> distributions.Distribution | None:
    """A distribution of torch's or zuko's of two columns; None for one that cannot be made of numbers like these."""
    cls = getattr(distributions, kind, None) or getattr(zuko.distributions, kind)
    known = {
        "Independent": lambda: distributions.Independent(distributions.Normal(TWO, TWO), 1),
        "BoxUniform": lambda: cls(-9 * torch.ones(2), 9 * torch.ones(2)),
        "Uniform": lambda: cls(-9 * torch.ones(2), 9 * torch.ones(2)),
        "StudentT": lambda: cls(torch.full((2,), 3.0), TWO, TWO),
        "MultivariateNormal": lambda: cls(TWO, torch.eye(2)),
        "LowRankMultivariateNormal": lambda: cls(TWO, torch.ones(2, 1), TWO),
        "GeneralizedPareto": lambda: cls(TWO, TWO, TWO),
        "Wishart": lambda: cls(torch.tensor(3.0), torch.eye(2)),
        "LKJCholesky": lambda: cls(2),
        "Multinomial": lambda: cls(3, TWO),
        "Joint": lambda: cls(distributions.Normal(0.0, 1.0), distributions.Normal(1.0, 1.0)),
        "Mixture": lambda: cls(zuko.distributions.DiagNormal(torch.zeros(3, 2), torch.ones(3, 2)), torch.zeros(3)),
        "MixtureSameFamily": lambda: cls(
            distributions.Categorical(torch.ones(3)), zuko.distributions.DiagNormal(torch.zeros(3, 2), torch.ones(3, 2))
        ),
        "Truncated": lambda: cls(distributions.Normal(TWO, TWO), -TWO, 3 * TWO),
        "Sort": lambda: cls(distributions.Normal(0.0, 1.0), 2),
        "TopK": lambda: cls(distributions.Normal(0.0, 1.0), 2, 3),
        "Minimum": lambda: cls(distributions.Normal(TWO, TWO), 3),
        "Maximum": lambda: cls(distributions.Normal(TWO, TWO), 3),
        "TransformedDistribution": lambda: cls(distributions.Normal(TWO, TWO), distributions.ExpTransform()),
        "NormalizingFlow": lambda: cls(distributions.ExpTransform(), zuko.distributions.DiagNormal(TWO, TWO)),
        "TransformedUniform": lambda: cls(distributions.ExpTransform(), TWO, 3 * TWO),
    }
    for make in (
        [known[kind]] if kind in known else [lambda: cls(TWO), lambda: cls(TWO, TWO), lambda: cls(TWO, 2 * TWO)]
    ):
        try:
            return make()
        except (TypeError, ValueError, NotImplementedError, RuntimeError):
            continue
    return None


KINDS = sorted(
    name
    for module in (distributions, zuko.distributions)
    for name in module.__all__
    if inspect.isclass(kind := getattr(module, name)) and issubclass(kind, distributions.Distribution)
)
HELD_KINDS = {"Normal", "Independent", "StudentT", "Uniform", "DiagNormal", "BoxUniform", "Mixture",
              "MixtureSameFamily", "MultivariateNormal", "LowRankMultivariateNormal"}  # fmt: skip


class Based(nn.Module):
    def __init__(self, base: object) -> None:
        super().__init__()
        self.base = base
        self.scale = nn.Parameter(TWO.clone())

    def forward(self, x: Tensor, context: None = None) -> tuple[Tensor, Tensor]:
        return x * self.scale, self.scale.log().sum()

    def inverse(self, z: Tensor, context: None = None) -> tuple[Tensor, Tensor]:
        return z / self.scale, -self.scale.log().sum()


@pytest.mark.parametrize("name", KINDS)
def test_a_base_of_torch_s_or_zuko_s(name: str) -> None:
    base = two(name)
    if base is None:
        assert name in {"Distribution", "ExponentialFamily"}, "a distribution that nobody tried"
        return
    assert type(base).__name__ == name
    outcome(Based(base), name, held=name in HELD_KINDS, shape=(2,))


def outcome(flow: nn.Module, name: str, *, held: bool, shape: tuple[int, ...] | None = None) -> None:
    if not held:
        with pytest.raises(Unsupported, match=rf"the base {name} of .* is not one that a bundle can hold"):
            take(flow, event_shape=shape)
        return
    imported = take(flow, event_shape=shape)
    rows = draw_rows(imported, 30)
    assert check_agreement(imported, rows.x, rows.context) < 1e-6


class Bent(distributions.Normal):
    """A class that inherits a density, and changes it."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.sinh())


@pytest.mark.parametrize("base", [Bent(TWO, TWO), distributions.Independent(Bent(TWO, TWO), 1)])
def test_a_density_of_a_class_that_inherits_is_another_base(base: object) -> None:
    with pytest.raises(Unsupported, match="is not one that a bundle can hold"):
        take(Based(base), event_shape=(2,))


def test_a_base_that_is_another_library_s_is_not_taken_for_none() -> None:
    with pytest.raises(Unsupported, match="the base DiagonalNormal of Based is not one that a bundle can hold"):
        take(Based(nflows.distributions.DiagonalNormal([2])), event_shape=(2,))


@pytest.mark.parametrize("base", [distributions.Normal(1.0, 2.0), distributions.StudentT(3.0, 1.0, 2.0)])
def test_a_base_of_one_number_is_not_stretched_over_the_columns(base: distributions.Distribution) -> None:
    with pytest.raises(Unsupported, match=r"has parameters for 1 columns, and the flow has 2: .* expand\(\[2\]\)"):
        take(Based(base), event_shape=(2,))
    with library_precision():
        assert take(Based(base.expand([2])), event_shape=(2,)).flow.width == 2
