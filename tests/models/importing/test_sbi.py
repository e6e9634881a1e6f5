"""Posteriors of sbi itself, where it is installed: each kind of flow against its own log_prob in float64."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.importing.adapted import Unsupported
from models.importing.load import HeldOutRows, export_imported
from models.importing.take import library_precision, take
from models.importing.user_code import load_user_flow
from service.bundle.priors import Prior
from service.bundle.store import Repository, read_bundle
from service.engine.loading import load_flow
from service.plan import run_now

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(__import__("importlib.util").util.find_spec("sbi") is None, reason="sbi is not installed"),
]

KINDS = ["maf", "nsf", "maf_rqs", "zuko_maf", "zuko_nsf"]


def simulate(count=300, columns=3):
    from sbi.utils import BoxUniform

    torch.manual_seed(0)
    prior = BoxUniform(torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 1.0]))
    theta = prior.sample((count,))
    x = 30 + 7 * (theta @ torch.randn(2, columns)) + torch.randn(count, columns)
    return prior, theta, x


def make(kind, columns=3, embedding=None, **options):
    """A posterior around an estimator that knows the scales of its data, and has not been trained."""
    from sbi.inference.posteriors import DirectPosterior
    from sbi.neural_nets import posterior_nn

    prior, theta, x = simulate(columns=columns)
    more = {} if embedding is None else {"embedding_net": embedding}
    build = posterior_nn(model=kind, hidden_features=8, num_transforms=2, **more, **options)
    estimator = build(theta, x)
    with torch.no_grad():
        for weight in estimator.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return DirectPosterior(estimator.eval(), prior), theta, x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("embedded", [False, True])
def test_log_prob_is_that_of_sbi_in_float64(kind, embedded):
    network = nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4)) if embedded else None
    posterior, theta, x = make(kind, 10 if embedded else 3, network)
    imported = take(posterior)
    assert imported.prior == Prior(low=[-2.0, 0.0], high=[2.0, 1.0])
    with library_precision():
        exact = copy.deepcopy(posterior.posterior_estimator).double()
        theirs = exact.log_prob(theta.double().unsqueeze(0), x.double())[0]
        ours = imported.flow.log_prob(theta.double(), x.double())
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_rows_that_sbi_brings_to_an_unbounded_space():
    posterior, theta, x = make("zuko_nsf", z_score_theta="transform_to_unconstrained", x_dist=simulate()[0])
    with library_precision():
        exact = copy.deepcopy(posterior.posterior_estimator).double()
        theirs = exact.log_prob(theta.double().unsqueeze(0), x.double())[0]
    imported = take(posterior)
    torch.testing.assert_close(imported.flow.log_prob(theta.double(), x.double()), theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["mdn", "made"])
def test_mixtures_are_refused(kind):
    with pytest.raises(Unsupported, match=r"mixture of normal|MADEMoG"):
        take(make(kind)[0])


def test_an_ensemble_is_refused_with_its_members():
    from sbi.inference.posteriors import EnsemblePosterior

    members = [make("zuko_maf")[0] for _ in range(2)]
    with pytest.raises(Unsupported, match="Import its members"):
        take(EnsemblePosterior(members))


def test_the_net_of_a_stored_posterior_is_refused(tmp_path: Path):
    (tmp_path / "posterior.pkl").write_bytes(pickle.dumps(make("zuko_maf")[0]))
    (tmp_path / "part.py").write_text(
        "import pickle, pathlib\nHERE = pathlib.Path(__file__).parent\n"
        "def posterior():\n    return pickle.loads((HERE / 'posterior.pkl').read_bytes())\n"
        "def part():\n    return posterior().posterior_estimator.net\n"
    )
    assert take(load_user_flow(f"{tmp_path / 'part.py'}:posterior")).prior is not None
    with pytest.raises(Unsupported, match=r"the \.net of an estimator|the \.net of a ZukoFlow"):
        load_user_flow(f"{tmp_path / 'part.py'}:part")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_posterior_is_served_as_sbi_has_it(kind, tmp_path):
    posterior, theta, x = make(kind)
    imported = take(posterior)
    rows = HeldOutRows(theta.numpy(), x.numpy(), "simulated")
    folder = export_imported(imported, rows, repository=Repository(tmp_path), name="npe", source="test")
    flow = load_flow(read_bundle(folder))
    context = x[:3].numpy()
    plain = run_now(flow.log_prob(theta[:3].numpy(), context))
    with torch.no_grad():
        theirs = posterior.posterior_estimator.log_prob(theta[:3].unsqueeze(0), x[:3])[0].numpy()
    np.testing.assert_allclose(plain.log_prob, theirs, atol=1e-3)
    found = run_now(flow.log_prob(theta[:3].numpy(), context, correct=True))
    for at in range(3):
        drawn = posterior.posterior_estimator.sample((10_000,), condition=x[at : at + 1])[:, 0].detach()
        inside = imported.prior.inside(drawn.numpy()).mean()
        error = math.hypot(math.sqrt(inside * (1 - inside) / 10_000), found.acceptance.standard_error[at])
        assert abs(found.acceptance.share[at] - inside) <= 4 * error + 1e-6
    ours = run_now(flow.sample(2000, 1, context=context[0])).x
    own = posterior.sample((2000,), x=x[0], show_progress_bars=False).detach().numpy()
    spread = own.std(axis=0) / math.sqrt(1000)
    assert (np.abs(ours.mean(axis=0) - own.mean(axis=0)) < 5 * spread).all()
