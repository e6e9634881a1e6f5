"""The arguments and answers of each call, declared once: they validate the small arguments and make the OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.native.fields import (
    CONTEXT,
    MAX_OFFSET,
    ROWS,
    Densities,
    Events,
    Flags,
    Matrix,
    PicturedRequest,
    Request,
    Response,
    Returns,
    Scores,
    Vector,
    either,
)
from service.engine.sampling.noise import MAX_SEED, Method
from service.engine.verbs.flow import Return
from service.engine.verbs.paths import Spacing

__all__ = [
    "DecodeRequest",
    "DecodeResponse",
    "EncodeRequest",
    "EncodeResponse",
    "Flow",
    "FlowList",
    "InterpolateRequest",
    "InterpolateResponse",
    "Liveness",
    "LogProbRequest",
    "LogProbResponse",
    "ProblemDocument",
    "Readiness",
    "SampleRequest",
    "SampleResponse",
]


class LogProbRequest(PicturedRequest):
    """Rows to give log-densities of."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"x": [[0.5, 0.25], [1.0, -0.5]], "return": ["z", "quantile"]}}
    )

    x: Annotated[Any, ROWS]
    context: Annotated[Any, CONTEXT] = None
    returns: Annotated[
        list[Return],
        Field(default_factory=list, alias="return", max_length=32, description="what to give beside log_prob"),
    ]
    alarm_rate: Annotated[
        float | None,
        Field(
            gt=0, lt=1, description="adds `anomaly`: whether at most this share of held-out rows has a log_prob as low"
        ),
    ] = None


class SampleRequest(PicturedRequest):
    """How many rows to draw, and which."""

    model_config = ConfigDict(json_schema_extra={"example": {"n": 3, "seed": 7}})

    n: Annotated[int, Field(ge=1, description="how many rows; for each context where there are several")] = 1
    seed: Annotated[
        int | None,
        Field(ge=0, le=MAX_SEED, description="row i of a seed is one value; the server draws one if none is given"),
    ] = None
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="the row of the seed that comes first")] = 0
    temperature: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="multiplies the standard deviations of a normal base")
    ] = 1.0
    truncation: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="ends a normal base after so many standard deviations"),
    ] = None
    method: Annotated[
        Method, Field(description="independent rows, or Sobol's, which together are spread more evenly")
    ] = "random"
    context: Annotated[Any, either("conditioning row, [C]; or [K, C] for n rows of each", 1, 2)] = None
    returns: Returns


class InterpolateRequest(PicturedRequest):
    """Points to walk through."""

    model_config = ConfigDict(json_schema_extra={"example": {"points": [[-0.5, 0.5], [1.5, 0.0]], "steps": 5}})

    points: Annotated[
        Any, either("K >= 2 points: [K, *event], or [K, D] in space z; or [B, K, ...] for B walks", 2, 3, 4, 5)
    ]
    space: Annotated[Literal["x", "z"], Field(description="whether the points are data or latents")] = "x"
    steps: Annotated[int, Field(ge=2, description="rows a segment, both ends included")] = 11
    path: Annotated[
        Literal["slerp", "linear"] | None, Field(description="slerp for a normal base, linear for any other")
    ] = None
    spacing: Annotated[Spacing, Field(description="rows equally far apart in t, or along the walk in latent space")] = (
        "parameter"
    )
    context: Annotated[
        Any, either("conditioning: [C] or [1, C] for the whole walk, [2, C] for its ends, [K, C] for its points", 1, 2)
    ] = None


class EncodeRequest(Request):
    """Rows to bring to latent space."""

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.5, 0.25]]}})

    x: Annotated[Any, ROWS]
    context: Annotated[Any, CONTEXT] = None
    returns: Returns


class DecodeRequest(PicturedRequest):
    """Latents to bring to data space."""

    model_config = ConfigDict(json_schema_extra={"example": {"z": [[0.0, 0.0]]}})

    z: Annotated[Any, either("latents, [N, D]; a single [D] is one row", 2, 1)]
    context: Annotated[Any, CONTEXT] = None
    returns: Returns


class LogProbResponse(Response):
    """Log-densities, and what was asked for beside them."""

    log_prob: Densities
    z: Matrix = None
    log_abs_det_jacobian: Vector = None
    base_log_prob: Scores = None
    quantile: Vector = None
    typicality: Scores = None
    bits_per_dim: Scores = None
    round_trip_error: Vector = None
    anomaly: Flags = None


class SampleResponse(Response):
    """Rows drawn, with [K, n, *event] for K contexts."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    offset: int
    n: int
    x: Events
    log_prob: Densities
    round_trip_error: Vector = None


class InterpolateResponse(Response):
    """A walk of T rows; point k lies at t = k."""

    t: Vector
    z: Matrix
    x: Events
    log_prob: Densities
    round_trip_error: Vector


class EncodeResponse(Response):
    """z = f(x)."""

    z: Matrix
    log_abs_det_jacobian: Vector
    log_prob: Densities
    round_trip_error: Vector = None


class DecodeResponse(Response):
    """x = g(z)."""

    x: Events
    log_abs_det_jacobian: Vector
    log_prob: Densities
    round_trip_error: Vector = None


class Flow(BaseModel):
    """One version of a flow, as it stands. Where its bundle has not been read, or cannot be, less is known of it."""

    name: str
    version: int
    versions: list[int]
    state: Literal["loading", "ready", "failed"]
    default: bool
    error: dict[str, Any] | None = None
    description: str = ""
    event_shape: list[int] = []
    latent_width: int = 0
    context_width: int = 0
    features: list[dict[str, Any]] = []
    context_features: list[dict[str, Any]] = []
    base: dict[str, Any] | None = None
    support: dict[str, Any] | None = None
    directions: list[str] = []
    trace: Annotated[list[str], Field(description="the steps of the chain, where /trace can show them")] = []
    manifest: Annotated[dict[str, Any] | None, Field(description="of a flow asked for by name")] = None
    calibration: Annotated[dict[str, Any] | None, Field(description="of a flow asked for by name")] = None


class FlowList(BaseModel):
    """Every version of every flow."""

    default: str | None
    models: list[Flow]


class Readiness(BaseModel):
    """Whether the server should be sent requests."""

    ready: bool
    flows: list[dict[str, Any]]


class Liveness(BaseModel):
    """The process answers."""

    live: bool


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, Any]]
