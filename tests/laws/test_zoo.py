"""The shipped bundles as they are served: float32 graphs in ONNX Runtime, held against what a density must be.

Every random number here has a fixed seed, so that a statistic is one number and not a chance; the bounds are those
of the test that it is, at five standard errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from models.export.exported_graph import ExportedGraph, GraphOutputs
from models.export.gate import BATCHES
from models.export.probes import outside_support
from models.zoo.build import NAMES, ZOO
from service.bundle.bases import NormalBase
from service.bundle.parity import ROUND_TRIP_TOLERANCE, TOLERANCE, relative_error
from service.bundle.store import Bundle, Repository, read_bundle
from service.engine.verbs.scores import HeldOut

SAMPLES = 20_000
MAX_BYTES = 10_000_000

every_flow = pytest.mark.parametrize("name", NAMES)


@dataclass(frozen=True)
class Shipped:
    bundle: Bundle
    forward: ExportedGraph
    inverse: ExportedGraph

    def log_prob(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return self.forward(np.asarray(x, np.float32), None, 1000).log_prob

    def base(self, rows: int) -> npt.NDArray[np.float32]:
        """Draws from the base by NumPy: nothing of the project has a hand in them."""
        random, base = np.random.default_rng(20260101), self.bundle.manifest.base
        shape = (rows, self.bundle.manifest.latent_width)
        draws = (
            random.standard_normal(shape)
            if isinstance(base, NormalBase)
            else random.uniform(base.low, base.high, shape)
        )
        return draws.astype(np.float32)

    def samples(self, rows: int = SAMPLES) -> tuple[npt.NDArray[np.float32], GraphOutputs]:
        answers = self.inverse(self.base(rows), None, 1000)
        return answers.value.astype(np.float32), answers


@lru_cache
def shipped(name: str) -> Shipped:
    bundle = read_bundle(Repository(ZOO).path(name))
    return Shipped(
        bundle,
        ExportedGraph(bundle.graphs["forward.onnx"], "forward"),
        ExportedGraph(bundle.graphs["inverse.onnx"], "inverse"),
    )


def test_the_flows_that_are_promised_are_there() -> None:
    assert set(NAMES) == {"two-moons", "digits", "wine", "square", "faces"}
    assert Repository(ZOO).names() == sorted(NAMES)


def test_all_bundles_together_are_small() -> None:
    repository = Repository(ZOO)
    total = sum(
        file.stat().st_size
        for name in NAMES
        for version in repository.versions(name)
        for file in repository.path(name, version).iterdir()
    )
    assert total < MAX_BYTES


@every_flow
def test_golden_rows_get_their_answers_in_every_batch(name: str) -> None:
    flow = shipped(name)
    golden = flow.bundle.golden
    for batch in BATCHES:
        answers = flow.forward(golden.x, golden.context, batch)
        assert relative_error(answers.log_prob, golden.log_prob) <= TOLERANCE
        assert relative_error(answers.value, golden.z) <= TOLERANCE
        assert relative_error(answers.log_abs_det_jacobian, golden.log_abs_det_jacobian) <= TOLERANCE


@every_flow
def test_the_graphs_undo_each_other_and_agree_on_the_density(name: str) -> None:
    flow = shipped(name)
    x, generated = flow.samples(4000)
    answers = flow.forward(x, None, 1000)
    assert relative_error(flow.inverse(answers.value.astype(np.float32), None, 1000).value, x) <= ROUND_TRIP_TOLERANCE
    # a sample next to an end of the support has lost its last digits, and the slope of a logit is steep there
    agree = np.abs(answers.log_prob - generated.log_prob) <= TOLERANCE * (1 + np.abs(generated.log_prob))
    assert agree.mean() > 0.99
    assert np.isfinite(answers.log_prob).all(), "what is sampled lies in the support"


@every_flow
def test_a_row_outside_the_support_has_no_density_and_a_finite_latent(name: str) -> None:
    flow = shipped(name)
    support = flow.bundle.manifest.support
    if support is None:
        assert np.isfinite(flow.log_prob(1e6 * np.ones((1, *flow.bundle.manifest.event_shape)))).all()
        return
    x = np.full((1, *flow.bundle.manifest.event_shape), outside_support(support), np.float32)
    answers = flow.forward(x, None, 1)
    assert np.isneginf(answers.log_prob).all()
    assert np.isfinite(answers.value).all()
    assert np.isfinite(answers.log_abs_det_jacobian).all()


@every_flow
def test_the_flow_beats_the_gaussian_on_held_out_rows(name: str) -> None:
    calibration = shipped(name).bundle.manifest.calibration
    assert calibration.gaussian_mean is not None
    assert calibration.mean > calibration.gaussian_mean


@every_flow
def test_samples_score_as_held_out_rows_do(name: str) -> None:
    """If the flow were the data's own distribution, both means would be its negative entropy.

    They lie as far apart as the fit is from that; the digits' held-out rows, at their bins' centres, lie above.
    """
    flow = shipped(name)
    calibration, width = flow.bundle.manifest.calibration, flow.bundle.manifest.event_width
    mean = flow.log_prob(flow.samples()[0]).mean()
    assert abs(mean - calibration.mean) / width < 0.25 + 5 * calibration.standard_error / width


def shift_statistic(flow: Shipped, x: npt.NDArray[np.float32], scale: float) -> float:
    """Samples against the density, in any number of dimensions.

    For x ~ p and any fixed d, the mean of p(x + d) / p(x) is the integral of p over the points y of its support
    for which y - d lies in it too; and so is the share of samples for which x - d does. The difference of the two,
    in standard errors, is returned. No normalization is asked for, and no other density.
    """
    direction = np.random.default_rng(1).standard_normal(x.shape[1:]) * x.std(axis=0)
    d = (scale * direction / math.sqrt(direction.size)).astype(np.float32)
    ratio = np.exp(flow.log_prob(x + d) - flow.log_prob(x))
    differences = ratio - np.isfinite(flow.log_prob(x - d))
    return float(differences.mean() / (differences.std() / math.sqrt(len(x))))


# the longer the shift the more it sees, until a few samples carry the mean: sooner where the density has edges
@pytest.mark.parametrize(
    ("name", "scale"),
    [("two-moons", 0.01), ("two-moons", 0.03), ("digits", 0.003), ("digits", 0.01), ("wine", 0.05), ("wine", 0.3)],
)
def test_samples_follow_the_density_in_any_direction(name: str, scale: float) -> None:
    flow = shipped(name)
    assert abs(shift_statistic(flow, flow.samples()[0], scale)) < 5


def test_that_statistic_finds_samples_that_are_a_little_too_wide() -> None:
    """The law above has teeth: a tenth more spread in the base is seen at once."""
    flow = shipped("wine")
    wide = flow.inverse(1.1 * flow.base(SAMPLES), None, 1000).value.astype(np.float32)
    assert abs(shift_statistic(flow, wide, 0.3)) > 5


def test_wine_is_normalized() -> None:
    """For x ~ p, the mean of r(x) / p(x) is the integral of r, which is 1: here r is a narrow normal density."""
    flow = shipped("wine")
    x, _ = flow.samples(60_000)
    half = len(x) // 2
    r = stats.multivariate_normal(np.mean(x[:half], axis=0), 0.4 * np.cov(x[:half], rowvar=False))
    weights = np.exp(r.logpdf(x[half:]) - flow.log_prob(x[half:]))
    error = weights.std() / math.sqrt(half)
    assert error < 0.05
    assert abs(weights.mean() - 1) < 5 * error


CELLS, LOW, HIGH = 30, -2.0, 3.5


def two_moons_on_a_grid(points: int) -> tuple[npt.NDArray[np.float64], float]:
    """The density at the middles of points x points cells of [LOW, HIGH]^2, and a cell's area."""
    step = (HIGH - LOW) / points
    middles = LOW + step * (np.arange(points) + 0.5)
    grid = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.exp(shipped("two-moons").log_prob(grid)).reshape(points, points), step * step


def test_two_moons_integrate_to_one() -> None:
    density, area = two_moons_on_a_grid(300)
    assert density.sum() * area == pytest.approx(1, abs=0.01)


def test_samples_of_two_moons_fill_cells_as_the_density_says() -> None:
    """Pearson's chi-square over a grid; cells that expect fewer than 10 samples count as one."""
    fine = 10
    density, area = two_moons_on_a_grid(CELLS * fine)
    expected = SAMPLES * area * density.reshape(CELLS, fine, CELLS, fine).sum(axis=(1, 3)).ravel()
    x, _ = shipped("two-moons").samples()
    found = np.histogram2d(x[:, 0], x[:, 1], bins=CELLS, range=[[LOW, HIGH]] * 2)[0].ravel()
    full = expected >= 10
    expected = np.append(expected[full], SAMPLES - expected[full].sum())
    found = np.append(found[full], SAMPLES - found[full].sum())
    statistic = ((found - expected) ** 2 / expected).sum()
    assert stats.chi2.sf(statistic, len(expected) - 1) > 1e-4


def test_square_is_its_closed_form() -> None:
    x = np.concatenate((np.geomspace(1e-30, 4, 5000), np.linspace(1e-3, 4, 5000))).astype(np.float32)[:, None]
    expected = -np.log(4) - 0.5 * np.log(x[:, 0].astype(np.float64))
    assert relative_error(shipped("square").log_prob(x), expected) <= 1e-6
    near = np.linspace(0.01, 4, 5000).astype(np.float32)[:, None]
    density = 1 / (4 * np.sqrt(near[:, 0].astype(np.float64)))
    np.testing.assert_allclose(np.exp(shipped("square").log_prob(near)), density, rtol=1e-6)


@pytest.mark.parametrize("x", [0.0, -0.0, -1.0, np.nextafter(np.float32(4), np.float32(5)), 1e30])
def test_square_is_zero_elsewhere(x: float) -> None:
    assert np.isneginf(shipped("square").log_prob([[x]])).all()


def test_samples_of_square_follow_its_distribution() -> None:
    """Kolmogorov and Smirnov: P(x <= t) = sqrt(t) / 2."""
    x, _ = shipped("square").samples()
    assert stats.kstest(x[:, 0].astype(np.float64), lambda t: np.sqrt(np.clip(t, 0, 4)) / 2).pvalue > 1e-4


@every_flow
def test_every_held_out_log_prob_is_kept_so_that_a_quantile_is_exact(name: str) -> None:
    calibration = shipped(name).bundle.manifest.calibration
    assert len(calibration.quantiles) == calibration.rows
    alarms = [HeldOut(calibration).anomaly(np.float32(calibration.quantiles), rate).sum() for rate in (0.01, 0.05, 0.5)]
    assert alarms == [math.floor(rate * calibration.rows) for rate in (0.01, 0.05, 0.5)]


def test_quantiles_of_rows_like_the_held_out_ones_are_uniform() -> None:
    flow = shipped("square")
    scale = HeldOut(flow.bundle.manifest.calibration)
    x, _ = flow.samples(2000)
    assert stats.kstest(scale.quantile(np.float32(flow.log_prob(x))), "uniform").pvalue > 0.01
    assert stats.kstest(scale.quantile(np.float32(flow.log_prob(np.sqrt(x)))), "uniform").pvalue < 0.01


def test_digits_say_how_an_integer_is_read() -> None:
    manifest = shipped("digits").bundle.manifest
    assert manifest.event_shape == [8, 8, 1]
    assert manifest.quantization is not None
    assert (manifest.quantization.low, manifest.quantization.high, manifest.quantization.step) == (0, 16, 1)
    assert "centre" in manifest.quantization.reading
    assert manifest.support is not None
    assert (manifest.support.low, manifest.support.high) == (-0.5, 16.5)


def test_samples_of_digits_round_to_pixels() -> None:
    x, _ = shipped("digits").samples(500)
    assert set(np.unique(np.rint(x)).tolist()) <= set(range(17))


def test_wine_names_its_columns_and_their_units() -> None:
    features = shipped("wine").bundle.manifest.features
    assert len(features) == 13
    assert {f.name: f.unit for f in features}["proline"] == "mg/l"
