"""Archives of plain arrays (.npz) from a stranger: what they claim is held against what they hold, before it is taken.

`numpy.load` allocates what an array's header claims, and raises half a dozen unrelated classes for a broken archive.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import UnexpectedFile

__all__ = ["read_npz"]

_SUFFIX = ".npy"
_COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1  # of an entry's flags
_MAX_ENTRIES = 64


def read_npz(data: bytes, file: str, max_bytes: int) -> dict[str, npt.NDArray[np.generic]]:
    """Read an archive of plain arrays.

    Args:
        data: the bytes of the archive.
        file: its name, for an error.
        max_bytes: the most bytes that it may unpack to.

    Returns:
        Name -> array.

    Raises:
        UnexpectedFile: it is no such archive, an entry is encrypted, is no array of plain numbers or has another size
            than its header claims, or it unpacks to more.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES or len({entry.filename for entry in entries}) < len(entries):
                raise UnexpectedFile(f"{file} holds an array twice, or more than {_MAX_ENTRIES} of them")
            if sum(entry.file_size for entry in entries) > max_bytes:
                raise UnexpectedFile(f"{file} unpacks to more than {max_bytes} bytes")
            return {entry.filename.removesuffix(_SUFFIX): _read_entry(archive, entry, file) for entry in entries}
    except (
        ValueError,  # of a header that is none
        OSError,
        EOFError,
        RuntimeError,  # of an entry that needs a password, and, as NotImplementedError, of a newer archive
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UnexpectedFile(f"{file} is not an archive of plain arrays") from error


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: str) -> npt.NDArray[np.generic]:
    name = entry.filename[:100]
    if not name.endswith(_SUFFIX):
        raise UnexpectedFile(f"{file} holds {name!r}, which is no array")
    if entry.flag_bits & _ENCRYPTED:
        raise UnexpectedFile(f"{file}: {name} is encrypted; arrays are expected as they are")
    if entry.compress_type not in _COMPRESSIONS:
        raise UnexpectedFile(f"{file}: {name} is compressed by another method than deflate")
    return _read_array(archive.read(entry), f"{file}: {name}")


def _read_array(data: bytes, name: str) -> npt.NDArray[np.generic]:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise UnexpectedFile(f"{name} is of npy version {version[0]}.{version[1]}; 1.0 or 2.0 is expected")
    try:
        shape, in_columns, dtype = read(stream)
    except Exception as error:  # Python's parser and tokenizer raise a dozen classes on a stranger's text
        raise UnexpectedFile(f"{name} has no header of an array") from error
    whole: Any = bytearray(data[stream.tell() :])  # an array of bytes could not be written to
    if dtype.kind not in "fiub" or any(type(size) is not int or size < 0 for size in shape):
        raise UnexpectedFile(f"{name} is no array of plain numbers")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed != len(whole):
        raise UnexpectedFile(f"{name} claims {claimed} bytes of numbers, shape {list(shape)}, and holds {len(whole)}")
    array: npt.NDArray[np.generic] = np.frombuffer(whole, dtype).reshape(shape, order="F" if in_columns else "C")
    return array
