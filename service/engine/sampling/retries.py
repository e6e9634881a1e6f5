"""Latents drawn again for single rows: try t of row i of a seed is one value, whatever other rows are drawn again.

Try 0 of a row is the row itself (`service.engine.sampling.noise`). The words of try t >= 1 are those of the same row of
another stream of Philox, whose key is a digest of the context's and of t. They are random where the rows themselves
are Sobol's.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from service.engine.sampling.exact import to_uniform
from service.engine.sampling.latents import Truncation, transform_uniform, words_per_row
from service.engine.sampling.noise import BaseNoise
from service.engine.sampling.philox import philox_rows
from service.engine.sampling.stream_keys import NO_CONTEXT, stream_keys
from service.plan import Floats

__all__ = ["retried_latents"]


def retried_latents(noise: BaseNoise, places: npt.NDArray[np.intp], tries: Sequence[int]) -> Floats:
    """Latents of rows that are drawn again.

    Args:
        noise: of the rows.
        places: of these rows among all of the noise, ``[N]``; one may be there several times.
        tries: the number of the try of each, from 1.

    Returns:
        ``[N, D]``.
    """
    which, within = np.divmod(places, noise.count)
    keys: Sequence[int] = [NO_CONTEXT]
    if noise.contexts is not None and noise.context_noise == "independent":
        used, which = np.unique(which, return_inverse=True)
        keys = stream_keys(noise.contexts[used])
    else:
        which = np.zeros_like(which)
    known: dict[tuple[int, int], int] = {}
    streams = []
    for key, attempt in zip((keys[at] for at in which.tolist()), tries, strict=True):
        if (key, attempt) not in known:
            known[key, attempt] = _stream(key, attempt)
        streams.append(known[key, attempt])
    rows = within.astype(np.uint64) + np.uint64(noise.offset)
    words = philox_rows(noise.seed, rows, streams, words_per_row(noise.base, noise.width))
    scale = truncation = None
    if noise.temperature != 1.0:
        scale = np.full((len(places), 1), noise.temperature)
    if noise.truncation is not None:
        truncation = Truncation.of([noise.truncation], [len(places)])
    return transform_uniform(
        noise.base, noise.width, to_uniform(words), scale=scale, truncation=truncation, dtype=noise.dtype
    )


def _stream(key: int, attempt: int) -> int:
    """The key of the stream of a try."""
    digest = blake2b(
        key.to_bytes(16, "little") + attempt.to_bytes(8, "little"), digest_size=16, person=b"pushforward try"
    )
    return int.from_bytes(digest.digest(), "little")
