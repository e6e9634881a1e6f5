"""Densities of the bases against scipy's, against their own draws, and through the exporter's gate."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import special, stats

from models.data.split import Split
from models.export.export import export_flow
from models.flows.bases import LearntBase, base_log_prob, in_float32, sample_base
from models.flows.flow import Flow
from models.flows.preprocess import Standardize
from models.recipe import FitRecipe
from models.training.checkpoint import Checkpoint
from models.training.fit import fit, mean_log_prob
from service.bundle.bases import Base, DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase, UniformBase
from service.bundle.store import Repository, read_bundle
from service.engine.sampling.noise import BaseNoise

Array = npt.NDArray[np.float64]

DIAGONAL = DiagonalNormalBase(mean=[1.0, -20.0], standard_deviation=[0.5, 3.0])
MIXTURE = MixtureBase(
    weights=[0.2, 0.3, 0.5],
    means=[[0.0, 1.0], [-4.0, 2.0], [6.0, 2.0]],
    standard_deviations=[[1.0, 2.0], [0.5, 0.25], [0.5, 1.0]],
)


def mixture_log_prob(z: Array) -> Array:
    parts = [
        math.log(weight) + stats.norm(mean, deviation).logpdf(z).sum(axis=1)
        for weight, mean, deviation in zip(MIXTURE.weights, MIXTURE.means, MIXTURE.standard_deviations, strict=True)
    ]
    return np.asarray(special.logsumexp(parts, axis=0))


CASES: dict[str, tuple[Base, Callable[[Array], Array]]] = {
    "normal": (NormalBase(), lambda z: stats.norm.logpdf(z).sum(axis=1)),
    "diagonal": (DIAGONAL, lambda z: stats.norm(DIAGONAL.mean, DIAGONAL.standard_deviation).logpdf(z).sum(axis=1)),
    **{
        f"student_t, {freedom}": (
            StudentTBase(degrees_of_freedom=freedom),
            lambda z, freedom=freedom: stats.t(freedom).logpdf(z).sum(axis=1),
        )
        for freedom in (1, 2, 3, 30, 100)
    },
    "mixture": (MIXTURE, mixture_log_prob),
    "uniform": (UniformBase(low=-1.0, high=2.0), lambda z: stats.uniform(-1.0, 3.0).logpdf(z).sum(axis=1)),
}

cases = pytest.mark.parametrize(("base", "expected"), CASES.values(), ids=CASES.keys())


@cases
def test_the_density_is_scipy_s_near_and_far(base: Base, expected: Callable[[Array], Array]) -> None:
    near = np.random.default_rng(0).normal(size=(200, 2)) * 5
    far = np.array([[0.0, 0.0], [1e3, -1e3], [1e6, 0.0], [-1e9, 1e9]])
    z = np.concatenate((near, far))
    found = base_log_prob(base, torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(found, expected(z), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(base.log_prob(z), expected(z), rtol=1e-9, atol=1e-9)


@cases
def test_the_density_integrates_to_one(base: Base, expected: Callable[[Array], Array]) -> None:
    """Over the plane, in u = z / (1 + |z|) of each coordinate, which takes all of the reals into (-1, 1)."""
    del expected
    u = (torch.arange(800, dtype=torch.float64) + 0.5) / 400 - 1
    line, widths = u / (1 - u.abs()), (1 - u.abs()) ** -2 / 400
    centre = torch.tensor([1.0, -20.0] if base == DIAGONAL else [0.0, 0.0], dtype=torch.float64)
    density = base_log_prob(base, torch.cartesian_prod(line, line) + centre).exp().reshape(800, 800)
    total = float(widths @ density @ widths)
    assert total == pytest.approx(1.0, abs=1e-2 if base.family == "uniform" else 1e-5)


@cases
def test_in_float32_it_is_never_nan(base: Base, expected: Callable[[Array], Array]) -> None:
    del expected
    z = torch.tensor([[0.0, 0.0], [1e10, 0.0], [1e30, -1e30], [3e38, 3e38], [1e-40, -1e-40]])
    found = base_log_prob(base, z)
    assert not bool(torch.isnan(found).any())
    assert bool((found < math.inf).all())
    if base.family == "student_t":
        assert bool(torch.isfinite(found).all())


@cases
@pytest.mark.parametrize("draw", ["served", "torch"])
def test_draws_follow_the_density(base: Base, expected: Callable[[Array], Array], draw: str) -> None:
    """Of the server's noise and of torch's draws: their log_prob is distributed as that of draws by scipy."""
    if draw == "served":
        z = BaseNoise(base, 2, seed=3, offset=0, count=4000)[0:4000].astype(np.float64)
    else:
        z = sample_base(base, 4000, 2, torch.Generator().manual_seed(3), torch.float64).numpy()
    if base.family == "uniform":
        assert np.isfinite(expected(z)).all()
        return
    random = np.random.default_rng(4)
    other = np.empty((20_000, 2))
    if isinstance(base, StudentTBase):
        other = random.standard_t(base.degrees_of_freedom, size=other.shape)
    elif isinstance(base, MixtureBase):
        chosen = random.choice(3, len(other), p=base.weights)
        other = random.normal(np.array(base.means)[chosen], np.array(base.standard_deviations)[chosen])
    else:
        mean, deviation = (base.mean, base.standard_deviation) if base == DIAGONAL else (0.0, 1.0)
        other = random.normal(mean, deviation, size=other.shape)
    found = base_log_prob(base, torch.from_numpy(z)).numpy()
    assert stats.ks_2samp(found, expected(other)).pvalue > 1e-3


def test_numbers_of_columns_are_rounded_to_float32_and_no_others() -> None:
    given = DiagonalNormalBase(mean=[0.1], standard_deviation=[0.3])
    rounded = in_float32(given)
    assert isinstance(rounded, DiagonalNormalBase)
    assert rounded.mean == [float(np.float32(0.1))]
    assert rounded.standard_deviation == [float(np.float32(0.3))]
    assert in_float32(rounded) == rounded
    assert in_float32(UniformBase(low=0.1, high=0.3)) == UniformBase(low=0.1, high=0.3)
    step = Standardize(torch.zeros(1), torch.ones(1))
    assert Flow((1,), [step], given).base == rounded


def learnt(count: int, width: int = 2, seed: int = 0) -> LearntBase:
    generator = torch.Generator().manual_seed(seed)
    base = LearntBase(
        3 * torch.randn(count, width, generator=generator), 0.1 + torch.rand(count, width, generator=generator)
    )
    if base.logits is not None:
        base.logits.data = torch.randn(count, generator=generator)
    return base


@pytest.mark.parametrize(("count", "family"), [(1, "diagonal_normal"), (4, "mixture")])
def test_a_learnt_base_states_itself_and_its_numbers_have_gradients(count: int, family: str) -> None:
    base = learnt(count).double()
    assert base.stated().family == family
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(base.log_prob(z), base_log_prob(base.stated(), z), rtol=1e-5, atol=1e-5)
    base.log_prob(z).mean().backward()
    for name, parameter in base.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


def test_what_is_stated_is_the_same_from_float32_and_float64() -> None:
    base = learnt(3)
    stated = base.stated()
    assert base.double().stated() == stated


def test_weights_and_deviations_that_vanish_still_state_a_distribution() -> None:
    base = learnt(3)
    assert base.logits is not None
    base.logits.data = torch.tensor([0.0, -200.0, -1e30])
    base.log_deviations.data = torch.full((3, 2), -200.0)
    stated = base.stated()
    assert isinstance(stated, MixtureBase)
    assert stated.weights[0] == 1.0
    assert min(stated.weights) > 0
    assert min(map(min, stated.standard_deviations)) > 0


def test_frozen_it_is_what_it_stated_and_learns_no_more() -> None:
    flow = Flow((2,), [Standardize(torch.zeros(2), torch.ones(2))], learnt(3))
    stated = flow.base
    assert [name for name, _ in flow.named_parameters()] == ["latent.means", "latent.log_deviations", "latent.logits"]
    assert flow.freeze_base() is flow
    assert flow.base == flow.latent == stated
    assert not list(flow.parameters())
    assert flow.freeze_base().base == stated


def alone(base: Base | LearntBase) -> Flow:
    return Flow((2,), [Standardize(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.5]))], base)


def exported(flow: Flow, held_out: Any, folder: Path) -> Path:
    return export_flow(
        flow,
        repository=Repository(folder),
        name="base",
        held_out=held_out,
        data="draws",
        created=datetime(2026, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    "base",
    [
        pytest.param(DIAGONAL, marks=pytest.mark.slow),  # tests/models/flows/test_analytic.py exports one, below exp
        StudentTBase(degrees_of_freedom=1),
        pytest.param(StudentTBase(degrees_of_freedom=6), marks=pytest.mark.slow),  # the same graph, other constants
        pytest.param(MIXTURE, marks=pytest.mark.slow),  # the next test exports one that it has fitted
    ],
    ids=["diagonal", "Cauchy", "student_t", "mixture"],
)
def test_through_the_gate_into_the_manifest(base: Base, tmp_path: Path) -> None:
    """Parity with float64 in every batch, and the same bits at every place of a batch: `export_flow` sees to both."""
    flow = alone(base)
    draws = sample_base(base, 300, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        held_out = flow.inverse(draws)[0]
    manifest = read_bundle(exported(flow, held_out, tmp_path)).manifest
    assert manifest.base == in_float32(base)
    assert manifest.parity.log_prob < 1e-5
    assert manifest.calibration.mean == pytest.approx(float(flow.log_prob(held_out).mean()), rel=1e-5)


def test_a_fit_learns_the_base_and_the_bundle_has_what_it_learnt(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    centres = np.array([[3.0, -3.0], [-3.0, 1.0]])
    chosen = random.choice(2, 1200, p=[0.25, 0.75])
    rows = torch.from_numpy(centres[chosen] + 0.5 * random.normal(size=(1200, 2))).float()
    start = LearntBase(torch.tensor([[0.5, -0.5], [-0.5, 0.5]]), torch.ones(2, 2))
    flow = Flow((2,), [Standardize.of(rows)], start)
    before = mean_log_prob(flow, rows[1000:])
    fit(
        flow,
        Split(rows[:800], rows[800:1000], rows[1000:]),
        FitRecipe(epochs=25, learning_rate=0.1, average=0.0),
        seed=0,
        work=tmp_path / "work",
    )
    kept = Checkpoint.load(tmp_path / "work")
    assert kept is not None
    assert {name: value.tolist() for name, value in kept.best.items() if name.startswith("latent.")} == {
        f"latent.{name}": value.tolist() for name, value in start.named_parameters()
    }
    truth = float(np.log(0.25) * 0.25 + np.log(0.75) * 0.75 - 2 * (np.log(0.5) + 0.5 * np.log(2 * np.pi * np.e)))
    after = mean_log_prob(flow, rows[1000:])
    assert before < truth - 1
    assert after == pytest.approx(truth, abs=0.15)
    manifest = read_bundle(exported(flow, rows[1000:], tmp_path / "flows")).manifest
    assert isinstance(manifest.base, MixtureBase)
    assert manifest.base == flow.base
    assert sorted(manifest.base.weights) == pytest.approx([0.25, 0.75], abs=0.05)
    assert any(p.requires_grad for p in flow.parameters()), "the flow that was exported is left as it was"
