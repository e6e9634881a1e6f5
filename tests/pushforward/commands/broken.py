"""Broken files and places, one set for the tests of all commands."""

from __future__ import annotations

import io
import json
import resource
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

__all__ = ["BUNDLES", "FILES", "PLACES", "full_disk"]

Spoil = Callable[[Path], Path]
"""Breaks the file or the bundle of a path, and returns the path to give to a command."""


def claiming_npy(rows: int, width: int = 2) -> bytes:
    """A .npy file whose header claims that many rows, and that holds one."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


def zipped(member: bytes, *, encrypted: bool = False) -> bytes:
    """An archive of one array, x.npy, that may say of itself that it is encrypted."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", member)
    data = bytearray(buffer.getvalue())
    if encrypted:
        data[6] |= 1
        data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def written(name: str, data: bytes) -> Spoil:
    """A file of these bytes in the place of the good one, under another suffix."""

    def spoil(path: Path) -> Path:
        made = path.with_name(name)
        made.write_bytes(data)
        return made

    return spoil


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _missing(path: Path) -> Path:
    return path.with_name("missing.csv")


def _folder(path: Path) -> Path:
    made = path.with_name("folder.csv")
    made.mkdir()
    return made


def _unreadable(path: Path) -> Path:
    path.chmod(0)
    return path


RUBBISH: Final = bytes(np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8))

FILES: Final[Mapping[str, Spoil]] = {
    "missing": _missing,
    "folder": _folder,
    "unreadable": _unreadable,
    "empty csv": written("rows.csv", b""),
    "empty npy": written("rows.npy", b""),
    "rubbish csv": written("rows.csv", RUBBISH),
    "rubbish npy": written("rows.npy", b"\x93NUMPY" + RUBBISH),
    "rubbish header": written("rows.npy", b"\x93NUMPY\x01\x00\x40\x00" + b"(" * 64),
    "truncated npy": written("rows.npy", npy(np.ones((9, 2), np.float32))[:-5]),
    "cut header": written("rows.npy", npy(np.ones((9, 2), np.float32))[:20]),
    "2^40 rows": written("rows.npy", claiming_npy(2**40)),
    "2^62 rows": written("rows.npy", claiming_npy(2**62, 2**40)),
    "objects": written("rows.npy", npy(np.array([[None, 1]], dtype=object))),
    "text": written("rows.csv", b"a,b\n1,two\n"),
    "ragged": written("rows.csv", b"1,2\n3\n"),
    "zeros": written("rows.csv", bytes(3000)),
    "quote": written("rows.csv", b'1,"2\n' * 300),
    "encrypted npz": written("rows.npz", zipped(npy(np.ones((9, 2))), encrypted=True)),
    "truncated npz": written("rows.npz", zipped(npy(np.ones((9, 2))))[:-30]),
    "claiming npz": written("rows.npz", zipped(claiming_npy(2**40))),
    "rubbish npz": written("rows.npz", b"PK\x03\x04" + RUBBISH),
    "rubbish parquet": written("rows.parquet", b"PAR1" + RUBBISH + b"PAR1"),
    "empty parquet": written("rows.parquet", b""),
}
"""Broken rows. Each spoils a good file, or puts another beside it."""


def in_bundle(name: str, change: Callable[[Path], object]) -> Spoil:
    """A bundle with one file that was changed."""

    def spoil(folder: Path) -> Path:
        change(folder / name)
        return folder

    return spoil


def _replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _truncate(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def _sealed(name: str, data: bytes) -> Spoil:
    """A bundle with another file under a digest that is right."""

    def spoil(folder: Path) -> Path:
        from service.bundle.manifest import seal_older
        from service.bundle.store import digest

        (folder / name).write_bytes(data)
        content = json.loads((folder / "flow.json").read_bytes())
        content["files"][name] = digest(data)
        (folder / "flow.json").write_bytes(seal_older(json.dumps(content).encode(), edited=True))
        return folder

    return spoil


def _failing_run(folder: Path) -> Path:
    """A graph that ONNX Runtime loads, and that fails on any row."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string((folder / "forward.onnx").read_bytes())
    model.graph.initializer.append(numpy_helper.from_array(np.array([99]), "beyond"))
    (last,) = (node for node in model.graph.node if "log_prob" in node.output)
    last.output[0] = "density"
    model.graph.node.append(helper.make_node("Gather", ["density", "beyond"], ["one"]))
    model.graph.node.append(helper.make_node("Add", ["density", "one"], ["log_prob"]))
    return _sealed("forward.onnx", model.SerializeToString())(folder)


def _other_place(make: Callable[[Path], object]) -> Spoil:
    """A path that is no bundle at all."""

    def spoil(folder: Path) -> Path:
        shutil.rmtree(folder)
        make(folder)
        return folder

    return spoil


BUNDLES: Final[Mapping[str, Spoil]] = {
    "missing": _other_place(lambda folder: None),
    "a file": _other_place(lambda folder: folder.write_bytes(RUBBISH)),
    "an empty folder": _other_place(lambda folder: folder.mkdir()),
    "unreadable manifest": in_bundle("flow.json", _unreadable),
    "unreadable graph": in_bundle("inverse.onnx", _unreadable),
    "unreadable folder": _unreadable,
    **{
        f"{name}: {fault}": in_bundle(name, change)
        for name in ("flow.json", "forward.onnx", "golden.npz")
        for fault, change in (
            ("a folder", _replace_by_folder),
            ("empty", lambda file: file.write_bytes(b"")),
            ("truncated", _truncate),
            ("rubbish", lambda file: file.write_bytes(RUBBISH)),
            ("missing", lambda file: file.unlink()),
        )
    },
    "deep manifest": in_bundle("flow.json", lambda file: file.write_bytes(b"[" * 100_000)),
    "older manifest": in_bundle("flow.json", lambda file: file.write_text('{"format": 2}')),
    "encrypted golden rows": _sealed("golden.npz", zipped(npy(np.ones((9, 2))), encrypted=True)),
    "golden rows of 2^40": _sealed("golden.npz", zipped(claiming_npy(2**40))),
    "sealed rubbish": _sealed("forward.onnx", RUBBISH),
    "failing run": _failing_run,
}
"""Broken bundles."""


def _file_as_folder(folder: Path) -> Path:
    made = folder / "file"
    made.write_bytes(b"")
    return made / "within"


PLACES: Final[Mapping[str, Spoil]] = {
    "within a file": _file_as_folder,
    "unwritable": lambda folder: folder / "unwritable" / "within",
    "full": lambda folder: folder / "full",
}
"""Places to write to: the second and the third by `as_nobody` and `full_disk`."""


@contextmanager
def full_disk() -> Iterator[None]:
    """As long as this lasts, this process can write into no file: what a full disk does, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
