r"""Sobol's sequence: rows that fill the unit cube more evenly than random ones, each computed from its number.

Row i in dimension d is the exclusive or of the direction numbers v_{d,k} over the bits k that are set in the Gray
code i ^ (i >> 1) (Antonov and Saleev, "An economic method of computing LP_tau-sequences", USSR Computational
Mathematics and Mathematical Physics 19, 1979). This is the order of scipy.stats.qmc.Sobol. The direction numbers are
those of Joe and Kuo, "Constructing Sobol sequences with better two-dimensional projections", SIAM Journal on Scientific
Computing 30, 2008. sobol.npz holds them, and sobol.LICENSE is their licence.

A seed gives a random digital shift: the exclusive or with one random word a dimension (Owen, "Monte Carlo, quasi-Monte
Carlo, and randomized quasi-Monte Carlo", 2000). Each row is then uniform, and the rows together are as even as before.
This is not Owen's nested scrambling. Where there is a context, its stream has a shift of its own.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from service.engine.sampling.philox import philox_generator

__all__ = ["MAX_ROWS", "MAX_WIDTH", "sobol_words"]

Words = npt.NDArray[np.uint64]

MAX_WIDTH: Final = 1111
"""The number of dimensions that sobol.npz holds direction numbers for."""

_BITS: Final = 52
MAX_ROWS: Final = 1 << _BITS
"""The number of rows that differ: a coordinate has 52 bits, as a uniform float64 of `service.engine.sampling.exact`."""

_SHIFT_KEY: Final = 1 << 64
"""Added to a seed, so that its shift has no words in common with its random rows."""

_BLOCK_BITS: Final = 8


def sobol_words(seed: int | None, start: int, count: int, width: int, stream: int = 0) -> Words:
    """Rows of Sobol's sequence as words: word / 2^64 is the coordinate, of which the first 52 bits count.

    Args:
        seed: of the digital shift, 0 to 2^64 - 1; None for the sequence without a shift.
        start: the first row, at least 0.
        count: the number of rows; start + count is at most `MAX_ROWS`.
        width: the values in a row, at most `MAX_WIDTH`.
        stream: the key of a context's stream (`service.engine.sampling.stream_keys`), whose shift is its own.

    Returns:
        uint64 ``[count, width]``.
    """
    # The Gray code of i = a 2^8 + b is the exclusive or of those of a 2^8 and of b, and so is its row.
    rows = np.arange(start, start + count, dtype=np.uint64)
    blocks = rows >> np.uint64(_BLOCK_BITS)
    first = int(blocks[0])
    starts = np.arange(first, int(blocks[-1]) + 1, dtype=np.uint64) << np.uint64(_BLOCK_BITS)
    of_block = _rows(starts, _direction_numbers(width))
    if seed is not None:
        of_block ^= philox_generator(seed + _SHIFT_KEY, stream).random_raw(width)
    words: Words = of_block[(blocks - np.uint64(first)).astype(np.intp)]
    words ^= _first_rows(width)[(rows & np.uint64((1 << _BLOCK_BITS) - 1)).astype(np.intp)]
    return words


def _rows(numbers: Words, directions: Words) -> Words:
    """The unshifted rows of these numbers.

    Args:
        numbers: uint64 ``[N]``.
        directions: uint64 ``[bits, D]``.

    Returns:
        uint64 ``[N, D]``.
    """
    gray = numbers ^ (numbers >> np.uint64(1))
    rows = np.zeros((len(numbers), directions.shape[1]), np.uint64)
    for bit in range(int(gray.max()).bit_length()):
        chosen = (gray >> np.uint64(bit)) & np.uint64(1)
        rows ^= chosen[:, None] * directions[bit]
    return rows


@functools.lru_cache(maxsize=16)
def _first_rows(width: int) -> Words:
    """The first 2^8 rows without a shift, uint64 ``[2^8, D]``."""
    return _rows(np.arange(1 << _BLOCK_BITS, dtype=np.uint64), _direction_numbers(width))


@functools.lru_cache(maxsize=16)
def _direction_numbers(width: int) -> Words:
    """The direction numbers v_{d,k} = m_{d,k} / 2^(k+1) as words, uint64 ``[bits, D]``.

    With the primitive polynomial x^s + a_1 x^(s-1) + ... + a_(s-1) x + 1 of dimension d,

        m_k = 2 a_1 m_{k-1} ^ 4 a_2 m_{k-2} ^ ... ^ 2^(s-1) a_(s-1) m_{k-s+1} ^ 2^s m_{k-s} ^ m_{k-s};

    the first s of a dimension are in sobol.npz, and in the first dimension all are 1 (Joe and Kuo, section 2).
    """
    polynomials, initial = _load_joe_kuo()
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
def _load_joe_kuo() -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """The polynomials ``[1111]``, as bits from x^s down to 1, and the first m of each dimension ``[1111, 13]``."""
    with np.load(Path(__file__).with_name("sobol.npz"), allow_pickle=False) as file:
        return file["polynomials"], file["initial"]
