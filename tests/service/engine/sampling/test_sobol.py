from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from service.engine.sampling import sobol
from service.engine.sampling.philox import philox_words
from service.engine.sampling.sobol import MAX_ROWS, MAX_WIDTH, sobol_words


def values(*args) -> np.ndarray:
    return sobol_words(*args) / 2.0**64


@pytest.mark.parametrize("width", [1, 2, 3, 40, MAX_WIDTH])
def test_without_a_seed_the_rows_are_scipy_s(width):
    expected = stats.qmc.Sobol(width, scramble=False).random(1024)
    assert values(None, 0, 1024, width).tobytes() == expected.tobytes()


def test_far_rows_are_scipy_s():
    far = stats.qmc.Sobol(5, scramble=False)
    far.fast_forward(1_234_567)
    assert values(None, 1_234_567, 600, 5).tobytes() == far.random(600).tobytes()


def test_the_direction_numbers_are_those_of_joe_and_kuo():
    with np.load(Path(scipy.stats.__file__).with_name("_sobol_direction_numbers.npz")) as theirs:
        polynomials, initial = sobol._load_joe_kuo()
        assert (theirs["poly"][:MAX_WIDTH] == polynomials).all()
        assert (theirs["vinit"][:MAX_WIDTH, : initial.shape[1]] == initial).all()
        assert not theirs["vinit"][:MAX_WIDTH, initial.shape[1] :].any()


@given(st.sampled_from([None, 0, (1 << 64) - 1]), st.integers(0, MAX_ROWS - 700), st.integers(1, 600), st.data())
@settings(max_examples=40)
def test_a_row_has_the_same_bits_in_every_slice(seed, start, count, data):
    whole = sobol_words(seed, start, count, 3)
    at = data.draw(st.integers(0, count - 1))
    length = data.draw(st.integers(1, count - at))
    assert sobol_words(seed, start + at, length, 3).tobytes() == whole[at : at + length].tobytes()


@pytest.mark.parametrize("seed", [0, 1, (1 << 64) - 1])
def test_a_shifted_sequence_still_has_one_row_in_every_box(seed):
    # A (0, m, 2)-net: of 2^m rows just one in each box of area 2^-m, of whatever sides.
    rows = values(seed, 3 * 256, 256, 2)
    for across in range(9):
        boxes = np.floor(rows * [1 << across, 256 >> across]).astype(int)
        assert len({tuple(box) for box in boxes.tolist()}) == 256


def test_seeds_differ_and_each_row_is_uniform():
    first = np.array([values(seed, 5, 1, 2)[0] for seed in range(2000)])
    assert stats.kstest(first.ravel(), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(first.T)[0, 1]) < 0.1


def test_the_sequence_of_a_seed_never_changes():
    # A seed is a promise over versions of this project: these words must stay.
    assert sobol_words(7, 10**12, 2, 3).tolist() == WORDS


WORDS = [
    [16280714836491333405, 2654188020781625174, 6796241224334766839],
    [7057342799636557597, 11877560057636400982, 16019613261189542647],
]


def test_each_stream_has_a_shift_of_its_own_which_goes_with_the_seed():
    plain = sobol_words(None, 5, 300, 3)
    shifts = []
    for seed, stream in ((7, 0), (7, 1), (7, 1 << 64), (8, 1)):
        words = sobol_words(seed, 5, 300, 3, stream)
        shift = words[0] ^ plain[0]
        np.testing.assert_array_equal(words, plain ^ shift)
        shifts.append(tuple(shift.tolist()))
    assert len(set(shifts)) == 4
    np.testing.assert_array_equal(sobol_words(7, 5, 300, 3, 0), sobol_words(7, 5, 300, 3))


def test_the_shifts_of_streams_are_uniform_and_have_no_words_of_random_rows():
    first = np.array([sobol_words(7, 5, 1, 2, stream)[0] for stream in range(2000)]) / 2.0**64
    assert stats.kstest(first.ravel(), "uniform").pvalue > 0.01
    assert abs(np.corrcoef(first.T)[0, 1]) < 0.1
    shift = sobol_words(7, 0, 1, 3, stream=9)  # row 0 without a shift is 0
    assert not set(shift.ravel().tolist()) & set(philox_words(7, 0, 100, 3, stream=9).ravel().tolist())
