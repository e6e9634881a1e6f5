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
