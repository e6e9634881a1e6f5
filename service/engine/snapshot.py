"""The snapshot of a registry: what is served at one moment, and the look-ups in it.

A look-up sees one snapshot, and never a part of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

from service.bundle.catalogue import Catalogue, Key, Version
from service.bundle.manifest import Manifest
from service.engine.verbs.flow import ServedFlow
from service.errors import FlowNotFound, NotReady, PushforwardError, VersionNotFound

__all__ = ["Entry", "Snapshot", "State"]

State = Literal["loading", "ready", "failed", "quarantined"]


@dataclass(frozen=True, slots=True)
class Entry:
    """The current state of one version of one flow.

    Args:
        name: of the flow.
        version: a positive integer.
        state: loading, ready, failed or quarantined.
        manifest: once it has been read.
        flow: once it is ready.
        error: the reason why it is not served.
        digest: of its manifest, as it was found.
        load: the number of its load, as in the catalogue.
    """

    name: str
    version: int
    state: State
    manifest: Manifest | None = None
    flow: ServedFlow | None = None
    error: PushforwardError | None = None
    digest: str = ""
    load: int = 0

    @property
    def key(self) -> Key:
        """Name and version."""
        return self.name, self.version


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Snapshot:
    """What is served at one moment.

    Args:
        entries: flow -> version -> entry.
        catalogue: they are the versions of this.
        wanted_default: the flow that is to answer where no name is given; None for the only flow.
        found: the flows that look-ups have found.
    """

    entries: Mapping[str, Mapping[int, Entry]]
    catalogue: Catalogue
    wanted_default: str | None
    found: dict[tuple[str | None, Version | None], ServedFlow] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Mapping[Key, Entry], catalogue: Catalogue, wanted_default: str | None) -> Self:
        """The snapshot of these entries.

        Args:
            entries: of the versions in the catalogue.
            catalogue: what is served.
            wanted_default: as `Snapshot`.
        """
        by_name: dict[str, dict[int, Entry]] = {}
        for (name, version), entry in entries.items():
            by_name.setdefault(name, {})[version] = entry
        return cls(by_name, catalogue, wanted_default)

    @property
    def default(self) -> str | None:
        """The flow that answers where no name is given, as `service.engine.registry.Registry.default`."""
        wanted, entries = self.wanted_default, self.entries
        if wanted is not None and (wanted in entries or not entries):
            return wanted
        return next(iter(entries)) if len(entries) == 1 else None

    def by_key(self) -> dict[Key, Entry]:
        """Name and version -> entry."""
        return {entry.key: entry for versions in self.entries.values() for entry in versions.values()}

    def list(self, name: str | None = None) -> list[Entry]:
        """The entries, as `service.engine.registry.Registry.entries`.

        Raises:
            FlowNotFound: there is no flow of that name.
        """
        if name is not None:
            return [entry for _, entry in sorted(self._versions(name).items())]
        return [entry for found in sorted(self.entries) for _, entry in sorted(self.entries[found].items())]

    def entry(self, name: str | None = None, version: Version | None = None) -> Entry:
        """One entry, as `service.engine.registry.Registry.entry`.

        Raises:
            FlowNotFound: there is no such flow, or no default.
            VersionNotFound: the flow has no such version.
        """
        name = self.default if name is None else name
        if name is None:
            absent = "" if self.wanted_default is None else f": {self.wanted_default!r} is not in the repository"
            there = sorted(self.entries)
            raise FlowNotFound(f"no flow is named and there is no default{absent}; there are {there}")
        versions = self._versions(name)
        if version is not None:
            number = self._number(name, version)
            if number not in versions:
                named = (
                    f"no version {version}" if number == version else f"no version {number}, which {version!r} names"
                )
                raise VersionNotFound(f"flow {name!r} has {named}; it has {sorted(versions)}")
            return versions[number]
        newest = max(versions)
        return versions[max((v for v, e in versions.items() if e.state == "ready"), default=newest)]

    def find(self, name: str | None = None, version: Version | None = None) -> ServedFlow:
        """The flow that answers, as `service.engine.registry.Registry.find`.

        Raises:
            FlowNotFound: as `entry`.
            VersionNotFound: as `entry`.
            NotReady: the flow is still loading, or it is not served.
        """
        if (known := self.found.get((name, version))) is not None:
            return known
        entry = self.entry(name, version)
        if entry.flow is None:
            why = "is still loading" if entry.error is None else f"is not served: {entry.error.detail}"
            raise NotReady(f"flow {entry.name!r} version {entry.version} {why}")
        self.found[name, version] = entry.flow
        return entry.flow

    def _versions(self, name: str) -> Mapping[int, Entry]:
        if name not in self.entries:
            raise FlowNotFound(f"there is no flow {name[:64]!r}; there are {sorted(self.entries)}")
        return self.entries[name]

    def _number(self, name: str, version: Version) -> int:
        """The number of a version, or that of the version which an alias names.

        Raises:
            VersionNotFound: there is no such alias.
        """
        if isinstance(version, int):
            return version
        aliases = self.catalogue.aliases_of(name)
        if version not in aliases:
            there = f"its aliases are {sorted(aliases)}" if aliases else "it has no aliases"
            raise VersionNotFound(f"flow {name!r} has no alias {version[:64]!r}; {there}")
        return aliases[version]
