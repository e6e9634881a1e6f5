from __future__ import annotations

import warnings
from collections.abc import Callable

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import nflows
import normflows as nf
import numpy as np
import pytest
import torch
import zuko
from nflows import transforms
from torch import Tensor, distributions, nn

from models.export.exported_graph import ExportedGraph
from models.export.graph import export_graph
from models.flows.flow import Flow
from models.importing.adapted import Unsupported
from models.importing.agreement import check_agreement
from models.importing.load import draw_rows
from models.importing.take import knows_shape, library_precision, recognize, take
from service.bundle.bases import DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase, UniformBase
from service.errors import DataError
from tests.laws.table import FLOWS
from tests.models.importing.families import FAMILIES, convolutions, network, perceptron


def family(library: str, name: str) -> nn.Module:
    chosen = next(f for f in FAMILIES if (f.library, f.name) == (library, name))
    return chosen.build(2, 3 if chosen.conditional == "only" else 0)


class Affine(nn.Module):
    """A flow of no library, with a base or without."""

    def __init__(self, base: distributions.Distribution | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0, 0.5]))
        if base is not None:
            self.base = base

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.scale + context.sum(dim=1, keepdim=True), self.scale.log().sum()

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        return (z - context.sum(dim=1, keepdim=True)) / self.scale, -self.scale.log().sum()


def test_a_library_is_known_by_its_classes_and_those_that_inherit_from_them() -> None:
    class Mine(zuko.flows.NSF):
        pass

    assert recognize(Mine(2)) == "zuko"
    assert [recognize(family(f.library, f.name)) for f in FAMILIES[::12]] == [f.library for f in FAMILIES[::12]]
    assert recognize(nn.Linear(2, 2)) == recognize(3) == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "int is not a torch module. Accepted are a zuko Flow"),
        (nn.Linear(2, 2), "Linear is not a flow that can be imported. Accepted are a zuko Flow, an nflows Flow or"),
        (zuko.flows.MAF(2).transform, r"zuko LazyComposedTransform cannot be imported: a zuko.flows.Flow can"),
        (zuko.flows.GMM(2), "zuko GMM cannot be imported"),
        (Fm.PermuteRandom([(2,)]), "FrEIA PermuteRandom cannot be imported: a SequenceINN or a GraphINN can"),
    ],
)
def test_what_is_no_flow_is_refused_with_what_would_be(source: object, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        take(source)


@pytest.mark.parametrize(
    ("library", "name", "base"),
    [
        ("zuko", "NCSF", UniformBase),
        ("zuko", "MAF", NormalBase),
        ("nflows", "DiagonalNormal base", DiagonalNormalBase),
        ("nflows", "ConditionalDiagonalNormal base", NormalBase),
        ("normflows", "GaussianMixture base", MixtureBase),
        ("normflows", "MaskedAffineFlow", DiagonalNormalBase),
        ("FrEIA", "GLOWCouplingBlock", NormalBase),
    ],
)
def test_the_base_is_the_library_s(library: str, name: str, base: type) -> None:
    assert isinstance(take(family(library, name)).flow.base, base)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        (None, NormalBase()),
        (distributions.Normal(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.5])),
         DiagonalNormalBase(mean=[1.0, 2.0], standard_deviation=[1.0, 0.5])),
        (distributions.StudentT(torch.full((2,), 3.0), 1.0, 2.0), StudentTBase(degrees_of_freedom=3)),
        (distributions.Uniform(torch.full((2,), -9.0), torch.full((2,), 9.0)), UniformBase(low=-9.0, high=9.0)),
        (distributions.Uniform(torch.tensor([-9.0, -7.0]), torch.tensor([9.0, 8.0])), UniformBase(low=0.0, high=1.0)),
    ],
)  # fmt: skip
def test_a_module_of_anyone_s(given: distributions.Distribution | None, base: object) -> None:
    imported = take(Affine(given), event_shape=(2,), context_width=3)
    assert imported.flow.base == base
    assert bool(imported.notes) == (given is None)
    rows = draw_rows(imported, 30)
    check_agreement(imported, rows.x, rows.context)
    x, context = torch.from_numpy(rows.x).double(), torch.from_numpy(rows.context).double()
    z, ladj = Affine()(x, context)
    inner = given or distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(
        imported.flow.log_prob(x, context), (inner.log_prob(z).sum(dim=1) + ladj).double(), rtol=1e-5, atol=1e-5
    )


def test_a_base_that_the_manifest_has_no_name_for() -> None:
    with pytest.raises(Unsupported, match="the base Laplace of Affine is not one that a bundle can hold"):
        take(Affine(distributions.Laplace(torch.zeros(2), 1.0)), event_shape=(2,), context_width=1)


def test_the_flow_is_copied_and_left_as_it_is() -> None:
    source = zuko.flows.MAF(3, transforms=1, hidden_features=(8,))
    before = {name: value.clone() for name, value in source.state_dict().items()}
    imported = take(source)
    assert {p.dtype for p in source.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in source.parameters())
    assert all(torch.equal(before[name], value) for name, value in source.state_dict().items())
    assert not {id(p) for p in source.parameters()} & {id(p) for p in imported.flow.parameters()}
    assert {p.dtype for p in imported.flow.parameters()} <= {torch.float64}


def test_a_flow_that_was_called_before_can_be_taken() -> None:
    """A learned Householder permutation is kept from the last call, and nflows caches matrices in float32."""
    inn = Ff.SequenceINN(4)
    inn.append(Fm.AllInOneBlock, subnet_constructor=perceptron, learned_householder_permutation=2)
    inn(torch.randn(5, 4))
    linear = transforms.LULinear(4, using_cache=True, identity_init=False).eval()
    linear(torch.randn(5, 4))
    for source in (inn, linear):
        imported = take(source, event_shape=(4,))
        check_agreement(imported, draw_rows(imported, 30).x, None)


@pytest.mark.parametrize(
    ("shape", "subnet", "steps"),
    [((4,), perceptron, ["FrEIA AllInOneBlock", "fixed linear"]), ((4, 4, 4), convolutions, ["FrEIA AllInOneBlock"])],
    ids=["rows", "images"],
)
def test_an_all_in_one_block_of_rows_is_folded_and_one_of_images_is_called(
    shape: tuple[int, ...], subnet: Callable[[int, int], nn.Module], steps: list[str]
) -> None:
    """Its permutation is a matrix of columns for rows, and a convolution for images."""
    inn = Ff.SequenceINN(*shape)
    inn.append(Fm.AllInOneBlock, subnet_constructor=subnet)
    imported = take(inn)
    names = [step.name for step in imported.flow.bijections]
    assert [name for name in names if name not in ("_channels first", "flatten")] == steps
    check_agreement(imported, draw_rows(imported, 30).x, None)


@pytest.mark.parametrize("source", [transforms.LULinear(3), Affine()])
def test_a_shape_that_nobody_says(source: nn.Module) -> None:
    assert not knows_shape(source)
    with pytest.raises(DataError, match="does not say what shape its rows have: give --event-shape"):
        take(source)


def test_a_shape_that_is_not_the_flow_s() -> None:
    assert knows_shape(zuko.flows.MAF(3))
    with pytest.raises(DataError, match=r"--event-shape is \[4\], and the flow's rows have the shape \[3\]"):
        take(zuko.flows.MAF(3), event_shape=(4,))


def test_a_context_width_that_is_not_the_flow_s() -> None:
    with pytest.raises(DataError, match=r"does not run on rows of shape \[3\] with 4 columns of context"):
        take(zuko.flows.MAF(3, 2), context_width=4)
    with pytest.raises(DataError, match="--context is 4, and the flow takes 0 columns"):
        take(family("FrEIA", "NICECouplingBlock"), context_width=4)


def test_an_image_is_the_library_s_with_its_channels_last() -> None:
    inn = Ff.SequenceINN(2, 4, 6)
    inn.append(Fm.HaarDownsampling)  # its inverse scales its input in place
    inn.append(Fm.PermuteRandom)
    imported = take(inn)
    assert imported.flow.event_shape == (4, 6, 2)
    rows = draw_rows(imported, 20).x
    check_agreement(imported, rows, None)
    x = torch.from_numpy(rows).double()
    with library_precision():
        z, ladj = inn.double()(x.movedim(3, 1).contiguous())
    found, terms = imported.flow(x)
    torch.testing.assert_close(found, z.flatten(1))
    torch.testing.assert_close(terms, torch.full_like(terms, float(ladj)))
    latent = found.clone()
    torch.testing.assert_close(imported.flow.inverse(latent)[0], x)
    assert torch.equal(latent, found), "a latent was changed in place"
    assert imported.generate is not None
    with library_precision():
        torch.testing.assert_close(imported.generate(latent, None), x)


def test_a_flow_of_this_project() -> None:
    flow = FLOWS["real_nvp, D = 16, conditional"].build()
    imported = take(flow)
    assert isinstance(imported.flow, Flow)
    assert imported.flow.context_width == 3
    rows = draw_rows(imported, 30)
    assert check_agreement(imported, rows.x, rows.context) < 1e-12


def test_library_terms_leave_the_default_type_as_it_was() -> None:
    def fail() -> None:
        with library_precision():
            raise ValueError(str(torch.zeros(1).dtype))

    with pytest.raises(ValueError, match="float64"):
        fail()
    assert torch.zeros(1).dtype == torch.float32


def one_column(kind: str, *, context: int, reverse: bool) -> nn.Module:
    """A coupling of a single column: one of its halves is empty."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of a layer without inputs
        if kind == "normflows":
            layer = nf.flows.CoupledRationalQuadraticSpline(
                1, 1, 8, num_context_channels=context or None, reverse_mask=reverse
            )
            flow = (nf.ConditionalNormalizingFlow if context else nf.NormalizingFlow)(
                nf.distributions.DiagGaussian(1), [layer]
            )
        else:
            coupling = transforms.PiecewiseRationalQuadraticCouplingTransform(
                torch.tensor([1 if reverse else 0]),
                network(context),
                tails="linear",
                apply_unconditional_transform=True,
            )
            flow = nflows.flows.Flow(coupling, nflows.distributions.StandardNormal([1]))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return flow


@pytest.mark.parametrize("context", [0, 1, 2])
@pytest.mark.parametrize("kind", ["normflows", "nflows"])
def test_a_coupling_of_one_column_keeps_its_rank_in_the_graph(kind: str, context: int) -> None:
    imported = take(one_column(kind, context=context, reverse=True))
    rows = draw_rows(imported, 20)
    check_agreement(imported, rows.x, rows.context)
    flow = imported.flow.float().fold()
    with torch.no_grad():
        expected = flow.log_prob(
            torch.from_numpy(rows.x), None if rows.context is None else torch.from_numpy(rows.context)
        )
    for batch in (1, 7):
        forward = ExportedGraph(export_graph(flow, "forward"), "forward")(rows.x, rows.context, batch)
        np.testing.assert_allclose(forward.log_prob, expected, rtol=1e-4, atol=1e-4)
        inverse = ExportedGraph(export_graph(flow, "inverse"), "inverse")(
            forward.value.astype(np.float32), rows.context, batch
        )
        np.testing.assert_allclose(inverse.value, rows.x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("context", [0, 2])
def test_a_coupling_that_moves_nothing_fails_in_its_library_and_is_refused(context: int) -> None:
    with pytest.raises(DataError, match=r"the flow's own log_prob does not run on rows of shape \[1\]"):
        take(one_column("normflows", context=context, reverse=False))
