"""What commands have in common that write a bundle's next version: where it goes, and what it begins from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pushforward.client.errors import InvalidInput

if TYPE_CHECKING:
    from service.bundle.manifest import Manifest
    from service.bundle.store import Repository

__all__ = ["next_manifest", "repository_of"]


def repository_of(folder: Path, manifest: Manifest, out: Path | None) -> Repository:
    """The repository that a new version goes into: the one given, or the bundle's own.

    Raises:
        InvalidInput: none is given, and the bundle does not lie in one.
    """
    from service.bundle.store import Repository, identity_of_folder

    if out is None and identity_of_folder(folder) != (manifest.name, manifest.version):
        raise InvalidInput(f"the bundle does not lie at REPOSITORY/{manifest.name}/VERSION: say --out REPOSITORY")
    return Repository(out or folder.absolute().parent.parent)


def next_manifest(manifest: Manifest, repository: Repository) -> Manifest:
    """The manifest of the next version, in the format that is written now."""
    from service.bundle.manifest import FORMAT

    return manifest.model_copy(update={"format": FORMAT, "version": repository.next_version(manifest.name)})
