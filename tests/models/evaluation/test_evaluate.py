"""An exact flow passes each test; one that is off in one way fails those that look at it."""

from __future__ import annotations

import numpy as np
import pytest

from models.evaluation.evaluate import HeldOutRows, diagnose, measure_likelihood, stages
from models.evaluation.figures import collect_figures
from models.evaluation.verdict import judge
from service.errors import DataError
from tests.models.evaluation.densities import NormalDensity, rows, rows_given_context


def found(density: NormalDensity, held_out: HeldOutRows, seed: int = 0):
    evaluation = measure_likelihood(density, held_out, seed)
    return evaluation, diagnose(density, held_out, evaluation.flow.log_prob, seed, lambda _: None)


def verdict(density: NormalDensity, held_out: HeldOutRows):
    return judge(*found(density, held_out), ["a", "b"])


def test_an_exact_flow_passes_each_test():
    evaluation, diagnosis = found(NormalDensity(), HeldOutRows(rows(2000), train=rows(4000, 2)))
    assert diagnosis.log_prob.p_value > 0.01
    assert diagnosis.latents_p_value > 0.01
    assert abs(diagnosis.samples.auroc - 0.5) < 4 * diagnosis.samples.standard_error
    assert all(margin.p_value > 0.001 for margin in diagnosis.margins)
    assert all(abs(each.covered - each.level) < 4 * each.standard_error for each in diagnosis.coverage)
    assert diagnosis.ranks == ()
    assert diagnosis.ranks_p_value is None
    assert evaluation.mixture is not None
    assert abs(evaluation.gain.mean) < 0.01
    assert evaluation.train is not None


@pytest.mark.parametrize(("scale", "kind"), [(0.6, "too narrow"), (1.7, "too wide")])
def test_a_density_that_is_too_narrow_or_too_wide_is_called_so(scale, kind):
    _, diagnosis = found(NormalDensity(scale=scale), HeldOutRows(rows(800)))
    assert diagnosis.log_prob.p_value < 1e-6
    assert diagnosis.latents_p_value < 1e-6
    half = diagnosis.coverage[0]
    assert half.level == 0.5
    assert (half.covered < 0.5 - 4 * half.standard_error) == (kind == "too narrow")
    said = verdict(NormalDensity(scale=scale), HeldOutRows(rows(800)))
    assert said.grade == "poor"
    assert any(kind in sentence for sentence in said.sentences)
    assert any("WORSE than a full-covariance Gaussian" in sentence for sentence in said.sentences)


def test_samples_that_are_shifted_are_told_from_rows():
    _, diagnosis = found(NormalDensity(shift=1.0), HeldOutRows(rows(800)))
    assert diagnosis.samples.auroc > 0.75
    assert diagnosis.samples.p_value < 1e-6
    assert {column for column, _ in diagnosis.samples.telling} == {0, 1}
    assert all(margin.p_value < 1e-6 for margin in diagnosis.margins)
    assert diagnosis.margins[0].wasserstein == pytest.approx(1.0, abs=0.15)


def test_an_exact_conditional_flow_has_uniform_ranks_and_one_that_is_off_has_not():
    x, c = rows_given_context(900)
    train, train_context = rows_given_context(900, 5)
    held_out = HeldOutRows(x, context=c, train=train, train_context=train_context)
    evaluation, diagnosis = found(NormalDensity(), held_out)
    assert diagnosis.ranks_p_value is not None
    assert diagnosis.ranks_p_value > 0.01
    assert diagnosis.log_prob.p_value > 0.01
    assert abs(diagnosis.samples.auroc - 0.5) < 4 * diagnosis.samples.standard_error
    assert evaluation.context_width == 1
    assert abs(evaluation.gain.mean) < 0.02  # the linear Gaussian is the very density
    _, wrong = found(NormalDensity(slope=0.4), held_out)
    assert wrong.ranks_p_value is not None
    assert wrong.ranks_p_value < 1e-6
    assert diagnosis.tarp is not None
    assert diagnosis.tarp.p_value > 0.01
    assert wrong.tarp is not None
    assert wrong.tarp.p_value < 1e-3


def test_the_worst_rows_are_named_with_the_value_that_is_furthest_out():
    x = rows(300)
    x[17] = [0.0, 9.0]
    x[200] = [-7.0, 0.0]
    _, diagnosis = found(NormalDensity(), HeldOutRows(x))
    first, second = diagnosis.worst[:2]
    assert (first.row, first.column, second.row, second.column) == (17, 1, 200, 0)
    assert first.quantile == 0.0
    assert first.deviations > 5 > -5 > second.deviations
    scores = [worst.log_prob for worst in diagnosis.worst]
    assert scores == sorted(scores)
    assert len(scores) == 10


def test_the_same_seed_gives_the_same_figures_and_every_number_is_finite():
    x, c = rows_given_context(200)
    held_out = HeldOutRows(x, context=c)

    def figures(seed: int):
        evaluation, diagnosis = found(NormalDensity(), held_out, seed)
        return collect_figures(evaluation, diagnosis, judge(evaluation, diagnosis, ["a", "b"]), ["a", "b"], x)

    assert figures(3) == figures(3)
    assert figures(3) != figures(4)

    def numbers(value):
        if isinstance(value, dict):
            return [n for each in value.values() for n in numbers(each)]
        if isinstance(value, list):
            return [n for each in value for n in numbers(each)]
        return [value] if isinstance(value, float) else []

    assert np.isfinite(numbers(figures(3))).all()


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_few_held_out_rows_of_a_fit_are_enough(count):
    evaluation, diagnosis = found(NormalDensity(), HeldOutRows(rows(count), train=rows(60, 2)))
    assert len(diagnosis.worst) == count
    assert judge(evaluation, diagnosis, ["a", "b"]).sentences


def test_progress_is_told_as_often_as_it_says():
    for held_out in (HeldOutRows(rows(100)), HeldOutRows(*rows_given_context(100))):
        done: list[int] = []
        density = NormalDensity()
        diagnose(density, held_out, density.log_prob(held_out.rows, held_out.context), 0, done.append)
        assert sum(done) == stages()


def test_without_training_rows_the_gaussian_of_the_other_folds_scores_each_row():
    x = rows(60, width=6)
    evaluation = measure_likelihood(NormalDensity(width=6), HeldOutRows(x), 0)
    # fitted to the rows that it scores, a Gaussian of 27 numbers would be ahead of the truth
    assert evaluation.gaussian.mean < evaluation.flow.mean
    assert evaluation.train is None
    with pytest.raises(DataError, match=r"19 rows are too few .* at least 20 are needed, or training rows \(--train\)"):
        measure_likelihood(NormalDensity(), HeldOutRows(rows(19)), 0)


def test_a_flow_that_gives_training_rows_much_more_has_learnt_them_by_heart():
    held_out = HeldOutRows(rows(400), train=0.2 * rows(400, 3))
    assert any("learnt some of them by heart" in sentence for sentence in verdict(NormalDensity(), held_out).sentences)


def test_the_verdict_is_that_of_the_gravest_finding_and_begins_with_it():
    evaluation, diagnosis = found(NormalDensity(), HeldOutRows(rows(500), train=rows(500, 2)))
    usual = judge(evaluation, diagnosis, ["a", "b"])
    assert usual.grade == "fair"  # no better than a Gaussian, since it is one
    outside = judge(evaluation, diagnosis, ["a", "b"], outside=["row 4", "row 7", "row 9"])
    assert outside.grade == "poor"
    assert outside.sentences[0].startswith("3 rows have log_prob -inf, the first of them row 4")
    same = judge(evaluation, diagnosis, ["a", "b"], same_rows=True)
    assert any("has the name of the file that the flow was fitted to" in sentence for sentence in same.sentences)
    shifted = judge(evaluation, diagnosis, ["a", "b"], shift=(-1.5, 1e-9))
    assert any("whose mean is -1.500" in sentence for sentence in shifted.sentences)
