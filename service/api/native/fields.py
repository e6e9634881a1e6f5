"""The fields that the arguments and answers of several verbs have in common, and the models on which all are built.

Arrays are passed through as they came (`service.api.native.arrays` reads them): checking a million numbers one by one
is no work for a model class. Their JSON schema is given beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.bundle.aliases import ALIAS_PATTERN, is_alias
from service.bundle.manifest import NAME_PATTERN
from service.engine.sampling.noise import ContextNoise
from service.pictures.options import MAX_PIXELS, MAX_SIZE

__all__ = [
    "CONTEXT",
    "MAX_OFFSET",
    "NULLABLE",
    "ROWS",
    "Events",
    "Flags",
    "LogProbs",
    "Matrix",
    "Noise",
    "PictureRequest",
    "Returns",
    "Scores",
    "Vector",
    "VerbRequest",
    "VerbResponse",
    "array_of",
    "either",
]

MAX_OFFSET: Final = (1 << 53) - 1
"""The greatest integer that every JSON reader keeps exact."""

_NUMBER: Final = {"type": "number"}


def array_of(depth: int, description: str, item: Mapping[str, Any] = _NUMBER) -> WithJsonSchema:
    """The JSON schema of an array with so many axes."""
    schema: dict[str, Any] = dict(item)
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return WithJsonSchema({**schema, "description": description})


def either(description: str, *depths: int) -> WithJsonSchema:
    """The JSON schema of an array of numbers with any of these numbers of axes."""
    choices = [array_of(depth, "").json_schema or {} for depth in depths]
    return WithJsonSchema(
        {"anyOf": [{"type": c["type"], "items": c["items"]} for c in choices], "description": description}
    )


ROWS = either("rows of data, [N, *event]; a single event is one row", 2, 1, 4)
CONTEXT = either("the context of each row, [N, C]; or [C] for all rows", 1, 2)
NULLABLE: Final = {"type": ["number", "null"]}

Noise = Annotated[
    ContextNoise, Field(description="independent: each context has latents of its own; common: all have the same")
]
Returns = Annotated[
    list[Literal["round_trip_error"]],
    Field(default_factory=list, alias="return", max_length=32, description="what else to give"),
]
Vector = Annotated[Any, array_of(1, "[N]")]
LogProbs = Annotated[Any, array_of(1, "log p(x) in nats, [N]; null where the density is zero", NULLABLE)]
Scores = Annotated[Any, array_of(1, "[N]; null where the density is zero", NULLABLE)]
Matrix = Annotated[Any, array_of(2, "[N, D]")]
Events = Annotated[Any, either("rows of data, [N, *event]", 2, 4)]
Flags = Annotated[Any, array_of(1, "[N]", {"type": "boolean"})]


def _read_version(value: object) -> int | str | None:
    """A version, or an alias that may name one."""
    if value is None or (type(value) is int and value >= 1) or (isinstance(value, str) and is_alias(value)):
        return value
    raise PydanticCustomError("version", "should be a positive integer, or an alias")


class VerbRequest(BaseModel):
    """The arguments of every verb: which flow answers."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False, protected_namespaces=())

    model: Annotated[
        str | None, Field(pattern=NAME_PATTERN, description="the name of the flow; without it the default flow answers")
    ] = None
    version: Annotated[
        int | str | None,
        PlainValidator(_read_version),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "integer", "minimum": 1},
                    {"type": "string", "pattern": ALIAS_PATTERN},
                    {"type": "null"},
                ],
                "description": "the version of the flow, or an alias; without it the newest that is ready",
            }
        ),
    ] = None


class PictureRequest(VerbRequest):
    """The arguments of every verb whose answer can be a picture."""

    columns: Annotated[
        int | None,
        Field(
            ge=1, le=MAX_PIXELS, description="for a picture: images in a row of a grid, or columns of a table to show"
        ),
    ] = None
    size: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_SIZE,
            description="for a picture, in pixels: the longer side of each image, or the side of a picture of a table",
        ),
    ] = None


class VerbResponse(BaseModel):
    """The beginning of every answer: which flow gave it."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    version: int
    precision: Annotated[
        Literal["float64"] | None, Field(description="float64 where the answer's numbers are; absent for float32")
    ] = None
    in_support: Annotated[
        Any,
        WithJsonSchema(
            {
                "type": "array",
                "items": {"type": "boolean"},
                "description": "[N], whether the density is not zero; absent if all are true",
            }
        ),
    ] = None
