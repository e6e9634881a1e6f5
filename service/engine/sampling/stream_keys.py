"""The stream of a context: a key made of the context's bits, so that each context draws rows of its own.

The key is the BLAKE2b digest, 128 bits long, of the context's values in the flow's precision: little-endian, in the
order of the columns, with -0.0 as 0. It stands in the upper half of Philox's counter
(`service.engine.sampling.philox`). Without a context that half is 0.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from service.plan import Floats

__all__ = ["NO_CONTEXT", "stream_keys"]

Words = npt.NDArray[np.uint64]

NO_CONTEXT: Final = 0
"""The key of the one stream that a seed has where there is no context."""

_KEY_BYTES: Final = 16


def stream_keys(contexts: Floats) -> list[int]:
    """The key of each context's stream.

    Args:
        contexts: ``[K, C]``, finite, in the flow's precision.

    Returns:
        K whole numbers below 2^128; all `NO_CONTEXT` where C is 0.

    Example:
        >>> zeros, same, other = stream_keys(np.array([[0.0], [-0.0], [1.0]], np.float32))
        >>> zeros == same, zeros == other
        (True, False)
    """
    count, width = contexts.shape
    if width == 0:
        return [NO_CONTEXT] * count
    # The bits are compared, and 0 is not added: an engine's thread may take a denormal number for 0.
    bytes_each = contexts.dtype.itemsize
    bits = contexts.astype(f"<f{bytes_each}", order="C").view(f"<u{bytes_each}")
    bits[bits == bits.dtype.type(1 << (8 * bytes_each - 1))] = 0  # -0.0
    data = bits.tobytes()
    size = bytes_each * width
    rows = (data[at : at + size] for at in range(0, len(data), size))
    return [int.from_bytes(blake2b(row, digest_size=_KEY_BYTES).digest(), "little") for row in rows]
