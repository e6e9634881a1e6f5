"""A file that may be replaced while the server runs, such as one of keys or a certificate."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Final, TypeAlias

__all__ = ["WatchedFile"]

_Mark: TypeAlias = tuple[int, int, int, int] | None

_COARSEST_SECONDS: Final = 2.0
"""Some file systems keep times in steps of so much: a file that was written just now may be written again unseen."""

_LONGEST: Final = 1 << 20
"""In bytes; what stands behind is not looked at."""


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
            with self.path.open("rb") as opened:
                return hashlib.sha256(opened.read(_LONGEST)).digest()
        except OSError:
            return None
