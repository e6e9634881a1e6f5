"""k-hat is held against arviz 0.20.0's `psislw` on samples that a formula gives, and against samples of known shape."""

from __future__ import annotations

import math

import numpy as np
import pytest

from service.engine.verbs.importance import importance, pareto_k, pareto_threshold
from service.errors import InvalidArgument, OutOfSupport


def pareto_sample(k: float, count: int = 1000) -> np.ndarray:
    """Log-ratios 1 + the quantiles of a generalized Pareto distribution of shape k."""
    left = 1 - (np.arange(count) + 0.5) / count
    return np.log(1 + (left**-k - 1) / k)


@pytest.mark.parametrize(
    ("k", "arviz"),
    [(0.1, 0.14996426749948916), (0.5, 0.4970859612625217), (0.9, 0.8442664334030672), (1.5, 1.3650358987029867)],
)
def test_k_is_that_of_arviz_and_near_the_true_one(k, arviz):
    found = pareto_k(pareto_sample(k))
    assert found == pytest.approx(arviz, rel=1e-9)
    assert found == pytest.approx(k, abs=0.15)


@pytest.mark.parametrize(("scale", "arviz"), [(1, 0.209325490503128), (2, 1.0690508208909566), (4, 1.5141830013066038)])
def test_k_of_lognormal_ratios_is_that_of_arviz(scale, arviz):
    ratios = np.random.RandomState(scale).standard_normal(400) * scale
    assert pareto_k(ratios) == pytest.approx(arviz, rel=1e-9)


def test_k_of_bounded_ratios_is_negative():
    assert pareto_k(np.log((np.arange(200) + 0.5) / 200)) == pytest.approx(-0.6360133060563306, rel=1e-9)


def test_k_does_not_depend_on_order_or_on_a_constant_factor():
    ratios = pareto_sample(0.6)
    expected = pareto_k(ratios)
    shuffled = np.random.default_rng(0).permutation(ratios)
    assert pareto_k(shuffled - 700.0) == pytest.approx(expected, rel=1e-9)


def test_ratios_of_zero_are_no_tail():
    many = np.concatenate([np.full(90, -800.0), np.linspace(-3, 0, 10) ** 3])
    assert pareto_k(many) == pytest.approx(4.041094899446508, rel=1e-9)
    none = np.where(many == -800.0, -np.inf, many)
    assert pareto_k(none) == pytest.approx(4.041094899446508, rel=1e-9)


@pytest.mark.parametrize("ratios", [np.zeros(1000), np.linspace(0, 1, 20), np.array([0.0]), np.r_[np.zeros(999), 1.0]])
def test_k_is_not_guessed_from_a_few_ratios(ratios):
    assert pareto_k(ratios) is None


def test_weights_of_a_flow_against_itself_are_equal():
    log_prob = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    found = importance(log_prob.astype(np.float64), log_prob)
    np.testing.assert_array_equal(found.weights, 1 / 1000)
    np.testing.assert_allclose(found.log_weights, -math.log(1000), rtol=1e-12)
    assert (found.ess, found.ess_share, found.pareto_k) == (1000, 1.0, None)
    assert found.verdict == "good: all weights are equal, to the rounding of float32"


def test_weights_that_differ_by_the_rounding_of_float32_are_equal():
    log_prob = np.random.default_rng(0).normal(size=1000) - 900
    found = importance(log_prob, log_prob.astype(np.float32))
    assert found.pareto_k is None
    assert found.verdict == "good: all weights are equal, to the rounding of float32"
    assert found.ess == pytest.approx(1000, rel=1e-6)
    # what float32 would round off is a difference between two numbers of float64
    assert importance(log_prob, log_prob.astype(np.float32).astype(np.float64)).pareto_k is not None
    further = importance(log_prob + np.linspace(0, 0.01, 1000), log_prob)
    assert further.pareto_k is not None


def test_weights_are_the_ratios_normalized():
    log_target, log_prob = np.array([-1.0, -2.0, -np.inf, 0.5]), np.array([-1.5, -1.0, 0.0, 0.5])
    found = importance(log_target, log_prob)
    ratios = np.exp(log_target - log_prob)
    expected = ratios / ratios.sum()
    np.testing.assert_allclose(found.weights, expected, rtol=1e-12)
    np.testing.assert_allclose(np.exp(found.log_weights), expected, rtol=1e-12)
    assert np.isneginf(found.log_weights[2])
    assert found.ess == pytest.approx(1 / (expected**2).sum())
    assert found.ess_share == pytest.approx(found.ess / 4)
    assert found.pareto_k is None
    assert found.verdict.startswith("unknown: ")


def test_densities_far_from_one_do_not_overflow():
    far = importance(np.array([1e5, 1e5 - 1.0]), np.array([-1e5, -1e5]))
    near = importance(np.array([0.0, -1.0]), np.zeros(2))
    np.testing.assert_allclose(far.weights, near.weights, rtol=1e-9)


def test_ratios_that_float64_hardly_holds_are_no_tail():
    tail = np.r_[0.0, -720.0 - 0.01 * np.arange(200)]
    assert pareto_k(tail) is None
    assert importance(tail, np.zeros(201)).verdict.startswith("unknown: ")


def test_a_target_that_spans_all_of_float64():
    found = importance(np.array([1e308, 0.0, -1e308]), np.zeros(3))
    assert found.weights.tolist() == [1.0, 0.0, 0.0]
    assert found.log_weights[2] == -np.inf


@pytest.mark.parametrize(
    ("k", "count", "verdict"),
    [
        (0.3, 1000, "good: means"),
        (0.65, 1000, "good: means"),
        (0.9, 1000, "bad: "),
        (1.6, 1000, "useless: "),
        (0.6, 100, "more draws: with this k about "),
    ],
)
def test_the_verdict(k, count, verdict):
    found = importance(pareto_sample(k, count), np.zeros(count))
    assert found.verdict.startswith(verdict), (found.pareto_k, found.verdict)
    assert found.pareto_k_threshold == pareto_threshold(count)


def test_the_threshold():
    assert [round(pareto_threshold(n), 4) for n in (10, 100, 1000, 2200, 10**6)] == [0.0, 0.5, 0.6667, 0.7, 0.7]
    assert pareto_threshold(1) == -math.inf


def test_a_target_that_is_zero_everywhere():
    with pytest.raises(InvalidArgument, match="the target is zero at every row"):
        importance(np.full(3, -np.inf), np.zeros(3))


def test_a_row_that_the_flow_could_not_have_drawn():
    zero = np.array([0.0, -np.inf, -np.inf])
    with pytest.raises(OutOfSupport, match="x, row 2") as caught:
        importance(np.array([0.0, -np.inf, 1.0]), zero)
    assert [reason.row for reason in caught.value.errors] == [2]
    found = importance(np.array([0.0, -np.inf, -np.inf]), zero)
    assert found.weights.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("k", "verdict"),
    [
        (0.4999, "good"),
        (0.5, "more draws: with this k about 100 are needed, and there are 100"),  # 0.5 is their threshold
        (0.6999, "more draws: with this k about 2149 are needed"),
        (0.7, "bad"),
        (0.9999, "bad"),
        (1.0, "useless"),
        (None, "unknown"),
    ],
)
def test_a_verdict_begins_at_its_k(monkeypatch, k, verdict):
    monkeypatch.setattr("service.engine.verbs.importance.pareto_k", lambda _: k)
    found = importance(np.linspace(0.0, 1.0, 100), np.zeros(100))
    assert found.pareto_k == k
    assert found.verdict.startswith(verdict)


@pytest.mark.parametrize(("draws", "enough"), [(20, False), (21, True)])
def test_five_exceedances_are_enough_for_a_k(draws, enough):
    assert (pareto_k(np.linspace(0.0, 3.0, draws)) is not None) is enough


def test_weights_are_equal_up_to_and_with_the_rounding_of_float32():
    rounding = float(np.finfo(np.float32).eps)
    for apart, equal in ((rounding, True), (np.nextafter(rounding, 1.0), False)):
        found = importance(np.array([0.0, -apart]), np.zeros(2, np.float32))
        assert found.verdict.startswith("good: all weights are equal") is equal


def test_the_evidence_is_that_of_a_gaussian_target_and_its_error_is_what_it_says():
    # The target is 5 N(0.3, 0.8^2) and the draws are of N(0, 1).
    found = []
    for seed in range(400):
        x = np.random.default_rng(seed).normal(size=200)
        log_target = math.log(5) - 0.5 * ((x - 0.3) / 0.8) ** 2 - math.log(0.8 * math.sqrt(2 * math.pi))
        found.append(importance(log_target - 900, -0.5 * x**2 - 0.5 * math.log(2 * math.pi)))
    estimates = np.array([each.log_evidence for each in found]) + 900
    errors = np.array([each.log_evidence_se for each in found])
    assert estimates.mean() == pytest.approx(math.log(5), abs=4 * estimates.std() / 20)
    assert errors.mean() == pytest.approx(estimates.std(), rel=0.15)


def test_the_evidence_of_equal_weights_and_of_one_draw_has_no_error():
    for count in (1, 5):
        found = importance(np.full(count, 3.0), np.zeros(count))
        assert (found.log_evidence, found.log_evidence_se) == (3.0, 0.0)


def test_a_draw_of_no_weight_counts_in_the_evidence():
    assert importance(np.array([0.0, -np.inf]), np.zeros(2)).log_evidence == pytest.approx(math.log(0.5))
