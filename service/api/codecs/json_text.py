"""JSON text that is read the slow way: with NaN, and with what to tell of a body that is no JSON object."""

from __future__ import annotations

import codecs
import json
from typing import Any

import orjson

from service.errors import InvalidArgument, Reason
from service.exchange import Body

__all__ = ["begins_as_utf16", "not_an_object", "parse_json"]


def begins_as_utf16(text: Body) -> bool:
    """Whether a text begins as one in UTF-16 or UTF-32 does."""
    return text[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in text[:4]


def not_an_object(kind: str) -> InvalidArgument:
    """The error for a body that is JSON, and no object."""
    detail = f"the body must be a JSON object, and is {kind}"
    return InvalidArgument(detail, (Reason(("body",), "expected an object of named arguments"),))


def parse_json(text: Body) -> Any:  # noqa: ANN401
    """Read one JSON value, with NaN and Infinity: Python's json.dumps writes them, unasked.

    Raises:
        orjson.JSONDecodeError: it is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        lacking = b"NaN" in text or b"Infinity" in text or "infinity" in error.msg
        if lacking and b"\\u" not in text:  # an escaped half of a character could not be told back
            try:
                return json.loads(text, parse_int=_integer)
            except (ValueError, RecursionError):
                pass  # the first error is the one to tell
        raise


def _integer(text: str) -> int | float:
    return int(text) if len(text) < 20 else float(text)
