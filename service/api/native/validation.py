"""Arguments held against their declaration: JSON's own types, and an error for each argument that is at fault."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from service.api.codecs.items import Items
from service.api.codecs.query import as_declared
from service.api.native.fields import VerbRequest
from service.errors import InvalidArgument, PushforwardError, Reason

__all__ = ["validate"]

R = TypeVar("R", bound=VerbRequest)


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


def _without_the_rest(schema: type[VerbRequest], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out unknown arguments beyond those that are told: pydantic makes an error of each before it gives any."""
    if len(arguments) <= PushforwardError.MAX_REASONS:
        return arguments
    known = {field.alias or name for name, field in schema.model_fields.items()}
    unknown = itertools.islice((name for name in arguments if name not in known), PushforwardError.MAX_REASONS)
    kept = known.union(unknown)
    return {name: value for name, value in arguments.items() if name in kept}


def _reason(schema: type[VerbRequest], fault: Mapping[str, Any], place: str) -> Reason:
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
    if isinstance(value, Items) and fault["type"] == "list_type":
        return Reason(loc, "the list is longer than any that this argument takes")
    scalar = isinstance(value, (str, int, float, bool, type(None)))
    came = f", and is {json.dumps(value, ensure_ascii=False):.64}" if scalar else ""
    return Reason(loc, message + came)
