from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from service.bundle.bases import DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase, UniformBase
from service.engine.sampling.latents import transform_uniform, words_per_row
from service.engine.sampling.noise import MAX_SEED, BaseNoise

DIAGONAL = DiagonalNormalBase(mean=[1.0, -20.0], standard_deviation=[0.5, 3.0])
MIXTURE = MixtureBase(
    weights=[0.2, 0.3, 0.5],
    means=[[0.0, 1.0], [-4.0, 2.0], [6.0, 2.0]],
    standard_deviations=[[1.0, 2.0], [0.5, 0.25], [0.1, 1.0]],
)
ROWS = 20_000


def noise(base, width=2, seed=5, temperature=1.0):
    return BaseNoise(base, width, seed, 0, ROWS, temperature)[0:ROWS].astype(np.float64)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 7, 32, 34, 99, 100])
def test_student_t_noise_is_scipy_s_student_t(freedom):
    z = noise(StudentTBase(degrees_of_freedom=freedom), seed=freedom)
    for column in z.T:
        assert stats.kstest(column, "t", (freedom,)).pvalue > 1e-3
    assert abs(stats.spearmanr(z[:, 0], z[:, 1]).statistic) < 0.03
    assert abs(stats.spearmanr(np.abs(z[:, 0]), np.abs(z[:, 1])).statistic) < 0.03


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_diagonal_noise_has_its_own_mean_and_deviation_in_each_column(temperature):
    z = noise(DIAGONAL, temperature=temperature)
    for column, mean, deviation in zip(z.T, DIAGONAL.mean, DIAGONAL.standard_deviation, strict=True):
        assert stats.kstest(column, "norm", (mean, temperature * deviation)).pvalue > 1e-3
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.03


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_mixture_noise_is_the_mixture(temperature):
    z = noise(MIXTURE, temperature=temperature)
    for at, column in enumerate(z.T):
        parts = [
            stats.norm(mean[at], temperature * deviation[at])
            for mean, deviation in zip(MIXTURE.means, MIXTURE.standard_deviations, strict=True)
        ]
        below = sum(w * part.cdf(np.sort(column)) for w, part in zip(MIXTURE.weights, parts, strict=True))
        assert stats.kstest(below, "uniform").pvalue > 1e-3
    far = z[z[:, 0] > 5.0]  # of the third component alone: its columns are independent
    assert len(far) == pytest.approx(0.5 * ROWS, rel=0.05)
    assert abs(np.corrcoef(far.T)[0, 1]) < 0.03


def test_at_temperature_zero_a_row_is_the_mean_of_its_component():
    assert (noise(DIAGONAL, temperature=0.0) == DIAGONAL.mean).all()
    warm, cold = noise(MIXTURE), noise(MIXTURE, temperature=0.0)
    assert {tuple(row) for row in cold} == {tuple(mean) for mean in MIXTURE.means}
    assert ((warm[:, 0] > 5.0) == (cold[:, 0] == 6.0)).all()


def test_a_diagonal_normal_is_the_normal_of_the_same_seed_moved_and_scaled():
    plain = noise(NormalBase())
    np.testing.assert_allclose(
        noise(DIAGONAL), plain * DIAGONAL.standard_deviation + DIAGONAL.mean, rtol=1e-6, atol=1e-5
    )
    one = DiagonalNormalBase(mean=[0.0, 0.0], standard_deviation=[1.0, 1.0])
    assert noise(one).tobytes() == plain.tobytes()


def test_how_many_words_a_row_takes():
    found = [words_per_row(StudentTBase(degrees_of_freedom=n), 3) for n in (1, 2, 3, 100)]
    assert found == [6, 6, 9, 153]
    assert words_per_row(MIXTURE, 2) == 3
    assert [words_per_row(base, 2) for base in (NormalBase(), DIAGONAL, UniformBase(low=0.0, high=1.0))] == [2, 2, 2]


@pytest.mark.parametrize("freedom", [1, 2, 3, 30, 99, 100])
def test_the_extreme_words_of_the_generator_give_finite_noise(monkeypatch, freedom):
    class Extreme:
        word = 0

        def __init__(self, key, counter):
            pass

        def random_raw(self, size):
            return np.full(size, self.word, np.uint64)

    monkeypatch.setattr(np.random, "Philox", Extreme)
    for word in (0, MAX_SEED, 1 << 63, (1 << 63) - 1):
        Extreme.word = word
        z = BaseNoise(StudentTBase(degrees_of_freedom=freedom), 2, 0, 0, 1)[0:1]
        assert np.isfinite(z).all()
        assert np.isfinite(BaseNoise(MIXTURE, 2, 0, 0, 1)[0:1]).all()


def test_a_product_of_the_least_uniform_numbers_does_not_underflow():
    z = transform_uniform(StudentTBase(degrees_of_freedom=100), 1, np.full((1, 51), 2.0**-53))
    squares = -2 * 50 * math.log(2.0**-53)
    assert z[0, 0] == pytest.approx(stats.norm.ppf(2.0**-53) / math.sqrt(squares / 100), rel=1e-6)


def test_a_row_that_no_float32_holds_is_infinite_and_raises_nothing():
    z = transform_uniform(DIAGONAL, 2, np.full((1, 2), 0.75), np.array([[1e300]]))
    assert math.isinf(z[0, 0])


# A seed is a promise over versions of this project: these values must stay.
STREAMS = [
    (DIAGONAL, [[0.42242196202278137, -20.548175811767578], [0.9272170662879944, -17.215103149414062]]),
    (MIXTURE, [[-0.18272517621517181, -0.5199573040008545], [-3.5358505249023438, 1.752777338027954]]),
    (
        StudentTBase(degrees_of_freedom=1),
        [[-1.5199849605560303, -1.315478801727295], [-0.14720118045806885, 0.9299866557121277]],
    ),
    (
        StudentTBase(degrees_of_freedom=4),
        [[1.7455941438674927, 0.5224020481109619], [-0.594559907913208, 0.3101954460144043]],
    ),
    (
        StudentTBase(degrees_of_freedom=35),
        [[-1.0255239009857178, -1.1493310928344727], [0.46692344546318054, -0.0035991084296256304]],
    ),
]


@pytest.mark.parametrize(("base", "expected"), STREAMS, ids=lambda value: getattr(value, "family", ""))
def test_the_stream_never_changes(base, expected):
    assert BaseNoise(base, 2, seed=7, offset=10**12, count=2)[0:2].tolist() == expected
