"""The versions of flows that `pushforward repository` changes: those of a folder, or of a server's repository."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pushforward.client.answers import RepositoryVersion
from pushforward.client.errors import ClientError, InvalidInput

if TYPE_CHECKING:
    from pushforward.client.repository import Repository as ServersRepository
    from service.engine.trials import TrialLimits

__all__ = ["Store", "open_store"]


class Store(Protocol):
    """A repository: a folder's or a server's."""

    def versions(self) -> Sequence[RepositoryVersion]:
        """Every version of every flow."""
        ...

    def install(self, bundle: Path, *, load: bool, limits: TrialLimits) -> tuple[str, int]:
        """Install a bundle, and give its name and version.

        Args:
            bundle: its folder.
            load: whether a server is to serve it at once.
            limits: of the trial of a bundle that is installed here; a server has limits of its own.
        """
        ...

    def remove(self, name: str, version: int) -> None:
        """Remove a version."""
        ...

    def set_alias(self, name: str, alias: str, version: int | None) -> bool:
        """Set or remove an alias, and tell whether a file keeps it.

        Args:
            name: of the flow.
            alias: of the version.
            version: None to remove the alias.
        """
        ...


@contextmanager
def open_store(repository: Path | None, url: str | None) -> Iterator[Store]:
    """Open a repository.

    Args:
        repository: a folder; None for a server's.
        url: of the server; None for the usual one.
    """
    if repository is not None:
        yield _Folder(repository)
        return
    from pushforward.client.client import Client
    from pushforward.client.connection import DEFAULT_URL

    with Client(url or DEFAULT_URL) as client:
        yield _Server(client.repository)


class _Folder:
    """A folder of flows."""

    def __init__(self, root: Path) -> None:
        from service.bundle.store import Repository

        self._repository = Repository(root)

    def versions(self) -> Sequence[RepositoryVersion]:
        """As `Store.versions`. What can be served is for `pushforward check` to say."""
        from service.bundle.catalogue import read_catalogue

        catalogue = read_catalogue(self._repository)
        return [
            RepositoryVersion(*key, "installed", tuple(catalogue.aliases_to(key)), digest, None)
            for key, digest in sorted(catalogue.digests.items())
        ]

    def install(self, bundle: Path, *, load: bool, limits: TrialLimits) -> tuple[str, int]:  # noqa: ARG002  a folder serves nothing
        """As `Store.install`."""
        from service.engine.loading import try_folder

        checked, _ = try_folder(bundle, limits)
        manifest = checked.manifest
        name, version = manifest.name, manifest.version
        try:
            with self._repository.staging(name) as folder:
                for file in bundle.iterdir():
                    shutil.copyfile(file, folder / file.name)
                self._repository.publish(folder, name, version)
        except FileExistsError as error:
            raise InvalidInput(f"{name} has a version {version} already, and a version never changes") from error
        except OSError as error:
            raise _unwritable(error) from error
        return name, version

    def remove(self, name: str, version: int) -> None:
        """As `Store.remove`."""
        from service.bundle.aliases import read_aliases

        self._repository.path(name, version)
        named = [alias for alias, to in read_aliases(self._repository, name).items() if to == version]
        if named:
            raise InvalidInput(f"the alias {named[0]!r} names {name} version {version}: let it name another one first")
        try:
            self._repository.remove(name, version)
        except OSError as error:
            raise _unwritable(error) from error

    def set_alias(self, name: str, alias: str, version: int | None) -> bool:
        """As `Store.set_alias`."""
        from service.bundle.aliases import ALIAS_PATTERN, is_alias, read_aliases, write_aliases

        self._repository.path(name, version)
        aliases = read_aliases(self._repository, name)
        if version is None:
            if alias not in aliases:
                raise InvalidInput(f"{name} has no alias {alias!r}; its aliases are {sorted(aliases)}")
            del aliases[alias]
        elif not is_alias(alias):
            raise InvalidInput(f"an alias must match {ALIAS_PATTERN}, and is {alias!r}")
        else:
            aliases[alias] = version
        try:
            write_aliases(self._repository, name, aliases)
        except OSError as error:
            raise _unwritable(error) from error
        return True


def _unwritable(error: OSError) -> ClientError:
    return ClientError(f"the repository cannot be written: {error.strerror}")


class _Server:
    """A server's repository."""

    def __init__(self, repository: ServersRepository) -> None:
        self._repository = repository

    def versions(self) -> Sequence[RepositoryVersion]:
        """As `Store.versions`."""
        return self._repository.versions()

    def install(self, bundle: Path, *, load: bool, limits: TrialLimits) -> tuple[str, int]:  # noqa: ARG002  its own
        """As `Store.install`."""
        from service.bundle.archive import write_archive
        from service.bundle.store import read_bundle

        manifest = read_bundle(bundle).manifest
        archive = io.BytesIO()
        write_archive(bundle, archive)
        self._repository.install(manifest.name, manifest.version, archive.getvalue(), load=load)
        return manifest.name, manifest.version

    def remove(self, name: str, version: int) -> None:
        """As `Store.remove`."""
        self._repository.remove(name, version)

    def set_alias(self, name: str, alias: str, version: int | None) -> bool:
        """As `Store.set_alias`."""
        return self._repository.set_alias(name, alias, version)
