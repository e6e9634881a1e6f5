from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.engine.sampling.philox import BLOCK_WORDS, philox_rows, philox_words

keys = st.integers(0, (1 << 64) - 1) | st.sampled_from([0, 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1])


@given(st.lists(keys, min_size=1, max_size=20), st.integers(1, 5))
def test_every_key_has_the_words_of_numpys_generator(chosen, blocks):
    width = blocks * BLOCK_WORDS
    words = philox_rows(np.array(chosen, np.uint64), np.zeros(len(chosen), np.uint64), None, width)
    assert words.shape == (len(chosen), width)
    for key, row in zip(chosen, words, strict=True):
        np.testing.assert_array_equal(row, np.random.Philox(key=key).random_raw(width))


streams = st.integers(0, (1 << 128) - 1) | st.sampled_from([0, 1, 1 << 64, (1 << 128) - 1])


@given(keys, st.lists(st.tuples(st.integers(0, 1 << 53), streams), min_size=1, max_size=9), st.integers(1, 9))
def test_rows_of_many_streams_are_those_of_each_stream(seed, chosen, width):
    rows = philox_rows(seed, np.array([row for row, _ in chosen], np.uint64), [stream for _, stream in chosen], width)
    alone = [philox_words(seed, row, 1, width, stream) for row, stream in chosen]
    np.testing.assert_array_equal(rows, np.concatenate(alone))


def test_a_stream_is_the_upper_half_of_the_counter():
    words = philox_words(7, start=5, count=2, width=4, stream=(3 << 64) + 2)
    expected = np.random.Philox(key=7, counter=np.array([5, 0, 2, 3], np.uint64)).random_raw(8)
    assert words.ravel().tolist() == expected.tolist()


def test_without_a_stream_the_words_are_those_of_the_seed():
    assert philox_words(7, start=5, count=2, width=4).ravel().tolist() == WORDS


WORDS = [
    8380459231761429139,
    6690909399631022751,
    5691569251345265893,
    2119517566676335279,
    10975547825045201794,
    4819353123396409258,
    4991533999172605321,
    17922375376957971247,
]
