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

__all__ = ["SCHEMAS", "add_routes"]

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
    schemas.WeightsRequest,
    schemas.WeightsResponse,
    schemas.Flow,
    schemas.FlowList,
    schemas.Readiness,
    schemas.Liveness,
    schemas.ProblemDocument,
)
"""Every model that OpenAPI refers to."""


def add_routes(app: FastAPI, table: Iterable[Endpoint], operations: Operations, door: Door) -> None:
    """Add every route of the native API to `app`.

    Args:
        app: the application.
        table: of the verbs.
        operations: the calls about the server itself.
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


def _operation_id(method: str, path: str) -> str:
    return "_".join([method.lower(), *(part.strip("{}") for part in path.split("/") if part)])
