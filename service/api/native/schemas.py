"""The arguments and answers of every call, declared once: they validate the small arguments and make the OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, FiniteFloat, RootModel, WithJsonSchema

from service.api.native.fields import (
    CONTEXT,
    MAX_OFFSET,
    NULLABLE,
    ROWS,
    Events,
    Flags,
    LogProbs,
    Matrix,
    Noise,
    PictureRequest,
    Returns,
    Scores,
    Vector,
    VerbRequest,
    VerbResponse,
    array_of,
    either,
)
from service.bundle.precision import Precision
from service.engine.sampling.noise import MAX_SEED, Method
from service.engine.verbs.flow import Return
from service.engine.verbs.paths import Spacing

__all__ = [
    "AliasChange",
    "AliasRequest",
    "DecodeRequest",
    "DecodeResponse",
    "EditRequest",
    "EditResponse",
    "EncodeRequest",
    "EncodeResponse",
    "Flow",
    "FlowList",
    "IndexedVersion",
    "InterpolateRequest",
    "InterpolateResponse",
    "Liveness",
    "LogProbRequest",
    "LogProbResponse",
    "Nothing",
    "PosteriorRequest",
    "PosteriorResponse",
    "ProblemDocument",
    "Readiness",
    "RepositoryChange",
    "RepositoryFlow",
    "RepositoryIndex",
    "RepositoryList",
    "RepositoryVersion",
    "SampleRequest",
    "SampleResponse",
    "TraceRequest",
    "TraceResponse",
    "TracedStep",
    "WeightsRequest",
    "WeightsResponse",
]


class LogProbRequest(PictureRequest):
    """Rows to give log-densities of."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"x": [[0.5, 0.25], [1.0, -0.5]], "return": ["z", "quantile"]}}
    )

    x: Annotated[Any, ROWS]
    context: Annotated[Any, CONTEXT] = None
    returns: Annotated[
        list[Return],
        Field(default_factory=list, alias="return", max_length=32, description="what to give besides log_prob"),
    ]
    alarm_rate: Annotated[
        float | None,
        Field(
            gt=0, lt=1, description="adds `anomaly`: whether at most this share of held-out rows has a log_prob as low"
        ),
    ] = None
    correct: Annotated[
        bool, Field(description="of a flow with a prior: divide the density by the mass inside it; adds `acceptance`")
    ] = False


class SampleRequest(PictureRequest):
    """How many rows to draw, and which."""

    model_config = ConfigDict(json_schema_extra={"example": {"n": 3, "seed": 7}})

    n: Annotated[int, Field(ge=1, description="how many rows; for several contexts, how many for each")] = 1
    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_SEED,
            description="the same seed and context give the same rows; without it the server draws a seed",
        ),
    ] = None
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="the first row of the seed to give")] = 0
    temperature: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="multiplies the standard deviations of a normal base")
    ] = 1.0
    truncation: Annotated[
        float | None,
        Field(gt=0, allow_inf_nan=False, description="cuts a normal base off at this many standard deviations"),
    ] = None
    method: Annotated[Method, Field(description="independent rows, or Sobol's, which fill the space more evenly")] = (
        "random"
    )
    noise: Noise = "independent"
    context: Annotated[Any, either("the context, [C]; or [K, C] for n rows of each of K contexts", 1, 2)] = None
    returns: Returns


class InterpolateRequest(PictureRequest):
    """Points to walk through."""

    model_config = ConfigDict(json_schema_extra={"example": {"points": [[-0.5, 0.5], [1.5, 0.0]], "steps": 5}})

    points: Annotated[
        Any, either("K >= 2 points: [K, *event], or [K, D] in space z; or [B, K, ...] for B walks", 2, 3, 4, 5)
    ]
    space: Annotated[Literal["x", "z"], Field(description="whether the points are data or latents")] = "x"
    steps: Annotated[int, Field(ge=2, description="rows of a segment, both ends included")] = 11
    path: Annotated[
        Literal["slerp", "linear"] | None, Field(description="without it slerp for a normal base, linear for any other")
    ] = None
    spacing: Annotated[
        Spacing, Field(description="whether rows are equally far apart in t, or along the walk in latent space")
    ] = "parameter"
    context: Annotated[
        Any, either("the context: [C] or [1, C] for the whole walk, [2, C] for its ends, [K, C] for its points", 1, 2)
    ] = None


class EncodeRequest(VerbRequest):
    """Rows to bring to latent space."""

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.5, 0.25]]}})

    x: Annotated[Any, ROWS]
    context: Annotated[Any, CONTEXT] = None
    returns: Returns


class DecodeRequest(PictureRequest):
    """Latents to bring to data space."""

    model_config = ConfigDict(json_schema_extra={"example": {"z": [[0.0, 0.0]]}})

    z: Annotated[Any, either("latents, [N, D]; a single [D] is one row", 2, 1)]
    context: Annotated[Any, CONTEXT] = None
    returns: Returns


class LogProbResponse(VerbResponse):
    """Log-densities, and what was asked for beside them."""

    log_prob: LogProbs
    z: Matrix = None
    log_abs_det_jacobian: Vector = None
    base_log_prob: Scores = None
    quantile: Vector = None
    typicality: Scores = None
    bits_per_dim: Scores = None
    context_quantile: Vector = None
    round_trip_error: Vector = None
    anomaly: Flags = None
    acceptance: Annotated[Any, array_of(1, "[N], the mass inside the prior under each row's context")] = None
    acceptance_se: Annotated[Any, array_of(1, "[N], its standard error")] = None


class SampleResponse(VerbResponse):
    """Rows drawn, with [K, n, *event] for K contexts."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    offset: int
    n: int
    x: Events
    log_prob: LogProbs
    round_trip_error: Vector = None
    acceptance: Annotated[
        float | None, Field(description="of a flow with a prior: the share of the draws that lay inside it")
    ] = None


class InterpolateResponse(VerbResponse):
    """A walk of T rows; point k lies at t = k."""

    t: Vector
    z: Matrix
    x: Events
    log_prob: LogProbs
    round_trip_error: Vector


class EncodeResponse(VerbResponse):
    """z = f(x)."""

    z: Matrix
    log_abs_det_jacobian: Vector
    log_prob: LogProbs
    round_trip_error: Vector = None


class DecodeResponse(VerbResponse):
    """x = g(z)."""

    x: Events
    log_abs_det_jacobian: Vector
    log_prob: LogProbs
    round_trip_error: Vector = None


_ROW: Final = either("a row of data", 1, 3).json_schema or {}
_DIRECTION: Final = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "number"}},
            {
                "type": "object",
                "properties": {"from": _ROW, "to": _ROW},
                "required": ["from", "to"],
                "additionalProperties": False,
            },
        ],
        "description": "a direction of the flow, by name; or a vector of latent space, [D]; or two rows of data, from "
        "and to: strength 1 takes the first to the second",
    }
)


class TraceRequest(VerbRequest):
    """Rows to follow through the steps: data x, or latents z, or the rows that /sample draws for n and seed."""

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.5, 0.25]]}})

    x: Annotated[Any, ROWS] = None
    z: Annotated[Any, either("latents, [N, D]; a single [D] is one row", 2, 1)] = None
    n: Annotated[int | None, Field(ge=1, description="how many rows to draw, if neither x nor z is given")] = None
    seed: Annotated[int | None, Field(ge=0, le=MAX_SEED, description="the seed of the rows that are drawn")] = None
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="the first row of the seed to give")] = 0
    noise: Noise = "independent"
    context: Annotated[Any, CONTEXT] = None


class TracedStep(BaseModel):
    """One step of the flow, and what comes out of it."""

    name: Annotated[str, Field(description="the name of the step; x for the row itself")]
    value: Annotated[Any, either("the event after the step, [N, ...]", 2, 4)]
    log_abs_det_jacobian: Annotated[Any, array_of(1, "of this step alone, [N], in nats; 0 for the row itself")]


class TraceResponse(VerbResponse):
    """The event after each step of the chain, from x to z."""

    steps: list[TracedStep]
    log_prob: LogProbs


class EditRequest(PictureRequest):
    """Rows to move along a direction of latent space, and how far."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"x": [[0.5, 0.25]], "direction": [1.0, 0.0], "strength": [-1.0, 0.0, 1.0]}}
    )

    x: Annotated[Any, ROWS]
    direction: Annotated[Any, _DIRECTION]
    strength: Annotated[
        list[FiniteFloat],
        FailFast(),  # a body holds millions of them, and an error for each would take minutes
        Field(min_length=1, description="[S]: z + strength * direction, for each of them; 0 is the round trip"),
    ]
    context: Annotated[Any, CONTEXT] = None
    returns: Returns


class EditResponse(VerbResponse):
    """The rows moved, strength by strength."""

    x: Annotated[Any, either("[S, N, *event]", 3, 5)]
    z: Annotated[Any, array_of(3, "[S, N, D]")]
    log_prob: Annotated[Any, array_of(2, "log p(x) in nats, [S, N]; null where the density is zero", NULLABLE)]
    round_trip_error: Annotated[Any, array_of(2, "[S, N]")] = None


def _listed(value: object) -> object:
    """A number as a list of one."""
    return [value] if type(value) in (int, float) else value


class PosteriorRequest(VerbRequest):
    """The contexts whose posteriors are summarized, from how many draws, and by what."""

    model_config = ConfigDict(json_schema_extra={"example": {"n": 1000, "seed": 7, "quantiles": [0.05, 0.5, 0.95]}})

    n: Annotated[int, Field(ge=1, description="how many draws of each context")] = 1000
    seed: Annotated[
        int | None,
        Field(ge=0, le=MAX_SEED, description="the draws are those of /sample with this seed; without it one is drawn"),
    ] = None
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="the first row of the seed to draw")] = 0
    quantiles: Annotated[
        list[Annotated[float, Field(ge=0, le=1)]],
        FailFast(),
        Field(max_length=64, description="the levels of the quantiles, Q of them; an empty list for none"),
        BeforeValidator(_listed),
    ] = [0.05, 0.5, 0.95]  # noqa: RUF012  pydantic copies it
    hpd: Annotated[
        list[Annotated[float, Field(gt=0, le=1)]],
        FailFast(),
        Field(
            max_length=16, description="the shares that the highest-density intervals hold, H of them; empty for none"
        ),
        BeforeValidator(_listed),
    ] = [0.9]  # noqa: RUF012
    correlation: Annotated[bool, Field(description="whether to give the correlation of the coordinates, D x D")] = True
    method: Annotated[Method, Field(description="of the draws, as for /sample")] = "random"
    noise: Noise = "independent"
    context: Annotated[Any, either("the contexts, [K, C]; or [C] for one", 1, 2)] = None


class PosteriorResponse(VerbResponse):
    """Summaries of n draws of each context; the axis K has length 1 for one context and for none."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    offset: int
    n: int
    mean: Annotated[Any, either("[K, *event]", 2, 4)]
    std: Annotated[Any, either("[K, *event], the standard deviations", 2, 4)]
    quantiles: Annotated[Any, either("[K, Q, *event]", 3, 5)] = None
    hpd: Annotated[
        Any, either("[K, H, 2, *event], the ends of the shortest interval that holds each share of the draws", 4, 6)
    ] = None
    correlation: Annotated[Any, array_of(3, "[K, D, D]")] = None
    acceptance: Annotated[
        Any, array_of(1, "[K], of a flow with a prior: the share of each context's draws that lay inside it")
    ] = None


class WeightsRequest(VerbRequest):
    """The log-density of a target, at rows x or at the rows that /sample draws for n and seed."""

    model_config = ConfigDict(json_schema_extra={"example": {"n": 3, "seed": 7, "log_target": [-1.0, -1.5, -2.0]}})

    x: Annotated[Any, ROWS] = None
    n: Annotated[int | None, Field(ge=1, description="how many rows to draw, if x is not given")] = None
    seed: Annotated[int | None, Field(ge=0, le=MAX_SEED, description="the seed of the rows that are drawn")] = None
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="the first row of the seed to give")] = 0
    noise: Noise = "independent"
    log_target: Annotated[
        Any, array_of(1, "[N], in nats, up to a constant; null where the target is zero", NULLABLE)
    ] = None
    context: Annotated[Any, CONTEXT] = None


class WeightsResponse(VerbResponse):
    """Self-normalized importance weights, and what they are worth."""

    weights: Annotated[Any, array_of(1, "[N]; their sum is 1")]
    log_weights: Annotated[Any, array_of(1, "[N]; null for a weight of zero", NULLABLE)]
    ess: Annotated[float, Field(description="effective sample size: 1 / sum of squared weights")]
    ess_share: Annotated[float, Field(description="ess / N")]
    pareto_k: Annotated[
        float | None, Field(description="the shape of the weights' upper tail; null where too few stand out to tell")
    ]
    pareto_k_threshold: Annotated[
        float | None, Field(description="min(1 - 1 / log10(N), 0.7): what pareto_k should stay below")
    ]
    log_evidence: Annotated[
        float, Field(description="log of the mean of exp(log_target - log_prob): the target's normalizing constant")
    ]
    log_evidence_se: Annotated[float, Field(description="its standard error; 0 where all weights are equal")]
    verdict: Annotated[str, Field(description="a sentence that begins with good, more draws, bad, useless or unknown")]


class Flow(BaseModel):
    """One version of a flow. Some fields are empty while its bundle has not been read, or if it cannot be."""

    name: str
    version: int
    versions: list[int]
    state: Literal["loading", "ready", "failed", "quarantined"]
    default: bool
    error: dict[str, Any] | None = None
    description: str = ""
    event_shape: list[int] = []
    latent_width: int = 0
    context_width: int = 0
    precision: Annotated[Precision, Field(description="the precision of rows and answers")] = "float32"
    features: list[dict[str, Any]] = []
    context_features: list[dict[str, Any]] = []
    base: dict[str, Any] | None = None
    support: dict[str, Any] | None = None
    constraints: Annotated[
        list[dict[str, Any]], Field(description="the support where columns differ; support is then null")
    ] = []
    variational: Annotated[
        dict[str, Any] | None, Field(description="the evidence and the verdict of a flow that was fitted to a density")
    ] = None
    directions: list[str] = []
    trace: Annotated[list[str], Field(description="the names of the flow's steps, if /trace can show them")] = []
    manifest: Annotated[dict[str, Any] | None, Field(description="only of a flow that is asked for by name")] = None
    calibration: Annotated[dict[str, Any] | None, Field(description="only of a flow that is asked for by name")] = None


class FlowList(BaseModel):
    """Every version of every flow."""

    default: str | None
    models: list[Flow]


class RepositoryVersion(BaseModel):
    """One version of a flow in the repository."""

    version: int
    state: Annotated[
        Literal["loading", "ready", "failed", "quarantined", "unloaded", "draining"],
        Field(
            description="quarantined: its processes crashed or hung too often; unloaded: found, and not to be served; "
            "draining: it still answers what came before"
        ),
    ]
    aliases: list[str]
    digest: Annotated[str, Field(description="SHA-256 of flow.json")]
    error: dict[str, Any] | None = None


class RepositoryFlow(BaseModel):
    """One flow of the repository."""

    name: str
    aliases: Annotated[dict[str, int], Field(description="alias -> version")]
    versions: list[RepositoryVersion]


class RepositoryList(BaseModel):
    """The repository, as the server knows it."""

    default: str | None
    flows: list[RepositoryFlow]


class RepositoryChange(BaseModel):
    """A change of one version that has been made."""

    name: str
    version: int
    state: Literal["ready", "unloaded", "installed", "removed"]


class AliasRequest(BaseModel):
    """The version that an alias is to name."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"version": 1}})

    version: Annotated[int, Field(ge=1)]


class AliasChange(BaseModel):
    """An alias that has been set."""

    name: str
    alias: str
    version: Annotated[int | None, Field(description="null where the alias has been removed")]
    kept: Annotated[bool, Field(description="whether it is in the repository's file, and outlives the server")]


class IndexedVersion(BaseModel):
    """One version in the index of the Open Inference Protocol."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: Annotated[str, Field(description="why it is not ready")]


class RepositoryIndex(RootModel[list[IndexedVersion]]):
    """The repository, as the Open Inference Protocol lists it."""


class Nothing(BaseModel):
    """An empty object."""


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
    request_id: str
