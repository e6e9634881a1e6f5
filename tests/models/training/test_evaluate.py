"""The figures of a report are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from models.evaluation.likelihood import Evaluation, Gaussian, Score
from models.flows.flow import Flow
from models.flows.preprocess import Standardize
from models.training.evaluate import evaluate, gather_rows
from service.bundle.bases import NormalBase
from service.errors import DataError


def rows(count: int = 500, width: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator) * torch.tensor([1.0, 10.0, 0.1])[:width] + 5.0


def scored(flow: Flow, train: torch.Tensor, held_out: torch.Tensor, **given) -> Evaluation:
    return evaluate(flow, gather_rows(train, held_out, **given))


def standard_flow(train: torch.Tensor) -> Flow:
    """A diagonal Gaussian: a flow whose density is known."""
    return Flow(train.shape[1:], [Standardize.of(train)], NormalBase())


@given(st.integers(0, 1000), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_the_gaussian_is_scipys(seed, width):
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(200, width)) @ generator.normal(size=(width, width)) + 3.0
    exact = multivariate_normal(mixed.mean(axis=0), np.cov(mixed, rowvar=False, bias=True), allow_singular=True)
    gaussian = Gaussian.fit(mixed)
    if not gaussian.ridged:
        np.testing.assert_allclose(gaussian.log_prob(mixed), np.atleast_1d(exact.logpdf(mixed)), rtol=1e-6, atol=1e-6)


def test_no_gaussian_gives_the_training_rows_more():
    x = rows().double().numpy()
    best = Gaussian.fit(x)
    for change in (0.01, -0.01):
        assert Gaussian(best.mean + change, best.factor).log_prob(x).mean() < best.log_prob(x).mean()
        assert Gaussian(best.mean, best.factor * (1 + change)).log_prob(x).mean() < best.log_prob(x).mean()


def test_columns_that_depend_on_each_other_are_widened():
    x = rows().double().numpy()
    x[:, 2] = x[:, 0] + x[:, 1]
    gaussian = Gaussian.fit(x)
    assert gaussian.ridged
    assert np.isfinite(gaussian.log_prob(x)).all()
    assert not Gaussian.fit(rows().double().numpy() * [1, 1e6, 1e-6]).ridged  # units do not matter


# --- given a context


def conditional(count: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x = A c + noise of full covariance, with c a number and a class of three as columns of 0 and 1."""
    generator = np.random.default_rng(seed)
    c = np.column_stack([5 + 100 * generator.normal(size=count), np.eye(3)[generator.integers(0, 3, count)]])
    slope = np.array([[0.02, 0.0], [1.0, 2.0], [-1.0, 0.5], [0.0, 0.0]])
    return 7 + c @ slope + generator.normal(size=(count, 2)) @ [[1.0, 0.5], [0.0, 0.3]], c


def test_given_a_context_the_gaussian_is_the_best_linear_one():
    x, c = conditional()
    gaussian = Gaussian.fit(x, c)
    design = np.column_stack([c, np.ones(len(c))])
    left = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
    exact = multivariate_normal([0, 0], left.T @ left / len(x))
    np.testing.assert_allclose(gaussian.log_prob(x, c), exact.logpdf(left), rtol=1e-6, atol=1e-6)
    assert not gaussian.ridged
    held_out, given_it = conditional(seed=1)
    assert gaussian.log_prob(held_out, given_it).mean() > Gaussian.fit(x).log_prob(held_out).mean() + 1.0


def test_a_column_that_its_context_determines_is_widened():
    x, c = conditional()
    x[:, 1] = 3 * c[:, 0] - 2
    gaussian = Gaussian.fit(x, c)
    assert gaussian.ridged
    assert np.isfinite(gaussian.log_prob(x, c)).all()


def test_both_are_given_the_context_of_each_row():
    x, c = (torch.from_numpy(array).float() for array in conditional(400))
    scaling = Standardize.of(c[:, :1])

    class Shift(Standardize):
        """z = x - c, of the first column of the context."""

        def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
            return super().forward(x - context, context)

    one = c[:, :1]
    flow = Flow((2,), [Shift(torch.zeros(2), torch.ones(2))], NormalBase(), None, 1, scaling)
    evaluation = scored(
        flow, x[100:], x[:100], step=torch.ones(2), centres=x[:100], train_context=one[100:], context=one[:100]
    )
    expected = flow.log_prob(x[:100], one[:100]).double().numpy()
    for score in (evaluation.flow, evaluation.centres):
        np.testing.assert_array_equal(score.log_prob, expected)
    assert evaluation.context_width == 1
    exact = Gaussian.fit(x[100:].double().numpy(), one[100:].double().numpy())
    expected = exact.log_prob(x[:100].double().numpy(), one[:100].double().numpy())
    np.testing.assert_array_equal(evaluation.gaussian.log_prob, expected)
    np.testing.assert_array_equal(evaluation.centres_gaussian.log_prob, expected)


def test_a_score_has_the_standard_error_of_its_mean():
    score = Score(np.array([1.0, 2.0, 4.0, 9.0]))
    assert score.mean == 4.0
    assert score.standard_error == pytest.approx(np.std([1, 2, 4, 9], ddof=1) / 2)


def test_both_densities_score_the_same_rows():
    train, held_out = rows(), rows(300, seed=1)
    evaluation = scored(standard_flow(train), train, held_out)
    assert evaluation.flow.mean == pytest.approx(evaluation.gaussian.mean, abs=0.02)  # the columns are independent
    assert evaluation.gain.mean == pytest.approx(evaluation.flow.mean - evaluation.gaussian.mean)
    assert evaluation.gain.standard_error < evaluation.flow.standard_error
    assert evaluation.served is evaluation.flow
    assert evaluation.bits_per_dim(evaluation.flow) is None
    figures = evaluation.summary()
    assert set(figures) == {"held_out", "training"}
    assert set(figures["held_out"]) == {"flow", "gaussian", "mixture", "gain"}
    assert figures["training"]["flow"]["rows"] == 500
    assert figures["held_out"]["flow"]["mean_per_dimension"] == pytest.approx(evaluation.flow.mean / 3)


def test_bits_per_dimension_of_uniform_bytes_are_eight():
    # a density of 1/256 in each of three columns, with bins of width 1
    evaluation = scored(standard_flow(rows()), rows(), rows(seed=1), step=torch.ones(3))
    assert evaluation.bits_per_dim(Score(np.full(5, -3 * math.log(256)))) == pytest.approx(8.0)
    halves = scored(standard_flow(rows()), rows(), rows(seed=1), step=torch.full((3,), 0.5))
    assert halves.bits_per_dim(Score(np.full(5, -3 * math.log(256)))) == pytest.approx(9.0)
    mixed = scored(standard_flow(rows()), rows(), rows(seed=1), step=torch.tensor([1.0, 0.0, 1.0]))
    assert mixed.bits_per_dim(mixed.flow) is None


def test_centres_are_scored_beside_what_was_spread():
    train, centres = rows(), rows(300, seed=1)
    spread = centres + 0.01
    evaluation = scored(standard_flow(train), train, spread, step=torch.ones(3), centres=centres)
    assert evaluation.served is evaluation.centres
    assert evaluation.centres.mean != evaluation.flow.mean
    figures = evaluation.summary()
    assert figures["held_out"]["flow"]["bits_per_dim"] is not None
    assert figures["held_out_at_bin_centres"]["flow"]["mean"] == evaluation.centres.mean


def test_a_row_without_a_finite_log_prob_is_named():
    train, held_out = rows(), rows(30, seed=1)
    held_out[7, 1] = torch.inf
    with pytest.raises(DataError, match="gives 1 of 30 held-out rows no finite log_prob: the first is held-out row 7"):
        scored(standard_flow(train), train, held_out)


@pytest.mark.parametrize(
    ("gain", "words"),
    [(-0.5, "is no better than"), (0.0, "is no better than"), (0.1, "is not surely better"), (2.0, None)],
)
def test_a_flow_that_is_no_better_than_the_gaussian_is_told(gain: float, words: str | None) -> None:
    gaussian = np.random.default_rng(0).normal(size=100)
    spread = np.where(np.arange(100) % 2 == 0, 1.0, -1.0)
    found = Evaluation(width=2, flow=Score(gaussian + gain + spread), gaussian=Score(gaussian))
    assert (found.warning is None) == (words is None)
    if words is not None:
        assert words in (found.warning or "")
        assert f"{gain:+.3f} ± 0.101" in (found.warning or "")
    given = Evaluation(width=2, flow=Score(gaussian - 1), gaussian=Score(gaussian), context_width=1)
    assert "a linear Gaussian, given the context" in (given.warning or "")
