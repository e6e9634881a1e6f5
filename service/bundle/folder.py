"""The folder of a bundle: what its path says, and its files, read through descriptors of one folder that stays open."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.bundle.manifest import is_flow_name
from service.errors import UnexpectedFile

__all__ = ["MANIFEST_FILE", "identity_of_folder", "is_version", "list_folder", "open_folder", "read_file"]

MANIFEST_FILE = "flow.json"


def is_version(name: str) -> bool:
    """Tell whether `name` is a version as a folder writes it: a positive integer without leading zeros.

    Example:
        >>> is_version("12"), is_version("012"), is_version("v1")
        (True, False, False)
    """
    return name.isascii() and name.isdigit() and not name.startswith("0") and len(name) <= 9


def identity_of_folder(folder: Path) -> tuple[str, int] | None:
    """The flow and version that a server would take a folder for.

    Args:
        folder: absolute, or relative to the working directory.

    Returns:
        Name and version where the path ends in ``<name>/<version>``; None where it does not.

    Example:
        >>> identity_of_folder(Path("repository/two-moons/1")), identity_of_folder(Path("/srv/Downloads/mine"))
        (('two-moons', 1), None)
    """
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100  resolve() would follow links; a server goes by their names
    name, version = absolute.parent.name, absolute.name
    return (name, int(version)) if is_flow_name(name) and is_version(version) else None


@contextmanager
def open_folder(folder: Path) -> Iterator[int]:
    """Open the folder of a bundle. Its files are then those of one folder, whatever its path comes to stand for.

    Where the path is that of a version in a repository, the flow's folder may be no symbolic link either: a flow in the
    repository is one that was put there.

    Raises:
        UnexpectedFile: there is no such folder, it is a link, or it cannot be read.
    """
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100  resolve() would follow links
    with ExitStack() as stack:
        parent = None
        if identity_of_folder(absolute) is not None:
            parent = _open_one_folder(stack, absolute.parent, "the flow's folder")
        opened = _open_one_folder(stack, absolute, "the bundle's folder", parent)
        if MANIFEST_FILE not in list_folder(opened):
            raise UnexpectedFile("there is no bundle: flow.json is missing")
        yield opened


def _open_one_folder(stack: ExitStack, folder: Path, words: str, parent: int | None = None) -> int:
    """Open a folder that is no symbolic link.

    Args:
        stack: closes it.
        folder: absolute.
        words: what it is, for an error.
        parent: the open folder that holds it; None to go by its path.

    Raises:
        UnexpectedFile: there is no such folder, it is a link, or it may not be read.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        descriptor = os.open(folder if parent is None else folder.name, flags, dir_fd=parent)
    except OSError as error:
        if folder.is_symlink():
            raise UnexpectedFile(
                f"{words} is a symbolic link, and links are not followed: put the folder itself there"
            ) from error
        if isinstance(error, PermissionError):
            raise UnexpectedFile(f"{words} cannot be read: {error.strerror}") from error
        raise UnexpectedFile("there is no bundle: a bundle is a folder with a flow.json in it") from error
    stack.callback(os.close, descriptor)
    return descriptor


def list_folder(opened: int) -> set[str]:
    """The names of the files in an open folder.

    Raises:
        UnexpectedFile: they cannot be read.
    """
    try:
        with os.scandir(opened) as entries:
            return {entry.name for entry in entries}
    except OSError as error:
        raise UnexpectedFile(f"the bundle's folder cannot be read: {error.strerror}") from error


def read_file(opened: int, name: str, cap: int) -> bytes:
    """Read one regular file of the bundle: no symbolic or hard link, no device, no file over the cap.

    Args:
        opened: the folder.
        name: of the file.
        cap: the most bytes that it may have.
    """
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened)
    except OSError as error:
        raise UnexpectedFile(f"{name} cannot be read as a regular file: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise UnexpectedFile(f"{name} must be a regular file, with no other link to it")
        if status.st_size > cap:
            raise UnexpectedFile(f"{name} has {status.st_size} bytes; the cap is {cap}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(cap + 1)
    except OSError as error:
        raise UnexpectedFile(f"{name} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
