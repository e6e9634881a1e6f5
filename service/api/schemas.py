"""The arguments and answers of each call, declared once: they validate the small arguments and make the OpenAPI.

Arrays are passed through as they came (`service.api.arrays` reads them): checking a million numbers one by one
is no work for a model class. Their JSON schema is given beside them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from service.api.query import as_declared
from service.bundle.manifest import NAME_PATTERN
from service.engine.flow import Return
from service.engine.noise import MAX_SEED
from service.errors import InvalidArgument, PushforwardError, Reason

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
    "Request",
    "SampleRequest",
    "SampleResponse",
    "validate",
]

_MAX_OFFSET: Final = (1 << 53) - 1  # the greatest integer that every JSON reader keeps exact

_NUMBER: Final = {"type": "number"}


def _array(depth: int, description: str, item: Mapping[str, Any] = _NUMBER) -> WithJsonSchema:
    schema: dict[str, Any] = dict(item)
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return WithJsonSchema({**schema, "description": description})


def _either(description: str, *depths: int) -> WithJsonSchema:
    choices = [_array(depth, "").json_schema or {} for depth in depths]
    return WithJsonSchema(
        {"anyOf": [{"type": c["type"], "items": c["items"]} for c in choices], "description": description}
    )


_ROWS = _either("rows of data, [N, *event]; a single event is one row", 2, 1, 4)
_CONTEXT = _either("conditioning rows, [N, C]; or [C] for all rows", 1, 2)
_NULLABLE: Final = {"type": ["number", "null"]}

Vector = Annotated[Any, _array(1, "[N]")]
Densities = Annotated[Any, _array(1, "log p(x) in nats, [N]; null where the density is zero", _NULLABLE)]
Scores = Annotated[Any, _array(1, "[N]; null where the density is zero", _NULLABLE)]
Matrix = Annotated[Any, _array(2, "[N, D]")]
Events = Annotated[Any, _either("rows of data, [N, *event]", 2, 4)]
Flags = Annotated[Any, _array(1, "[N]", {"type": "boolean"})]


class Request(BaseModel):
    """What every call may say: which flow answers."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False, protected_namespaces=())

    model: Annotated[
        str | None, Field(pattern=NAME_PATTERN, description="the flow; the server's default where none is named")
    ] = None
    version: Annotated[int | None, Field(ge=1, description="of the flow; the newest that is ready")] = None


class LogProbRequest(Request):
    """Rows to give log-densities of."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"x": [[0.5, 0.25], [1.0, -0.5]], "return": ["z", "quantile"]}}
    )

    x: Annotated[Any, _ROWS]
    context: Annotated[Any, _CONTEXT] = None
    returns: Annotated[
        list[Return],
        Field(default_factory=list, alias="return", max_length=32, description="what to give beside log_prob"),
    ]
    alarm_rate: Annotated[
        float | None,
        Field(gt=0, lt=1, description="adds `anomaly`: whether a smaller share of held-out rows has a lower log_prob"),
    ] = None


class SampleRequest(Request):
    """How many rows to draw, and which."""

    model_config = ConfigDict(json_schema_extra={"example": {"n": 3, "seed": 7}})

    n: Annotated[int, Field(ge=1, description="how many rows; for each context where there are several")] = 1
    seed: Annotated[
        int | None,
        Field(ge=0, le=MAX_SEED, description="row i of a seed is one value; the server draws one if none is given"),
    ] = None
    offset: Annotated[int, Field(ge=0, le=_MAX_OFFSET, description="the row of the seed that comes first")] = 0
    temperature: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="multiplies the standard deviation of a normal base")
    ] = 1.0
    context: Annotated[Any, _either("conditioning row, [C]; or [K, C] for n rows of each", 1, 2)] = None


class InterpolateRequest(Request):
    """Points to walk through."""

    model_config = ConfigDict(json_schema_extra={"example": {"points": [[-0.5, 0.5], [1.5, 0.0]], "steps": 5}})

    points: Annotated[Any, _either("K >= 2 points: [K, *event], or [K, D] in space z", 2, 4)]
    space: Annotated[Literal["x", "z"], Field(description="whether the points are data or latents")] = "x"
    steps: Annotated[int, Field(ge=2, description="rows a segment, both ends included")] = 11
    path: Annotated[
        Literal["slerp", "linear"] | None, Field(description="slerp for a normal base, linear for a uniform one")
    ] = None
    context: Annotated[Any, _either("one conditioning row for the whole walk: [C] or [1, C]", 1, 2)] = None


class EncodeRequest(Request):
    """Rows to bring to latent space."""

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.5, 0.25]]}})

    x: Annotated[Any, _ROWS]
    context: Annotated[Any, _CONTEXT] = None


class DecodeRequest(Request):
    """Latents to bring to data space."""

    model_config = ConfigDict(json_schema_extra={"example": {"z": [[0.0, 0.0]]}})

    z: Annotated[Any, _either("latents, [N, D]; a single [D] is one row", 2, 1)]
    context: Annotated[Any, _CONTEXT] = None


class _Response(BaseModel):
    """What every answer says: which flow gave it."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    version: int
    in_support: Annotated[
        Any,
        WithJsonSchema(
            {
                "type": "array",
                "items": {"type": "boolean"},
                "description": "[N]; there when, and only when, one is false",
            }
        ),
    ] = None


class LogProbResponse(_Response):
    """Log-densities, and what was asked for beside them."""

    log_prob: Densities
    z: Matrix = None
    log_abs_det_jacobian: Vector = None
    base_log_prob: Scores = None
    quantile: Vector = None
    typicality: Scores = None
    bits_per_dim: Scores = None
    anomaly: Flags = None


class SampleResponse(_Response):
    """Rows drawn, with [K, n, *event] for K contexts."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    offset: int
    n: int
    x: Events
    log_prob: Densities


class InterpolateResponse(_Response):
    """A walk of T rows; point k lies at t = k."""

    t: Vector
    z: Matrix
    x: Events
    log_prob: Densities
    round_trip_error: Vector


class EncodeResponse(_Response):
    """z = f(x)."""

    z: Matrix
    log_abs_det_jacobian: Vector
    log_prob: Densities


class DecodeResponse(_Response):
    """x = g(z)."""

    x: Events
    log_abs_det_jacobian: Vector
    log_prob: Densities


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
    base: dict[str, Any] | None = None
    support: dict[str, Any] | None = None
    directions: list[str] = []
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


R = TypeVar("R", bound=Request)


def validate(schema: type[R], arguments: Mapping[str, Any], place: Literal["body", "query"]) -> R:
    """Hold arguments against their declaration.

    Args:
        schema: which call.
        arguments: name -> value; from a query a text, which is read where a number is declared.
        place: where they came from. Either is held to JSON's own types: in a body "5" and true are no integers, and
            in a query 1.0 and 1_0 are none.

    Raises:
        InvalidArgument: each argument that is unknown, missing, or of another type or range is named; an unknown
            one with the nearest known name.
    """
    read = as_declared(schema, arguments) if place == "query" else arguments
    try:
        return schema.model_validate(read, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        reasons = tuple(_reason(schema, fault, place) for fault in found[: PushforwardError.MAX_REASONS])
        first = reasons[0]
        raise InvalidArgument(f"{'.'.join(map(str, first.loc[1:]))}: {first.reason}", reasons) from None


def _reason(schema: type[Request], fault: Mapping[str, Any], place: str) -> Reason:
    loc = (place, *(str(part)[:64] if isinstance(part, str) else part for part in fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in schema.model_fields.items()]
        near = difflib.get_close_matches(str(loc[-1]), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"the arguments are {', '.join(known)}"
        return Reason(loc, f"unknown argument; {hint}")
    if fault["type"] == "missing":
        return Reason(loc, "this argument is needed")
    message = str(fault["msg"]).removeprefix("Input ")
    value = fault["input"]
    scalar = isinstance(value, (str, int, float, bool, type(None)))
    came = f", and is {json.dumps(value, ensure_ascii=False):.64}" if scalar else ""
    return Reason(loc, message + came)
