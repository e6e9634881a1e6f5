"""Where a bundle lies: `<repository>/<name>/<version>/`. The names of the folders and the manifest must agree.

A server goes by the folders' names, so that a bundle in another's place would answer for it.
"""

from __future__ import annotations

import os
from pathlib import Path

from service.bundle.manifest import Manifest, is_flow_name
from service.errors import BundleError

__all__ = ["is_version", "place_of", "require_place"]


def is_version(name: str) -> bool:
    """Say whether `name` is a version as a folder writes it: a positive integer without leading zeros.

    Example:
        >>> is_version("12"), is_version("012"), is_version("v1")
        (True, False, False)
    """
    return name.isascii() and name.isdigit() and not name.startswith("0") and len(name) <= 9


def place_of(folder: Path) -> tuple[str, int] | None:
    """The flow and version that a server would take a folder for.

    Args:
        folder: absolute, or relative to the working directory.

    Returns:
        Name and version where the path ends in ``<name>/<version>``; None where it does not.

    Example:
        >>> place_of(Path("repository/two-moons/1")), place_of(Path("/srv/Downloads/mine"))
        (('two-moons', 1), None)
    """
    named = Path(os.path.abspath(folder))  # noqa: PTH100  resolve() would follow links, and a server goes by their names
    name, version = named.parent.name, named.name
    return (name, int(version)) if is_flow_name(name) and is_version(version) else None


def require_place(manifest: Manifest, name: str, version: int) -> None:
    """Hold a manifest's name and version against those of the place where it was found.

    Raises:
        BundleError: they are others.
    """
    if (manifest.name, manifest.version) != (name, version):
        raise BundleError(
            f"flow.json is of {manifest.name} version {manifest.version}, "
            f"and the bundle lies where {name} version {version} should"
        )
