"""Rows of latent noise: row i of a seed is a function of the seed, the context and i, whatever is drawn with it.

Words come from a generator that is addressed by position (`service.engine.sampling.philox` or
`service.engine.sampling.sobol`). Every later step is exactly rounded (`service.engine.sampling.exact`), so that a row
has the same bits in every slice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from service.bundle.bases import Base
from service.bundle.precision import DTYPES, FloatType
from service.engine.sampling.exact import to_uniform
from service.engine.sampling.latents import Truncation, transform_uniform, words_per_row
from service.engine.sampling.philox import BLOCK_WORDS, philox_rows, philox_words
from service.engine.sampling.sobol import sobol_words
from service.engine.sampling.stream_keys import NO_CONTEXT, stream_keys
from service.plan import Floats, Rows

__all__ = ["MAX_SEED", "BaseNoise", "BufferedNoise", "ContextNoise", "Method", "NoiseRows"]

Words = npt.NDArray[np.uint64]
Method = Literal["random", "sobol"]
ContextNoise = Literal["independent", "common"]
"""The latents of several contexts: a stream for each context, or one stream that all share."""

MAX_SEED: Final = (1 << 64) - 1
"""The greatest seed: the generator's key has 64 bits."""

_BUFFERED_VALUES: Final = 1 << 14
"""The values that `BufferedNoise` computes at a time."""

_BUFFERED_WIDTH: Final = 8
"""The greatest width of a row that is worth a buffer: a chunk of wider rows has enough values for NumPy."""

_MANY_STREAMS: Final = 16
_FEW_BLOCKS: Final = 32
"""For many streams of few blocks each, it is quicker to compute all words at once than to make a generator for each."""


@dataclass(frozen=True, slots=True, eq=False)
class BaseNoise:
    """Rows of latent noise, computed slice by slice: the `Rows` that sampling runs.

    Args:
        base: the distribution of z.
        width: D.
        seed: 0 to `MAX_SEED`.
        offset: the row of the seed that comes first.
        count: the number of rows.
        temperature: multiplies the standard deviations of a base made of normal distributions; 1 for any other.
        truncation: the greatest size of a normal number, in standard deviations before the temperature; None for no
            bound, and for a base without normal numbers.
        method: independent rows, or Sobol's (`service.engine.sampling.sobol`) shifted by the seed.
        contexts: ``[K, C]``, in the flow's precision; the `count` rows of each follow each other. None for no context.
        context_noise: whether each context's rows come from a stream of its own, or all from the stream of no context.
        dtype: of the flow's precision.

    Example:
        >>> from service.bundle.bases import NormalBase
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
    truncation: float | None = None
    method: Method = "random"
    contexts: Floats | None = None
    context_noise: ContextNoise = "independent"
    dtype: FloatType = DTYPES["float32"]

    def __len__(self) -> int:
        return self.count * (1 if self.contexts is None else len(self.contexts))

    def buffered(self) -> Rows:
        """The same rows for a run that may be cut into chunks, with a buffer where it saves time."""
        buffers = len(self) * self.width > _BUFFERED_VALUES and self.width <= _BUFFERED_WIDTH
        return BufferedNoise(self) if buffers else self

    def __getitem__(self, index: slice, /) -> Floats:
        return self.computed([(self, index.start, index.stop)])

    @staticmethod
    def computed(parts: Sequence[tuple[BaseNoise, int, int]]) -> Floats:
        """The rows of several noises of one flow, one after the other.

        The words are generated for each noise, and transformed for all at once, as no value depends on another.

        Args:
            parts: noise, and the start and stop of its rows.
        """
        first = parts[0][0]
        pieces = [piece for noise, start, stop in parts for piece in noise.words(start, stop)]
        values = to_uniform(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))
        scale = truncation = None
        lengths = [stop - start for _, start, stop in parts]
        if any(noise.temperature != 1.0 for noise, _, _ in parts):
            scale = np.repeat([noise.temperature for noise, _, _ in parts], lengths)[:, None]
        if any(noise.truncation is not None for noise, _, _ in parts):
            truncation = Truncation.of([noise.truncation for noise, _, _ in parts], lengths)
        return transform_uniform(first.base, first.width, values, scale=scale, truncation=truncation, dtype=first.dtype)

    def words(self, start: int, stop: int) -> Iterator[Words]:
        """The random words ``[., W]`` of the rows start to stop, in one piece or more."""
        width = words_per_row(self.base, self.width)
        first = start // self.count
        streams = self._streams(first, (stop - 1) // self.count + 1)
        if self.method == "random" and len(streams) >= _MANY_STREAMS and self._short(width):
            places = range(start, stop)
            rows = np.array([self.offset + place % self.count for place in places], np.uint64)
            yield philox_rows(self.seed, rows, [streams[place // self.count - first] for place in places], width)
            return
        words: Callable[..., Words] = philox_words if self.method == "random" else sobol_words
        for stream in streams:
            row = start % self.count
            length = min(stop - start, self.count - row)
            yield words(self.seed, start=self.offset + row, count=length, width=width, stream=stream)
            start += length

    def _short(self, width: int) -> bool:
        """Whether each context's rows, of so many words, are so few and so near that `philox_rows` may compute them."""
        blocks = -(-width // BLOCK_WORDS)
        return self.count * blocks <= _FEW_BLOCKS and (self.offset + self.count) * blocks <= MAX_SEED

    def _streams(self, first: int, last: int) -> list[int]:
        """The keys of the contexts first to last, of which there is one for no context."""
        if self.contexts is None or self.context_noise == "common":
            return [NO_CONTEXT] * (last - first)
        return stream_keys(self.contexts[first:last])


class NoiseRows:
    """Rows of several seeds, one seed's after the other's: the `Rows` of many requests that draw a few rows each.

    Args:
        base: the distribution of z.
        width: D.
        seeds: of each draw.
        offsets: the row of the seed that comes first.
        counts: the number of rows of each draw.
        temperatures: as for `BaseNoise`, as all that follows.
        truncations: of each draw.
        contexts: ``[draws, C]``, a row for each draw; None for no context.
        context_noises: of each draw.
        dtype: of the flow's precision.

    Example:
        >>> from service.bundle.bases import NormalBase
        >>> rows = NoiseRows(NormalBase(), 2, [7, 8], [0, 0], [1, 1])[0:2]
        >>> bool((rows[1] == BaseNoise(NormalBase(), 2, seed=8, offset=0, count=10)[0:1]).all())
        True
    """

    def __init__(
        self,
        base: Base,
        width: int,
        seeds: Sequence[int],
        offsets: Sequence[int],
        counts: Sequence[int],
        temperatures: Sequence[float] = (),
        truncations: Sequence[float | None] = (),
        contexts: Floats | None = None,
        context_noises: Sequence[ContextNoise] = (),
        dtype: FloatType = DTYPES["float32"],
    ) -> None:
        self._base = base
        self._width = width
        self._seeds = seeds
        self._offsets = offsets
        self._counts = counts
        self._temperatures = temperatures
        self._truncations = truncations
        self._contexts = contexts
        self._context_noises = context_noises
        self._dtype = dtype
        self._size = sum(counts)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: slice, /) -> Floats:
        values = to_uniform(self._words())
        scale = truncation = None
        if any(temperature != 1.0 for temperature in self._temperatures):
            scale = np.repeat(self._temperatures, self._counts)[:, None]
        if any(bound is not None for bound in self._truncations):
            truncation = Truncation.of(self._truncations, self._counts)
        rows = transform_uniform(self._base, self._width, values, scale=scale, truncation=truncation, dtype=self._dtype)
        return rows[index]

    def _words(self) -> Words:
        """The random words of all rows."""
        width = words_per_row(self._base, self._width)
        streams = self._streams()
        blocks = -(-width // BLOCK_WORDS)
        if len(self._seeds) >= _MANY_STREAMS and self._size * blocks <= _FEW_BLOCKS * len(self._seeds):
            starts = np.array(self._offsets, np.uint64)
            if max(self._counts) > 1:
                before = np.cumsum(self._counts) - self._counts
                within = np.arange(self._size) - np.repeat(before, self._counts)
                starts = np.repeat(starts, self._counts) + within.astype(np.uint64)
            seeds = np.repeat(np.array(self._seeds, np.uint64), self._counts)
            of_row = (
                None if streams is None else [s for s, n in zip(streams, self._counts, strict=True) for _ in range(n)]
            )
            return philox_rows(seeds, starts, of_row, width)
        draws = zip(self._seeds, self._offsets, self._counts, streams or repeat(NO_CONTEXT), strict=False)
        pieces = [philox_words(seed, start, count, width, stream) for seed, start, count, stream in draws]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _streams(self) -> list[int] | None:
        """The stream of each draw; None where all are those of no context."""
        if self._contexts is None:
            return None
        keys = stream_keys(self._contexts)
        noises = self._context_noises or repeat("independent", len(keys))
        return [NO_CONTEXT if noise == "common" else key for key, noise in zip(keys, noises, strict=True)]


class BufferedNoise:
    """Rows of noise computed some thousands at a time, for chunks that are taken one after the other.

    Noise takes a hundred steps of NumPy, and NumPy's overhead of a step is as long as the work on two thousand numbers.

    Args:
        noise: has the same rows, bit for bit.
    """

    def __init__(self, noise: BaseNoise) -> None:
        self._noise = noise
        self._rows = max(1, _BUFFERED_VALUES // noise.width)
        self._blocks: dict[int, Floats] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._noise)

    def __getitem__(self, index: slice, /) -> Floats:
        numbers = range(index.start // self._rows, (index.stop - 1) // self._rows + 1)
        starts = [number * self._rows for number in numbers]
        pieces = [
            self._block(number)[max(0, index.start - start) : index.stop - start]
            for number, start in zip(numbers, starts, strict=True)
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _block(self, number: int) -> Floats:
        found = self._blocks.get(number)
        if found is not None:
            return found
        with self._lock:  # other threads wait for the block, as to compute it again would take as long
            found = self._blocks.get(number)
            if found is None:
                start = number * self._rows
                found = self._noise[start : min(start + self._rows, len(self._noise))]
                before = self._blocks.get(number - 1)  # another thread may still read its last rows
                self._blocks = {number: found} if before is None else {number - 1: before, number: found}
            return found
