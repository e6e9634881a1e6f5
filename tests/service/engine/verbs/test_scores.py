from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from service.bundle.calibration import calibrate, thin
from service.bundle.manifest import MAX_QUANTILES, Calibration
from service.engine.verbs.scores import HeldOut, bits_per_dim

RATES = [0.001, 0.01, 0.05, 0.29, 0.5, 0.999]


def draws(count, seed=0):
    """log_prob of draws from a normal distribution in five dimensions: -(chi squared) / 2, less a constant."""
    return (-0.5 * np.random.default_rng(seed).chisquare(5, count)).astype(np.float32)


@given(st.lists(st.sampled_from([-3.0, -2.5, -1.0, 0.0, 2.0]), min_size=2, max_size=40), st.floats(0.001, 0.999))
def test_a_quantile_is_the_share_below_and_an_anomaly_the_share_not_above_ties_included(values, rate):
    held_out = np.array(values, np.float32)
    scale = HeldOut(calibrate(held_out))
    asked = np.array([-np.inf, -4.0, -3.0, -2.5, -2.0, -1.0, 0.0, 2.0, 3.0], np.float32)
    below = (held_out[None] < asked[:, None]).mean(axis=1)
    not_above = (held_out[None] <= asked[:, None]).mean(axis=1)
    assert scale.quantile(asked).tolist() == below.astype(np.float32).tolist()
    assert scale.anomaly(asked, rate).tolist() == (not_above <= rate).tolist()


@pytest.mark.parametrize("rows", [2, 100, 3001])
def test_the_quantiles_of_held_out_rows_are_each_of_their_levels_once(rows):
    held_out = draws(rows)
    found = HeldOut(calibrate(held_out)).quantile(np.sort(held_out))
    assert found.tolist() == (np.arange(rows) / rows).astype(np.float32).tolist()


def test_the_quantiles_of_further_rows_are_uniform():
    scale = HeldOut(calibrate(draws(20_000)))
    found = scale.quantile(draws(2_000, seed=1))
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert stats.kstest(scale.quantile(draws(2_000, seed=1) * 1.1), "uniform").pvalue < 0.01


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("rows", [7, 100, 3001])
def test_of_held_out_rows_no_more_than_the_alarm_rate_alarm_and_no_fewer_by_a_row(rows, rate):
    held_out = draws(rows)
    share = HeldOut(calibrate(held_out)).anomaly(held_out, rate).mean()
    assert rate - 1 / rows < share <= rate


def test_a_row_below_all_held_out_ones_alarms_at_any_rate():
    scale = HeldOut(calibrate(draws(50)))
    assert scale.anomaly(np.array([-1e9, -np.inf], np.float32), 1e-9).all()


@pytest.mark.parametrize("rate", RATES)
def test_where_not_all_values_are_kept_a_quantile_is_near_and_no_alarm_is_false(rate):
    held_out = draws(4 * MAX_QUANTILES)
    scale = HeldOut(calibrate(held_out))
    exact = HeldOut(calibrate(held_out).model_copy(update={"quantiles": np.sort(held_out).tolist(), "ranks": None}))
    asked = draws(3000, seed=2)
    np.testing.assert_allclose(scale.quantile(asked), exact.quantile(asked), atol=4 / len(held_out))
    assert rate - 1 / MAX_QUANTILES <= scale.anomaly(held_out, rate).mean() <= rate


def test_a_calibration_of_format_1_is_read_at_its_levels():
    held_out = np.sort(draws(3000))
    levels = np.interp(np.linspace(0, 2999, 1001), np.arange(3000), held_out).tolist()
    old = Calibration(rows=3000, mean=float(held_out.mean()), standard_deviation=1.0, quantiles=levels)
    asked = draws(500, seed=3)
    exact = HeldOut(calibrate(held_out)).quantile(asked)
    np.testing.assert_allclose(HeldOut(old).quantile(asked), exact, atol=4 / 3000)
    np.testing.assert_allclose(HeldOut(thin(calibrate(held_out), 500)).quantile(asked), exact, atol=7 / 3000)


def test_typicality_has_two_sides():
    calibration = calibrate(np.array([-1.0, -2.0, -3.0], np.float32))
    found = HeldOut(calibration).typicality(np.array([-2.0, -1.0, -3.0, 4.0, -np.inf], np.float32))
    assert found.tolist() == [0.0, 1.0, 1.0, 6.0, math.inf]


def test_the_typicality_of_rows_that_are_all_alike():
    scale = HeldOut(calibrate(np.array([-1.0, -1.0], np.float32)))
    assert scale.typicality(np.array([-1.0, -2.0], np.float32)).tolist() == [0.0, math.inf]


def test_bits_are_of_a_bin():
    log_prob = np.array([-6 * math.log(2.0), -np.inf], np.float32)
    assert bits_per_dim(log_prob, 3, 1.0).tolist() == [2.0, math.inf]
    assert bits_per_dim(log_prob, 3, 0.5).tolist() == [3.0, math.inf]


THINNED = HeldOut(Calibration(rows=10, mean=-2.0, standard_deviation=1.0, quantiles=[-5.0, -3.0, 0.0], ranks=[0, 4, 9]))


def test_the_quantiles_of_values_that_were_kept_of_more():
    # Of the rows between two that were kept at least the lower one is below; the rest are spread evenly.
    asked = np.array([-np.inf, -5.5, -5.0, -4.0, -3.0, -1.5, 0.0, 0.5], np.float32)
    assert THINNED.quantile(asked).tolist() == np.float32([0, 0, 0, 0.25, 0.4, 0.7, 0.9, 1.0]).tolist()


def test_the_alarms_of_values_that_were_kept_of_more():
    asked = np.array([-5.5, -5.0, -3.5, -3.0, -0.5, 0.0, 0.5], np.float32)
    rates = [(0.05, 1), (0.39, 1), (0.4, 3), (0.89, 3), (0.9, 5), (0.99, 5)]
    for rate, alarms in rates:
        assert THINNED.anomaly(asked, rate).tolist() == [at < alarms for at in range(7)]


def test_the_log_prob_at_a_quantile_is_a_value_that_was_kept():
    levels = [0.0, 0.05, 0.1, 0.4, 0.49, 0.5, 0.9, 0.99]
    assert THINNED.log_prob_at(levels).tolist() == [-5, -5, -3, -3, -3, 0, 0, 0]
    every = HeldOut(calibrate(np.arange(100, dtype=np.float32)))
    assert every.log_prob_at([0.0, 0.29, 0.57, 0.991]).tolist() == [0, 29, 57, 99]


def test_a_calibration_of_format_1_begins_and_ends_with_its_ranks():
    old = HeldOut(Calibration(rows=9, mean=0.0, standard_deviation=1.0, quantiles=[0.0, 4.0, 8.0]))
    assert (
        old.quantile(np.array([0.0, 4.0, 8.0, 8.5], np.float32)).tolist()
        == (np.float32([0, 4, 8, 9]) / np.float32(9)).tolist()
    )
    assert old.log_prob_at([0.0, 0.12, 0.56, 0.99]).tolist() == [0, 4, 8, 8]
