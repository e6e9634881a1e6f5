"""The archive of a bundle: a tar of its files, as it travels to a server. A stranger's archive writes nothing else."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import IO, Final

from service.bundle.store import MANIFEST_FILE, MAX_FILE_BYTES, OPTIONAL_FILES, REQUIRED_FILES
from service.errors import MalformedBody, UnexpectedFile

__all__ = ["MAX_ARCHIVE_BYTES", "unpack", "write_archive"]

MAX_ARCHIVE_BYTES: Final = 5 * MAX_FILE_BYTES
"""The size of the largest archive: that of the files which a bundle may hold, and of the archive's own blocks."""

_FILES: Final = frozenset({MANIFEST_FILE, *REQUIRED_FILES, *OPTIONAL_FILES})
_MAX_MEMBERS: Final = 64
_MAX_READ: Final = 1 << 20
"""The most bytes that are read at once: the headers of an archive may claim to be of any size."""


def write_archive(folder: Path, file: IO[bytes]) -> None:
    """Write the files of a bundle's folder as a tar.

    Args:
        folder: of a bundle that `service.bundle.store.read_bundle` has checked.
        file: opened for writing.
    """
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name, recursive=False, filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member without its owner, which is of this machine."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack(file: IO[bytes], folder: Path) -> None:
    """Unpack a tar of a bundle's files, at its top or all in one folder.

    Nothing but the files of a bundle is written, each below `folder` by its bare name. What they hold is for
    `service.bundle.store.read_bundle` to check.

    Args:
        file: the archive, opened for reading; not compressed.
        folder: an empty folder.

    Raises:
        MalformedBody: the file is no tar, or it ends too early.
        UnexpectedFile: a member is a link, a device or another file than a bundle's, lies in another folder than the
            rest, or is too large, or there are too many.
    """
    parents: set[Path] = set()
    try:
        with tarfile.open(fileobj=_Bounded(file), mode="r:") as archive:  # type: ignore[call-overload]
            for count, member in enumerate(archive, start=1):
                if count > _MAX_MEMBERS:
                    raise UnexpectedFile(f"the archive has more than {_MAX_MEMBERS} members")
                if member.isdir():
                    continue
                path = Path(member.name)
                _check_member(member, path)
                parents.add(path.parent)
                if len(parents) > 1:
                    raise UnexpectedFile("the archive has files in several folders; a bundle is one folder")
                _extract(archive, member, folder / path.name)
        if not parents:
            raise MalformedBody("the archive holds no files")
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise MalformedBody("the body is not a tar of a bundle's files") from error


def _check_member(member: tarfile.TarInfo, path: Path) -> None:
    shown = member.name[:64]
    if not member.isreg() or member.issparse():
        raise UnexpectedFile(f"{shown!r} in the archive is no regular file; a bundle holds no links and no devices")
    if path.is_absolute() or ".." in path.parts or len(path.parts) > 2 or path.name not in _FILES:
        raise UnexpectedFile(f"{shown!r} in the archive is no file of a bundle; those are {sorted(_FILES)}")
    if member.size > MAX_FILE_BYTES:
        raise UnexpectedFile(f"{shown!r} in the archive has {member.size} bytes; the cap is {MAX_FILE_BYTES}")


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = archive.extractfile(member)
    if source is None or path.exists():
        raise UnexpectedFile(f"{member.name[:64]!r} is in the archive twice")
    with source, path.open("xb") as target:
        shutil.copyfileobj(source, target, 1 << 16)
    if path.stat().st_size != member.size:
        raise MalformedBody(f"the archive ends within {member.name[:64]!r}")


class _Bounded:
    """A file of which no more than `_MAX_READ` bytes are read at once.

    Args:
        file: opened for reading.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes.

        Raises:
            MalformedBody: a header of the archive claims to have more.
        """
        if not 0 <= size <= _MAX_READ:
            raise MalformedBody("a header of the archive is too large")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()
