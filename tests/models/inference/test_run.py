"""Runs: what an objective finds, and that a run goes on from a checkpoint as if nothing had happened."""

from __future__ import annotations

import io
import math

import pytest
import torch

from models.data.split import derived_generator
from models.inference.density import UnconstrainedDensity
from models.inference.evidence import annealed_evidence, find_missed, measure
from models.inference.recipe import InferenceFit
from models.inference.run import FitRun, plan_stages
from models.inference.target import take_target
from models.inference.verdict import judge_fit
from models.recipe import FlowRecipe
from models.training.fit import reproducible
from service.errors import DataError
from tests.models.inference.targets import BANANA_LOG_Z, MANY_WELL_LOG_Z, Gaussian, ManyWell, banana

SMALL = {"transforms": 2, "hidden": [16]}
QUICK = {"steps": 60, "mode_steps": 60, "batch_size": 64, "chains": 300, "chain_steps": 2, "draws": 4000}


def run_of(target, *, seed=0, architecture="real_nvp", flow=None, dim=2, **fit) -> FitRun:
    density = UnconstrainedDensity(take_target(target, "mine", dim=dim), None, dim)
    recipe = FlowRecipe(architecture=architecture, **(flow or SMALL))
    return FitRun(density, recipe, InferenceFit(**{**QUICK, **fit}), seed=seed)


@pytest.fixture(autouse=True)
def single_thread():
    with reproducible(1):
        yield


def finish(run: FitRun) -> FitRun:
    while not run.finished:
        run.round()
    return run


def judged(run: FitRun, draws: int = 4000):
    found = measure(run.fitted().eval(), run.density, draws, derived_generator(0, "evidence"))
    missed = find_missed(run.fitted(), run.density, [run.annealed], found.log_evidence)
    return found, judge_fit(found, annealed_evidence([run.annealed]), missed, [found], run.rise(), ())


@pytest.mark.parametrize("objective", ["reverse_kl", "tempered", "ais", "auto"])
def test_a_gaussian_is_fitted_by_every_objective(objective):
    run = finish(run_of(Gaussian(), objective=objective, steps=200, learning_rate=0.02))
    found, verdict = judged(run)
    assert abs(found.log_evidence - Gaussian.log_z) < 4 * found.log_evidence_se + 1e-3
    assert found.ess_share > 0.9
    assert found.elbo <= found.log_evidence + 1e-6
    assert verdict.word == "good"


@pytest.mark.parametrize("base", ["mixture", "uniform"])
def test_every_base_is_fitted(base):
    run = finish(
        run_of(Gaussian(), objective="reverse_kl", steps=250, learning_rate=0.02, flow={**SMALL, "base": base})
    )
    found, _ = judged(run)
    assert abs(found.log_evidence - Gaussian.log_z) < 0.1
    assert found.ess_share > 0.5


def test_a_target_of_numpy_is_fitted_without_a_gradient():
    run = finish(
        run_of(
            banana,
            mode_steps=300,
            steps=100,
            chains=1000,
            chain_steps=4,
            learning_rate=5e-3,
            architecture="neural_spline_coupling",
            flow={"transforms": 3, "hidden": [32]},
        )
    )
    found, _ = judged(run, 20000)
    assert [stage.name for stage in run.stages] == ["annealing", "likelihood", "replay"]
    assert abs(found.log_evidence - BANANA_LOG_Z) < 0.02 + 3 * found.log_evidence_se
    assert found.ess_share > 0.3


def test_objectives_that_need_a_gradient_refuse_a_target_without():
    for objective in ("reverse_kl", "tempered"):
        with pytest.raises(DataError, match=f"the objective {objective} follows the gradient"):
            plan_stages(InferenceFit(objective=objective), differentiable=False, joint=False)
    with pytest.raises(DataError, match="A joint density must be written in torch"):
        plan_stages(InferenceFit(), differentiable=False, joint=True)


def test_a_collapsed_fit_of_the_many_well_is_called_modes_missing():
    run = finish(
        run_of(
            ManyWell(), objective="reverse_kl", dim=6, steps=300, learning_rate=0.01, chains=1000, chain_steps=6, seed=1
        )
    )
    found, verdict = judged(run)
    assert found.log_evidence < MANY_WELL_LOG_Z - 0.1  # it has collapsed
    assert found.ess_share > 0.3  # and by its own draws looks well
    assert verdict.word == "modes_missing"


@pytest.mark.slow
def test_a_good_fit_of_the_many_well_is_called_good():
    run = finish(
        run_of(
            ManyWell(),
            dim=6,
            objective="ais",
            mode_steps=600,
            chains=2000,
            chain_steps=8,
            batch_size=256,
            architecture="neural_spline_coupling",
            flow={},
        )
    )
    found, verdict = judged(run, 20000)
    assert abs(found.log_evidence - MANY_WELL_LOG_Z) < 0.02
    assert verdict.word == "good"


@pytest.mark.parametrize("objective", ["auto", "tempered"])
def test_a_run_that_was_cut_off_ends_in_the_same_bits(objective):
    fit = {"objective": objective, "flow": {**SMALL, "dropout": 0.1}}
    whole = finish(run_of(Gaussian(), **fit))
    cut = run_of(Gaussian(), **fit)
    while not cut.finished:
        cut.round()
        buffer = io.BytesIO()
        torch.save(cut.state(), buffer)
        buffer.seek(0)
        cut = run_of(Gaussian(), **fit)
        cut.restore(torch.load(buffer, weights_only=True))
    expected, found = whole.fitted().state_dict(), cut.fitted().state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert repr(cut.history) == repr(whole.history)


def test_a_fit_whose_target_fails_ends():
    def fails(z):
        return torch.where(z[:, 0].abs() < 3.5, -0.5 * z[:, 0] ** 2, float("nan")) - 0.5 * z[:, 1] ** 2

    with pytest.raises(DataError, match="log_density gave NaN"):
        finish(run_of(fails))


def test_a_single_coordinate_is_fitted_by_an_autoregressive_flow():
    density = UnconstrainedDensity(take_target(lambda z: -0.5 * z[:, 0] ** 2, "mine", dim=1), None, 1)
    run = finish(FitRun(density, FlowRecipe(hidden=[8], transforms=1), InferenceFit(**QUICK), seed=0))
    found, _ = judged(run)
    assert abs(found.log_evidence - 0.5 * math.log(2 * math.pi)) < 0.02
