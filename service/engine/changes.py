"""Changes of what a server serves: from a catalogue to the next one, in two phases, and one after the other.

First every worker prepares: it loads what is new. Then all of them commit. Whatever fails before leaves everything as
it was. With one process `service.engine.local_changes` does both; with several workers the supervisor does it
(`service.process.rollout`), by the same functions. Must not import what loads flows: the supervisor does not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeAlias

from service.bundle.aliases import write_aliases
from service.bundle.catalogue import Catalogue, Key, find_versions, read_all_aliases
from service.bundle.store import Repository, manifest_digest
from service.errors import (
    BundleError,
    BundleRefused,
    Draining,
    EngineFailed,
    NotReady,
    PushforwardError,
    Reason,
    RepositoryConflict,
    VersionNotFound,
)

__all__ = [
    "Change",
    "Changes",
    "Load",
    "Outcome",
    "Reload",
    "SetAlias",
    "Unload",
    "keep_aliases",
    "next_catalogue",
    "require_unnamed",
    "settle",
    "tell",
]

_log = logging.getLogger(__name__)


class Reload(NamedTuple):
    """Serve what the repository holds now, but for versions that were unloaded.

    Args:
        watched: whether a watch over the folder asks for it, and not a person: it does not tell of a failure twice.
    """

    watched: bool = False


class Load(NamedTuple):
    """Serve a version.

    Args:
        name: of the flow.
        version: of it.
    """

    name: str
    version: int


class Unload(NamedTuple):
    """Serve a version no longer.

    Args:
        name: of the flow.
        version: of it.
    """

    name: str
    version: int


class SetAlias(NamedTuple):
    """Let an alias name another version.

    Args:
        name: of the flow.
        alias: the name of the version.
        version: of the flow; None to remove the alias.
    """

    name: str
    alias: str
    version: int | None


Change: TypeAlias = Reload | Load | Unload | SetAlias


class Outcome(NamedTuple):
    """What a change has led to.

    Args:
        catalogue: what is served now.
        failures: the versions that were found and cannot be served.
        kept: whether the repository's files say the same, so that a restart finds it.
    """

    catalogue: Catalogue
    failures: Mapping[Key, PushforwardError]
    kept: bool = True

    @classmethod
    def of(cls, change: Change, catalogue: Catalogue, failures: Mapping[Key, PushforwardError]) -> Outcome:
        """The outcome of a change.

        Args:
            change: that was made.
            catalogue: what is served now.
            failures: the versions that were found and cannot be served.
        """
        kept = not isinstance(change, SetAlias) or not catalogue.unkept.get(change.name)
        return cls(catalogue, failures, kept)


class Changes(Protocol):
    """Whatever changes what a server serves, on all of its workers."""

    def apply(self, change: Change) -> Outcome:
        """Apply a change, after those that were asked for before. Waits until all workers serve the same.

        Raises:
            PushforwardError: the change cannot be made. What is served is what it was.
        """
        ...


def next_catalogue(current: Catalogue, change: Change, repository: Repository) -> Catalogue:
    """The catalogue that a change asks for, before it is known which of its versions can be served.

    Args:
        current: what is served.
        change: of it.
        repository: that is served.

    Raises:
        FlowNotFound, VersionNotFound: what is to be loaded, unloaded or named is not there.
        NotReady: the repository holds no flow at all, or an alias is to name a version that is not served.
        RepositoryConflict: an alias names the version that is to be unloaded.
    """
    wanted = replace(current, number=current.number + 1)
    match change:
        case Reload():
            found = find_versions(repository)
            if not found:
                raise NotReady("the repository holds no flow: it may be gone for the moment; what is served stays")
            digests = {key: digest for key, digest in found.items() if key not in current.unloaded}
            aliases = read_all_aliases(repository, current.aliases)
            unloaded = current.unloaded & found.keys()
            loads = {
                key: current.load_of(key) if current.digests.get(key) == digest else wanted.number
                for key, digest in digests.items()
            }
            return replace(wanted, digests=digests, loads=loads, failed={}, aliases=aliases, unloaded=unloaded)
        case Load(name, version):
            digest = manifest_digest(repository.path(name, version))
            key = (name, version)
            failed = {other: error for other, error in current.failed.items() if other != key}
            digests = {**current.digests, key: digest}
            loads = {**current.loads, key: wanted.number}
            unloaded = current.unloaded - {key}
            return replace(wanted, digests=digests, loads=loads, failed=failed, unloaded=unloaded)
        case Unload(name, version):
            key = (name, version)
            _require_known(current, key)
            require_unnamed(current, key)
            return replace(
                wanted,
                digests={other: digest for other, digest in current.digests.items() if other != key},
                loads={other: load for other, load in current.loads.items() if other != key},
                failed={other: error for other, error in current.failed.items() if other != key},
                unloaded=current.unloaded | {key},
            )
        case SetAlias(name, alias, version):
            return _with_alias(current, wanted, SetAlias(name, alias, version))


def _with_alias(current: Catalogue, wanted: Catalogue, change: SetAlias) -> Catalogue:
    name, alias, version = change
    aliases = current.aliases_of(name)
    if version is None:
        if alias not in aliases:
            raise VersionNotFound(f"flow {name[:64]!r} has no alias {alias[:64]!r}; its aliases are {sorted(aliases)}")
        del aliases[alias]
    else:
        key = (name, version)
        _require_known(current, key)
        if key in current.failed:
            raise NotReady(f"flow {name!r} version {version} is not served: {current.failed[key].detail}")
        aliases[alias] = version
    unkept = {flow: named for flow, named in current.unkept.items() if flow != name}
    return replace(wanted, aliases={**current.aliases, name: aliases}, unkept=unkept)


def _require_known(current: Catalogue, key: Key) -> None:
    name, version = key
    if key not in current.digests:
        there = sorted(other for flow, other in current.digests if flow == name)
        raise VersionNotFound(f"flow {name[:64]!r} has no version {version} that is served; it has {there}")


def require_unnamed(current: Catalogue, key: Key) -> None:
    """Refuse to go on with a version that an alias names.

    Raises:
        RepositoryConflict: one does.
    """
    name, version = key
    if aliases := current.aliases_to(key):
        detail = f"the alias {aliases[0]!r} names {name} version {version}; let it name another version first"
        raise RepositoryConflict(
            detail, tuple(Reason(("aliases", alias), "it names this version") for alias in aliases)
        )


def settle(
    current: Catalogue, wanted: Catalogue, change: Change, failures: Mapping[Key, PushforwardError]
) -> Catalogue:
    """The catalogue that all workers are to serve, once it is known what cannot be.

    Args:
        current: what is served.
        wanted: from `next_catalogue`.
        change: that asked for it.
        failures: of all workers: versions that cannot be served.

    Returns:
        The catalogue. A version that is served and was to be replaced stays; a new one is listed with its error.

    Raises:
        BundleRefused: the version that was to be loaded cannot be served.
        PushforwardError: it could not be loaded for a reason that is not its own.
        Draining: a worker ends, and has not tried all versions.
    """
    for cause in failures.values():
        if isinstance(cause, Draining):
            raise cause
    if isinstance(change, Load) and (error := failures.get((change.name, change.version))) is not None:
        if not isinstance(error, (BundleError, EngineFailed)):
            raise error
        detail = f"{change.name} version {change.version} cannot be served: {error.code}: {error.detail}"
        raise BundleRefused(detail, error.errors)
    served = {key: digest for key, digest in current.digests.items() if key not in current.failed}
    digests = {**wanted.digests, **{key: served[key] for key in failures if key in served}}
    loads = {**wanted.loads, **{key: current.load_of(key) for key in failures if key in served}}
    failed = {**wanted.failed, **{key: error for key, error in failures.items() if key not in served}}
    return replace(wanted, digests=digests, loads=loads, failed=failed)


def keep_aliases(wanted: Catalogue, change: Change, repository: Repository) -> Catalogue:
    """Write the aliases that a change has set to the repository's file.

    Args:
        wanted: with the aliases.
        change: that was made.
        repository: that is served.

    Returns:
        The catalogue; it notes the aliases that could not be written, as over a read-only mount.
    """
    if not isinstance(change, SetAlias):
        return wanted
    name = change.name
    try:
        write_aliases(repository, name, wanted.aliases_of(name))
    except OSError as error:
        _log.warning(
            "the aliases of %s are kept in memory alone, and are lost with the server: %s", name, error.strerror
        )
        return replace(wanted, unkept={**wanted.unkept, name: _differences(repository, name, wanted.aliases_of(name))})
    return wanted


def _differences(repository: Repository, name: str, aliases: Mapping[str, int]) -> dict[str, int | None]:
    """The aliases that differ from those of the repository's file; None for those that it alone has."""
    kept = read_all_aliases(repository, {}).get(name, {})
    changed = {alias: version for alias, version in aliases.items() if kept.get(alias) != version}
    return {**dict.fromkeys(kept.keys() - aliases.keys()), **changed}


def tell(before: Catalogue, change: Change, outcome: Outcome) -> None:
    """Log what a change has led to: an error for each version that cannot be served, and what is new and gone.

    Args:
        before: what was served.
        change: that was made.
        outcome: of the change.
    """
    after = outcome.catalogue
    for (name, version), error in outcome.failures.items():
        known = before.failed.get((name, version))
        if change == Reload(watched=True) and known is not None and known.detail == error.detail:
            continue
        why = "; ".join([error.detail, *map(str, error.unsaid())])
        stays = "is not served" if (name, version) in after.failed else "is not replaced, and stays as it was"
        _log.error("%s version %d %s: %s: %s", name, version, stays, error.code, why)
    old = {key: digest for key, digest in before.digests.items() if key not in before.failed}
    new = {key: digest for key, digest in after.digests.items() if key not in after.failed}
    changes = (
        ("is served", [key for key in new if old.get(key) != new[key]]),
        ("is no longer served", [key for key in old if key not in new]),
    )
    for what, keys in changes:
        for name, version in sorted(keys):
            _log.info("%s version %d %s", name, version, what)
