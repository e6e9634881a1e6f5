from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest

from service.bundle.npz import read_npz
from service.errors import UnexpectedFile

ARRAYS = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([1, 2], np.int64), "s": np.array(0.5)}
CAP = 1 << 16


def npz(write: Callable[..., None] = np.savez, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    write(buffer, **arrays)
    return buffer.getvalue()


def zipped(name: str, data: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def npy(shape: str, body: bytes = b"", kind: str = "<f4") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def encrypted() -> bytes:
    """An archive whose one entry says that it is encrypted, in both of its heads."""
    data = bytearray(zipped("x.npy", npy("(1,)", b"0000")))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_wrote_them(write):
    given = {**ARRAYS, "columns": np.asfortranarray(ARRAYS["x"])}
    found = read_npz(npz(write, **given), "golden.npz", CAP)
    assert set(found) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an archive"),
        (b"\x00\xff" * 500, "not an archive"),
        (npz(**ARRAYS)[:-30], "not an archive"),
        (encrypted(), "encrypted"),
        (zipped("x.npy", npy("(1,)", b"0000"), zipfile.ZIP_BZIP2), "another method"),
        (zipped("x.npy", npy("(1,)", b"0000"), zipfile.ZIP_LZMA), "another method"),
        (zipped("x.txt", b"text"), "no array"),
        (zipped("x.npy", b"text"), "not an archive"),
        (zipped("x.npy", b""), "not an archive"),
        (zipped("x.npy", npy(f"({2**40}, 2)")), "claims 8796093022208 bytes"),
        (zipped("x.npy", npy(f"({2**62}, {2**62})")), "claims"),
        (zipped("x.npy", npy("(2,)", b"0000")), "claims 8 bytes"),
        (zipped("x.npy", npy("(True, 1)", b"0000")), "plain numbers"),
        (zipped("x.npy", npy("(-1, -1)", b"0000")), "plain numbers"),
        (zipped("x.npy", npy("(1,)", b"0" * 8, "|O")), "plain numbers"),
        (zipped("x.npy", npy("(1,)", b"0" * 8, "<U2")), "plain numbers"),
        (zipped("x.npy", npy("(" * 200)), "no header"),
        (zipped("x.npy", npy("[" * 9000)), "no header"),
        (zipped("x.npy", bytes(CAP + 1)), "unpacks"),
    ],
)
def test_another_archive_is_refused(data, words):
    with pytest.raises(UnexpectedFile, match=words):
        read_npz(data, "golden.npz", CAP)


def test_a_damaged_byte_anywhere_is_refused_or_changes_nothing():
    data = npz(np.savez_compressed, **ARRAYS)
    right = read_npz(data, "golden.npz", CAP)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x41
        try:
            found = read_npz(bytes(damaged), "golden.npz", CAP)
        except UnexpectedFile:
            continue
        common = set(found) & set(right)  # the name of an entry is under no checksum
        assert all(np.array_equal(found[name], right[name]) for name in common)
