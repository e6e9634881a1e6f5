r"""Sobol's sequence: rows that fill the unit cube more evenly than random ones, each computed from its number.

Row i in dimension d is the exclusive or of the direction numbers v_{d,k} over the bits k that are set in the Gray
code i ^ (i >> 1) (Antonov and Saleev, 1979): the order of scipy.stats.qmc.Sobol. The direction numbers are those of
Joe and Kuo, "Constructing Sobol sequences with better two-dimensional projections", SIAM Journal on Scientific
Computing 30, 2008; sobol.npz holds them, and sobol.LICENSE says whose they are.

A seed shifts the rows digit by digit (Owen, "Monte Carlo, quasi-Monte Carlo, and randomized quasi-Monte Carlo", 2000):
the exclusive or with one random word a dimension. Each row is then uniform, and the rows together as even as before.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_ROWS", "MAX_WIDTH", "sobol_words"]

Words = npt.NDArray[np.uint64]

MAX_WIDTH: Final = 1111
"""So many dimensions have direction numbers here."""

_BITS: Final = 52
MAX_ROWS: Final = 1 << _BITS
"""So many rows differ: a row has so many bits as a uniform float64 is made of."""

_SHIFT_KEY: Final = 1 << 64
"""Added to a seed, so that the shift has nothing in common with the seed's random rows."""

_BLOCK_BITS: Final = 8


def sobol_words(seed: int | None, start: int, count: int, width: int) -> Words:
    """Rows of Sobol's sequence, as 64-bit words whose first 52 bits count: word / 2^64 is the value.

    Args:
        seed: of the digital shift, 0 to 2^64 - 1; None for the sequence as it is.
        start: the first row, at least 0.
        count: how many rows; start + count is at most `MAX_ROWS`.
        width: the values in a row, at most `MAX_WIDTH`.

    Returns:
        uint64 ``[count, width]``.
    """
    # i = a 2^8 + b: its Gray code is that of a 2^8, exclusive or that of b, and so is its row.
    rows = np.arange(start, start + count, dtype=np.uint64)
    blocks = rows >> np.uint64(_BLOCK_BITS)
    first = int(blocks[0])
    starts = np.arange(first, int(blocks[-1]) + 1, dtype=np.uint64) << np.uint64(_BLOCK_BITS)
    of_block = _rows(starts, _directions(width))
    if seed is not None:
        of_block ^= np.random.Philox(key=seed + _SHIFT_KEY).random_raw(width)
    words: Words = of_block[(blocks - np.uint64(first)).astype(np.intp)]
    words ^= _within(width)[(rows & np.uint64((1 << _BLOCK_BITS) - 1)).astype(np.intp)]
    return words


def _rows(numbers: Words, directions: Words) -> Words:
    """The rows of these numbers: ``[N]`` and ``[bits, D]`` -> ``[N, D]``."""
    gray = numbers ^ (numbers >> np.uint64(1))
    rows = np.zeros((len(numbers), directions.shape[1]), np.uint64)
    for bit in range(int(gray.max()).bit_length()):
        chosen = (gray >> np.uint64(bit)) & np.uint64(1)
        rows ^= chosen[:, None] * directions[bit]
    return rows


@functools.lru_cache(maxsize=16)
def _within(width: int) -> Words:
    """The first rows, 2^8 of them."""
    return _rows(np.arange(1 << _BLOCK_BITS, dtype=np.uint64), _directions(width))


@functools.lru_cache(maxsize=16)
def _directions(width: int) -> Words:
    """v_{d,k} = m_{d,k} / 2^(k+1), as 64-bit words: ``[bits, D]``.

    With the primitive polynomial x^s + a_1 x^(s-1) + ... + a_(s-1) x + 1 of dimension d,

        m_k = 2 a_1 m_{k-1} ^ 4 a_2 m_{k-2} ^ ... ^ 2^(s-1) a_(s-1) m_{k-s+1} ^ 2^s m_{k-s} ^ m_{k-s};

    the first s are given, and in the first dimension all are 1.
    """
    polynomials, initial = _given()
    numbers = np.ones((_BITS, width), np.uint64)
    for dimension in range(1, width):
        polynomial = int(polynomials[dimension])
        degree = polynomial.bit_length() - 1
        m = [int(number) for number in initial[dimension, :degree]]
        for k in range(degree, _BITS):
            value = m[k - degree]
            for i in range(1, degree + 1):
                if polynomial >> (degree - i) & 1:
                    value ^= m[k - i] << i
            m.append(value)
        numbers[:, dimension] = m
    numbers <<= (63 - np.arange(_BITS, dtype=np.uint64))[:, None]
    return numbers


@functools.lru_cache(maxsize=1)
def _given() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """The polynomials ``[1111]``, their bits from x^s down to 1, and the first numbers of each ``[1111, 13]``."""
    with np.load(Path(__file__).with_name("sobol.npz"), allow_pickle=False) as file:
        return file["polynomials"], file["initial"]
