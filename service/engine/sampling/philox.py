"""Philox4x64-10 of many keys at once: one pass of NumPy over all of them, where a generator for each takes 8 µs a key.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3: ten rounds, each

    (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)),    (k0, k1) += (W0, W1).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["WORDS", "philox"]

Words = npt.NDArray[np.uint64]

WORDS: Final = 4
"""In a block, of 64 bits each."""

_ROUNDS: Final = 10
_MULTIPLIERS: Final[Words] = np.array([[0xD2E7470EE14C6C93], [0xCA5A826395121157]], np.uint64)
_WEYL: Final[Words] = np.array([[0x9E3779B97F4A7C15], [0xBB67AE8584CAA73B]], np.uint64)
_HALF: Final = np.uint64(32)
_LOW: Final = np.uint64(0xFFFFFFFF)
_LOW_MULTIPLIERS: Final[Words] = _MULTIPLIERS & _LOW
_HIGH_MULTIPLIERS: Final[Words] = _MULTIPLIERS >> _HALF


def philox(keys: Words, blocks: int) -> Words:
    """The first words of each key's stream, bit for bit those of ``numpy.random.Philox(key=key)``.

    Args:
        keys: uint64 ``[N]``.
        blocks: how many of `WORDS` words.

    Returns:
        uint64 ``[N, blocks * WORDS]``.

    Example:
        >>> philox(np.array([7], np.uint64), 1)[0, 0] == np.random.Philox(key=7).random_raw()
        True
    """
    count = len(keys) * blocks
    even = np.zeros((2, count), np.uint64)  # c0 and c2: what is multiplied
    odd = np.zeros((2, count), np.uint64)  # c1 and c3
    even[0] = np.tile(np.arange(1, blocks + 1, dtype=np.uint64), len(keys))  # NumPy counts before it computes
    key = np.zeros((2, count), np.uint64)
    key[0] = np.repeat(keys, blocks)
    for _ in range(_ROUNDS):
        high = _high(even)
        low = _MULTIPLIERS * even
        even = high[::-1] ^ odd
        even ^= key
        odd = low[::-1]
        key += _WEYL
    return np.stack((even[0], odd[0], even[1], odd[1]), axis=-1).reshape(len(keys), blocks * WORDS)


def _high(values: Words) -> Words:
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
