from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import special

from service.engine.sampling.exact import inverse_normal_cdf, log, to_uniform
from service.engine.sampling.philox import philox_words

inside = st.floats(2.0**-53, 1 - 2.0**-53)


def test_the_inverse_of_the_normal_distribution_function_agrees_with_scipy():
    p = np.concatenate(
        [
            to_uniform(philox_words(1, 0, 20000, 4)).ravel(),
            2.0 ** -np.arange(1.0, 54),
            1 - 2.0 ** -np.arange(2.0, 53),
            np.linspace(0.074, 0.076, 999),  # where the centre ends and the tail begins
            10.0 ** -np.linspace(10, 12, 999),  # where the tail's two parts meet
        ]
    )
    expected = special.ndtri(p)
    np.testing.assert_allclose(inverse_normal_cdf(p), expected, rtol=2e-15, atol=1e-16)


@given(st.floats(2.0**-1000, 2.0**1000))
def test_the_logarithm_agrees_with_numpy_s(x):
    np.testing.assert_allclose(log(np.array([x])), [np.log(x)], rtol=4e-16, atol=2e-16)


@given(arrays.arrays(np.float64, st.integers(1, 70), elements=inside))
def test_a_value_has_the_same_bits_alone(p):
    for function in (inverse_normal_cdf, log):
        alone = np.concatenate([function(p[at : at + 1]) for at in range(len(p))])
        assert function(p).tobytes() == alone.tobytes()
