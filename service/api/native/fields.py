"""What the arguments and answers of all calls are made of, and how they are held against their declaration.

Arrays are passed through as they came (`service.api.native.arrays` reads them): checking a million numbers one by one
is no work for a model class. Their JSON schema is given beside them.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from service.api.codecs.query import as_declared
from service.bundle.manifest import NAME_PATTERN
from service.errors import InvalidArgument, PushforwardError, Reason
from service.pictures.options import MAX_PIXELS, MAX_SIZE

__all__ = [
    "CONTEXT",
    "MAX_OFFSET",
    "NULLABLE",
    "ROWS",
    "Densities",
    "Events",
    "Flags",
    "Matrix",
    "PicturedRequest",
    "Request",
    "Response",
    "Returns",
    "Scores",
    "Vector",
    "array_of",
    "either",
    "validate",
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
CONTEXT = either("conditioning rows, [N, C]; or [C] for all rows", 1, 2)
NULLABLE: Final = {"type": ["number", "null"]}

Returns = Annotated[
    list[Literal["round_trip_error"]],
    Field(default_factory=list, alias="return", max_length=32, description="what to give beside the rest"),
]
Vector = Annotated[Any, array_of(1, "[N]")]
Densities = Annotated[Any, array_of(1, "log p(x) in nats, [N]; null where the density is zero", NULLABLE)]
Scores = Annotated[Any, array_of(1, "[N]; null where the density is zero", NULLABLE)]
Matrix = Annotated[Any, array_of(2, "[N, D]")]
Events = Annotated[Any, either("rows of data, [N, *event]", 2, 4)]
Flags = Annotated[Any, array_of(1, "[N]", {"type": "boolean"})]


class Request(BaseModel):
    """What every call may say: which flow answers."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False, protected_namespaces=())

    model: Annotated[
        str | None, Field(pattern=NAME_PATTERN, description="the flow; the server's default where none is named")
    ] = None
    version: Annotated[int | None, Field(ge=1, description="of the flow; the newest that is ready")] = None


class PicturedRequest(Request):
    """What every call may say whose answer can be a picture."""

    columns: Annotated[
        int | None,
        Field(
            ge=1, le=MAX_PIXELS, description="of a picture: images in a row of a grid, or columns of a table to show"
        ),
    ] = None
    size: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_SIZE,
            description="of a picture, in pixels: the longer side of each image, or the side of the picture of a table",
        ),
    ] = None


class Response(BaseModel):
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
    arguments = _without_the_rest(schema, arguments)
    read = as_declared(schema, arguments) if place == "query" else arguments
    try:
        return schema.model_validate(read, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        reasons = tuple(_reason(schema, fault, place) for fault in found[: PushforwardError.MAX_REASONS])
        first = reasons[0]
        raise InvalidArgument(f"{'.'.join(map(str, first.loc[1:]))}: {first.reason}", reasons) from None


def _without_the_rest(schema: type[Request], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out unknown arguments beyond those that are told: pydantic makes an error of each before it gives any."""
    if len(arguments) <= PushforwardError.MAX_REASONS:
        return arguments
    known = {field.alias or name for name, field in schema.model_fields.items()}
    unknown = itertools.islice((name for name in arguments if name not in known), PushforwardError.MAX_REASONS)
    kept = known.union(unknown)
    return {name: value for name, value in arguments.items() if name in kept}


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
