from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from service.bundle.bases import DiagonalNormalBase, MixtureBase, NormalBase, StudentTBase, UniformBase
from service.engine.sampling.exact import to_uniform
from service.engine.sampling.latents import Truncation, transform_uniform
from service.engine.sampling.noise import MAX_SEED, BaseNoise, BufferedNoise, NoiseRows
from service.engine.sampling.philox import philox_words

seeds = st.integers(0, MAX_SEED)
WIDTHS = st.integers(1, 9)


def bases(width):
    """One of every family, and Student-t of odd and even, few and many degrees of freedom."""
    rising = [0.5 + k for k in range(width)]
    return [
        NormalBase(),
        UniformBase(low=-1.5, high=2.0),
        DiagonalNormalBase(mean=rising, standard_deviation=rising),
        MixtureBase(weights=[0.3, 0.7], means=[rising, [0.1] * width], standard_deviations=[[0.7] * width, rising]),
        *(StudentTBase(degrees_of_freedom=freedom) for freedom in (1, 2, 5, 40)),
    ]


def contexts(count):
    """So many rows of two columns, no two alike."""
    return np.arange(2 * count, dtype=np.float32).reshape(-1, 2)


some_base = WIDTHS.flatmap(lambda width: st.tuples(st.just(width), st.sampled_from(bases(width))))


@given(seeds, st.integers(0, 1 << 53), st.integers(1, 40), some_base, st.data())
@settings(max_examples=300)
def test_a_row_has_the_same_bits_in_every_slice(seed, offset, count, chosen, data):
    width, base = chosen
    whole = BaseNoise(base, width, seed, offset, count)[0:count]
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    assert BaseNoise(base, width, seed, offset, count)[start:stop].tobytes() == whole[start:stop].tobytes()
    moved = BaseNoise(base, width, seed, offset + start, stop - start)[0 : stop - start]
    assert moved.tobytes() == whole[start:stop].tobytes()


@pytest.mark.parametrize("base", bases(13), ids=lambda base: base.reading[:30])
def test_long_slices_agree_with_short_ones_bit_for_bit(base):
    noise = BaseNoise(base, 13, 5, 0, 1500)
    whole = noise[0:1500]
    for size in (1, 3, 7, 64, 1021):
        pieces = [noise[at : min(at + size, 1500)] for at in range(0, 1500, size)]
        assert np.concatenate(pieces).tobytes() == whole.tobytes()


def test_the_stream_never_changes():
    # A seed is a promise over versions of this project: these values must stay.
    noise = BaseNoise(NormalBase(), 3, seed=7, offset=10**12, count=2)[0:2]
    assert noise.dtype == np.float32
    assert noise.tolist() == STREAM


STREAM = [
    [-1.155156135559082, -0.18272517621517181, -0.7599786520004272],
    [-0.14556586742401123, 0.9282987713813782, -0.9888907074928284],
]


@given(seeds, st.integers(0, 1000), st.integers(1, 5))
def test_uniforms_lie_strictly_inside(seed, start, width):
    values = to_uniform(philox_words(seed, start, 20, width))
    assert values.shape == (20, width)
    assert values.min() >= 2.0**-53
    assert values.max() <= 1 - 2.0**-53


def test_the_extreme_words_of_the_generator_give_finite_noise(monkeypatch):
    class Extreme:
        def __init__(self, key, counter):
            pass

        def random_raw(self, size):
            return np.resize(np.array([0, MAX_SEED], np.uint64), size)

    monkeypatch.setattr(np.random, "Philox", Extreme)
    assert to_uniform(philox_words(0, 0, 1, 2)).tolist() == [[2.0**-53, 1 - 2.0**-53]]
    normal = BaseNoise(NormalBase(), 2, 0, 0, 1)[0:1]
    assert np.isfinite(normal).all()
    assert normal[0, 0] == -normal[0, 1]
    uniform = BaseNoise(UniformBase(low=1.0, high=4.0), 2, 0, 0, 1)[0:1]
    assert 1.0 < uniform[0, 0] < 1.000001
    assert 3.999999 < uniform[0, 1] < 4.0


def test_normal_noise_is_normal_and_its_columns_independent():
    z = BaseNoise(NormalBase(), 4, seed=11, offset=0, count=20000)[0:20000].astype(np.float64)
    for column in z.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(z.T) - np.eye(4)).max() < 0.03
    assert np.abs(np.corrcoef(z[:-1, 0], z[1:, 0])[0, 1]) < 0.03


def test_uniform_noise_is_uniform():
    base = UniformBase(low=-2.0, high=5.0)
    z = BaseNoise(base, 2, seed=12, offset=0, count=20000)[0:20000]
    assert stats.kstest(z.ravel().astype(np.float64), "uniform", (-2.0, 7.0)).pvalue > 1e-3


def test_seeds_and_rows_differ():
    def rows(seed):
        return {row.tobytes() for row in BaseNoise(NormalBase(), 2, seed, 0, 500)[0:500]}

    everything = [rows(seed) for seed in (0, 1, 2, 1 << 63, MAX_SEED)]
    assert len(set.union(*everything)) == sum(map(len, everything)) == 2500


def test_temperature_scales_and_zero_is_the_centre():
    plain = BaseNoise(NormalBase(), 3, 4, 0, 9)[0:9]
    np.testing.assert_allclose(BaseNoise(NormalBase(), 3, 4, 0, 9, 0.5)[0:9], plain * 0.5, rtol=1e-6)
    assert (BaseNoise(NormalBase(), 3, 4, 0, 9, 0.0)[0:9] == 0).all()


@given(st.integers(1, 7), st.integers(1, 4), st.data())
def test_common_noise_gives_every_context_the_same_rows(count, repeats, data):
    noise = BaseNoise(NormalBase(), 2, 3, 5, count, contexts=contexts(repeats), context_noise="common")
    assert len(noise) == count * repeats
    expected = np.tile(BaseNoise(NormalBase(), 2, 3, 5, count)[0:count], (repeats, 1))
    start = data.draw(st.integers(0, len(noise) - 1))
    stop = data.draw(st.integers(start + 1, len(noise)))
    assert noise[start:stop].tobytes() == expected[start:stop].tobytes()


@pytest.mark.parametrize("offset", [0, (1 << 53) - 1])
def test_the_farthest_row_can_be_had(offset):
    assert BaseNoise(NormalBase(), 64, MAX_SEED, offset, 1)[0:1].shape == (1, 64)


@given(
    parts=st.lists(
        st.tuples(seeds, st.integers(0, 50), st.integers(1, 9), st.sampled_from([1.0, 0.5, 2.0]), st.integers(0, 8)),
        min_size=1,
        max_size=6,
    ),
    base=st.sampled_from(bases(5)),
)
def test_rows_computed_together_have_the_bits_that_they_have_alone(parts, base):
    pieces = []
    for seed, offset, count, temperature, start in parts:
        noise = BaseNoise(base, 5, seed, offset, count, temperature if base.tempered else 1.0, contexts=contexts(2))
        pieces.append((noise, min(start, count), 2 * count))
    alone = np.concatenate([noise[start:stop] for noise, start, stop in pieces])
    assert BaseNoise.computed(pieces).tobytes() == alone.tobytes()


@given(seeds, st.integers(0, 1 << 40), st.integers(1, 40), st.sampled_from(bases(3)), st.data())
@settings(max_examples=60)
def test_a_row_of_sobol_has_the_same_bits_in_every_slice(seed, offset, count, base, data):
    whole = BaseNoise(base, 3, seed, offset, count, method="sobol")[0:count]
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    moved = BaseNoise(base, 3, seed, offset + start, stop - start, method="sobol")[0 : stop - start]
    assert moved.tobytes() == whole[start:stop].tobytes()


def test_sobol_noise_has_the_base_s_distribution_and_sooner():
    def error(method):
        z = BaseNoise(NormalBase(), 2, 3, 0, 1024, method=method)[0:1024].astype(np.float64)
        return abs(z.mean(axis=0)).max(), abs((z * z).mean(axis=0) - 1).max()

    random, sobol = error("random"), error("sobol")
    assert sobol[0] < 0.2 * random[0]
    assert sobol[1] < 0.2 * random[1]


@pytest.mark.parametrize("bound", [1e-9, 0.1, 1.0, 2.5, 8.0, 40.0])
def test_truncated_noise_is_the_inverse_of_the_truncated_distribution_function(bound):
    z = BaseNoise(NormalBase(), 4, 11, 0, 5000, truncation=bound)[0:5000]
    expected = stats.truncnorm.ppf(to_uniform(philox_words(11, 0, 5000, 4)), -bound, bound)
    np.testing.assert_allclose(z, expected, rtol=2e-6, atol=1e-15)
    assert np.abs(z).max() <= np.float32(bound)


def test_a_wide_bound_leaves_the_bits():
    plain, cut = (BaseNoise(NormalBase(), 4, 1, 0, 999, truncation=t)[0:999] for t in (None, 1e3))
    assert plain.tobytes() == cut.tobytes()


def test_the_extreme_words_of_the_generator_stay_inside_a_bound():
    values = np.array([[2.0**-53, 1 - 2.0**-53, 0.5]])
    for bound in np.geomspace(1e-12, 50, 200):
        z = transform_uniform(NormalBase(), 3, values, None, Truncation.of([bound], [1]))
        assert np.isfinite(z).all()
        assert np.abs(z).max() <= np.float32(bound)
        assert abs(z[0, 2]) < 1e-7


@given(
    st.lists(
        st.tuples(seeds, st.integers(1, 9), st.sampled_from([None, 0.5, 3.0]), st.sampled_from(["random", "sobol"])),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([base for base in bases(5) if base.tempered]),
)
def test_truncated_and_sobol_rows_computed_together_have_the_bits_that_they_have_alone(parts, base):
    pieces = [
        (BaseNoise(base, 5, seed, 3, count, 0.7, truncation=bound, method=method), 0, count)
        for seed, count, bound, method in parts
    ]
    alone = np.concatenate([noise[start:stop] for noise, start, stop in pieces])
    assert BaseNoise.computed(pieces).tobytes() == alone.tobytes()


@pytest.mark.parametrize(("width", "count", "repeats"), [(1, 40_000, 1), (2, 9_000, 2), (3, 20_001, 1), (8, 5_000, 1)])
def test_rows_computed_ahead_have_the_bits_that_they_have_alone(width, count, repeats):
    noise = BaseNoise(NormalBase(), width, 5, 3, count, 0.5, contexts=contexts(repeats))
    ahead = noise.buffered()
    assert isinstance(ahead, BufferedNoise)
    assert len(ahead) == len(noise)
    whole = noise[0 : len(noise)]
    assert ahead[0 : len(ahead)].tobytes() == whole.tobytes()
    for start in [*range(0, len(noise), 1009), 0]:
        stop = min(start + 1009, len(noise))
        assert ahead[start:stop].tobytes() == whole[start:stop].tobytes()


def test_rows_computed_ahead_by_several_threads():
    noise = BaseNoise(NormalBase(), 2, 5, 3, 60_000)
    ahead, whole = noise.buffered(), noise[0:60_000]
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda start: ahead[start : start + 1000].tobytes(), range(0, 60_000, 1000))
        assert b"".join(parts) == whole.tobytes()


@pytest.mark.parametrize(("width", "count"), [(2, 8_192), (2, 1), (9, 100_000)])
def test_few_rows_and_wide_ones_are_not_computed_ahead(width, count):
    noise = BaseNoise(NormalBase(), width, 5, 3, count)
    assert noise.buffered() is noise


some_draws = st.tuples(
    seeds, st.sampled_from([0, 1, 7, (1 << 53) - 1]), st.sampled_from([1, 1, 2, 10]), st.sampled_from([0.0, 0.5, 1.0])
)


@given(st.lists(some_draws, min_size=1, max_size=40), some_base, st.booleans(), st.data())
def test_rows_of_many_seeds_are_those_of_each(chosen, base, conditional, data):
    width, base = base
    several, offsets, counts, temperatures = map(list, zip(*chosen, strict=True))
    temperatures = temperatures if base.tempered else [1.0] * len(chosen)
    truncations = [data.draw(st.sampled_from([None, 1.5])) if base.tempered else None for _ in chosen]
    given_contexts = contexts(len(chosen)) if conditional else None
    noises = [data.draw(st.sampled_from(["independent", "common"])) for _ in chosen]
    rows = NoiseRows(base, width, several, offsets, counts, temperatures, truncations, given_contexts, noises)
    alone = [
        BaseNoise(
            base,
            width,
            seed,
            offset,
            count,
            temperatures[at],
            truncations[at],
            contexts=None if given_contexts is None else given_contexts[at : at + 1],
            context_noise=noises[at],
        )[0:count]
        for at, (seed, offset, count, _) in enumerate(chosen)
    ]
    whole = np.concatenate(alone)
    start = data.draw(st.integers(0, len(whole) - 1))
    stop = data.draw(st.integers(start + 1, len(whole)))
    assert len(rows) == len(whole)
    assert rows[start:stop].tobytes() == whole[start:stop].tobytes()


LENGTHS = st.sampled_from([1, 2, 3, 15, 16, 17, 40])
METHODS = st.sampled_from(["random", "sobol"])


@given(seeds, st.integers(0, 1 << 53), st.integers(1, 9), LENGTHS, some_base, METHODS, st.data())
def test_a_context_has_the_same_rows_alone_and_in_any_company_order_and_slice(
    seed, offset, count, several, chosen, method, data
):
    width, base = chosen
    offset = min(offset, 1 << 51)  # sobol has 2^52 rows
    given_contexts = data.draw(st.permutations(contexts(several).tolist()))
    noise = BaseNoise(base, width, seed, offset, count, method=method, contexts=np.float32(given_contexts))
    alone = [
        BaseNoise(base, width, seed, offset, count, method=method, contexts=np.float32([one]))[0:count]
        for one in given_contexts
    ]
    whole = np.concatenate(alone)
    assert len(noise) == len(whole)
    assert noise[0 : len(noise)].tobytes() == whole.tobytes()
    start = data.draw(st.integers(0, len(noise) - 1))
    stop = data.draw(st.integers(start + 1, len(noise)))
    assert noise[start:stop].tobytes() == whole[start:stop].tobytes()
    assert (
        BaseNoise.computed([(noise, start, stop), (noise, 0, 1)]).tobytes()
        == np.concatenate([whole[start:stop], whole[:1]]).tobytes()
    )


@pytest.mark.parametrize("method", ["random", "sobol"])
@pytest.mark.parametrize("several", [3, 40])
def test_rows_of_a_context_are_numbered(method, several):
    of = {"method": method, "contexts": contexts(several)}
    ten = BaseNoise(NormalBase(), 5, 3, 2, 10, **of)[0 : 10 * several].reshape(several, 10, 5)
    for start, count in ((0, 5), (5, 5), (9, 1)):
        part = BaseNoise(NormalBase(), 5, 3, 2 + start, count, **of)[0 : count * several].reshape(several, count, 5)
        assert part.tobytes() == ten[:, start : start + count].tobytes()


@pytest.mark.parametrize("method", ["random", "sobol"])
@pytest.mark.parametrize("several", [2, 300])
def test_contexts_have_no_row_in_common_with_each_other_or_with_no_context(method, several):
    z = BaseNoise(NormalBase(), 3, 4, 0, 5, method=method, contexts=contexts(several))[0 : 5 * several]
    without = BaseNoise(NormalBase(), 3, 4, 0, 5, method=method)[0:5]
    rows = np.concatenate([z, without])
    assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_minus_zero_is_zero_and_the_same_context_has_the_same_rows(method):
    several = np.float32([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
    z = BaseNoise(NormalBase(), 2, 3, 0, 4, method=method, contexts=several)[0:16].reshape(4, 4, 2)
    assert z[0].tobytes() == z[1].tobytes() == z[2].tobytes() != z[3].tobytes()


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_a_context_of_no_columns_and_common_noise_leave_the_rows_of_no_context(method):
    plain = BaseNoise(NormalBase(), 2, 3, 5, 4, method=method)[0:4]
    for more in ({"contexts": np.empty((1, 0), np.float32)}, {"contexts": contexts(1), "context_noise": "common"}):
        assert BaseNoise(NormalBase(), 2, 3, 5, 4, method=method, **more)[0:4].tobytes() == plain.tobytes()


def test_the_farthest_row_of_many_contexts_can_be_had():
    far = BaseNoise(NormalBase(), 2, 7, 1 << 66, 1, contexts=contexts(20))
    one = BaseNoise(NormalBase(), 2, 7, 1 << 66, 1, contexts=contexts(20)[19:])
    assert far[0:20][19:].tobytes() == one[0:1].tobytes()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (
            "random",
            [
                [-1.748565673828125, 1.149410605430603, -0.45809993147850037],
                [0.5374951958656311, -0.6165667772293091, 1.1346495151519775],
            ],
        ),
        (
            "sobol",
            [
                [0.1872318685054779, -0.17361745238304138, 0.4276654124259949],
                [-1.4447747468948364, 1.4839059114456177, -0.9718900322914124],
            ],
        ),
    ],
)
def test_the_stream_of_a_context_never_changes(method, expected):
    # A seed is a promise over versions of this project: these values must stay.
    given_context = np.float32([[0.5, -1.0]])
    noise = BaseNoise(NormalBase(), 3, seed=7, offset=10**12, count=2, method=method, contexts=given_context)
    assert noise[0:2].tolist() == expected
