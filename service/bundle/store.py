"""Bundles as folders: `<repository>/<name>/<version>/`, read whole and checked, written whole or not at all.

Reading checks everything that needs no engine: the files, their digests, the graphs' operators. The answers to
the golden rows are checked by `service.engine`, and by the exporter before a bundle is written.

The names of the folders and the manifest must agree: a server goes by the folders' names, so that a bundle in the
folder of another would answer in its place.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.bundle.consistency import check_consistency
from service.bundle.durable import replace_durably, sync, write_durably
from service.bundle.folder import MANIFEST_FILE, identity_of_folder, is_version, list_folder, open_folder, read_file
from service.bundle.manifest import MAX_MANIFEST_BYTES, Manifest, is_flow_name, seal_older
from service.bundle.npz import read_npz
from service.bundle.operators import check_graph
from service.bundle.precision import DTYPES, FloatType
from service.errors import (
    BundleError,
    DataError,
    DigestMismatch,
    FlowNotFound,
    ManifestInvalid,
    Reason,
    UnexpectedFile,
    VersionNotFound,
)

Floats = npt.NDArray[np.floating[Any]]

__all__ = [
    "MANIFEST_FILE",
    "Bundle",
    "Golden",
    "Repository",
    "check_identity",
    "digest",
    "identity_of_folder",
    "is_version",
    "manifest_digest",
    "read_bundle",
    "read_manifest",
    "read_older_bundle",
    "replace_manifest",
]

REQUIRED_FILES = frozenset({"forward.onnx", "inverse.onnx", "golden.npz"})
OPTIONAL_FILES = frozenset({"trace.onnx"})
MAX_FILE_BYTES = 512 << 20
"""The size of the largest file of a bundle: a cap on what a stranger can make the server read."""
MAX_GOLDEN_BYTES = 64 << 20
"""The size of the largest golden.npz once it is unpacked."""

_INSTALLING = ".installing-"
_REMOVING = ".removing-"
_LEFTOVER_SECONDS = 24 * 3600.0


def check_identity(manifest: Manifest, name: str, version: int) -> None:
    """Compare a manifest's name and version with those of the folder that holds it.

    Args:
        manifest: of the bundle.
        name: the flow that the folder stands for.
        version: the version that the folder stands for.

    Raises:
        BundleError: they differ.
    """
    if (manifest.name, manifest.version) != (name, version):
        raise BundleError(
            f"flow.json is of {manifest.name} version {manifest.version}, "
            f"and the bundle lies where {name} version {version} should"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """A few rows and their answers, computed in float64 by the flow that was exported.

    Args:
        x: ``[G, *event]``, in the flow's precision.
        z: float64 ``[G, D]``, the latent of each row.
        log_abs_det_jacobian: float64 ``[G]``, log|det df/dx| in nats.
        log_prob: float64 ``[G]``, in nats.
        context: ``[G, C]``, in the flow's precision; None for a flow without context.
    """

    x: Floats
    z: npt.NDArray[np.float64]
    log_abs_det_jacobian: npt.NDArray[np.float64]
    log_prob: npt.NDArray[np.float64]
    context: Floats | None = None

    def latents(self) -> Floats:
        """Z in the flow's precision, as the inverse takes it."""
        return self.z.astype(self.x.dtype)

    def to_npz(self) -> bytes:
        """The bytes of golden.npz. The same rows give the same bytes."""
        arrays: dict[str, npt.NDArray[np.floating]] = {
            "x": self.x,
            "z": self.z,
            "log_abs_det_jacobian": self.log_abs_det_jacobian,
            "log_prob": self.log_prob,
        }
        if self.context is not None:
            arrays["context"] = self.context
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_npz(cls, data: bytes, manifest: Manifest) -> Golden:
        """Read golden.npz and compare its shapes with the manifest.

        Args:
            data: the bytes of golden.npz.
            manifest: of the same bundle.

        Raises:
            UnexpectedFile: `data` is no npz of these arrays, or they have other shapes or dtypes.
        """
        arrays = read_npz(data, "golden.npz", MAX_GOLDEN_BYTES)
        rows = arrays["x"].shape[0] if "x" in arrays and arrays["x"].ndim else 0
        expected: dict[str, tuple[tuple[int, ...], FloatType]] = {
            "x": ((rows, *manifest.event_shape), manifest.dtype),
            "z": ((rows, manifest.latent_width), DTYPES["float64"]),
            "log_abs_det_jacobian": ((rows,), DTYPES["float64"]),
            "log_prob": ((rows,), DTYPES["float64"]),
        }
        if manifest.context_width:
            expected["context"] = ((rows, manifest.context_width), manifest.dtype)
        if rows == 0 or set(arrays) != set(expected):
            raise UnexpectedFile(f"golden.npz must hold at least one row of each of {sorted(expected)}")
        for name, (shape, dtype) in expected.items():
            if arrays[name].shape != shape or arrays[name].dtype != dtype:
                raise UnexpectedFile(
                    f"golden.npz: {name} must be {dtype} of shape {list(shape)}, "
                    f"and is {arrays[name].dtype} of shape {list(arrays[name].shape)}"
                )
        return cls(
            x=np.asarray(arrays["x"], manifest.dtype),
            z=np.asarray(arrays["z"], np.float64),
            log_abs_det_jacobian=np.asarray(arrays["log_abs_det_jacobian"], np.float64),
            log_prob=np.asarray(arrays["log_prob"], np.float64),
            context=np.asarray(arrays["context"], manifest.dtype) if "context" in arrays else None,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A bundle in memory: every byte that will be served has been checked, and is not read again.

    Args:
        manifest: the content of flow.json.
        graphs: file name -> bytes, for each ONNX file.
        golden: the golden rows.
        digest: SHA-256 of flow.json, which names the digests of all other files; empty for a bundle made in memory.
    """

    manifest: Manifest
    graphs: Mapping[str, bytes]
    golden: Golden
    digest: str = ""

    def files(self) -> dict[str, bytes]:
        """The files to install a bundle with these graphs and golden rows from: file name -> bytes."""
        return {**self.graphs, "golden.npz": self.golden.to_npz()}

    def sha256(self) -> str:
        """The digest of the manifest, which names the digest of every file: bundles with the same one are the same."""
        return digest(self.manifest.to_json())


def digest(data: bytes) -> str:
    """SHA-256 as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle into memory, and check everything that needs no engine.

    Args:
        folder: the folder that holds flow.json.

    Raises:
        UnexpectedFile: a file is missing, is not one of a bundle's, is a symbolic or hard link, or is too large; or
            the folder, or that of its flow, is a symbolic link.
        ManifestInvalid: flow.json is no manifest, or does not agree with the golden rows.
        DigestMismatch: a file is not the one that the manifest names, or flow.json not the one that was written.
        ForbiddenGraph: a graph holds what a flow may not.
    """
    with open_folder(folder) as opened:
        return _read_bundle(opened, read_file(opened, MANIFEST_FILE, MAX_MANIFEST_BYTES))


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, whatever its other files are; None where it is none.

    Args:
        folder: the folder that holds flow.json.
    """
    try:
        with open_folder(folder) as opened:
            return Manifest.from_json(read_file(opened, MANIFEST_FILE, MAX_MANIFEST_BYTES))
    except BundleError:
        return None


def read_older_bundle(folder: Path, *, edited: bool = False) -> tuple[Bundle, bytes]:
    """Read a bundle of any format, as it would be under a manifest of today's.

    Args:
        folder: the folder that holds flow.json.
        edited: whether flow.json may be another than the one that was written.

    Returns:
        The bundle, and the flow.json of today's format, to be written by `replace_manifest`.

    Raises:
        BundleError: as `read_bundle`.
    """
    with open_folder(folder) as opened:
        manifest = seal_older(read_file(opened, MANIFEST_FILE, MAX_MANIFEST_BYTES), edited=edited)
        return _read_bundle(opened, manifest), manifest


def replace_manifest(folder: Path, data: bytes) -> bool:
    """Replace flow.json in one step, so that a reader finds the old one or the new one.

    Args:
        folder: of the bundle.
        data: from `read_older_bundle`.

    Returns:
        Whether it was another than `data`.
    """
    target = folder / MANIFEST_FILE
    if target.read_bytes() == data:
        return False
    beside = Path(os.path.abspath(folder)).parent  # noqa: PTH100  a bundle's own folder holds its files alone
    replace_durably(target, data, prefix=".resealing-", folder=beside, mode=stat.S_IMODE(target.stat().st_mode))
    return True


def _read_bundle(opened: int, manifest_data: bytes) -> Bundle:
    """Read the bundle of an open folder under a manifest."""
    manifest = Manifest.from_json(manifest_data)
    named = set(manifest.files)
    if not named >= REQUIRED_FILES or not named <= REQUIRED_FILES | OPTIONAL_FILES:
        raise ManifestInvalid(
            "flow.json must name the files of a bundle",
            (Reason(("flow.json", "files"), f"expected {sorted(REQUIRED_FILES)}, and found {sorted(named)}"),),
        )
    if bool(manifest.trace) != ("trace.onnx" in named):
        raise ManifestInvalid(
            "flow.json must name the steps of trace.onnx where there is one, and only there",
            (Reason(("flow.json", "trace"), f"it names {len(manifest.trace)} steps"),),
        )
    present = list_folder(opened)
    if present != named | {MANIFEST_FILE}:
        missing, extra = sorted(named - present), sorted(present - named - {MANIFEST_FILE})
        raise UnexpectedFile(
            "the bundle's folder must hold just the files that flow.json names: "
            + "; ".join(f"{what} {names}" for what, names in (("missing", missing), ("unknown", extra)) if names)
        )
    files = {name: read_file(opened, name, MAX_FILE_BYTES) for name in sorted(named)}
    for name, data in files.items():
        if digest(data) != manifest.files[name]:
            raise DigestMismatch(f"{name} is not the file that flow.json names: its SHA-256 differs")
    graphs = {name: data for name, data in files.items() if name.endswith(".onnx")}
    for name, data in graphs.items():
        summary = check_graph(data, name)
        if summary.opset != manifest.opset:
            raise ManifestInvalid(f"{name} is of opset {summary.opset}, and flow.json says {manifest.opset}")
    golden = Golden.from_npz(files["golden.npz"], manifest)
    check_consistency(manifest, golden)
    return Bundle(manifest, graphs, golden, digest(manifest_data))


def manifest_digest(folder: Path) -> str:
    """SHA-256 of the flow.json of a bundle's folder, without a look at what it says.

    Returns:
        The digest; an empty text where there is no such file, or it cannot be read. `read_bundle` says why.
    """
    try:
        with open_folder(folder) as opened:
            return digest(read_file(opened, MANIFEST_FILE, MAX_MANIFEST_BYTES))
    except UnexpectedFile:
        return ""


class Repository:
    """A folder of flows: `<root>/<name>/<version>/`.

    Names and versions are looked up among the folders, and never joined to a path unchecked. An entry with any other
    name (a recipe beside the versions, a temporary folder) is ignored.

    Args:
        root: the folder; it need not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The flows with at least one version, in alphabetical order."""
        if not self.root.is_dir():
            return []
        return sorted(e.name for e in os.scandir(self.root) if is_flow_name(e.name) and self.versions(e.name))

    def versions(self, name: str) -> list[int]:
        """The versions of one flow, ascending; empty where there is none."""
        folder = self.root / name
        if not is_flow_name(name) or not folder.is_dir():
            return []
        return sorted(int(e.name) for e in os.scandir(folder) if is_version(e.name) and e.is_dir())

    def path(self, name: str, version: int | None = None) -> Path:
        """The folder of one bundle.

        Args:
            name: of the flow.
            version: None for the newest.

        Raises:
            FlowNotFound: the repository holds no such flow.
            VersionNotFound: the flow has no such version.
        """
        versions = self.versions(name)
        if not versions:
            raise FlowNotFound(f"there is no flow {name[:64]!r} in the repository")
        if version is not None and version not in versions:
            raise VersionNotFound(f"flow {name!r} has no version {version}; it has {versions}")
        return self.root / name / str(version or versions[-1])

    def next_version(self, name: str) -> int:
        """One more than the newest version; 1 for a new flow."""
        return max(self.versions(name), default=0) + 1

    def install(self, manifest: Manifest, files: Mapping[str, bytes]) -> Path:
        """Write a bundle to a temporary folder, sync it, check it, and rename it.

        Args:
            manifest: of the bundle; its `files` are filled in here.
            files: file name -> bytes, without flow.json.

        Returns:
            The folder of the bundle.

        Raises:
            BundleError: the bundle would not be served. Nothing is left behind.
            FileExistsError: this version exists already, and a version never changes.
        """
        self._require_free(manifest.name, manifest.version)
        manifest = manifest.model_copy(update={"files": {n: digest(d) for n, d in sorted(files.items())}})
        if (self.root / manifest.name).is_symlink():
            raise UnexpectedFile(f"the folder of {manifest.name} is a symbolic link, and a server follows none")
        with self.staging(manifest.name) as folder:
            for name, data in {**files, MANIFEST_FILE: manifest.to_json()}.items():
                write_durably(folder / name, data)
            return self.publish(folder, manifest.name, manifest.version)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A temporary folder beside the versions of a flow, which `publish` makes one of them.

        Nothing is left of it afterwards. What a process left behind that was killed is removed after a day.

        Args:
            name: of the flow.

        Raises:
            OSError: the repository cannot be written.
        """
        flow = self.root / name
        is_new = not flow.exists()
        flow.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(flow)
        folder = Path(tempfile.mkdtemp(prefix=_INSTALLING, dir=flow))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if is_new:
                with suppress(OSError):  # a version is there
                    flow.rmdir()

    def publish(self, folder: Path, name: str, version: int) -> Path:
        """Sync a bundle in a folder of `staging`, check it, and rename it, which is all or nothing.

        Args:
            folder: from `staging`, or in it; holds the files of the bundle.
            name: of the flow.
            version: of it.

        Returns:
            The folder of the bundle.

        Raises:
            BundleError: the bundle would not be served, or is another flow's or version's.
            FileExistsError: this version exists already, and a version never changes.
        """
        check_identity(read_bundle(folder).manifest, name, version)
        for file in folder.iterdir():
            sync(file)
        folder.chmod(0o755)  # mkdtemp makes a private folder; a server runs as another user
        sync(folder)
        self._require_free(name, version)
        target = self.root / name / str(version)
        folder.rename(target)
        sync(target.parent)
        return target

    def remove(self, name: str, version: int) -> None:
        """Remove a version: it is renamed first, so that no one finds a part of it.

        Args:
            name: of the flow.
            version: of it.

        Raises:
            FlowNotFound: the repository holds no such flow.
            VersionNotFound: the flow has no such version.
            OSError: the repository cannot be written.
        """
        folder = self.path(name, version)
        hidden = Path(tempfile.mkdtemp(prefix=_REMOVING, dir=folder.parent))
        try:
            folder.rename(hidden)
        except OSError:
            hidden.rmdir()
            raise
        sync(hidden.parent)
        shutil.rmtree(hidden, ignore_errors=True)
        with suppress(OSError):  # other versions are there
            hidden.parent.rmdir()

    def _require_free(self, name: str, version: int) -> None:
        if (self.root / name / str(version)).exists():
            raise FileExistsError(f"{name} has a version {version} already")

    def install_next(self, manifest: Manifest, files: Mapping[str, bytes], *, pinned: bool = False) -> Path:
        """Write a bundle, as the next free version where another process has taken its version meanwhile.

        Args:
            manifest: of the bundle, with the version that was free.
            files: as for `install`.
            pinned: whether the version must be the one of the manifest.

        Returns:
            The folder of the bundle.

        Raises:
            BundleError: as `install`.
            DataError: the version exists already, and it is pinned.
        """
        while True:
            try:
                return self.install(manifest, files)
            except OSError as error:  # FileExistsError before the rename, or what the rename itself raises
                if not (self.root / manifest.name / str(manifest.version)).exists():
                    raise
                if pinned:
                    raise DataError(f"{manifest.name} has a version {manifest.version} already") from error
            # The entry of that name may be no folder of a bundle, and so no version of the repository.
            free = max(self.next_version(manifest.name), manifest.version + 1)
            manifest = manifest.model_copy(update={"version": free})


def _remove_leftovers(flow: Path) -> None:
    """Remove the temporary folders of processes that were killed: those that nobody has touched for a day."""
    for entry in flow.iterdir():
        if entry.name.startswith((_INSTALLING, _REMOVING)):
            with suppress(FileNotFoundError):  # its process has just removed it
                if time.time() - entry.stat().st_mtime > _LEFTOVER_SECONDS:
                    shutil.rmtree(entry, ignore_errors=True)
