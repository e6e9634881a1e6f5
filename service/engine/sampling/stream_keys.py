"""The stream of a context: a key made of the context's bits, so that each context draws rows of its own.

The key is the BLAKE2b digest, 128 bits long, of the context's float32 values: little-endian, in the order of the
columns, with -0.0 as 0. It stands in the upper half of Philox's counter (`service.engine.sampling.philox`). Without a
context that half is 0.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

from service.plan import Float32

__all__ = ["NO_CONTEXT", "stream_keys"]

Words = npt.NDArray[np.uint64]

NO_CONTEXT: Final = 0
"""The key of the one stream that a seed has where there is no context."""

_KEY_BYTES: Final = 16
_MINUS_ZERO: Final = np.uint32(1 << 31)


def stream_keys(contexts: Float32) -> list[int]:
    """The key of each context's stream.

    Args:
        contexts: float32 ``[K, C]``, finite.

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
    bits = contexts.astype("<f4", order="C").view("<u4")
    bits[bits == _MINUS_ZERO] = 0
    data = bits.tobytes()
    size = 4 * width
    rows = (data[at : at + size] for at in range(0, len(data), size))
    return [int.from_bytes(blake2b(row, digest_size=_KEY_BYTES).digest(), "little") for row in rows]
