from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from models.evaluation.likelihood import Gaussian

ROWS = np.random.default_rng(0).normal(size=(400, 3)) @ np.array([[1.0, 0.3, 0.0], [0.0, 2.0, -0.5], [0.0, 0.0, 0.1]])


def test_the_density_is_that_of_the_sample_s_mean_and_covariance() -> None:
    gaussian = Gaussian.fit(ROWS)
    exact = multivariate_normal(ROWS.mean(axis=0), np.cov(ROWS, rowvar=False, bias=True))
    np.testing.assert_allclose(gaussian.log_prob(ROWS), exact.logpdf(ROWS), rtol=1e-10)
    assert not gaussian.ridged


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_column_gets_a_ridge_and_leaves_the_others_as_they_are(value: float) -> None:
    rows = np.column_stack([ROWS, np.full(len(ROWS), value)])
    gaussian = Gaussian.fit(rows)
    assert gaussian.ridged
    alone = Gaussian.fit(ROWS)
    np.testing.assert_allclose(gaussian.factor[:3, :3], alone.factor, rtol=1e-4, atol=1e-4)
    spread = np.ptp(gaussian.log_prob(rows) - alone.log_prob(ROWS))
    assert spread < 1e-2, "where the column has its one value, it adds a constant"


def test_columns_that_determine_one_another_get_a_ridge() -> None:
    rows = np.column_stack([ROWS, ROWS[:, 0] + ROWS[:, 1]])
    gaussian = Gaussian.fit(rows)
    assert gaussian.ridged
    assert np.isfinite(gaussian.log_prob(rows)).all()
