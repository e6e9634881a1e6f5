"""Durable files: written whole or not at all, and on the disk before anyone goes on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["replace_durably", "sync", "write_durably"]


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file, and wait until the disk has it.

    Raises:
        OSError: the file exists, or cannot be written.
    """
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(
    target: Path, data: bytes | memoryview, prefix: str, folder: Path | None = None, mode: int = 0o600
) -> None:
    """Write a file, or replace it, in one step: a reader finds the old one or the new one.

    Args:
        target: the file.
        data: its new content.
        prefix: of the name of the temporary file.
        folder: where that is, on the same disk; None for the folder of the file.
        mode: the permissions of the new file.

    Raises:
        OSError: it cannot be written. The old file is as it was.
    """
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=folder or target.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(target.parent)


def sync(place: Path) -> None:
    """Wait until the disk has a file, or the names in a folder."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
