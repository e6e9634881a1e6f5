"""Random words by Philox4x64-10, a counter-based generator: a word is a function of the seed and its position.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3. A block of four
words is the counter after ten rounds, each

    (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)),    (k0, k1) += (W0, W1).

The key is the seed. The lower half of the counter is the block's place, and the upper half is the key of a context's
stream (`service.engine.sampling.stream_keys`), 0 without one. Philox permutes the counters of a seed, so that two
streams have no block in common.

NumPy has this generator for one key and one place. Many keys or streams are computed here in one pass of NumPy over all
of them, as a generator for each takes 8 µs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK_WORDS", "philox_generator", "philox_rows", "philox_words"]

Words = npt.NDArray[np.uint64]

BLOCK_WORDS: Final = 4
"""The words of a block, of 64 bits each."""

_ROUNDS: Final = 10
_MULTIPLIERS: Final[Words] = np.array([[0xD2E7470EE14C6C93], [0xCA5A826395121157]], np.uint64)
_WEYL: Final[Words] = np.array([[0x9E3779B97F4A7C15], [0xBB67AE8584CAA73B]], np.uint64)
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_LOW_MULTIPLIERS: Final[Words] = _MULTIPLIERS & _LOW
_HIGH_MULTIPLIERS: Final[Words] = _MULTIPLIERS >> _HALF


_STREAM_BITS: Final = 128
"""The bits of a stream's key, in the upper half of the counter."""

_WORD_BITS: Final = 64
_WORD: Final = (1 << _WORD_BITS) - 1


def philox_generator(key: int, stream: int, block: int = 0) -> np.random.Philox:
    """NumPy's generator at a block of a stream.

    Args:
        key: 0 to 2^128 - 1.
        stream: the key of a context's stream, 0 to 2^128 - 1.
        block: from which its words come, at least 0.
    """
    return np.random.Philox(key=key, counter=(stream << _STREAM_BITS) + block)


def philox_words(seed: int, start: int, count: int, width: int, stream: int = 0) -> Words:
    """Random words of rows of a seed. Row i starts at block i * ceil(width / 4) of the stream.

    Args:
        seed: the key, 0 to 2^64 - 1.
        start: the first row, at least 0.
        count: the number of rows.
        width: the words in a row.
        stream: the key of a context's stream, 0 to 2^128 - 1.

    Returns:
        uint64 ``[count, width]``.
    """
    blocks = -(-width // BLOCK_WORDS)
    generator = philox_generator(seed, stream, start * blocks)
    words: Words = generator.random_raw(count * blocks * BLOCK_WORDS).reshape(count, blocks * BLOCK_WORDS)[:, :width]
    return words


def philox_rows(seed: int | Words, rows: Words, streams: Sequence[int] | None, width: int) -> Words:
    """Random words of rows, each of a seed or a stream of its own, bit for bit those of `philox_words`.

    Args:
        seed: the key, 0 to 2^64 - 1; or uint64 ``[N]``, that of each row.
        rows: uint64 ``[N]``, the number of each row, so small that its blocks are numbered below 2^64.
        streams: the key of each row's stream, N numbers of 0 to 2^128 - 1; None where all are 0.
        width: the words in a row.

    Returns:
        uint64 ``[N, width]``.

    Example:
        >>> words = philox_rows(7, np.array([5, 2], np.uint64), [1, 3], 2)
        >>> bool((words[1] == philox_words(7, start=2, count=1, width=2, stream=3)).all())
        True
    """
    blocks = -(-width // BLOCK_WORDS)
    places = rows[:, None] * np.uint64(blocks) + _counted(blocks)
    even = np.zeros((2, places.size), np.uint64)  # c0 and c2, which are multiplied
    even[0] = places.ravel()
    odd = np.zeros_like(even)  # c1 and c3
    if streams is not None:
        even[1] = np.repeat(np.array([stream & _WORD for stream in streams], np.uint64), blocks)
        odd[1] = np.repeat(np.array([stream >> _WORD_BITS for stream in streams], np.uint64), blocks)
    key = np.zeros_like(even)
    key[0] = seed if isinstance(seed, int) else np.repeat(seed, blocks)
    return _encrypted(even, odd, key).reshape(len(rows), blocks * BLOCK_WORDS)[:, :width]


def _counted(blocks: int) -> Words:
    """The counters of the first blocks, as NumPy counts up before each block."""
    return np.arange(1, blocks + 1, dtype=np.uint64)


def _encrypted(even: Words, odd: Words, key: Words) -> Words:
    """The blocks of counters.

    Args:
        even: uint64 ``[2, N]``, c0 and c2.
        odd: uint64 ``[2, N]``, c1 and c3.
        key: uint64 ``[2, N]``, k0 and k1; it is overwritten.

    Returns:
        uint64 ``[N, BLOCK_WORDS]``.
    """
    for _ in range(_ROUNDS):
        high = _high_product(even)
        low = _MULTIPLIERS * even
        even = high[::-1] ^ odd
        even ^= key
        odd = low[::-1]
        key += _WEYL
    return np.stack((even[0], odd[0], even[1], odd[1]), axis=-1)


def _high_product(values: Words) -> Words:
    """The upper 64 bits of the products with the multipliers, from halves of 32 bits."""
    low, high = values & _LOW, values >> _HALF
    carried = low * _LOW_MULTIPLIERS
    carried >>= _HALF
    carried += high * _LOW_MULTIPLIERS
    low *= _HIGH_MULTIPLIERS
    low += carried & _LOW
    low >>= _HALF
    high *= _HIGH_MULTIPLIERS
    high += low
    carried >>= _HALF
    high += carried
    return high
