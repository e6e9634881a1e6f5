"""The next version of a bundle that a command writes: its repository and its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pushforward.client.errors import InvalidInput

if TYPE_CHECKING:
    from service.bundle.manifest import Manifest
    from service.bundle.store import Repository

__all__ = ["choose_repository", "make_next_manifest"]


def choose_repository(folder: Path, manifest: Manifest, out: Path | None) -> Repository:
    """The repository that a new version goes into.

    Args:
        folder: of the bundle.
        manifest: of the bundle.
        out: the repository of --out; None for the one that the bundle lies in.

    Raises:
        InvalidInput: none is given, and the bundle does not lie in one.
    """
    from service.bundle.place import place_of
    from service.bundle.store import Repository

    if out is None and place_of(folder) != (manifest.name, manifest.version):
        raise InvalidInput(f"the bundle does not lie at REPOSITORY/{manifest.name}/VERSION: say --out REPOSITORY")
    return Repository(out or folder.absolute().parent.parent)


def make_next_manifest(manifest: Manifest, repository: Repository) -> Manifest:
    """The manifest of the next version, in the format that is written now."""
    from service.bundle.manifest import FORMAT

    return manifest.model_copy(update={"format": FORMAT, "version": repository.next_version(manifest.name)})
