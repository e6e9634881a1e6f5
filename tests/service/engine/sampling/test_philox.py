from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.sampling.philox import BLOCK_WORDS, philox_blocks, philox_first_words, philox_words

keys = st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1])


@given(st.lists(keys, min_size=1, max_size=20), st.integers(1, 5))
def test_every_key_has_the_words_of_numpys_generator(chosen, blocks):
    words = philox_blocks(np.array(chosen, np.uint64), blocks)
    assert words.shape == (len(chosen), blocks * BLOCK_WORDS)
    for key, row in zip(chosen, words, strict=True):
        np.testing.assert_array_equal(row, np.random.Philox(key=key).random_raw(blocks * BLOCK_WORDS))


@pytest.mark.parametrize("count", [1, 15, 16, 40])
@pytest.mark.parametrize("width", [1, 4, 5])
def test_first_rows_have_the_words_of_their_seeds(count, width):
    seeds = np.arange(count, dtype=np.uint64) * np.uint64(0x0123456789ABCDEF)
    words = philox_first_words(seeds, width)
    np.testing.assert_array_equal(words, np.concatenate([philox_words(seed, 0, 1, width) for seed in seeds.tolist()]))
