"""The calls that change what is served: load, unload, install, remove and alias, each on all workers at once.

The repository is a folder, and this is the only part of the server that writes to it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from service.api.problems import problem
from service.bundle.aliases import ALIAS_PATTERN, is_alias
from service.bundle.archive import MAX_ARCHIVE_BYTES, unpack
from service.bundle.catalogue import Key, find_versions
from service.bundle.manifest import NAME_PATTERN, is_flow_name
from service.bundle.store import Repository, is_version
from service.engine.changes import Change, Changes, Load, Outcome, SetAlias, Unload, require_unnamed
from service.engine.registry import Registry
from service.errors import (
    BodyTooLarge,
    BundleError,
    BundleRefused,
    FlowNotFound,
    InvalidArgument,
    MalformedBody,
    NotReady,
    PushforwardError,
    Reason,
    RepositoryConflict,
    RepositoryUnwritable,
    VersionNotFound,
)
from service.exchange import Reply
from service.guard import check_length

__all__ = ["RepositoryCalls"]

_PIECE_BYTES: Final = 1 << 20
"""So much of an archive is gathered before a thread writes it."""


class RepositoryCalls:
    """The calls about the repository.

    Args:
        registry: what is served.
        repository: that is served.
        changes: makes the changes.
    """

    def __init__(self, registry: Registry, repository: Repository, changes: Changes) -> None:
        self._registry = registry
        self._repository = repository
        self._changes = changes

    async def list(self) -> Reply:
        """GET /repository."""
        return _json(await asyncio.to_thread(self._list))

    def _list(self) -> dict[str, Any]:
        states = self._states()
        aliases = self._registry.catalogue.aliases_of
        names = sorted({name for name, _ in states})
        flows = [
            {
                "name": name,
                "aliases": aliases(name),
                "versions": [states[key] for key in sorted(states) if key[0] == name],
            }
            for name in names
        ]
        return {"default": self._registry.default, "flows": flows}

    def _states(self) -> dict[Key, dict[str, Any]]:
        """Every version that is served, or could be: what GET /repository says of it."""
        catalogue = self._registry.catalogue
        states: dict[Key, dict[str, Any]] = {}
        for key, digest in find_versions(self._repository).items():
            states[key] = {"version": key[1], "state": "unloaded", "digest": digest}
        for key in self._registry.draining():
            states[key] = {"version": key[1], "state": "draining", "digest": ""}
        for entry in self._registry.entries():
            states[entry.key] = {"version": entry.version, "state": entry.state, "digest": entry.digest}
            if entry.error is not None:
                states[entry.key]["error"] = {"code": entry.error.code, "detail": entry.error.detail}
        for key, state in states.items():
            state["aliases"] = catalogue.aliases_to(key)
            state.setdefault("error", None)
        return states

    async def load(self, name: str, version: str) -> Reply:
        """POST /repository/{name}/versions/{version}/load.

        Raises:
            FlowNotFound, VersionNotFound: the repository holds no such version.
            BundleRefused: it may not be served.
        """
        key = _key(name, version)
        await self._apply(Load(*key))
        return _changed(key, "ready")

    async def unload(self, name: str, version: str) -> Reply:
        """POST /repository/{name}/versions/{version}/unload.

        Raises:
            VersionNotFound: no such version is served.
            RepositoryConflict: an alias names it.
        """
        key = _key(name, version)
        await self._apply(Unload(*key))
        return _changed(key, "unloaded")

    async def install(
        self, name: str, version: str, length: str | None, pieces: AsyncIterator[bytes], *, load: bool
    ) -> Reply:
        """PUT /repository/{name}/versions/{version}: a bundle as a tar. It is verified before it has its place.

        Args:
            name: of the flow.
            version: of it.
            length: the header Content-Length.
            pieces: of the tar.
            load: whether to serve it. One that cannot be served is then removed again.

        Raises:
            RepositoryConflict: the version exists.
            MalformedBody, BodyTooLarge: the body is no tar, or is too large.
            BundleRefused: the bundle may not be served.
            RepositoryUnwritable: the disk is full, or read-only.
        """
        key = _key(name, version)
        check_length(length, MAX_ARCHIVE_BYTES)
        with _disk_errors(key):
            if (self._repository.root / name / version).exists():
                raise _exists(key)
            with self._repository.staging(name) as folder:
                archive, bundle = folder / "bundle.tar", folder / "bundle"
                await _receive(pieces, archive)
                await _uninterrupted(self._install, archive, bundle, key)
        if not load:
            return _changed(key, "installed", 201)
        try:
            await self._apply(Load(*key))
        except PushforwardError:
            with _disk_errors(key):
                await _uninterrupted(self._repository.remove, *key)
            raise
        return _changed(key, "ready", 201)

    def _install(self, archive: Path, bundle: Path, key: Key) -> None:
        bundle.mkdir()
        try:
            with archive.open("rb") as file:
                unpack(file, bundle)
            self._repository.publish(bundle, *key)
        except BundleError as error:
            raise BundleRefused(f"the bundle is refused: {error.code}: {error.detail}", error.errors) from error

    async def remove(self, name: str, version: str) -> Reply:
        """DELETE /repository/{name}/versions/{version}: it is unloaded, and then removed from the disk.

        Raises:
            FlowNotFound, VersionNotFound: there is no such version.
            RepositoryConflict: an alias names it.
        """
        key = _key(name, version)
        await asyncio.to_thread(self._repository.path, *key)
        catalogue = self._registry.catalogue
        require_unnamed(catalogue, key)
        if key in catalogue.digests:
            await self._apply(Unload(*key))
        with _disk_errors(key):
            await _uninterrupted(self._repository.remove, *key)
        return _changed(key, "removed")

    async def set_alias(self, name: str, alias: str, body: bytes) -> Reply:
        """PUT /repository/{name}/aliases/{alias}.

        Raises:
            InvalidArgument: the alias is no name, or the body names no version.
            FlowNotFound, VersionNotFound, NotReady: the version is not served.
        """
        _require_flow_name(name)
        if not is_alias(alias):
            detail = f"an alias must match {ALIAS_PATTERN}, and is {alias[:64]!r}"
            raise InvalidArgument(detail, (Reason(("path", "alias"), detail),))
        version = _version_of(body)
        for entry in self._registry.entries():
            if entry.key == (name, version) and entry.state == "quarantined" and entry.error is not None:
                raise NotReady(f"flow {name!r} version {version} is quarantined: {entry.error.detail}")
        return await self._alias(SetAlias(name, alias, version))

    async def remove_alias(self, name: str, alias: str) -> Reply:
        """DELETE /repository/{name}/aliases/{alias}.

        Raises:
            VersionNotFound: there is no such alias.
        """
        _require_flow_name(name)
        return await self._alias(SetAlias(name, alias, None))

    async def _alias(self, change: SetAlias) -> Reply:
        outcome = await self._apply(change)
        return _json({**change._asdict(), "kept": outcome.kept})

    async def index(self, body: bytes) -> Reply:
        """POST /v2/repository/index, of the Open Inference Protocol's extension for repositories.

        Args:
            body: empty, or a JSON object, in which ``"ready": true`` asks for what is served alone.

        Raises:
            MalformedBody: it is something else.
        """
        try:
            asked = orjson.loads(body) if body else {}
        except orjson.JSONDecodeError as error:
            raise MalformedBody(f"the body is not JSON: {error}") from error
        ready = asked.get("ready", False) if isinstance(asked, dict) else None
        if type(ready) is not bool:
            raise MalformedBody("the body must be a JSON object, in which ready is true or false")
        names = {"ready": "READY", "loading": "LOADING"}
        listed = []
        for (name, version), state in sorted((await asyncio.to_thread(self._states)).items()):
            reason = state["state"] if state["error"] is None else state["error"]["detail"]
            item = {
                "name": name,
                "version": str(version),
                "state": names.get(state["state"], "UNAVAILABLE"),
                "reason": reason,
            }
            if item["state"] == "READY":
                item["reason"] = ""
            if not ready or item["state"] == "READY":
                listed.append(item)
        return Reply(orjson.dumps(listed))

    async def load_all(self, name: str) -> Reply:
        """POST /v2/repository/models/{name}/load: every version of a flow that is not served yet.

        Raises:
            FlowNotFound: the repository holds no such flow.
            BundleRefused: one of them may not be served.
        """
        _require_flow_name(name)
        versions = await asyncio.to_thread(self._repository.versions, name)
        if not versions:
            raise FlowNotFound(f"there is no flow {name[:64]!r} in the repository")
        served = {entry.key for entry in self._registry.entries() if entry.state == "ready"}
        for version in versions:
            if (name, version) not in served:
                await self._apply(Load(name, version))
        return _json({})

    async def unload_all(self, name: str) -> Reply:
        """POST /v2/repository/models/{name}/unload: every version of a flow.

        Raises:
            FlowNotFound: no such flow is served.
            RepositoryConflict: an alias names one of them.
        """
        for entry in self._registry.entries(name):
            await self._apply(Unload(*entry.key))
        return _json({})

    async def plainly(self, call: Awaitable[Reply]) -> Reply:
        """The reply to a call of the Open Inference Protocol, whose errors are an object with one text.

        Args:
            call: of this object.
        """
        try:
            return await call
        except PushforwardError as error:
            told = problem(error)
            return told._replace(
                body=orjson.dumps({"error": f"{error.code}: {error.detail}"}), media_type="application/json"
            )

    async def _apply(self, change: Change) -> Outcome:
        # A thread of its own: a change may wait for a long load, and must hold up neither the metrics nor the end.
        done: Future[Outcome] = Future()
        threading.Thread(target=_settle, args=(done, self._changes, change), name="change", daemon=True).start()
        return await asyncio.wrap_future(done)


def _settle(done: Future[Outcome], changes: Changes, change: Change) -> None:
    """Apply a change, and put what it has led to, or its error, into a future."""
    done.set_running_or_notify_cancel()  # it can be cancelled no more, and is made although nobody may wait for it
    try:
        outcome = changes.apply(change)
    except Exception as error:  # whoever waits is told
        done.set_exception(error)
    else:
        done.set_result(outcome)


async def _uninterrupted(function: Callable[..., None], *args: object) -> None:
    """Call a function on a thread, and wait for its end also where the request is cancelled meanwhile.

    Args:
        function: writes to the repository.
        args: its arguments.
    """
    task = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def _receive(pieces: AsyncIterator[bytes], path: Path) -> None:
    """Write a body to a file as it comes.

    Raises:
        BodyTooLarge: it is larger than an archive of a bundle.
    """
    size = 0
    gathered: list[bytes] = []
    waiting = 0
    with path.open("xb") as file:
        async for piece in pieces:
            size += len(piece)
            if size > MAX_ARCHIVE_BYTES:
                raise BodyTooLarge(f"the archive has more than {MAX_ARCHIVE_BYTES} bytes, which is the cap")
            gathered.append(piece)
            waiting += len(piece)
            if waiting >= _PIECE_BYTES:
                await asyncio.to_thread(file.writelines, gathered)
                gathered, waiting = [], 0
        await asyncio.to_thread(file.writelines, gathered)


@contextmanager
def _disk_errors(key: Key) -> Iterator[None]:
    """Turn the errors of the disk into the server's own.

    Raises:
        RepositoryConflict: the version exists.
        RepositoryUnwritable: the disk is full, or read-only.
    """
    try:
        yield
    except FileExistsError as error:
        raise _exists(key) from error
    except OSError as error:
        raise RepositoryUnwritable(f"the repository cannot be written: {error.strerror}") from error


def _exists(key: Key) -> RepositoryConflict:
    name, version = key
    return RepositoryConflict(f"{name} has a version {version} already, and a version never changes; install another")


def _key(name: str, version: str) -> Key:
    """The version that a path names, which has to be a number here.

    Raises:
        FlowNotFound, VersionNotFound: there can be no such version.
    """
    _require_flow_name(name)
    if not is_version(version):
        raise VersionNotFound(f"a version in the repository is a positive integer, and {version[:64]!r} is none")
    return name, int(version)


def _require_flow_name(name: str) -> None:
    if not is_flow_name(name):
        raise FlowNotFound(f"a flow's name must match {NAME_PATTERN}, and {name[:64]!r} does not")


def _version_of(body: bytes) -> int:
    """The version that the body of an alias names.

    Raises:
        MalformedBody: it is no JSON.
        InvalidArgument: it is no object with a version, and nothing else.
    """
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error}") from error
    version = given.get("version") if isinstance(given, dict) and len(given) == 1 else None
    if type(version) is not int or not is_version(str(version)):
        detail = 'expected an object with a version, such as {"version": 1}, and nothing else'
        raise InvalidArgument(detail, (Reason(("body", "version"), detail),))
    return version


def _changed(key: Key, state: str, status: int = 200) -> Reply:
    return Reply(orjson.dumps({"name": key[0], "version": key[1], "state": state}), status)


def _json(document: dict[str, Any]) -> Reply:
    return Reply(orjson.dumps(document))
