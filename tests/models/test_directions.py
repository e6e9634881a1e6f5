from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.optimize import minimize

from models.directions import logistic_direction, mean_direction, separation
from service.errors import DataError


def two_kinds(width: int = 4, count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Normal rows whose first coordinate tells the kind; the second goes along with it, and says nothing more."""
    generator = np.random.default_rng(seed)
    kinds = []
    for shift in (1.0, -1.0):
        rows = generator.normal(size=(count, width))
        rows[:, 0] += shift
        rows[:, 1] += 0.9 * rows[:, 0]
        kinds.append(rows)
    return kinds[0], kinds[1]


def test_the_mean_direction_takes_one_mean_to_the_other():
    positive, negative = two_kinds()
    moved = negative + mean_direction(positive, negative)
    np.testing.assert_allclose(moved.mean(axis=0), positive.mean(axis=0), rtol=1e-12)


def test_the_logistic_direction_leaves_out_what_only_goes_along():
    positive, negative = two_kinds()
    difference, logistic = mean_direction(positive, negative), logistic_direction(positive, negative)
    assert difference[1] > 1.5
    assert abs(logistic[1]) < 0.15 * logistic[0]
    assert separation(logistic, positive, negative) > separation(difference, positive, negative)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 30.0])
def test_the_logistic_direction_is_where_the_penalized_loss_is_least(ridge):
    positive, negative = two_kinds(3, 200, 1)
    rows, sign = np.concatenate([positive, negative[:50]]), np.repeat([1, -1], [200, 50])

    def loss(weights):
        return np.logaddexp(0, -sign * (rows @ weights[:3] + weights[3])).sum() + ridge * weights[:3] @ weights[:3] / 2

    fitted = minimize(loss, np.zeros(4), tol=1e-12).x[:3]
    direction = logistic_direction(positive, negative[:50], ridge)
    np.testing.assert_allclose(direction / np.linalg.norm(direction), fitted / np.linalg.norm(fitted), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rows_that_a_plane_parts_have_a_direction_too(scale):
    positive, negative = np.array([[3.0, 0.0], [4.0, 1.0]]) * scale, np.array([[-3.0, 0.0], [-4.0, -1.0]]) * scale
    direction = logistic_direction(positive, negative)
    assert np.isfinite(direction).all()
    assert separation(direction, positive, negative) == 1.0


def test_strength_1_moves_a_row_by_as_much_as_the_means_lie_apart():
    positive, negative = two_kinds()
    direction = logistic_direction(positive, negative)
    apart = mean_direction(positive, negative) @ direction / np.linalg.norm(direction)
    assert np.linalg.norm(direction) == pytest.approx(apart)


def test_equal_kinds_have_no_direction():
    rows, _ = two_kinds()
    assert not mean_direction(rows, rows).any()
    assert np.abs(logistic_direction(rows, rows)).max() < 1e-12


def test_separation_counts_ties_half():
    assert separation(np.array([1.0]), [[1.0]], [[1.0]]) == 0.5
    assert separation(np.array([-1.0]), [[1.0]], [[0.0]]) == 0.0


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    assert mean_direction([[1.0]], [[0.0]]).tolist() == [1.0]
    with pytest.raises(DataError, match="needs scikit-learn: install the extra `train`"):
        logistic_direction([[1.0]], [[0.0]])
