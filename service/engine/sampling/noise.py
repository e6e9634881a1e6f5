r"""Row i of seed s, by construction: a value of (seed, row), whatever rows are asked for with it.

A counter-based generator (Philox4x64-10: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011) is keyed by the seed, and row i starts at block i * ceil(W / 4) of its stream, W the words that a
row of the base takes (`service.engine.sampling.latents`).

Every step after the generator is exactly rounded (`service.engine.sampling.exact`), so that the same row has the same
bits in every slice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from service.bundle.bases import Base
from service.engine.sampling.latents import Truncation, latents, words_needed
from service.engine.sampling.philox import WORDS, philox
from service.engine.sampling.sobol import sobol_words
from service.plan import Float32, Rows

__all__ = ["MAX_SEED", "BaseNoise", "FirstRows", "Method", "NoiseAhead", "uniforms"]

Float64 = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]
Method = Literal["random", "sobol"]

MAX_SEED: Final = (1 << 64) - 1
"""The greatest seed: the generator's key has so many bits."""

_AHEAD_VALUES: Final = 1 << 14
_NARROW: Final = 8
"""A thousand rows of more values are numbers enough for NumPy."""

_MANY_SEEDS: Final = 16
"""Of so many it is quicker to compute all words at once than to make a generator for each."""


def uniforms(seed: int, start: int, stop: int, width: int) -> Float64:
    """Uniform values of the rows start to stop of a seed.

    u = (k + 1/2) / 2^52 with 52 random bits k, so that u lies strictly between 0 and 1 and is symmetric about 1/2,
    exactly. (One bit more and k + 1/2 has no float64: the greatest would round to 1.)

    Args:
        seed: 0 to `MAX_SEED`.
        start: the first row, at least 0.
        stop: one past the last row.
        width: the values in a row.

    Returns:
        float64 ``[stop - start, width]``.
    """
    return _uniform(random_words(seed, start, stop - start, width))


def random_words(seed: int, start: int, count: int, width: int) -> Words:
    """Random words of rows of a seed.

    Args:
        seed: 0 to `MAX_SEED`.
        start: the first row, at least 0.
        count: how many rows.
        width: the values in a row.

    Returns:
        uint64 ``[count, width]``.
    """
    blocks = -(-width // WORDS)
    generator = np.random.Philox(key=seed, counter=start * blocks)
    words: Words = generator.random_raw(count * blocks * WORDS).reshape(count, blocks * WORDS)[:, :width]
    return words


def _uniform(words: Words) -> Float64:
    values: Float64 = (words >> np.uint64(12)).astype(np.float64)
    values += 0.5
    values *= 2.0**-52
    return values


@dataclass(frozen=True, slots=True)
class BaseNoise:
    """Rows of latent noise, computed slice by slice: the `Rows` that sampling runs.

    Args:
        base: the distribution of z.
        width: D.
        seed: 0 to `MAX_SEED`.
        offset: the row of the seed that comes first.
        count: how many rows.
        temperature: multiplies the standard deviations of a base made of normal distributions; 1 for any other.
        repeats: the same rows so many times over, once for each context.
        truncation: where the normal numbers end, on both sides, in standard deviations before the temperature; None
            for nowhere, and for a base without.
        method: independent rows, or Sobol's (`service.engine.sampling.sobol`), shifted by the seed.

    Example:
        >>> noise = BaseNoise(NormalBase(), 2, seed=7, offset=0, count=10)
        >>> bool((noise[5:10] == BaseNoise(NormalBase(), 2, seed=7, offset=5, count=5)[0:5]).all())
        True
    """

    base: Base
    width: int
    seed: int
    offset: int
    count: int
    temperature: float = 1.0
    repeats: int = 1
    truncation: float | None = None
    method: Method = "random"

    def __len__(self) -> int:
        return self.count * self.repeats

    def ahead(self) -> Rows:
        """The same rows, for a run that may be cut into chunks."""
        return NoiseAhead(self) if len(self) * self.width > _AHEAD_VALUES and self.width <= _NARROW else self

    def __getitem__(self, index: slice, /) -> Float32:
        return self.computed([(self, index.start, index.stop)])

    @staticmethod
    def computed(parts: Sequence[tuple[BaseNoise, int, int]]) -> Float32:
        """The rows start to stop of each of several noises of one flow, one after the other.

        The generator is asked for each, the rest is done for all at once: a value depends on no other.
        """
        first = parts[0][0]
        pieces = [piece for noise, start, stop in parts for piece in noise.words(start, stop)]
        values = _uniform(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
        scale = truncation = None
        lengths = [stop - start for _, start, stop in parts]
        if any(noise.temperature != 1.0 for noise, _, _ in parts):
            scale = np.repeat([noise.temperature for noise, _, _ in parts], lengths)[:, None]
        if any(noise.truncation is not None for noise, _, _ in parts):
            truncation = Truncation.of([noise.truncation for noise, _, _ in parts], lengths)
        return latents(first.base, first.width, values, scale, truncation)

    def words(self, start: int, stop: int) -> Iterator[Words]:
        """The random words ``[., W]`` of the rows start to stop, in one piece or more."""
        needed = words_needed(self.base, self.width)
        while True:
            row = start % self.count
            length = min(stop - start, self.count - row)
            words = random_words if self.method == "random" else sobol_words
            yield words(self.seed, self.offset + row, length, needed)
            start += length
            if start >= stop:
                return


class FirstRows:
    """The first row of each of several seeds, untempered: the `Rows` of many requests for one row each.

    Args:
        base: the distribution of z.
        width: D.
        seeds: uint64 ``[N]``.

    Example:
        >>> rows = FirstRows(NormalBase(), 2, np.array([7, 8], np.uint64))[0:2]
        >>> bool((rows[1] == BaseNoise(NormalBase(), 2, seed=8, offset=0, count=10)[0:1]).all())
        True
    """

    def __init__(self, base: Base, width: int, seeds: Words) -> None:
        self._base = base
        self._width = width
        self._seeds = seeds

    def __len__(self) -> int:
        return len(self._seeds)

    def __getitem__(self, index: slice, /) -> Float32:
        seeds = self._seeds[index]
        needed = words_needed(self._base, self._width)
        if len(seeds) < _MANY_SEEDS:
            words = np.concatenate([random_words(seed, 0, 1, needed) for seed in seeds.tolist()])
        else:
            words = philox(seeds, -(-needed // WORDS))[:, :needed]
        return latents(self._base, self._width, _uniform(words))


class NoiseAhead:
    """Noise that is computed some thousands of rows at a time, for chunks that are taken one after the other.

    NumPy takes as long to begin with two thousand numbers as to get through them, and noise takes a hundred steps.

    Args:
        noise: whose rows these are, bit for bit.
    """

    def __init__(self, noise: BaseNoise) -> None:
        self._noise = noise
        self._rows = max(1, _AHEAD_VALUES // noise.width)
        self._blocks: dict[int, Float32] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._noise)

    def __getitem__(self, index: slice, /) -> Float32:
        numbers = range(index.start // self._rows, (index.stop - 1) // self._rows + 1)
        starts = [number * self._rows for number in numbers]
        pieces = [
            self._block(number)[max(0, index.start - start) : index.stop - start]
            for number, start in zip(numbers, starts, strict=True)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _block(self, number: int) -> Float32:
        found = self._blocks.get(number)
        if found is not None:
            return found
        with self._lock:  # whoever comes next waits for it: to compute it twice would take as long
            found = self._blocks.get(number)
            if found is None:
                start = number * self._rows
                found = self._noise[start : min(start + self._rows, len(self._noise))]
                before = self._blocks.get(number - 1)  # another thread may still be at its last rows
                self._blocks = {number: found} if before is None else {number - 1: before, number: found}
            return found
