"""The reading of many small requests: what each asks for, where that can be told at little cost.

Clients send other rows each time, and the same arguments beside them. The rows are taken out, and what is left is held
against the verb's schema once: it is remembered by its text. What is in any way odd has no reading here. Its verb,
which knows every case and every error, is asked alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl

import orjson

from service.api.codecs import wire
from service.api.codecs.codec import Codec
from service.api.codecs.query import query_arguments
from service.api.grouped.rows import Piece
from service.api.native.backend import Backend
from service.api.native.fields import PictureRequest, VerbRequest
from service.api.native.places import Place
from service.api.native.validation import validate
from service.engine.verbs.flow import ServedFlow
from service.errors import PushforwardError
from service.exchange import Body, Exchange
from service.remembered import remember

__all__ = ["Asked", "Parcel", "Question", "Reader"]

R = TypeVar("R", bound=VerbRequest)


class Question(Protocol):
    """What one of many requests says that its head does not."""

    @property
    def query(self) -> bytes:
        """As it came."""
        ...

    @property
    def body(self) -> Body:
        """Whole."""
        ...


_NOTHING: Final = b"{}"

_LONGEST: Final = 512
"""In bytes; arguments and heads with a longer text are read each time."""


class _Unknown:
    """What stands for arguments that have not been read yet."""


_UNKNOWN: Final = _Unknown()


class Parcel(NamedTuple):
    """Requests with one head.

    Args:
        common: what the head says.
        questions: what each says beside it.
    """

    common: Exchange
    questions: Sequence[Question]


class Asked(Generic[R]):
    """What one request asks for.

    Args:
        types: of its head.
        place: of the request among all that were asked.
        flow: that is to answer.
        arguments: beside the rows, as the schema holds them.
        apart: name -> value of those that were taken out, as they came.

        json: whether the answer is JSON.

    Attributes:
        rows: of the main argument, once they are read.
        context: as many rows; None for a flow without.
        shared: whether all of its rows have the same context, which was given once.
        size: the values of its answer.
        width: of its rows, in values; those of data and of latents may differ.
        start: of a draw, the seed and its first row.
    """

    __slots__ = (
        "apart",
        "arguments",
        "codec",
        "context",
        "flow",
        "json",
        "place",
        "rows",
        "shared",
        "size",
        "start",
        "width",
    )

    rows: Piece
    context: Piece | None
    shared: bool
    size: int
    start: tuple[int, int]
    width: int

    def __init__(self, types: Types, place: int, flow: ServedFlow, arguments: R, apart: Mapping[str, Any]) -> None:
        self.place = place
        self.flow = flow
        self.codec = types.codec
        self.json = types.answers_json
        self.arguments = arguments
        self.apart = apart


class Types(NamedTuple):
    """The media types of a head.

    Args:
        codec: of the answer.
        answers_json: whether that is JSON.
        json: whether the body is.
    """

    codec: Codec
    answers_json: bool
    json: bool


class Head(NamedTuple, Generic[R]):
    """What a head says, read once for all of its requests, and what they mean by it."""

    common: Exchange
    types: Types
    meant: dict[bytes, tuple[ServedFlow, R] | None]


class Reader(Generic[R]):
    """The reader of one verb's requests.

    Args:
        backend: finds the flows.
        schema: of the verb's arguments.
        main: the argument that a body is which is not JSON; empty for a verb without a body.
        apart: the arguments that differ from request to request, by name: each with a value that the schema takes in
            its place.
        cut: takes texts that differ from request to request out of a query; None to take none.
    """

    def __init__(
        self,
        backend: Backend,
        schema: type[R],
        main: str,
        apart: Mapping[str, Any],
        cut: Callable[[bytes], tuple[bytes, dict[str, Any]] | None] | None = None,
    ) -> None:
        self._backend = backend
        self._schema = schema
        self._main = main
        self._apart = apart
        self._cut = cut
        self._known: dict[tuple[bytes, Place], R | None] = {}
        self._types: dict[tuple[str | None, str | None], Types | None] = {}
        self._pictures = issubclass(schema, PictureRequest)

    def read(self, parcels: Sequence[Parcel]) -> list[Asked[R]]:
        """The requests that can be read here, in their order."""
        found: list[Asked[R]] = []
        at = 0
        main = self._main
        for common, questions in parcels:
            types = self._types_of(common)
            if types is None:
                at += len(questions)
                continue
            head: Head[R] = Head(common, types, {})
            read = self._from_query if not main else self._from_json if types.json else self._from_array
            for question in questions:
                asked = read(head, at, question)
                if asked is not None:
                    found.append(asked)
                at += 1
        return found

    def _types_of(self, common: Exchange) -> Types | None:
        """The media types of a head, which many have in common; None where its requests cannot be read here."""
        kind = common.content_type, common.accept
        if kind in self._types:
            return self._types[kind]
        found = None
        with suppress(PushforwardError):  # told by the verb
            codec = wire.accepted(common, pictures=self._pictures)
            if codec is not wire.PICTURE and wire.is_in_utf8(common.content_type):
                found = Types(codec, codec.media_type == "application/json", wire.is_json(common.content_type))
        if sum([len(field or "") for field in kind]) <= _LONGEST:
            remember(self._types, kind, found)
        return found

    def _from_json(self, head: Head[R], place: int, question: Question) -> Asked[R] | None:
        if question.query:
            return None
        try:
            given = orjson.loads(question.body)
        except orjson.JSONDecodeError:
            return None
        if type(given) is not dict:
            return None
        if len(given) == 1 and self._main in given:
            meant, apart = head.meant.get(_NOTHING) or self._meant(head, _NOTHING, {}), given
        else:
            apart = {name: given.pop(name) for name in self._apart if name in given}
            meant = self._meant(head, orjson.dumps(given), given)
        return None if meant is None else Asked(head.types, place, meant[0], meant[1], apart)

    def _from_query(self, head: Head[R], place: int, question: Question) -> Asked[R] | None:
        query = question.query
        taken = (query, {}) if self._cut is None else self._cut(query)
        if question.body or taken is None:
            return None
        rest, apart = taken
        meant = self._meant(head, rest, None)
        return None if meant is None else Asked(head.types, place, meant[0], meant[1], apart)

    def _from_array(self, head: Head[R], place: int, question: Question) -> Asked[R] | None:
        array = wire.array(head.common.content_type, question.body, self._main)
        meant = None if array is None else self._meant(head, question.query, None)
        return None if meant is None else Asked(head.types, place, meant[0], meant[1], {self._main: array})

    def _meant(self, head: Head[R], text: bytes, given: dict[str, Any] | None) -> tuple[ServedFlow, R] | None:
        """The flow that is meant, and the arguments as the schema holds them; None where either is refused.

        Args:
            head: of the request.
            text: of the arguments; it stands for all that are the same.
            given: the arguments; None to read them from the text, which is a query.
        """
        if text in head.meant:
            return head.meant[text]
        found = None
        arguments = self._asked(text, given, "query" if given is None else "body")
        if arguments is not None:
            with suppress(PushforwardError):  # told by the verb
                found = self._backend.find_flow(head.common, arguments, "body"), arguments
        head.meant[text] = found
        return found

    def _asked(self, text: bytes, given: dict[str, Any] | None, place: Place) -> R | None:
        """Arguments as the schema holds them; None where they are refused.

        Args:
            text: of the arguments; it stands for all that are the same.
            given: the arguments; None to read them from the text, which is a query.
            place: where they stood.
        """
        known = self._known.get((text, place), _UNKNOWN)
        if not isinstance(known, _Unknown):
            return known
        arguments: R | None = None
        with suppress(PushforwardError):  # told by the verb
            arguments = self._validated(_parsed(text) if given is None else given, place)
        if len(text) <= _LONGEST:
            remember(self._known, (text, place), arguments)
        return arguments

    def _validated(self, given: dict[str, Any], place: Place) -> R | None:
        if place == "query" and self._main in given:  # it is given twice, which the verb tells
            return None
        instead = self._apart if place == "body" else {name: self._apart[name] for name in (self._main,) if name}
        arguments = validate(self._schema, {**instead, **given}, place)
        if isinstance(arguments, PictureRequest) and (arguments.columns is not None or arguments.size is not None):
            return None
        return arguments


def _parsed(query: bytes) -> dict[str, Any]:
    return query_arguments(tuple(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))
