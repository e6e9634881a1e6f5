"""Rows of the same distribution are not told apart, at any width; others are; and values that repeat are named."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.two_sample import FOLDS, compare_samples, find_atoms
from tests.models.evaluation.densities import rows, rows_given_context


def compared(held_out: np.ndarray, samples: np.ndarray, context: np.ndarray | None = None):
    return compare_samples(held_out, samples, context, 0, lambda _: None)


@pytest.mark.parametrize(("count", "width"), [(60, 1), (300, 2), (200, 60), (150, 200)])
def test_rows_of_one_distribution_are_not_told_apart(count, width):
    found = compared(rows(count, 1, width), rows(count, 2, width))
    assert abs(found.auroc - 0.5) < 4 * found.standard_error
    assert found.p_value > 1e-4
    assert found.atoms == ()
    assert found.auroc_rounded is None


def test_the_error_is_that_of_figures_of_one_distribution():
    found = [compared(rows(80, 2 * seed, 2), rows(80, 2 * seed + 1, 2)) for seed in range(8)]
    scaled = np.array([(each.auroc - 0.5) / each.standard_error for each in found])
    assert 0.4 < np.sqrt((scaled**2).mean()) < 2.0


def test_a_correlation_that_no_margin_shows_is_told_by_its_columns():
    held_out = rows(1500, 1, 4)
    held_out[:, 2] = held_out[:, 0] + 0.02 * held_out[:, 2]
    samples = rows(1500, 2, 4)
    found = compared(held_out, samples)
    assert found.auroc > 0.9
    assert {column for column, _ in found.telling[:2]} == {0, 2}


def test_each_is_told_apart_at_its_own_context():
    x, c = rows_given_context(500)
    again, _ = rows_given_context(500, 7)
    same = again - rows_given_context(500, 7)[1] + c
    assert abs(compared(x, same, c).auroc - 0.5) < 0.08
    assert compared(x, again, c).auroc > 0.8  # of other contexts: with the same margins


def test_values_that_repeat_are_named_and_rounded_away():
    held_out, samples = rows(800, 1, 3), rows(800, 2, 3)
    held_out[:, 1] = np.round(3 * held_out[:, 1])
    samples[:, 1] *= 3
    held_out[:320, 2] = 0.25
    samples[:320, 2] = 0.25 + 0.001 * samples[:320, 2]
    whole, spike = find_atoms(held_out, samples)
    assert (whole.column, whole.kind) == (1, "whole numbers")
    assert whole.repeated > 0.99
    assert (spike.column, spike.kind) == (2, "40% of the rows are 0.25")
    found = compared(held_out, samples)
    assert found.auroc > 0.95  # a whole number is no sample
    assert found.auroc_rounded == pytest.approx(0.5, abs=0.06)
    assert found.judged == found.auroc_rounded
    assert {column for column, _ in found.telling} >= {1}


def test_samples_that_repeat_as_rows_do_are_no_atoms():
    whole = np.round(3 * rows(400, 1, 1))
    assert find_atoms(whole, np.round(3 * rows(400, 2, 1))) == ()


def test_each_fold_is_told():
    done: list[int] = []
    compare_samples(rows(40), rows(40, 2), None, 0, done.append)
    assert sum(done) == FOLDS


def test_two_rows_are_two_folds():
    found = compared(rows(2), rows(2, 2))
    assert 0 <= found.auroc <= 1
    assert np.isfinite(found.standard_error)
