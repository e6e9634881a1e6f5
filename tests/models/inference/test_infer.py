"""Inferences from a recipe to a bundle: served, reported, resumed, and refused with nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import Dirichlet, Gamma, constraints

from models.inference.infer import infer
from models.inference.joint import load_rows
from models.inference.recipe import InferenceRecipe
from models.inference.run import RoundRecord
from models.inference.target import take_target
from service.bundle.store import read_bundle
from service.engine.loading import load_flow
from service.errors import DataError, ParityFailed
from service.plan import run_now
from tests.models.inference.targets import Gaussian

TINY = {
    "flow": {"architecture": "real_nvp", "transforms": 2, "hidden": [8]},
    "fit": {
        "steps": 75,
        "mode_steps": 50,
        "batch_size": 64,
        "chains": 200,
        "chain_steps": 2,
        "draws": 2000,
        "restarts": 2,
        "learning_rate": 0.02,
    },
}


def recipe_for(out: Path, **changes) -> InferenceRecipe:
    return InferenceRecipe.parse({"name": "mine", "out": str(out), **TINY}).override(changes)


class Bounded:
    """A gamma beside a Dirichlet of three."""

    dim = 4
    names = ("rate", "a", "b", "c")
    constraints = (constraints.positive, *[constraints.simplex] * 3)

    def log_density(self, z):
        simplex = Dirichlet(z.new_tensor([2.0, 3.0, 4.0]), validate_args=False).log_prob(z[:, 1:])
        return Gamma(z.new_tensor(3.0), z.new_tensor(2.0), validate_args=False).log_prob(z[:, 0]) + simplex


class Killed(BaseException):
    """A process that ends in the midst."""


def test_an_inference_ends_in_a_bundle_a_verdict_and_a_report(tmp_path: Path):
    said: list[str] = []
    result = infer(recipe_for(tmp_path), target=take_target(Bounded(), "mine.py:Bounded"), say=said.append)
    manifest = read_bundle(result.bundle).manifest
    assert (manifest.event_shape, manifest.latent_width) == ([4], 3)
    assert [feature.name for feature in manifest.features] == ["rate", "a", "b", "c"]
    assert [each.kind for each in manifest.constraints] == ["half_line", "simplex"]
    assert manifest.variational == result.variational
    assert manifest.variational.restarts == 2
    assert abs(manifest.variational.log_evidence) < 0.1
    assert manifest.provenance.data.startswith("the density mine.py:Bounded; calibrated on 2000 draws")
    figures = json.loads((result.report / "figures.json").read_text())
    assert figures["verdict"] == manifest.variational.verdict == result.verdict.word
    assert len(figures["restarts"]) == 2
    page = (result.report / "index.html").read_text()
    assert f"Verdict: {result.verdict.title}." in page
    assert {"pairs.png", "elbo.png", "weights.png", "evidence.png"} <= {p.name for p in result.report.iterdir()}
    assert not (tmp_path / ".training").exists()
    assert said[0].startswith(
        "Fitting real_nvp to mine.py:Bounded of 4 coordinates (torch, with a gradient): annealing"
    )
    _check_served(tmp_path)


def _check_served(repository: Path) -> None:
    """Draws lie in the support, their densities are those of the rows, and rows outside have none."""
    flow = load_flow(read_bundle(repository / "mine" / "1"))
    drawn = run_now(flow.sample(500, 1))
    assert drawn.x.shape == (500, 4)
    assert (drawn.x > 0).all()
    assert np.abs(drawn.x[:, 1:].sum(axis=1) - 1).max() < 1e-5
    again = run_now(flow.log_prob(drawn.x)).log_prob
    assert np.abs(again - drawn.log_prob).max() < 1e-3
    outside = np.array([[1, 0.2, 0.3, 0.6], [-1, 0.2, 0.3, 0.5], [1, -0.2, 0.7, 0.5]], np.float32)
    assert np.isneginf(run_now(flow.log_prob(outside)).log_prob).all()
    encoded = run_now(flow.encode(drawn.x[:5]))
    assert encoded.z.shape == (5, 3)
    assert np.abs(run_now(flow.decode(encoded.z)).x - drawn.x[:5]).max() < 1e-4


@pytest.mark.slow
def test_a_fit_that_was_killed_goes_on_to_the_same_bundle(tmp_path: Path):
    target = take_target(Gaussian(), "mine")
    whole = infer(recipe_for(tmp_path / "whole"), target=target)
    rounds = 0

    def kill(restart: int, record: RoundRecord) -> None:
        nonlocal rounds
        rounds += 1
        if rounds in (3, 5, 9):
            raise Killed

    recipe = recipe_for(tmp_path / "cut")
    for _ in range(3):
        with pytest.raises(Killed):
            infer(recipe, target=target, resume=True, observe=kill, seconds_between=0.0)
    with pytest.raises(DataError, match="--resume goes on with it"):
        infer(recipe, target=target)
    with pytest.raises(DataError, match="began with another recipe"):
        infer(recipe.override({"fit": {"steps": 100}}), target=target, resume=True)
    done = infer(recipe, target=target, resume=True)
    for name in ("forward.onnx", "inverse.onnx", "golden.npz"):
        assert (done.bundle / name).read_bytes() == (whole.bundle / name).read_bytes()
    assert done.variational == whole.variational


@pytest.mark.slow
def test_a_failed_export_keeps_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = take_target(Gaussian(), "mine")
    recipe = recipe_for(tmp_path, fit={**TINY["fit"], "restarts": 1})

    def refuse(*_: object, **__: object) -> None:
        raise ParityFailed("the graph is not the flow")

    with monkeypatch.context() as patched:
        patched.setattr("models.inference.infer.export_flow", refuse)
        with pytest.raises(ParityFailed, match=r"(?s)is not the flow.*not lost.*--resume"):
            infer(recipe, target=target)
    assert [path.name for path in (tmp_path / "mine").glob("*")] == []
    rounds: list[RoundRecord] = []
    result = infer(recipe, target=target, resume=True, observe=lambda _, record: rounds.append(record))
    assert rounds == []  # nothing is fitted again
    assert result.version == 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda z: -(z**2).sum(), "a single number"),
        (lambda z: -(z**2), "the shape"),
        (lambda z: -(z**2).sum(dim=1) * float("nan"), "NaN"),
        (lambda z: -(z**2).sum(dim=1) - float("inf"), "-inf on all"),
        (lambda z: torch.where(z[:, 0] > 0, -z[:, 0].sqrt(), -(z[:, 0] ** 2)) - z[:, 1] ** 2, "gradient"),
    ],
)
def test_a_bad_target_leaves_nothing_behind(tmp_path: Path, function, said):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=said):
        infer(recipe_for(out), target=take_target(function, "mine", dim=2))
    assert not out.exists()


def test_constraints_of_the_wrong_width_are_refused(tmp_path: Path):
    made = type("Mine", (Gaussian,), {"constraints": [constraints.positive] * 3})
    with pytest.raises(DataError, match="constraints for 3 coordinates, and 2 coordinates"):
        infer(recipe_for(tmp_path / "out"), target=take_target(made(), "mine"))


class Linear(torch.nn.Module):
    """z ~ N(0, 1) in two coordinates, x | z ~ N(A z, 0.5) with A to learn: log p(x) is known."""

    dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, -1.0]]))

    def log_density(self, z, x):
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=1)
        return prior + torch.distributions.Normal(z @ self.matrix.T, 0.5).log_prob(x).sum(dim=1)


@pytest.mark.slow
def test_a_joint_density_is_amortized_over_rows_of_x(tmp_path: Path):
    torch.manual_seed(0)
    truth = torch.tensor([[1.5, 0.0], [0.0, 1.0], [0.5, -1.0]])
    x = torch.randn(300, 2) @ truth.T + 0.5 * torch.randn(300, 3)
    np.save(tmp_path / "x.npy", x.numpy())
    owner = Linear()
    recipe = recipe_for(
        tmp_path / "out",
        target={"rows": str(tmp_path / "x.npy")},
        fit={**TINY["fit"], "restarts": 1, "steps": 300, "draws": 20000},
    )
    rows = load_rows(recipe)
    result = infer(recipe, target=take_target(owner, "mine", rows=rows.train))
    manifest = read_bundle(result.bundle).manifest
    assert (manifest.event_shape, manifest.context_width) == ([2], 3)
    covariance = owner.matrix.detach() @ owner.matrix.detach().T + 0.25 * torch.eye(3)
    exact = torch.distributions.MultivariateNormal(torch.zeros(3), covariance).log_prob(rows.held_out).mean()
    assert result.variational.log_evidence == pytest.approx(float(exact), abs=0.03)
    assert result.variational.elbo <= result.variational.log_evidence
    assert not torch.equal(owner.matrix.detach(), Linear().matrix)  # it was learnt, and is beside the report
    kept = torch.load(result.report / "target.pt", weights_only=True)
    assert torch.equal(kept["matrix"], owner.matrix.detach())


def test_a_joint_density_takes_no_annealing():
    with pytest.raises(DataError) as caught:
        InferenceRecipe.parse({"target": {"rows": "x.csv"}, "fit": {"objective": "ais"}})
    assert "is for a single density" in caught.value.errors[0].reason
