"""Which path leads to which verb, and what OpenAPI says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from service.api.codecs import wire
from service.api.door import Door, respond
from service.api.native import fields, schemas
from service.api.native.verbs import Verb, Verbs
from service.api.openapi import described, path_parameters, query_parameters
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

_PREFIXES: Final = ("", "/models/{name}", "/models/{name}/versions/{version}")


@dataclass(frozen=True, slots=True)
class _Call:
    """One native call, under each of the three prefixes."""

    method: str
    path: str
    verb: Verb
    summary: str
    answer: type[BaseModel]
    asked: type[fields.VerbRequest]
    main: str


def add_routes(app: FastAPI, verbs: Verbs, operations: Operations, door: Door) -> None:
    """Add every route of the native API to `app`."""
    calls = (
        _Call(
            "POST",
            "/logprob",
            verbs.log_prob,
            "Log-densities of rows",
            schemas.LogProbResponse,
            schemas.LogProbRequest,
            "x",
        ),
        _Call("GET", "/sample", verbs.sample_by_query, "Draw rows", schemas.SampleResponse, schemas.SampleRequest, ""),
        _Call("POST", "/sample", verbs.sample, "Draw rows", schemas.SampleResponse, schemas.SampleRequest, "context"),
        _Call(
            "POST",
            "/interpolate",
            verbs.interpolate,
            "Walk through latent space",
            schemas.InterpolateResponse,
            schemas.InterpolateRequest,
            "points",
        ),
        _Call("POST", "/encode", verbs.encode, "Data to latents", schemas.EncodeResponse, schemas.EncodeRequest, "x"),
        _Call("POST", "/decode", verbs.decode, "Latents to data", schemas.DecodeResponse, schemas.DecodeRequest, "z"),
        _Call(
            "POST",
            "/trace",
            verbs.trace,
            "The event after each step of the chain",
            schemas.TraceResponse,
            schemas.TraceRequest,
            "x",
        ),
        _Call(
            "POST",
            "/edit",
            verbs.edit,
            "Move rows along a direction of latent space",
            schemas.EditResponse,
            schemas.EditRequest,
            "x",
        ),
        _Call(
            "POST",
            "/weights",
            verbs.weights,
            "Importance weights of rows for a target",
            schemas.WeightsResponse,
            schemas.WeightsRequest,
            "x",
        ),
    )
    for prefix in _PREFIXES:
        for call in calls:
            app.add_api_route(
                prefix + call.path,
                door.mounted(call.verb),
                methods=[call.method],
                summary=call.summary,
                description=call.asked.__doc__,
                tags=["flows" if not prefix else "flows by name" if "version" not in prefix else "flows by version"],
                operation_id=_operation_id(call.method, prefix + call.path),
                openapi_extra=described(
                    call.answer,
                    body=call.asked if call.main else None,
                    parameters=path_parameters(prefix) + query_parameters(call.asked, prefix, call.main),
                    main=call.main,
                    drawn=issubclass(call.asked, fields.PictureRequest),
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
            openapi_extra=described(answer, parameters=path_parameters(path)),
            response_class=Response,
            responses={200: {"description": "as asked"}},
        )
        # Monitors ask with HEAD; OpenAPI need not say everything twice.
        app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)


def _operation_id(method: str, path: str) -> str:
    return "_".join([method.lower(), *(part.strip("{}") for part in path.split("/") if part)])
