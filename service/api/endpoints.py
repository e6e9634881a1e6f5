"""The table of verbs: for each its method, its path, its functions, and what OpenAPI says of it.

The routes of the application and the requests that a connection answers by itself are both read from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from service.api.grouped.groups import GroupVerb
from service.api.grouped.verbs import GroupVerbs
from service.api.native import fields, schemas
from service.api.native.verbs import Verb, Verbs

__all__ = ["PREFIXES", "Endpoint", "endpoints"]

PREFIXES: Final = ("", "/models/{name}", "/models/{name}/versions/{version}")
"""What may stand before the path of an endpoint: nothing, a flow, or a version of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """One verb under HTTP. Two of them are equal where they are the same, so that one is found in a dict at no cost.

    Args:
        method: of HTTP.
        path: after the prefix.
        verb: answers one request.
        group_verb: answers many small requests at once; None where nothing does.
        streams: whether a large answer of some media types is sent in pieces.
        prefixes: what may stand before the path.
        document: whether it gives what the server says of itself, whatever the time that is left to the request.
        summary: for OpenAPI, as all that follows.
        request: the schema of the arguments.
        response: the schema of a JSON answer.
        main: the argument that a body is which is not JSON; empty for an endpoint without a body.
    """

    method: str
    path: str
    verb: Verb
    group_verb: GroupVerb | None = None
    streams: bool = False
    prefixes: tuple[str, ...] = PREFIXES
    document: bool = False
    summary: str = ""
    request: type[fields.VerbRequest] = fields.VerbRequest
    response: type[BaseModel] = BaseModel
    main: str = ""


def endpoints(verbs: Verbs, group: GroupVerbs) -> tuple[Endpoint, ...]:
    """The table of one server.

    Args:
        verbs: each for one request.
        group: the same as some of them, for many small requests.
    """
    return (
        Endpoint(
            method="POST",
            path="/logprob",
            verb=verbs.log_prob,
            group_verb=group.log_prob,
            summary="Log-densities of rows",
            request=schemas.LogProbRequest,
            response=schemas.LogProbResponse,
            main="x",
        ),
        Endpoint(
            method="GET",
            path="/sample",
            verb=verbs.sample_by_query,
            group_verb=group.sample_by_query,
            streams=True,
            summary="Draw rows",
            request=schemas.SampleRequest,
            response=schemas.SampleResponse,
        ),
        Endpoint(
            method="POST",
            path="/sample",
            verb=verbs.sample,
            group_verb=group.sample,
            streams=True,
            summary="Draw rows, also for several contexts",
            request=schemas.SampleRequest,
            response=schemas.SampleResponse,
            main="context",
        ),
        Endpoint(
            method="POST",
            path="/interpolate",
            verb=verbs.interpolate,
            group_verb=group.interpolate,
            summary="Walk through latent space",
            request=schemas.InterpolateRequest,
            response=schemas.InterpolateResponse,
            main="points",
        ),
        Endpoint(
            method="POST",
            path="/encode",
            verb=verbs.encode,
            group_verb=group.encode,
            summary="Data to latents",
            request=schemas.EncodeRequest,
            response=schemas.EncodeResponse,
            main="x",
        ),
        Endpoint(
            method="POST",
            path="/decode",
            verb=verbs.decode,
            group_verb=group.decode,
            summary="Latents to data",
            request=schemas.DecodeRequest,
            response=schemas.DecodeResponse,
            main="z",
        ),
        Endpoint(
            method="POST",
            path="/trace",
            verb=verbs.trace,
            group_verb=group.trace,
            summary="The event after each step of the flow",
            request=schemas.TraceRequest,
            response=schemas.TraceResponse,
            main="x",
        ),
        Endpoint(
            method="POST",
            path="/edit",
            verb=verbs.edit,
            group_verb=group.edit,
            summary="Move rows along a direction of latent space",
            request=schemas.EditRequest,
            response=schemas.EditResponse,
            main="x",
        ),
        Endpoint(
            method="POST",
            path="/posterior",
            verb=verbs.posterior,
            summary="Summaries of the draws of each context",
            request=schemas.PosteriorRequest,
            response=schemas.PosteriorResponse,
            main="context",
        ),
        Endpoint(
            method="POST",
            path="/weights",
            verb=verbs.weights,
            summary="Importance weights of rows for a target",
            request=schemas.WeightsRequest,
            response=schemas.WeightsResponse,
            main="x",
        ),
    )
