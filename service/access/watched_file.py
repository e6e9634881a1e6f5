"""A file that may be replaced while the server runs, such as one of keys or a certificate."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Final, TypeAlias

__all__ = ["WatchedFile", "read_file"]

_Mark: TypeAlias = tuple[int, int, int, int] | None

_COARSEST_SECONDS: Final = 2.0
"""Some file systems keep times in steps of so much: a file that was written just now may be written again unseen."""

_LONGEST: Final = 1 << 20
"""In bytes; what stands behind is not looked at."""


def read_file(path: Path, most: int) -> bytes:
    """The bytes of a file. A pipe or a device is refused: it gives its bytes once, or a reader waits for ever.

    Args:
        path: of the file.
        most: bytes that are read.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with open(number, "rb", closefd=False) as opened:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file, and only such a file can be read again", str(path))
            return opened.read(most)
    finally:
        os.close(number)


class WatchedFile:
    """A file, and how it looked when it was last asked about.

    Args:
        path: of the file. A link is followed, so that what a secret of Kubernetes points at is watched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark: _Mark = None
        self._is_fresh = True
        self._digest: bytes | None = None
        self.has_changed()

    def has_changed(self) -> bool:
        """Whether it has other bytes than at the last call, or is there no more. It is read only where it may have."""
        mark = self._look()
        if mark == self._mark and not self._is_fresh:
            return False
        self._mark = mark
        self._is_fresh = mark is not None and time.time() - mark[3] / 1e9 < _COARSEST_SECONDS
        before, self._digest = self._digest, self._read()
        return before != self._digest

    def _look(self) -> _Mark:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> bytes | None:
        try:
            return hashlib.sha256(read_file(self.path, _LONGEST)).digest()
        except OSError:
            return None
