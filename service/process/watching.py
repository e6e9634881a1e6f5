"""The watch over a repository's folder: it tells when what lies there has changed, and no longer changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from service.bundle.aliases import ALIASES_FILE
from service.bundle.store import Repository

__all__ = ["RepositoryWatch"]

_Look: TypeAlias = Mapping[str, tuple[int, int, int]]
"""Path -> what changes with the file's content: its size, the time of its last change, its number on the disk."""


class RepositoryWatch:
    """A watch by looks at the names, sizes and times of files, which network folders have too.

    A bundle that is copied into its place takes a while. What has changed is therefore told once two looks in a row
    have seen the same.

    Args:
        repository: to look at.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._known = self._last = self._look()

    def changed(self) -> bool:
        """Look again.

        Returns:
            Whether the repository is another than when this was last true, or at first, and was so at the last look.
        """
        seen = self._look()
        settled, self._last = seen == self._last, seen
        if not settled or seen == self._known:
            return False
        self._known = seen
        return True

    def _look(self) -> _Look:
        return dict(self._files())

    def _files(self) -> Iterator[tuple[str, tuple[int, int, int]]]:
        repository = self._repository
        try:
            for name in repository.names():
                yield from _stamp(repository.root / name / ALIASES_FILE)
                for version in repository.versions(name):
                    folder = repository.root / name / str(version)
                    for path in (folder, *sorted(folder.iterdir())):
                        yield from _stamp(path)
        except OSError:  # a folder that has just gone, or is out of reach: the next look sees more
            return


def _stamp(path: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    try:
        status = path.lstat()
    except OSError:
        return
    yield str(path), (status.st_size, status.st_mtime_ns, status.st_ino)
