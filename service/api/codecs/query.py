"""The arguments of a query: each text becomes the number, or the boolean, that its argument is declared as.

A boolean is true or false, and an integer is written as one. Any other number is one by the rule of `service.tabular`,
without the plus sign and the spaces that a cell of a table may have: in a query both are more likely a mistake of
encoding.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, get_args

from pydantic import BaseModel

from service.errors import InvalidArgument, Reason
from service.tabular import parse_number

__all__ = ["LISTS", "as_declared", "query_arguments", "query_number"]

LISTS: Final = frozenset({"context", "hpd", "log_target", "quantiles", "strength"})
"""The arguments that are lists of numbers, with commas between them."""


def query_arguments(query: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The arguments in a query: lists have commas, `return` of names, and those of `LISTS` of numbers.

    Args:
        query: name and text of each parameter.

    Raises:
        InvalidArgument: one stands there twice, or a list of numbers holds something that is no number.

    Example:
        >>> query_arguments((("n", "5"), ("context", "0.5,1")))
        {'n': '5', 'context': [0.5, 1.0]}
    """
    twice = [name for name, count in Counter(name for name, _ in query).items() if count > 1]
    if twice:
        detail = f"{twice[0][:64]} is given more than once"
        raise InvalidArgument(detail, tuple(Reason(("query", name[:64]), "is given more than once") for name in twice))
    arguments: dict[str, Any] = dict(query)
    for name in LISTS & arguments.keys():
        arguments[name] = _numbers(name, arguments[name])
    if "return" in arguments:
        arguments["return"] = [name for name in arguments["return"].split(",") if name]
    return arguments


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [query_number(part) for part in text.split(",")]
    except ValueError:
        detail = f"{name} must be numbers with commas between them, and is {text[:64]!r}"
        raise InvalidArgument(detail, (Reason(("query", name), detail),)) from None


def as_declared(schema: type[BaseModel], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Read each text where the schema declares a number or a boolean.

    Args:
        schema: the arguments of a call.
        arguments: name -> text.

    Returns:
        Name -> number, or the text as it came where it is none: it is for the schema to refuse it.

    Example::

        as_declared(SampleRequest, {"n": "5", "seed": "1.0"})  # {"n": 5, "seed": "1.0"}
    """
    readers = _readers(schema)
    return {name: _read(value, readers[name]) if name in readers else value for name, value in arguments.items()}


def query_number(text: str) -> float:
    """Read a text of a query that is a number.

    Raises:
        ValueError: it is none.

    Example:
        >>> query_number("-1.5e3")
        -1500.0
    """
    if text.startswith("+") or text.strip() != text:
        raise ValueError(f"could not convert {text!r} to a number")
    return parse_number(text)


def _to_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _to_integer(text: str) -> int:
    if re.fullmatch("-?[0-9]+", text) is None:
        raise ValueError(text)
    return int(text)


@functools.cache
def _readers(schema: type[BaseModel]) -> Mapping[str, Callable[[str], float]]:
    """Argument -> how its text is read, for each that is a number, or true or false."""
    readers: dict[Any, Callable[[str], float]] = {bool: _to_boolean, int: _to_integer, float: query_number}
    return {
        field.alias or name: readers[kind]
        for name, field in schema.model_fields.items()
        for kind in (field.annotation, *get_args(field.annotation))
        if kind in readers
    }


def _read(text: str, reader: Callable[[str], float]) -> float | str:
    try:
        return reader(text)
    except ValueError:
        return text
