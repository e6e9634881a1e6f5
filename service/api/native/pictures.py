"""Answers that are pictures: what a request may say of them, and what of it is refused."""

from __future__ import annotations

from typing import Any, Final

from service.api.codecs import wire
from service.api.codecs.codec import Codec
from service.api.native.arguments import Place, named, relocated
from service.api.native.fields import PicturedRequest
from service.engine.verbs.flow import ServedFlow
from service.errors import InvalidArgument, PushforwardError, Reason
from service.exchange import Reply
from service.pictures.options import Look, check_look

__all__ = ["check_picture", "look_of", "pictured"]


def look_of(codec: Codec, asked: PicturedRequest, place: Place) -> Look | None:
    """How the picture is to look that is asked for; None where the answer is none.

    Raises:
        InvalidArgument: columns or size, and no picture.
    """
    look = Look(asked.columns, asked.size)
    if codec is wire.PICTURE:
        return look
    for name, value in look._asdict().items():
        if value is not None:
            reason = f"it belongs to a picture; accept {wire.PICTURE.media_type}, or leave it out"
            raise InvalidArgument(f"{name}: {reason}", (Reason((place, name), reason),))
    return None


def check_picture(
    flow: ServedFlow,
    look: Look,
    count: int,
    main: str,
    argument: str,
    place: Place,
    across: int | None = None,
    walks: int = 1,
) -> None:
    """Hold a picture against its limits, as `service.pictures.options.check_look`, which has the rest.

    Args:
        flow: whose.
        look: how it is to look.
        count: how many rows it shows.
        main: the argument that stands in the body; empty for none.
        argument: the one that says how many rows.
        place: of the other arguments.
        across: see there.
        walks: how many the main argument asks for.
    """
    try:
        check_look(flow.event_shape, look, count, argument, across=across, walks=(main, walks))
    except PushforwardError as error:
        raise relocated(error, main, place) from error


def pictured(flow: ServedFlow, picture: bytes, **told: Any) -> Reply:  # noqa: ANN401  what an answer says beside arrays
    """The reply that is a picture.

    Args:
        flow: whose.
        picture: the file.
        told: what else the answer says, for the header.
    """
    return wire.encode(wire.PICTURE, {**named(flow), **told, _PICTURE: picture}, _PICTURE, ())


_PICTURE: Final = "picture"
