"""Bytes <-> arguments and answers, by media type. A further type is one more codec in `CODECS`."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from service.api.codecs.arrow import Arrow
from service.api.codecs.codec import Answer, Array, Codec, Form, StreamCodec
from service.api.codecs.csv import Csv
from service.api.codecs.json import Json
from service.api.codecs.ndjson import Ndjson
from service.api.codecs.npy import Npy
from service.api.codecs.png import Png
from service.api.codecs.query import query_arguments
from service.errors import InvalidArgument, NotAcceptable, PushforwardError, Reason, UnsupportedMediaType
from service.exchange import Body, Exchange, Reply

__all__ = [
    "CODECS",
    "PICTURE",
    "Arguments",
    "accepted",
    "answer_headers",
    "array",
    "decode",
    "encode",
    "holds_all",
    "is_in_utf8",
    "is_json",
    "require_json",
    "streaming",
    "takes_long",
]

_JSON: Final = Json()
_NPY: Final = Npy()
_STREAMS: Final[Mapping[str, StreamCodec]] = {codec.media_type: codec for codec in (_NPY, Arrow(), Ndjson(), Csv())}

PICTURE: Final[Codec] = Png()
"""A picture of an answer, which only some calls have."""

CODECS: Final[Mapping[str, Codec]] = {_JSON.media_type: _JSON, **_STREAMS, PICTURE.media_type: PICTURE}
"""Media type -> codec; the first is written for whoever accepts anything."""

_UTF8: Final = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})
"""Charsets of which UTF-8 is one, or holds all texts."""

_BINARY: Final = frozenset({Npy.media_type, Arrow.media_type})

_NOT_AN_OBJECT: Final = re.compile(rb"\s*[^\s{]")

_WEIGHT: Final = re.compile(r"0?\.[0-9]+|0\.?|1(?:\.0*)?")
"""A weight of an Accept header, from 0 to 1 (RFC 9110, section 12.4.2). Some clients leave the 0 out."""

_FORM = "application/x-www-form-urlencoded"

_LONG: Final = 1 << 16
"""In bytes; a longer body takes the event loop too long, half a millisecond in JSON."""

_LONG_ARRAY: Final = 1 << 20
"""The same of .npy, whose numbers are read where they lie."""


class Arguments(NamedTuple):
    """What a call was given.

    Args:
        values: name -> value; arrays as `service.api.codecs.codec.Codec.decode` gives them.
        place: where those beside the arrays stood.
    """

    values: Mapping[str, Any]
    place: Literal["body", "query"]


def decode(exchange: Exchange, main: str) -> Arguments:
    """The arguments of an exchange, by its Content-Type.

    A JSON body holds all of them. A body of another type is the main argument, and the others stand in the query.

    A missing Content-Type is read as JSON, and so is the one that curl -d sends of itself where the body begins as
    a JSON object does: people type that.

    Args:
        exchange: with its body.
        main: the argument that a body is which holds one array.

    Raises:
        UnsupportedMediaType: no codec reads it, or it is a text in another charset than UTF-8.
        MalformedBody, InvalidArgument: from the codec.
    """
    named = _without_parameters(exchange.content_type or "")
    _require_utf8(exchange)
    if holds_all(exchange):
        if exchange.query:
            name = exchange.query[0][0][:64]
            detail = f"{name!r} stands in the query; a call with a JSON body takes all of its arguments there"
            raise InvalidArgument(detail, (Reason(("query", name), "put it into the body"),))
        return Arguments(_JSON.decode(exchange.body, main, exchange.watch), "body")
    codec = CODECS.get(named)
    if codec is None:
        raise UnsupportedMediaType(f"a body of type {named[:100]!r} cannot be read; send {_LISTED}")
    values = query_arguments(exchange.query)
    arrays = codec.decode(exchange.body, main, exchange.watch)
    if twice := values.keys() & {main, *arrays}:
        detail = f"{min(twice)} stands in the query, and the body holds it"
        raise InvalidArgument(detail, tuple(Reason(("query", name), "the body holds it") for name in sorted(twice)))
    return Arguments({**values, **arrays}, "query")


def holds_all(exchange: Exchange) -> bool:
    """Whether the body is JSON and holds all arguments, as `decode` reads it."""
    if is_json(exchange.content_type):
        return True
    return _without_parameters(exchange.content_type or "") == _FORM and _NOT_AN_OBJECT.match(exchange.body) is None


def holds_rows_only(content_type: str | None) -> bool:
    """Whether a body of this Content-Type holds rows, and none of the other arguments."""
    return _without_parameters(content_type or "") not in ("", _JSON.media_type, _FORM)


def takes_long(content_type: str | None, size: int) -> bool:
    """Whether the event loop is not to wait until a body of so many bytes has been read."""
    if size <= _LONG:
        return False
    return size > _LONG_ARRAY or _without_parameters(content_type or "") != Npy.media_type


def is_json(content_type: str | None) -> bool:
    """Whether a body of this Content-Type is read as JSON whatever it holds: JSON's own, or none."""
    return _without_parameters(content_type or "") in ("", _JSON.media_type)


def is_in_utf8(content_type: str | None) -> bool:
    """Whether a text of this Content-Type is read as UTF-8, whatever it holds."""
    return content_type is None or ";" not in content_type or _charset(content_type) in _UTF8


def array(content_type: str | None, body: Body, main: str) -> Array | None:
    """The array that a body of `Npy` is; None where it is none, or of another type."""
    if _without_parameters(content_type or "") != Npy.media_type:
        return None
    try:
        found: Array = _NPY.decode(body, main)[main]
    except PushforwardError:
        return None
    return found


def _require_utf8(exchange: Exchange) -> None:
    """Refuse a text whose Content-Type names another charset, unless it is ASCII and so the same in nearly every one.

    Raises:
        UnsupportedMediaType: the charset is named.
    """
    content_type = exchange.content_type or ""
    charset = _charset(content_type) if ";" in content_type else ""
    if charset in _UTF8 or _without_parameters(content_type) in _BINARY:
        return
    if not exchange.body.isascii() or b"\0" in exchange.body:
        detail = f"a body with charset {charset[:64]!r} cannot be read; send it in UTF-8, with charset=utf-8 or none"
        raise UnsupportedMediaType(detail)


@functools.lru_cache(maxsize=64)
def _charset(content_type: str) -> str:
    """The charset that a Content-Type names; empty where it names none (RFC 9110, section 8.3.2)."""
    pairs = (part.strip().partition("=") for part in content_type.split(";")[1:])
    found = (value.strip().strip('"').lower() for name, _, value in pairs if name.strip().lower() == "charset")
    return next(found, "")


@functools.lru_cache(maxsize=64)  # clients send the same few headers all the time
def _without_parameters(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def accepted(exchange: Exchange, *, pictures: bool = False) -> Codec:
    """The codec for the answer, by Accept: the first of the types with the greatest weight that can be written.

    Args:
        exchange: with its Accept.
        pictures: whether there is a picture of the answer.

    Raises:
        NotAcceptable: none of them can.
    """
    return CODECS[_chosen(exchange.accept or "*/*", tuple(CODECS) if pictures else _BOTH_WAYS)]


def require_json(accept: str | None) -> None:
    """Hold an Accept header against an answer that is JSON whatever is asked.

    Raises:
        NotAcceptable: it asks for something else.
    """
    _chosen(accept or "*/*", (_JSON.media_type,))


def streaming(codec: Codec) -> StreamCodec | None:
    """The codec, if it can write an answer row by row."""
    return _STREAMS.get(codec.media_type)


@functools.lru_cache(maxsize=64)
def _chosen(accept: str, offered: tuple[str, ...]) -> str:
    """The media type of those that are offered that an Accept header asks for."""
    wanted = sorted(_weighted(accept if accept.strip() else "*/*"), key=lambda pair: -pair[1])
    refused = {media_type for media_type, weight in wanted if weight <= 0}
    for media_type, weight in wanted:
        kind = media_type.removesuffix("*") if media_type != "*/*" else ""
        for name in offered:
            matches = name == media_type or (media_type.endswith("/*") and name.startswith(kind))
            if weight > 0 and matches and name not in refused:
                return name
    raise NotAcceptable(f"an answer of type {accept[:100]!r} cannot be written; accept {' or '.join(offered)}")


def _weighted(accept: str) -> list[tuple[str, float]]:
    """Each media type of an Accept header and its weight (RFC 9110, section 12.5.1)."""
    pairs = []
    for item in accept.split(","):
        media_type, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        pairs.append((media_type, float(weight) if _WEIGHT.fullmatch(weight) else 0.0))
    return pairs


_BOTH_WAYS: Final = tuple(name for name in CODECS if name != PICTURE.media_type)
_LISTED: Final = " or ".join(_BOTH_WAYS)


def encode(codec: Codec, answer: Answer, form: Form) -> Reply:
    """An answer as a reply of the codec's media type.

    Args:
        codec: from `accepted`.
        answer: names -> values in their order.
        form: what is not in them.

    Raises:
        NotAcceptable: the type has no room for this answer.
    """
    if codec is _JSON:
        return Reply(_JSON.encode(answer))
    return Reply(codec.encode(answer, form), media_type=codec.media_type, headers=answer_headers(answer))


def answer_headers(answer: Answer) -> dict[str, str]:
    """The header fields of an answer, for all that is no array: `Pushforward-Model`, `Pushforward-Seed` and so on."""
    plain = {name: value for name, value in answer.items() if isinstance(value, (str, int, float))}
    return {f"Pushforward-{name.title()}": str(value) for name, value in plain.items()}
