"""The routes of the application: those of the table of verbs, and those about the server itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from service.api.codecs import wire
from service.api.door import Door, respond
from service.api.endpoints import PREFIXES, Endpoint
from service.api.native import fields, schemas
from service.api.openapi import describe_route, path_parameters, query_parameters
from service.api.operations import Operations
from service.api.repository import RepositoryCalls
from service.errors import InvalidArgument, Reason
from service.guard import BodyBudget, HeldBody, read_body

__all__ = ["SCHEMAS", "add_routes"]

_MAX_SMALL_BYTES: Final = 1 << 12
"""The largest body of a call that holds a few words."""

SCHEMAS: Final[tuple[type[BaseModel], ...]] = (
    schemas.LogProbRequest,
    schemas.LogProbResponse,
    schemas.SampleRequest,
    schemas.SampleResponse,
    schemas.InterpolateRequest,
    schemas.InterpolateResponse,
    schemas.EncodeRequest,
    schemas.EncodeResponse,
    schemas.DecodeRequest,
    schemas.DecodeResponse,
    schemas.TraceRequest,
    schemas.TracedStep,
    schemas.TraceResponse,
    schemas.EditRequest,
    schemas.EditResponse,
    schemas.PosteriorRequest,
    schemas.PosteriorResponse,
    schemas.WeightsRequest,
    schemas.WeightsResponse,
    schemas.Flow,
    schemas.FlowList,
    schemas.Readiness,
    schemas.Liveness,
    schemas.RepositoryVersion,
    schemas.RepositoryFlow,
    schemas.RepositoryList,
    schemas.RepositoryChange,
    schemas.AliasRequest,
    schemas.AliasChange,
    schemas.IndexedVersion,
    schemas.RepositoryIndex,
    schemas.Nothing,
    schemas.ProblemDocument,
)
"""Every model that OpenAPI refers to."""


def add_routes(
    app: FastAPI, table: Iterable[Endpoint], operations: Operations, repository: RepositoryCalls, door: Door
) -> None:
    """Add every route of the API to `app`.

    Args:
        app: the application.
        table: of the verbs.
        operations: the calls about the server itself.
        repository: the calls that change what is served.
        door: leads from a route to its verb.
    """
    for prefix, tag in zip(PREFIXES, ("flows", "flows by name", "flows by version"), strict=True):
        for endpoint in table:
            path = prefix + endpoint.path
            app.add_api_route(
                path,
                door.handler(endpoint, path),
                methods=[endpoint.method],
                summary=endpoint.summary,
                description=endpoint.request.__doc__,
                tags=[tag],
                operation_id=_operation_id(endpoint.method, path),
                openapi_extra=describe_route(
                    endpoint.response,
                    body=endpoint.request if endpoint.main else None,
                    parameters=path_parameters(prefix) + query_parameters(endpoint.request, prefix, endpoint.main),
                    main=endpoint.main,
                    drawn=issubclass(endpoint.request, fields.PictureRequest),
                ),
                response_class=Response,
                responses={200: {"description": "as asked"}},
            )
    _add_operations(app, operations)
    _add_repository(app, repository)
    _add_protocol(app, repository)


def _add_operations(app: FastAPI, operations: Operations) -> None:
    async def models(request: Request) -> Response:
        wire.require_json(request.headers.get("accept"))
        return respond(operations.models())

    async def model(request: Request) -> Response:
        wire.require_json(request.headers.get("accept"))
        return respond(operations.model(request.path_params["name"], request.path_params.get("version")))

    async def live(_: Request) -> Response:
        return respond(operations.live())

    async def ready(_: Request) -> Response:
        return respond(await operations.ready())

    async def metrics(request: Request) -> Response:
        return respond(await operations.metrics(request.headers.get("accept")))

    listed: tuple[tuple[str, Callable[..., Any], str, type[BaseModel] | str, str], ...] = (
        ("/models", models, "Every version of every flow", schemas.FlowList, "models"),
        ("/models/{name}", model, "What a flow is", schemas.Flow, "models"),
        ("/models/{name}/versions/{version}", model, "What one version of a flow is", schemas.Flow, "models"),
        ("/health/live", live, "The process answers", schemas.Liveness, "health"),
        ("/health/ready", ready, "A canary row went through every served flow", schemas.Readiness, "health"),
        ("/metrics", metrics, "Counts for Prometheus, over all workers", "text/plain", "metrics"),
    )
    for path, endpoint, summary, answer, tag in listed:
        app.add_api_route(
            path,
            endpoint,
            methods=["GET"],
            summary=summary,
            tags=[tag],
            operation_id=_operation_id("GET", path),
            openapi_extra=describe_route(answer, parameters=path_parameters(path)),
            response_class=Response,
            responses={200: {"description": "as asked"}},
        )
        # Monitors ask with HEAD; OpenAPI need not say everything twice.
        app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)


def _add_repository(app: FastAPI, repository: RepositoryCalls) -> None:
    async def listed(request: Request) -> Response:
        wire.require_json(request.headers.get("accept"))
        return respond(await repository.list())

    async def load(request: Request) -> Response:
        return respond(await repository.load(*_named(request, "name", "version")))

    async def unload(request: Request) -> Response:
        return respond(await repository.unload(*_named(request, "name", "version")))

    async def install(request: Request) -> Response:
        length = request.headers.get("content-length")
        load = _flag(request, "load", default=True)
        name, version = _named(request, "name", "version")
        return respond(await repository.install(name, version, length, request.stream(), load=load))

    async def remove(request: Request) -> Response:
        return respond(await repository.remove(*_named(request, "name", "version")))

    async def set_alias(request: Request) -> Response:
        body = await _small_body(request)
        name, alias = _named(request, "name", "alias")
        return respond(await repository.set_alias(name, alias, body))

    async def remove_alias(request: Request) -> Response:
        return respond(await repository.remove_alias(*_named(request, "name", "alias")))

    version, alias = "/repository/{name}/versions/{version}", "/repository/{name}/aliases/{alias}"
    change, named = schemas.RepositoryChange, schemas.AliasChange
    calls: tuple[tuple[str, str, Callable[..., Any], str, type[BaseModel], dict[str, Any]], ...] = (
        ("GET", "/repository", listed, "Every version in the repository, and its state", schemas.RepositoryList, {}),
        ("POST", version + "/load", load, "Serve a version of the repository", change, {}),
        ("POST", version + "/unload", unload, "Serve a version no longer", change, {}),
        ("PUT", version, install, "Install a bundle, a tar, and serve it", change, {"media_type": "application/x-tar"}),
        ("DELETE", version, remove, "Unload a version, and remove it from the disk", change, {}),
        ("PUT", alias, set_alias, "Let an alias name a version", named, {"body": schemas.AliasRequest}),
        ("DELETE", alias, remove_alias, "Remove an alias", named, {}),
    )
    for method, path, endpoint, summary, answer, more in calls:
        app.add_api_route(
            path,
            endpoint,
            methods=[method],
            summary=summary,
            tags=["repository"],
            operation_id=_operation_id(method, path),
            openapi_extra=describe_route(answer, parameters=path_parameters(path), **more),
            response_class=Response,
            responses={200: {"description": "as asked"}},
        )


async def _small_body(request: Request) -> bytes:
    """The body of a call that holds a few words: too few to count against the budget of all bodies.

    Raises:
        BodyTooLarge: it is larger.
    """
    held = HeldBody(BodyBudget(_MAX_SMALL_BYTES))
    await read_body(request.headers, request.stream(), _MAX_SMALL_BYTES, held)
    return bytes(held.body)


def _add_protocol(app: FastAPI, repository: RepositoryCalls) -> None:
    """Add the repository's calls of the Open Inference Protocol, whose errors are plain."""

    async def index(request: Request) -> Response:
        return respond(await repository.plainly(repository.index(await _small_body(request))))

    async def load(request: Request) -> Response:
        return respond(await repository.plainly(repository.load_all(request.path_params["name"])))

    async def unload(request: Request) -> Response:
        return respond(await repository.plainly(repository.unload_all(request.path_params["name"])))

    model = "/v2/repository/models/{name}"
    listed, nothing = schemas.RepositoryIndex, schemas.Nothing
    calls: tuple[tuple[str, Callable[..., Any], str, type[BaseModel]], ...] = (
        ("/v2/repository/index", index, "Every version in the repository (Open Inference Protocol)", listed),
        (model + "/load", load, "Serve every version of a flow (Open Inference Protocol)", nothing),
        (model + "/unload", unload, "Serve no version of a flow (Open Inference Protocol)", nothing),
    )
    for path, endpoint, summary, answer in calls:
        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            summary=summary,
            tags=["repository"],
            operation_id=_operation_id("POST", path),
            openapi_extra=describe_route(answer, parameters=path_parameters(path)),
            response_class=Response,
            responses={200: {"description": "as asked"}},
        )


def _named(request: Request, *names: str) -> tuple[str, ...]:
    """The parts of a path that have these names."""
    return tuple(request.path_params[name] for name in names)


def _flag(request: Request, name: str, *, default: bool) -> bool:
    """An argument of a query that is true or false.

    Raises:
        InvalidArgument: it is something else, or is there twice, or there is another argument.
    """
    texts = {"true": True, "false": False}
    given = list(request.query_params.multi_items())
    for key, text in given:
        if key != name or text not in texts or len(given) > 1:
            detail = f"expected {name}=true or {name}=false, and nothing else, and found {key[:64]}={text[:64]}"
            raise InvalidArgument(detail, (Reason(("query", key[:64]), detail),))
    return texts[given[0][1]] if given else default


def _operation_id(method: str, path: str) -> str:
    return "_".join([method.lower(), *(part.strip("{}") for part in path.split("/") if part)])
