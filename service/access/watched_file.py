"""A file that may be replaced while the server runs, such as one of keys or a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

__all__ = ["WatchedFile"]

_Mark: TypeAlias = tuple[int, int, int, int] | None


class WatchedFile:
    """A file, and how it looked when it was last asked about.

    Args:
        path: of the file. A link is followed, so that what a secret of Kubernetes points at is watched.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = self._look()

    def has_changed(self) -> bool:
        """Whether it is another file than at the last call, or has other bytes, as the system tells it."""
        mark = self._look()
        changed = mark != self._mark
        self._mark = mark
        return changed

    def _look(self) -> _Mark:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
