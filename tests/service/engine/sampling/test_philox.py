from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.engine.sampling.philox import WORDS, philox

keys = st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1])


@given(st.lists(keys, min_size=1, max_size=20), st.integers(1, 5))
def test_every_key_has_the_words_of_numpys_generator(chosen, blocks):
    words = philox(np.array(chosen, np.uint64), blocks)
    assert words.shape == (len(chosen), blocks * WORDS)
    for key, row in zip(chosen, words, strict=True):
        np.testing.assert_array_equal(row, np.random.Philox(key=key).random_raw(blocks * WORDS))
