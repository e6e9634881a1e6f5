"""Quantiles of draws are uniform: among samples, and through the distribution function of each base."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation.uniformity import (
    Uniformity,
    base_quantiles,
    measure_coverage,
    measure_tarp,
    sample_quantiles,
    smallest_p,
)
from models.flows.bases import sample_base
from service.bundle.bases import DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase, UniformBase

BASES = [
    NormalBase(),
    DiagonalNormalBase(mean=[3.0, -1.0], standard_deviation=[0.5, 2.0]),
    StudentTBase(degrees_of_freedom=3),
    MixtureBase(weights=[0.3, 0.7], means=[[0.0, 5.0], [4.0, -5.0]], standard_deviations=[[1.0, 1.0], [0.5, 2.0]]),
    UniformBase(low=-2.0, high=5.0),
]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.family)
def test_latents_of_each_base_are_uniform_through_its_distribution_function(base):
    drawn = sample_base(base, 4000, 2, torch.Generator().manual_seed(0)).double().numpy()
    tests = [Uniformity.of(column) for column in base_quantiles(base, drawn).T]
    assert smallest_p(tests) > 0.001
    moved = [Uniformity.of(column) for column in base_quantiles(base, 1.1 * drawn + 0.3).T]
    assert smallest_p(moved) < 1e-4


@given(st.integers(0, 10_000), st.integers(1, 30), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_draw_is_uniform_among_others_even_where_values_repeat(seed, many, whole):
    generator = np.random.default_rng(seed)
    drawn = generator.normal(size=(400, many + 1))
    drawn = np.round(drawn) if whole else drawn
    found = Uniformity.of(sample_quantiles(drawn[:, 0], drawn[:, 1:], seed))
    assert ((found.quantiles > 0) & (found.quantiles < 1)).all()
    assert found.p_value > 1e-6


def test_a_rank_among_shared_samples_is_that_among_its_own():
    values, samples = np.array([-1.0, 0.5, 9.0]), np.array([0.0, 1.0, 0.5, 2.0])
    shared = sample_quantiles(values, samples[None], 3)
    own = sample_quantiles(values, np.tile(samples, (3, 1)), 3)
    np.testing.assert_array_equal(shared, own)
    assert shared[0] < 1 / 5
    assert 1 / 5 < shared[1] < 3 / 5
    assert shared[2] > 4 / 5


def test_shared_samples_have_an_error_of_their_own():
    few = [np.random.default_rng(seed).normal(size=(2, 400)) for seed in range(60)]
    tests = [Uniformity.among(values, samples, 0) for values, samples in few]
    assert np.mean([test.p_value < 0.05 for test in tests]) < 0.15
    alone = [Uniformity.of(sample_quantiles(values, samples[None], 0)) for values, samples in few]
    assert np.mean([test.p_value < 0.05 for test in alone]) > 0.15


def test_coverage_counts_the_rows_of_high_density():
    found = {each.level: each.covered for each in measure_coverage(np.array([0.6, 0.7, 0.06, 0.9]))}
    assert found[0.5] == 0.75  # those at or above the median of the density
    assert found[0.95] == 1.0


def test_many_tests_are_held_to_a_smaller_p():
    tests = [Uniformity(np.array([0.5]), 0.5, p) for p in (0.02, 0.4, 0.9)]
    assert smallest_p(tests) == pytest.approx(0.06)
    assert smallest_p(tests[1:]) == pytest.approx(0.8)
    assert smallest_p(tests[2:] * 3) == 1.0


def test_distances_from_random_points_are_uniform_for_samples_that_are_right_and_for_no_others():
    generator = np.random.default_rng(3)
    root = np.linalg.cholesky(np.array([[1.0, 0.9], [0.9, 1.0]]))
    centre = generator.normal(size=(1500, 1, 2)) * 2
    rows = generator.normal(size=(1500, 2)) @ root.T + centre[:, 0]
    noise = generator.normal(size=(1500, 99, 2)) @ root.T
    p_values = [measure_tarp(rows, noise + centre, centre[:, 0], seed).p_value for seed in range(20)]
    assert min(p_values) > 1e-3
    assert np.mean(p_values) > 0.25
    for wrong in (noise * 1.5 + centre, noise * 0.6 + centre, noise + centre[::-1]):
        assert measure_tarp(rows, wrong, centre[:, 0], 0).p_value < 1e-4
    lost = np.full((1500, 99, 2), np.nan)
    assert np.isfinite(measure_tarp(rows, lost, np.zeros((1500, 1)), 0).quantiles).all()
