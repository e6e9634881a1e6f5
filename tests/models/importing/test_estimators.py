"""An estimator around a flow is taken as a whole or refused, and what was taken is said."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import zuko
from torch import Tensor, nn
from torch import distributions as D

from models.importing.adapted import Unsupported
from models.importing.agreement import check_agreement
from models.importing.load import draw_rows
from models.importing.posteriors import read_bounds
from models.importing.take import take
from models.importing.user_code import load_user_flow
from service.bundle.priors import Prior
from tests.models.importing.estimators import MEAN, STD, Estimator, ZukoFlow, of_nflows, of_zuko, standardizing


@pytest.mark.parametrize(
    "estimator",
    [
        of_nflows(standardizing()),
        of_nflows(standardizing(0.3, 2.0, nn.Linear(3, 5)), 5),
        of_zuko(standardizing()),
        of_zuko(standardizing(embedding=nn.Linear(3, 4)), 4),
        of_zuko(nn.Identity()),
    ],
)
def test_an_estimator_of_sbi_s_structure_is_taken_as_a_whole(estimator: Estimator) -> None:
    imported = take(estimator)
    assert (imported.flow.event_shape, imported.flow.context_width) == ((2,), 3)
    rows = draw_rows(imported, 40)
    check_agreement(imported, rows.x, rows.context)
    x, context = torch.from_numpy(rows.x), MEAN + STD * torch.from_numpy(rows.context)
    with torch.no_grad():
        own = estimator.log_prob(x.unsqueeze(0), context)[0]
    torch.testing.assert_close(imported.flow.log_prob(x.double(), context.double()).float(), own, rtol=1e-4, atol=1e-4)
    assert f"{type(estimator).__name__}, around the " in imported.summary[0]
    assert not any(line.startswith("Around:") for line in imported.summary)


def test_a_part_of_an_estimator_says_that_it_is_all_there_is() -> None:
    lines = take(of_zuko(standardizing()).net).summary
    assert lines[0].startswith("Flow:   zuko MAF, rows of 2 columns, ")
    assert lines[0].endswith("; base: normal")
    assert lines[1] == "Scales: no first step inside scales the rows"
    assert lines[2] == "Given:  a context of 3 columns (no other width runs); no embedding inside"
    assert lines[3].startswith("Around: nothing around it was taken. Where it is the .net of an estimator, as in sbi")
    assert len(lines) == 4


def test_a_flow_that_holds_its_scaling_and_its_embedding_says_so() -> None:
    lines = take(of_nflows(standardizing()).net).summary
    assert lines[1].startswith("Scales: ")
    assert lines[1].endswith(" standardizes the rows, inside")
    assert "; embedded inside, by Sequential, which standardizes it" in lines[2]
    assert "a context of 3 columns (Standardize '_embedding_net.0' takes so many)" in lines[2]
    assert len(lines) == 3


def test_a_flow_without_context_says_so() -> None:
    assert "Given:  no context (the flow takes no context)" in take(zuko.flows.MAF(2, hidden_features=(8,))).summary


class Scaled(nn.Module):
    """An estimator that scales its rows before its flow sees them, and counts that in."""

    def __init__(self, log_prob: bool = True) -> None:
        super().__init__()
        self.flow = zuko.flows.MAF(2, hidden_features=(8,))
        self.scaler = nn.Linear(2, 2)
        if log_prob:
            self.log_prob = self._log_prob

    def _log_prob(self, x: Tensor) -> Tensor:
        return self.flow().log_prob(x / 3) - 2 * torch.log(torch.tensor(3.0))


def test_an_estimator_that_scales_its_rows_outside_is_refused() -> None:
    with pytest.raises(
        Unsupported, match=r"log_prob of Scaled, around the zuko MAF in its \.flow is .*: it scales rows or"
    ):
        take(Scaled())


def test_an_estimator_that_scales_the_context_outside_of_its_embedding_is_refused() -> None:
    class Halved(ZukoFlow):
        def log_prob(self, rows: Tensor, condition: Tensor) -> Tensor:
            return super().log_prob(rows, condition / 2)

    source = of_zuko(standardizing())
    with pytest.raises(Unsupported, match=r"with the embedding beside it has .*: it scales rows or context elsewhere"):
        take(Halved(source.net, source.embedding_net, (2,), (3,)))


def test_an_estimator_without_a_log_prob_is_refused_with_what_lies_beside_its_flow() -> None:
    with pytest.raises(
        Unsupported, match=r"around the zuko MAF in its \.flow, with \.scaler beside it.*Write a module"
    ):
        take(Scaled(log_prob=False))


def test_an_estimator_of_two_flows_is_refused() -> None:
    class Two(Scaled):
        def __init__(self) -> None:
            super().__init__()
            self.other = zuko.flows.MAF(2, hidden_features=(8,))

    with pytest.raises(Unsupported, match=r"Two holds several flows, \.flow, \.other"):
        take(Two())


def test_a_condition_that_is_an_image_is_taken_flat() -> None:
    source = of_zuko(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)))
    source.condition_shape = torch.Size((3, 3))
    imported = take(source)
    assert imported.flow.context_width == 9
    rows = draw_rows(imported, 20)
    check_agreement(imported, rows.x, rows.context)
    x, context = torch.from_numpy(rows.x), torch.from_numpy(rows.context)
    with torch.no_grad():
        own = source.log_prob(x.unsqueeze(0), context.reshape(-1, 3, 3))[0]
    torch.testing.assert_close(imported.flow.log_prob(x.double(), context.double()).float(), own, rtol=1e-4, atol=1e-4)


def test_the_net_of_an_estimator_in_memory_is_refused_with_what_to_give() -> None:
    source = of_zuko(standardizing())
    with pytest.raises(Unsupported, match=r"the \.net of a ZukoFlow, beside which a .* Return the ZukoFlow itself"):
        take(source.net)
    plain = of_zuko(nn.Identity())
    assert take(plain.net).flow.context_width == 3
    inside = of_nflows(standardizing())
    assert take(inside.net).flow.context_width == 3


def test_the_net_of_an_estimator_that_the_user_s_code_makes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(
        "from tests.models.importing.estimators import of_zuko, standardizing\n"
        "def make():\n    return of_zuko(standardizing()).net\n"
    )
    with pytest.raises(Unsupported, match=r"the \.net of a ZukoFlow"):
        load_user_flow(f"{tmp_path / 'part.py'}:make")


def test_a_posterior_is_opened(tmp_path: Path) -> None:
    (tmp_path / "posteriors.py").write_text(
        "import torch\nfrom tests.models.importing.estimators import of_zuko, standardizing\n"
        "class DirectPosterior:\n"
        "    prior = torch.distributions.Independent(torch.distributions.Uniform(torch.zeros(2), torch.ones(2)), 1)\n"
        "    posterior_estimator = of_zuko(standardizing())\n"
        "make = DirectPosterior\n"
    )
    imported = take(load_user_flow(f"{tmp_path / 'posteriors.py'}:make"))
    assert imported.prior == Prior(low=[0.0, 0.0], high=[1.0, 1.0])
    assert imported.flow.context_width == 3
    assert "draws outside are drawn again" in imported.notes[-1]


def _normal(width: int) -> D.Distribution:
    return D.Independent(D.Normal(torch.zeros(width), 1.0), 1)


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (D.Independent(D.Uniform(torch.tensor([0.0, -1.0]), torch.tensor([2.0, 1.0])), 1), ([0.0, -1.0], [2.0, 1.0])),
        (_normal(2), None),
        (D.MultivariateNormal(torch.zeros(2), torch.eye(2)), None),
        (D.Independent(D.Gamma(torch.ones(2), 1.0), 1), ([0.0, 0.0], [None, None])),
        (D.Independent(D.Beta(torch.ones(2), 1.0), 1), ([0.0, 0.0], [1.0, 1.0])),
        (D.LogNormal(0.0, 1.0), ([0.0, 0.0], [None, None])),
    ],
)
def test_the_bounds_of_a_prior(prior: D.Distribution, expected: tuple[list[float], list[float]] | None) -> None:
    found = read_bounds(prior, 2)
    assert found == (None if expected is None else Prior(low=expected[0], high=expected[1]))


def test_the_bounds_of_a_prior_of_parts() -> None:
    class Parts:
        support = D.constraints.independent(
            D.constraints.cat([D.constraints.interval(0.0, 2.0), D.constraints.real], -1, [1, 2]), 1
        )

    assert read_bounds(Parts(), 3) == Prior(low=[0.0, None, None], high=[2.0, None, None])


@pytest.mark.parametrize(
    ("prior", "match"),
    [
        (D.Dirichlet(torch.ones(2)), "sum to 1"),
        (object(), "does not say its support"),
        (D.Independent(D.Poisson(torch.ones(2)), 1), "is not known"),
    ],
)
def test_a_prior_that_cannot_be_kept(prior: object, match: str) -> None:
    with pytest.raises(Unsupported, match=match) as told:
        read_bounds(prior, 2)
    assert "return the posterior's .posterior_estimator" in str(told.value)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("EnsemblePosterior", r"Import its members, each .* \.weights"),
        ("MCMCPosterior", "Markov chains"),
        ("VectorFieldPosterior", "score or a velocity field"),
        ("ImportanceSamplingPosterior", "Import the proposal's flow"),
    ],
)
def test_a_posterior_that_is_no_single_flow_is_refused(kind: str, match: str) -> None:
    posterior = type(kind, (type("NeuralPosterior", (), {}),), {"posterior_estimator": of_zuko(nn.Identity())})()
    with pytest.raises(Unsupported, match=match):
        take(posterior)


@pytest.mark.parametrize("kind", ["FlowMatchingEstimator", "VPScoreEstimator", "MixtureDensityEstimator"])
def test_an_estimator_that_is_no_flow_is_refused_with_what_it_is(kind: str) -> None:
    bases = {"VPScoreEstimator": (type("ConditionalVectorFieldEstimator", (nn.Module,), {}),)}
    estimator = type(kind, bases.get(kind, (nn.Module,)), {})()
    with pytest.raises(Unsupported, match=rf"^{kind} is a "):
        take(estimator)
