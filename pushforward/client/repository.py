"""The repository of a server, as code that blocks lists and changes it."""

from __future__ import annotations

from pushforward.client.answers import RepositoryVersion
from pushforward.client.connection import run_blocking
from pushforward.client.repository_calls import RepositoryCalls

__all__ = ["Repository"]


class Repository:
    """The versions that a server has, from code that blocks: `Client.repository`.

    Args:
        calls: the same, to be awaited.

    Example::

        with pushforward.Client() as client:
            client.repository.load("wine", 2)
            client.repository.set_alias("wine", "stable", 2)
    """

    def __init__(self, calls: RepositoryCalls) -> None:
        self._calls = calls

    def versions(self) -> list[RepositoryVersion]:
        """List every version, with its state and its aliases."""
        return run_blocking(self._calls.versions())

    def load(self, name: str, version: int) -> None:
        """Let the server serve a version. What it served before stays where that fails.

        Args:
            name: of the flow.
            version: of it.

        Raises:
            NotFound: the repository holds no such version.
            InvalidRequest: it may not be served.
        """
        run_blocking(self._calls.load(name, version))

    def unload(self, name: str, version: int) -> None:
        """Let the server serve a version no longer. Requests that it has are answered.

        Args:
            name: of the flow.
            version: of it.

        Raises:
            NotFound: no such version is served.
            InvalidRequest: an alias names it.
        """
        run_blocking(self._calls.unload(name, version))

    def install(self, name: str, version: int, archive: bytes, *, load: bool = True) -> None:
        """Install a bundle.

        Args:
            name: of the flow.
            version: of it.
            archive: a tar of the bundle's files.
            load: whether to serve it. A bundle that cannot be served is then not installed either.

        Raises:
            InvalidRequest: the version exists, or the bundle may not be served.
        """
        run_blocking(self._calls.install(name, version, archive, load=load))

    def remove(self, name: str, version: int) -> None:
        """Remove a version from the disk, and serve it no longer.

        Args:
            name: of the flow.
            version: of it.

        Raises:
            NotFound: there is no such version.
            InvalidRequest: an alias names it.
        """
        run_blocking(self._calls.remove(name, version))

    def set_alias(self, name: str, alias: str, version: int | None) -> bool:
        """Let an alias name a version of a flow, or none any more.

        Args:
            name: of the flow.
            alias: such as ``"stable"``.
            version: that is served; None to remove the alias.

        Returns:
            Whether the server keeps it in a file; if not, it is lost with the server.

        Raises:
            NotFound: no such version is served, or there is no such alias.
            InvalidRequest: the alias is no name.
        """
        return run_blocking(self._calls.set_alias(name, alias, version))
