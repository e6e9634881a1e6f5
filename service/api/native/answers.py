"""The answers of the native verbs: what a verb found, written as numbers or drawn as a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Final

from service.api.codecs import wire
from service.api.codecs.codec import Answer, Codec, Form
from service.api.native.fields import PictureRequest
from service.api.native.places import Place, locate_error, locate_errors, refusal
from service.drawing import Drawing, draw, map_rows
from service.engine.verbs.flow import ServedFlow
from service.errors import InvalidArgument, PushforwardError, Reason
from service.exchange import Reply
from service.guard import check_work
from service.pictures.options import Extent, PictureOptions, check_picture
from service.plan import Plan

__all__ = ["AnswerWriter", "answer_form", "answer_writer", "flow_identity", "require_room"]

_PICTURE: Final = "picture"


def flow_identity(flow: ServedFlow) -> dict[str, Any]:
    """The beginning of every answer: which flow gave it, and its precision where that is not float32."""
    identity: dict[str, Any] = {"model": flow.manifest.name, "version": flow.manifest.version}
    precision = flow.manifest.precision
    return identity if precision == "float32" else identity | {"precision": precision}


def answer_form(flow: ServedFlow, main: str) -> Form:
    """The form of an answer of a flow, whose main array is this one."""
    return Form(main, flow.features, flow.conditions)


def require_room(codec: Codec, main: str, place: Place, more: str | None) -> None:
    """Refuse what an answer of one array has no room for.

    Args:
        codec: of the answer.
        main: the array.
        place: where the arguments stood.
        more: the argument that asks for more than that; None where none does.

    Raises:
        InvalidArgument: the codec's type carries one array, and more is asked for.
    """
    if codec.single and more is not None:
        detail = f"{codec.media_type} has room for {main} alone; accept another type"
        raise InvalidArgument(detail, (Reason((place, more), detail),))


class AnswerWriter(ABC):
    """The way from what a verb found to its reply."""

    @abstractmethod
    def check(self, flow: ServedFlow, extent: Extent) -> None:
        """Hold the answer against the limits of its kind, before anything is computed.

        Args:
            flow: whose answer it is.
            extent: how much a picture would show.

        Raises:
            InvalidArgument, NotAcceptable: from `service.pictures.options.check_picture`.
        """

    @abstractmethod
    def check_map(self, flow: ServedFlow, rows: int, budget: int, loc: tuple[str, ...]) -> None:
        """Hold the runs for a map of the density against the work budget, beside the verb's own.

        Args:
            flow: whose answer it is.
            rows: of the answer.
            budget: in values.
            loc: the argument that asks for the rows.

        Raises:
            OverWorkBudget: they are too many together.
        """

    @abstractmethod
    def write(self, flow: ServedFlow, answer: Answer, main: str, drawing: Drawing) -> Plan[Reply]:
        """The reply.

        Args:
            flow: whose answer it is.
            answer: names -> values in their order.
            main: the array that a type carries which has room for one.
            drawing: what a picture of the answer shows.

        Raises:
            NotAcceptable: the media type has no room for this answer.
            NotFinite, EngineFailed: from `service.drawing.draw`.
        """


class _NumberWriter(AnswerWriter):
    """An answer as arrays and numbers, in the media type of a codec."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def check(self, flow: ServedFlow, extent: Extent) -> None:
        """Pass: numbers have no limit but the work budget."""

    def check_map(self, flow: ServedFlow, rows: int, budget: int, loc: tuple[str, ...]) -> None:
        """Pass: there is no map."""

    def write(self, flow: ServedFlow, answer: Answer, main: str, drawing: Drawing) -> Plan[Reply]:  # noqa: ARG002
        yield from ()
        return wire.encode(self._codec, answer, answer_form(flow, main))


class _PictureWriter(AnswerWriter):
    """An answer as a picture.

    Args:
        options: from the caller.
        argument: the one that stands in the body; empty for none.
        place: of all others.
    """

    def __init__(self, options: PictureOptions, argument: str, place: Place) -> None:
        self._options = options
        self._argument = argument
        self._place = place

    def check(self, flow: ServedFlow, extent: Extent) -> None:
        try:
            check_picture(flow.event_shape, self._options, extent)
        except PushforwardError as error:
            raise locate_error(error, self._argument, self._place) from error

    def check_map(self, flow: ServedFlow, rows: int, budget: int, loc: tuple[str, ...]) -> None:
        check_work(rows + map_rows(flow), flow.event_width, 1, budget, loc)

    def write(self, flow: ServedFlow, answer: Answer, main: str, drawing: Drawing) -> Plan[Reply]:  # noqa: ARG002
        picture = yield from locate_errors(draw(flow, drawing, self._options), self._argument, self._place)
        return wire.encode(wire.PICTURE, {**answer, _PICTURE: picture}, Form(_PICTURE, ()))


def answer_writer(codec: Codec, asked: PictureRequest, argument: str, place: Place) -> AnswerWriter:
    """The writer of an answer that may be a picture.

    Args:
        codec: from `service.api.codecs.wire.accepted`.
        asked: the arguments.
        argument: the one that stands in the body; empty for none.
        place: of all others.

    Raises:
        InvalidArgument: columns or size are given, and the answer is no picture.
    """
    if codec is wire.PICTURE:
        return _PictureWriter(PictureOptions(asked.columns, asked.size), argument, place)
    for name, value in (("columns", asked.columns), ("size", asked.size)):
        if value is not None:
            reason = f"it belongs to a picture; accept {wire.PICTURE.media_type}, or leave it out"
            raise refusal(name, reason, place)
    return _NumberWriter(codec)
