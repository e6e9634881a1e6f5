"""A mixture is a density, finds clusters, and is never much worse than the Gaussian that it begins with."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.likelihood import Gaussian
from models.evaluation.mixture import MAX_WIDTH, Mixture


def clusters(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = np.array([[-6.0, 0.0], [6.0, 0.0], [0.0, 9.0]])
    return 100 * (centres[generator.integers(0, 3, count)] + generator.normal(size=(count, 2))) + 1000


def fitted(rows: np.ndarray, context: np.ndarray | None = None) -> Mixture:
    mixture = Mixture.fit(Gaussian.fit(rows, context), rows, context, seed=0)
    assert mixture is not None
    return mixture


def test_clusters_are_found_in_any_units():
    rows, others = clusters(1500), clusters(1500, 1)
    mixture = fitted(rows)
    assert mixture.components >= 3
    gain = mixture.log_prob(others) - Gaussian.fit(rows).log_prob(others)
    assert gain.mean() > 0.5
    exact = -2 * np.log(100) - np.log(3) - np.log(2 * np.pi) - 1  # entropy of three clusters that lie apart
    assert mixture.log_prob(others).mean() == pytest.approx(exact, abs=0.1)


def test_it_integrates_to_one():
    mixture = fitted(clusters(600))
    axis = np.linspace(-600, 2800, 300)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    assert np.exp(mixture.log_prob(grid)).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=0.01)


def test_of_one_gaussian_it_is_that_gaussian():
    rows = np.random.default_rng(0).normal(size=(500, 3)) @ np.random.default_rng(1).normal(size=(3, 3))
    mixture = fitted(rows)
    assert mixture.components == 1
    np.testing.assert_allclose(mixture.log_prob(rows), Gaussian.fit(rows).log_prob(rows), atol=0.02)


def test_given_a_context_it_is_a_density_of_the_row_alone():
    generator = np.random.default_rng(0)
    kind = generator.integers(0, 2, 1200)
    context = np.stack([kind, 1 - kind], axis=1).astype(float)  # classes sum to one
    # two bumps in one class, one in the other: no linear Gaussian has that
    bump = np.where(generator.integers(0, 2, 1200) == 1, 5.0, -5.0) * (kind == 1)
    rows = (bump + generator.normal(size=1200))[:, None]
    mixture = fitted(rows, context)
    axis = np.linspace(-15, 15, 3001)[:, None]
    for each in ([1.0, 0.0], [0.0, 1.0]):
        density = np.exp(mixture.log_prob(axis, np.tile(each, (len(axis), 1))))
        assert density.sum() * 0.01 == pytest.approx(1.0, abs=0.01)
    gaussian = Gaussian.fit(rows, context).log_prob(rows, context)
    assert mixture.log_prob(rows, context).mean() > gaussian.mean() + 0.3


def test_wide_rows_and_few_rows_have_none():
    wide = np.random.default_rng(0).normal(size=(400, MAX_WIDTH + 1))
    assert Mixture.fit(Gaussian.fit(wide), wide, None, 0) is None
    few = np.random.default_rng(0).normal(size=(22, 2))
    assert Mixture.fit(Gaussian.fit(few), few, None, 0) is None


def test_a_constant_column_of_the_context_says_nothing():
    rows = clusters(900)
    context = np.random.default_rng(1).normal(size=(900, 2))
    rows = rows + 50 * context
    constant = np.column_stack([context, np.full(900, 3.0)])
    np.testing.assert_allclose(
        fitted(rows, constant).log_prob(rows, constant), fitted(rows, context).log_prob(rows, context), rtol=1e-6
    )
