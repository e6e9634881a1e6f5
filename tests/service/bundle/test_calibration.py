from __future__ import annotations

import json

import numpy as np
import pytest

from service.bundle.calibration import calibrate, thin
from service.bundle.manifest import MAX_QUANTILES, Calibration


def draws(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=count).astype(np.float32)


def test_every_value_is_kept_to_the_bit_and_written_short():
    values = draws(5000)
    calibration = calibrate(values)
    assert calibration.rows == 5000
    assert calibration.ranks is None
    assert np.float32(calibration.quantiles).tobytes() == np.sort(values).tobytes()
    assert max(len(json.dumps(quantile)) for quantile in calibration.quantiles) <= 16
    assert calibration.mean == pytest.approx(values.astype(np.float64).mean(), abs=1e-12)
    assert calibration.standard_deviation == pytest.approx(values.astype(np.float64).std(ddof=1), abs=1e-12)


def test_of_more_values_than_are_kept_each_is_one_of_them_with_its_rank():
    values = draws(3 * MAX_QUANTILES + 1)
    calibration = calibrate(values)
    assert len(calibration.quantiles) == MAX_QUANTILES
    ordered = np.sort(values)
    assert calibration.ranks[0] == 0
    assert calibration.ranks[-1] == 3 * MAX_QUANTILES
    assert np.float32(calibration.quantiles).tobytes() == ordered[calibration.ranks].tobytes()
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


@pytest.mark.parametrize("rows", [MAX_QUANTILES - 1, MAX_QUANTILES, MAX_QUANTILES + 1, MAX_QUANTILES + 2])
def test_ranks_run_from_the_least_value_to_the_greatest_and_are_given_where_some_are_left_out(rows):
    values = draws(rows)
    calibration = calibrate(values)
    kept = min(rows, MAX_QUANTILES)
    assert len(calibration.quantiles) == kept
    assert (calibration.quantiles[0], calibration.quantiles[-1]) == (
        float(str(values.min())),
        float(str(values.max())),
    )
    assert (calibration.ranks is None) == (rows <= MAX_QUANTILES)
    if calibration.ranks is not None:
        assert (calibration.ranks[0], calibration.ranks[-1]) == (0, rows - 1)
        assert set(np.diff(calibration.ranks)) <= {1, 2}
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_equal_values_stand_side_by_side():
    calibration = calibrate(np.array([-1.0, -2.0, -1.0, -2.0]))
    assert (calibration.quantiles, calibration.ranks) == ([-2.0, -2.0, -1.0, -1.0], None)


@pytest.mark.parametrize("most", [2, 3, 4])
def test_thinning_keeps_both_ends_and_as_many_as_are_asked_for(most):
    calibration = calibrate(np.array([4.0, 1.0, 3.0, 2.0]))
    shown = thin(calibration, most)
    assert shown.quantiles == {2: [1.0, 4.0], 3: [1.0, 3.0, 4.0], 4: [1.0, 2.0, 3.0, 4.0]}[most]
    assert shown.ranks == {2: [0, 3], 3: [0, 2, 3], 4: None}[most]
    again = thin(calibration.model_copy(update={"ranks": [0, 1, 2, 3]}), most)
    assert (again.quantiles, again.ranks) == (shown.quantiles, shown.ranks or [0, 1, 2, 3])


@pytest.mark.parametrize("rows", [1001, 5000, MAX_QUANTILES + 7])
def test_thinning_keeps_order_statistics_and_their_ranks(rows):
    values = draws(rows)
    shown = thin(calibrate(values), 1001)
    assert len(shown.quantiles) == 1001
    places = shown.ranks or range(rows)
    assert np.float32(shown.quantiles).tobytes() == np.sort(values)[list(places)].tobytes()
    assert Calibration.model_validate(shown.model_dump()) == shown


def test_interpolated_quantiles_of_format_1_have_no_ranks():
    old = Calibration(rows=10, mean=0.0, standard_deviation=1.0, quantiles=[0.0, 1.0, 2.0, 3.0, 4.0])
    shown = thin(old, 3)
    assert shown.quantiles == [0.0, 2.0, 4.0]
    assert shown.ranks is None


@pytest.mark.parametrize(("gaussian", "told"), [(None, False), (-3.0, False), (-2.0, True), (-1.5, True)])
def test_a_flow_that_is_no_better_than_the_gaussian_says_so(gaussian: float | None, told: bool) -> None:
    found = calibrate(np.array([-1.0, -3.0]), gaussian)
    assert (found.warning is not None) == told
    if told:
        assert (
            f"no better than a Gaussian: -2.000 nats a held-out row, and the Gaussian {gaussian:.3f}" in found.warning
        )
