"""The arguments and answers of the calls that look into a flow: /trace, /edit and /weights."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, FailFast, Field, FiniteFloat, WithJsonSchema

from service.api.native.fields import (
    CONTEXT,
    MAX_OFFSET,
    NULLABLE,
    ROWS,
    Densities,
    PicturedRequest,
    Request,
    Response,
    Returns,
    array_of,
    either,
)
from service.engine.sampling.noise import MAX_SEED

__all__ = [
    "EditRequest",
    "EditResponse",
    "TraceRequest",
    "TraceResponse",
    "TracedStep",
    "WeightsRequest",
    "WeightsResponse",
]

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
        "description": "a direction of the flow, by name; or one in latent space, [D]; or two rows of data, from and "
        "to, of which strength 1 takes the first to the second",
    }
)


class TraceRequest(Request):
    """Rows to follow through the chain: data, x; or latents, z; or those that /sample draws for n and seed."""

    model_config = ConfigDict(json_schema_extra={"example": {"x": [[0.5, 0.25]]}})

    x: Annotated[Any, ROWS] = None
    z: Annotated[Any, either("latents, [N, D]; a single [D] is one row", 2, 1)] = None
    n: Annotated[int | None, Field(ge=1, description="how many rows to draw, where there is neither x nor z")] = None
    seed: Annotated[int | None, Field(ge=0, le=MAX_SEED, description="of those rows")] = None
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="the row of the seed that comes first")] = 0
    context: Annotated[Any, CONTEXT] = None


class TracedStep(BaseModel):
    """What comes out of one step of the chain."""

    name: Annotated[str, Field(description="of the step; x for what goes in")]
    value: Annotated[Any, either("the event after it, [N, ...]", 2, 4)]
    log_abs_det_jacobian: Annotated[Any, array_of(1, "its own, [N], in nats; 0 for what goes in")]


class TraceResponse(Response):
    """The event after each step of the chain, from x to z."""

    steps: list[TracedStep]
    log_prob: Densities


class EditRequest(PicturedRequest):
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


class EditResponse(Response):
    """The rows moved, strength by strength."""

    x: Annotated[Any, either("[S, N, *event]", 3, 5)]
    z: Annotated[Any, array_of(3, "[S, N, D]")]
    log_prob: Annotated[Any, array_of(2, "log p(x) in nats, [S, N]; null where the density is zero", NULLABLE)]
    round_trip_error: Annotated[Any, array_of(2, "[S, N]")] = None


class WeightsRequest(Request):
    """A target's log-density at rows: the caller's own, x, or those that /sample draws for n and seed."""

    model_config = ConfigDict(json_schema_extra={"example": {"n": 3, "seed": 7, "log_target": [-1.0, -1.5, -2.0]}})

    x: Annotated[Any, ROWS] = None
    n: Annotated[int | None, Field(ge=1, description="how many rows to draw, where there is no x")] = None
    seed: Annotated[int | None, Field(ge=0, le=MAX_SEED, description="of those rows")] = None
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET, description="the row of the seed that comes first")] = 0
    log_target: Annotated[
        Any, array_of(1, "[N], in nats, up to a constant; null where the target is zero", NULLABLE)
    ] = None
    context: Annotated[Any, CONTEXT] = None


class WeightsResponse(Response):
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
    verdict: Annotated[str, Field(description="a sentence that begins with good, more draws, bad, useless or unknown")]
