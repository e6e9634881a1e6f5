"""The application: the parts put together, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service.access.connections import ConnectionCaps, within_descriptors
from service.access.hosts import AllowedHosts
from service.access.key_source import KeySource
from service.access.origins import Origins
from service.access.policy import AccessPolicy
from service.access.request_ids import ID_FIELD, RequestIds
from service.api import openapi
from service.api.counting import AnswerCounter, CountedApplication
from service.api.documents import OpenApiDocument, add_document, documents
from service.api.door import REQUEST_ID, Door, respond
from service.api.driver import Driver
from service.api.endpoints import endpoints
from service.api.grouped.verbs import GroupVerbs
from service.api.guarded import GuardedApplication, LoggedApplication
from service.api.helpers import Helpers
from service.api.key_use import KeyUse
from service.api.native.verbs import Verbs
from service.api.operations import Operations
from service.api.prefix import PrefixedApplication, require_free
from service.api.problems import problem, problem_reply
from service.api.repository import RepositoryCalls
from service.api.routes import SCHEMAS, add_routes
from service.bundle.catalogue import Catalogue
from service.bundle.store import Repository
from service.console.api_pages import add_api_pages
from service.console.page import add_console
from service.engine.batching.queues import Limits
from service.engine.batching.workers import Workers
from service.engine.changes import Changes
from service.engine.isolation.options import Isolation
from service.engine.local_changes import LocalChanges
from service.engine.metrics.metrics import Metrics
from service.engine.registry import Registry
from service.engine.runtime.cpu import usable_cpus
from service.engine.runtime.devices import CudaOptions, OrtGpu
from service.engine.runtime.graph import Device
from service.engine.runtime.memory import usable_memory
from service.engine.trials import TrialLimits, Trials
from service.errors import MethodNotAllowed, PushforwardError, RequestError, RouteNotFound
from service.guard import BodyBudget, Waits
from service.http.connection import STATE, Direct, Shared
from service.http.heads import RequestHeads
from service.settings import Settings

__all__ = ["Supervised", "create_app"]

_CLOSE_SECONDS = 0.5
"""By now every request has been answered: this is for the batch that still runs."""

_EXPIRE_SECONDS = 0.05

_LINGER_SECONDS = 30.0

_KEY_SECONDS = 0.25
"""So often the workers tell each other of the use of keys, and look whether the file of keys has changed."""

_BODIES_SHARE = 8
"""Of the memory, bodies take so much at most: what is read of them takes a few times as much."""


class Supervised(NamedTuple):
    """What a supervisor decides for all of its workers.

    Args:
        catalogue: what they serve.
        changes: makes changes of that, for this worker's registry.
    """

    catalogue: Catalogue
    changes: Callable[[Registry], Changes]


_DESCRIPTION = "Densities, samples and interpolations of normalizing flows."


def create_app(
    settings: Settings,
    metrics: Metrics | None = None,
    leave: Callable[[str], None] | None = None,
    supervised: Supervised | None = None,
) -> FastAPI:
    """Put a server's parts together. Flows are loaded when it starts.

    Args:
        settings: how it runs.
        metrics: where it counts; None for numbers of its own.
        leave: is called with the reason, on any thread, where the server cannot go on; None for nothing.
        supervised: what a supervisor decides for all of its workers; None for a server of one process.

    Returns:
        The application. `app.state.operations` is told when the server drains, `app.state.registry` knows the flows,
        `app.state.metrics` counts, `app.state.changes` changes what is served, and
        `app.state.workers` runs it.

    Raises:
        InvalidArgument: the keys cannot be read.
    """
    keys = KeySource(settings.keys_file, settings.keys)
    hosts = AllowedHosts((*settings.allowed_host, settings.host))
    separate = settings.admin_port is not None
    policy = AccessPolicy(keys.ring, hosts, Origins(settings.cors_origin), separate=separate)
    ids = RequestIds()
    metrics = metrics or Metrics()
    workers = Workers(settings.threads or max(1, usable_cpus() // settings.workers))
    limits = Limits(settings.chunk_rows, settings.max_queued_rows)
    repository = Repository(settings.repository)
    registry = Registry(
        repository,
        settings.default_flow,
        workers,
        limits,
        metrics,
        device=_device(settings, leave),
        isolation=_isolation(settings),
        trials=Trials(TrialLimits(settings.load_seconds, settings.load_bytes)),
        catalogue=None if supervised is None else supervised.catalogue,
    )
    changes = LocalChanges(registry, repository) if supervised is None else supervised.changes(registry)
    helpers = Helpers(workers.threads, send=workers.submit_task if workers.threads > 1 else None)
    driver = Driver(helpers, settings.timeout_seconds)
    operations = Operations(registry, driver, settings.probe_seconds, metrics)
    table = endpoints(
        Verbs(registry, settings.max_work, settings.max_stream_work),
        GroupVerbs(registry, settings.max_work),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        expiring = asyncio.create_task(_expire(workers))
        watching = (
            None if keys.ring is None else asyncio.create_task(_watch_keys(keys, KeyUse(keys.ring, metrics), heads))
        )
        loading = asyncio.create_task(asyncio.to_thread(registry.load))
        await asyncio.wait({loading}, timeout=settings.startup_seconds)
        if loading.done():
            loading.result()  # a repository that cannot be read at all ends the start
        try:
            yield {STATE: shared}
        finally:
            expiring.cancel()
            if watching is not None:
                watching.cancel()
            operations.draining = True
            registry.close()
            loading.cancel()  # its thread goes on with the bundle that it has begun, and nobody waits for it
            await asyncio.to_thread(workers.close, _CLOSE_SECONDS)
            helpers.close()

    app = FastAPI(
        title="Pushforward",
        version=_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    count = AnswerCounter(metrics)
    budget = BodyBudget(settings.max_decode_bytes or usable_memory() // _BODIES_SHARE // settings.workers)
    prefix = (settings.root_path or "").rstrip("/")
    described = OpenApiDocument(app)
    heads = RequestHeads((*table, *documents(operations, described, prefix)), settings.max_body_bytes, prefix, policy)
    shared = Shared(
        direct=None if settings.access_log else Direct(driver, heads),  # the application writes the log
        waits=Waits(
            header_seconds=settings.header_seconds,
            body_seconds=settings.body_seconds,
            keep_alive_seconds=settings.keep_alive_seconds,
            linger_seconds=min(_LINGER_SECONDS, settings.body_seconds),
        ),
        max_body_bytes=settings.max_body_bytes,
        count=count,
        ids=ids,
        caps=ConnectionCaps(within_descriptors(settings.max_connections), settings.max_client_connections),
        admin_port=settings.admin_port,
        budget=budget,
    )

    app.state.operations = operations
    app.state.registry = registry
    app.state.metrics = metrics
    app.state.changes = changes
    app.state.workers = workers
    calls = RepositoryCalls(registry, repository, changes)
    add_routes(app, table, operations, calls, Door(driver, settings.max_body_bytes, budget))
    add_document(app, described)
    add_api_pages(app)
    if settings.console:
        add_console(app, prefix)
    app.add_middleware(GuardedApplication, policy=policy, ids=ids, admin_port=settings.admin_port)
    app.add_middleware(CountedApplication, count=count)
    if settings.access_log:
        app.add_middleware(LoggedApplication, queries=settings.log_queries)
    if prefix:
        require_free(app, prefix)
        app.add_middleware(PrefixedApplication, prefix=prefix)
    app.add_exception_handler(PushforwardError, _project_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(Exception, _unforeseen_error)
    openapi.install(app, SCHEMAS, keys=keys.ring is not None)
    return app


def _device(settings: Settings, leave: Callable[[str], None] | None) -> Device | None:
    """Where flows run, or None for the CPU."""
    kind, _, index = settings.device.partition(":")
    if kind == "cpu":
        return None
    memory, tf32, required = settings.device_memory_bytes, settings.device_tf32, settings.device_required
    return Device(OrtGpu(CudaOptions(int(index or 0), memory, tf32, required)), settings.engine_hang_seconds, leave)


def _isolation(settings: Settings) -> Isolation:
    """The flows that run in processes of their own."""
    return Isolation(
        settings.isolated_flows,
        processes=settings.isolate_processes,
        hang_seconds=settings.engine_hang_seconds,
        memory_bytes=settings.isolate_memory_bytes,
    )


async def _expire(workers: Workers) -> None:
    """End what waits past its deadline, also where no engine comes back to look."""
    while True:
        await asyncio.sleep(_EXPIRE_SECONDS)
        workers.expire()


async def _watch_keys(keys: KeySource, use: KeyUse, heads: RequestHeads) -> None:
    """Share the use of keys, and take up a file of keys that has changed."""
    while True:
        await asyncio.sleep(_KEY_SECONDS)
        if keys.refresh():
            heads.forget()
        use.exchange(time.monotonic())


async def _project_error(_: Request, error: Exception) -> Response:
    """The answer to an error of the project's own."""
    return respond(problem_reply(error))


async def _framework_error(request: Request, error: Exception) -> Response:
    """The answer to no such route, or no such method there, in the same form as every other error."""
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 405:
        methods = _methods(request)
        detail = f"{request.method} is not possible here; {' and '.join(methods)} would be"
        if "access-control-request-method" in request.headers:
            detail += (
                f". A browser asks whether a page of {request.headers.get('origin', 'another origin')[:100]} may call "
                "this server, and it may not: the server has no CORS. Serve the page and the API from one origin, by a "
                "proxy, or start the server with --cors-origin"
            )
        refused = respond(problem_reply(MethodNotAllowed(detail)))
        refused.headers["Allow"] = ", ".join(methods)
        return refused
    if error.status_code == 404:
        return respond(
            problem_reply(
                RouteNotFound(f"there is no such route; GET {request.scope.get('root_path', '')}/docs lists them")
            )
        )
    return respond(problem_reply(RequestError(str(error.detail))))


async def _unforeseen_error(request: Request, error: Exception) -> Response:  # noqa: ARG001  it goes on to the log
    """The answer to a fault of the server's own, of which nothing goes to the client."""
    answer = respond(problem(PushforwardError("the server failed on this request; the failure has been logged")))
    answer.headers[ID_FIELD] = request.scope.get(REQUEST_ID, b"").decode("ascii")  # it does not pass the middleware
    return answer


def _methods(request: Request) -> list[str]:
    """Every method that some route has at this path."""
    found: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


def _version() -> str:
    try:
        return version("pushforward")
    except PackageNotFoundError:
        return "0"
