"""The calls about a server's repository, each written once, to be awaited. Imports neither httpx nor the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import orjson

from pushforward.client.answers import RepositoryVersion
from pushforward.client.delivery import HttpRequest
from pushforward.client.payload import Payload

__all__ = ["RepositoryCalls"]


class RepositoryCalls:
    """The calls about the repository, to be awaited. `Repository` says what each takes, gives and raises.

    Args:
        ask: sends a request until it is answered, and reads the JSON of the answer.
    """

    def __init__(self, ask: Callable[[HttpRequest], Awaitable[Payload]]) -> None:
        self._ask = ask

    async def versions(self) -> list[RepositoryVersion]:
        """As `Repository.versions`."""
        return RepositoryVersion.read_all(await self._ask(HttpRequest("GET", "repository")))

    async def load(self, name: str, version: int) -> None:
        """As `Repository.load`."""
        await self._ask(HttpRequest("POST", f"{_path(name, version)}/load"))

    async def unload(self, name: str, version: int) -> None:
        """As `Repository.unload`."""
        await self._ask(HttpRequest("POST", f"{_path(name, version)}/unload", retried=False))

    async def install(self, name: str, version: int, archive: bytes, *, load: bool = True) -> None:
        """As `Repository.install`."""
        await self._ask(
            HttpRequest(
                "PUT",
                _path(name, version),
                query={} if load else {"load": "false"},
                body=archive,
                retried=False,
                content_type="application/x-tar",
            )
        )

    async def remove(self, name: str, version: int) -> None:
        """As `Repository.remove`."""
        await self._ask(HttpRequest("DELETE", _path(name, version), retried=False))

    async def set_alias(self, name: str, alias: str, version: int | None) -> bool:
        """As `Repository.set_alias`."""
        path = f"repository/{quote(name, safe='')}/aliases/{quote(alias, safe='')}"
        if version is None:
            return bool((await self._ask(HttpRequest("DELETE", path, retried=False))).get("kept"))
        body = orjson.dumps({"version": version})
        return bool((await self._ask(HttpRequest("PUT", path, body=body))).get("kept"))


def _path(name: str, version: int) -> str:
    return f"repository/{quote(name, safe='')}/versions/{version}"
