from __future__ import annotations

import doctest
import itertools
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.sampling import stream_keys as module
from service.engine.sampling.stream_keys import NO_CONTEXT, stream_keys

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_the_example_holds():
    assert doctest.testmod(module).failed == 0


@given(st.lists(floats, min_size=1, max_size=6))
def test_a_key_is_the_digest_of_the_values_with_zero_for_minus_zero(values):
    context = np.array([values], np.float32)
    plain = b"".join(np.float32(value if value != 0 else 0.0).astype("<f4").tobytes() for value in values)
    assert stream_keys(context) == [int.from_bytes(blake2b(plain, digest_size=16).digest(), "little")]


def test_the_keys_never_change():
    # A seed is a promise over versions of this project: these values must stay.
    assert [f"{key:032x}" for key in stream_keys(np.float32([[0.5, -1.0], [0.0, -0.0]]))] == KEYS


KEYS = ["e8af514b86ab20d2ee2de3b74d27c8dd", "ceae091add2b76dce337c38e19ce04c8"]


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_key_does_not_depend_on_the_company_or_on_the_layout_in_memory(order):
    contexts = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    alone = [stream_keys(contexts[at : at + 1])[0] for at in range(50)]
    assert stream_keys(np.asarray(contexts, order=order)) == alone
    assert stream_keys(contexts[::-2]) == alone[::-2]
    assert stream_keys(np.repeat(contexts, 2, axis=1)[:, ::2]) == alone
    assert stream_keys(np.broadcast_to(contexts[3], (4, 3))) == [alone[3]] * 4


def test_what_differs_in_one_bit_has_another_key():
    bits = np.array([0x3F800000], np.uint32) ^ (np.uint32(1) << np.arange(32, dtype=np.uint32))
    near = np.append(bits, np.uint32(0x3F800000)).view(np.float32)
    finite = near[np.isfinite(near)]
    assert len(set(stream_keys(finite[:, None]))) == len(finite)


def test_a_place_and_a_width_count():
    rows = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0, 0.0], [1.0], [0.0], [0.0, 0.0]]
    assert len({stream_keys(np.float32([row]))[0] for row in rows}) == len(rows)


def test_the_least_numbers_are_not_zero():
    assert len(set(stream_keys(np.array([[0], [1], [2], [1 << 31 | 1]], np.uint32).view(np.float32)))) == 4


def test_small_whole_numbers_and_classes_have_keys_of_their_own():
    grid = np.array(list(itertools.product(range(-20, 20), repeat=3)), np.float32)
    assert len(set(stream_keys(grid))) == len(grid)
    assert len(set(stream_keys(np.eye(1000, dtype=np.float32)))) == 1000
    assert NO_CONTEXT not in stream_keys(grid)


def test_a_context_of_no_columns_is_none():
    assert stream_keys(np.empty((3, 0), np.float32)) == [NO_CONTEXT] * 3


def test_the_caller_keeps_its_rows():
    contexts = np.float32([[-0.0, 1.0]])
    stream_keys(contexts)
    assert np.signbit(contexts[0, 0])
