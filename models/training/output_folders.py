"""The folders that a training writes into: checked before hours are spent, and removed where they are left empty.

Must not import torch.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from service.errors import DataError

__all__ = ["check_writable", "remove_empty"]


def check_writable(folder: Path, option: str) -> None:
    """Try to write where `folder` is, or is to be made; nothing of it is left.

    Args:
        folder: it need not exist.
        option: what the user calls it, such as ``"out"``.

    Raises:
        DataError: where it cannot be made or written into.
    """
    # The nearest that is there; a link that leads nowhere is there too, and no folder can be made in its place.
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    try:
        if not nearest.is_dir():
            raise DataError(f"{option}: {folder} cannot be used: {nearest} is not a folder")
        # Tried, since permission bits do not tell all: read-only mounts, quotas, access lists.
        with tempfile.TemporaryDirectory(prefix=".trying-", dir=nearest):
            pass
    except OSError as error:
        raise DataError(
            f"{option}: {folder} cannot be used: {nearest} cannot be written into: {error.strerror}"
        ) from error


def remove_empty(folder: Path) -> None:
    """Remove a folder that holds nothing; one that does, or is gone, is left as it is.

    Raises:
        DataError: where it is empty, and cannot be removed.
    """
    try:
        folder.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise DataError(f"the folder {folder} cannot be removed: {error.strerror}") from error
