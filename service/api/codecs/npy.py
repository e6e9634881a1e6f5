"""`application/x-npy`: one array, as NumPy's own files hold it (numpy.lib.format). Nothing is ever unpickled."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from service.api.codecs.codec import Answer, Array, Form, malformed
from service.errors import InvalidArgument, NotAcceptable, PushforwardError, Reason
from service.exchange import UNWATCHED, Body, Watch

__all__ = ["Npy"]

_MAGIC: Final = np.lib.format.MAGIC_PREFIX
_LONGEST_HEADER: Final = 1024
"""A header of plain numbers has about 70 characters; Python's own parser reads it, and gets no more."""

_FLOAT_BYTES: Final = 8
"""A longer float than a float64 is another number on another machine."""


class Npy:
    """One array in, one out: the bytes are the numbers, -inf among them.

    In: format versions 1 to 3, either order of bytes and of axes, floats and integers of any size. An array that is
    float32 in C order is not copied.
    """

    media_type = "application/x-npy"
    single = True

    @property
    def end(self) -> bytes:
        """Nothing stands after the rows."""
        return b""

    def decode(self, body: Body, main: str, watch: Watch = UNWATCHED) -> Mapping[str, Any]:  # noqa: ARG002  at once
        """The array, as the one argument that a body of this type holds."""
        return {main: _array(body, main)}

    def encode(self, answer: Answer, form: Form) -> bytes:
        """The main array."""
        return self.start(answer, form, _main(answer, form).shape[:1])

    def start(self, answer: Answer, form: Form, lead: tuple[int, ...]) -> bytes:
        """The header of the whole array, and its first rows."""
        rows = _main(answer, form)
        return _written_header(rows.dtype, (*lead, *rows.shape[1:])) + rows.tobytes()

    def more(self, answer: Answer, form: Form) -> bytes:
        """The next rows."""
        return _main(answer, form).tobytes()


def _main(answer: Answer, form: Form) -> Array:
    rows = answer.get(form.main)
    if not isinstance(rows, np.ndarray):
        raise NotAcceptable("this answer is no array; accept application/json")
    return rows


def _array(body: Body, main: str) -> Array:
    if not body.startswith(_MAGIC):
        raise malformed("not a .npy file: it does not begin with \\x93NUMPY")
    start = _header_bytes(body)
    shape, by_columns, dtype = _header(bytes(body[: min(start, len(_MAGIC) + 2 + 4 + _LONGEST_HEADER)]))
    if dtype.hasobject:
        raise malformed("an array of Python objects, which are never read")
    if dtype.kind not in "fiu" or (dtype.kind == "f" and dtype.itemsize > _FLOAT_BYTES):
        reason = f"expected floats or integers of at most 64 bits, and found {str(dtype)[:64]}"
        raise InvalidArgument(f"{main}: {reason}", (Reason(("body", main), reason),))
    expected, found = math.prod(shape) * dtype.itemsize, len(body) - start
    if expected != found:
        raise malformed(f"not a whole .npy file: its header tells of {expected} bytes of numbers, and {found} follow")
    numbers = np.frombuffer(body, dtype, offset=start) if found else np.empty(0, dtype)
    try:
        return numbers.reshape(shape, order="F" if by_columns else "C")
    except ValueError as error:  # more axes than NumPy has, or longer ones
        raise malformed("not a .npy file that can be read: its shape is out of bounds") from error


@functools.lru_cache(maxsize=64)
def _written_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    told = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, told)
    return header.getvalue()


def _header_bytes(body: Body) -> int:
    """How long a file's header says that it is, its magic and its length included."""
    at = len(_MAGIC) + 2
    size = 2 if body[len(_MAGIC) : len(_MAGIC) + 1] == b"\x01" else 4
    return at + size + int.from_bytes(body[at : at + size], "little")


@functools.lru_cache(maxsize=64)  # Python's parser takes longer for it than a run of the rows, and clients repeat them
def _header(told: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    head = io.BytesIO(told)
    try:
        version = np.lib.format.read_magic(head)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise malformed(f"a .npy file of version {version[0]}.{version[1]}; 1.0 to 3.0 can be read")
        # Version 3 differs from 2 in the encoding of field names, which an array of numbers has none of.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(head, max_header_size=_LONGEST_HEADER)
    except PushforwardError:
        raise
    except Exception as error:  # Python's parser and tokenizer raise a dozen classes on a stranger's text
        raise malformed("not a .npy file: its header cannot be read") from error
    for length in shape:  # NumPy takes True for 1
        if type(length) is not int or length < 0:
            raise malformed(f"not a .npy file: its header tells of an axis of length {str(length)[:64]}")
    return shape, by_columns, dtype
