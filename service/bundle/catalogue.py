"""The catalogue of a server: the versions of flows that it serves, each with the digest of its manifest, and aliases.

A catalogue is fixed. A change makes another one. All workers of a server have the same, so that their answers are the
same, whatever has happened to the repository's folder since.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from service.bundle.aliases import read_aliases
from service.bundle.store import Repository, manifest_digest
from service.errors import DataError, PushforwardError

__all__ = ["Catalogue", "Key", "Version", "find_versions", "read_all_aliases", "read_catalogue"]

_log = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, int]
"""The name of a flow and a version of it."""

Version: TypeAlias = int | str
"""A version, or an alias that names one."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What a server serves.

    Args:
        number: of the change that led to it, counted from the server's start; those count that were not made.
        digests: the versions that it knows, and the SHA-256 of the flow.json of each.
        loads: the number of the change that asked for a version, or for its content; 0 where that is not in it.
        failed: those of them that are not served, and why.
        unloaded: versions that were found and are not to be served.
        aliases: flow -> alias -> version, as the repository's files have them.
        unkept: flow -> alias -> version, or None for no such alias: aliases that could not be written to a file.
    """

    number: int = 0
    digests: Mapping[Key, str] = field(default_factory=dict)
    loads: Mapping[Key, int] = field(default_factory=dict)
    failed: Mapping[Key, PushforwardError] = field(default_factory=dict)
    unloaded: frozenset[Key] = frozenset()
    aliases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    unkept: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)

    def aliases_of(self, name: str) -> dict[str, int]:
        """The aliases of a flow: alias -> version."""
        merged = {**self.aliases.get(name, {}), **self.unkept.get(name, {})}
        return {alias: version for alias, version in sorted(merged.items()) if version is not None}

    def aliases_to(self, key: Key) -> list[str]:
        """The aliases that name a version."""
        name, version = key
        return [alias for alias, named in self.aliases_of(name).items() if named == version]

    def load_of(self, key: Key) -> int:
        """The number of the load of a version, the same in all workers. The one at the server's start is 0."""
        return self.loads.get(key, 0)

    def with_failures(self, failures: Mapping[Key, PushforwardError]) -> Catalogue:
        """The same catalogue, in which these versions are not served."""
        return replace(self, failed={**self.failed, **failures})


def find_versions(repository: Repository) -> dict[Key, str]:
    """Every version in a repository, and the digest of its manifest; an empty text where that cannot be read."""
    return {
        (name, version): manifest_digest(repository.root / name / str(version))
        for name in repository.names()
        for version in repository.versions(name)
    }


def read_all_aliases(repository: Repository, known: Mapping[str, Mapping[str, int]]) -> dict[str, Mapping[str, int]]:
    """The aliases of every flow in a repository.

    Args:
        repository: to look in.
        known: flow -> alias -> version: what stays where a file cannot be read, which is logged.
    """
    found: dict[str, Mapping[str, int]] = {}
    for name in repository.names():
        try:
            found[name] = read_aliases(repository, name)
        except DataError as error:
            _log.error("%s; they stay as they were", error.detail)
            found[name] = known.get(name, {})
    return {name: aliases for name, aliases in found.items() if aliases}


def read_catalogue(repository: Repository) -> Catalogue:
    """The catalogue of all that a repository holds."""
    return Catalogue(digests=find_versions(repository), aliases=read_all_aliases(repository, {}))
