"""`image/png`: a picture of the rows, which `service.pictures` has drawn. It is written and never read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.api.codecs.codec import Answer, Form
from service.errors import NotAcceptable, UnsupportedMediaType
from service.exchange import UNWATCHED, Body, Watch

__all__ = ["Png"]


class Png:
    """One picture, out only: the main value is the file, and the rest of the answer stands in the header."""

    media_type = "image/png"
    single = True

    def decode(self, _: Body, main: str, watch: Watch = UNWATCHED) -> Mapping[str, Any]:  # noqa: ARG002  never read
        """Refuse: a picture is no exact copy of the rows in it.

        Raises:
            UnsupportedMediaType: always.
        """
        detail = f"a body of type 'image/png' is never read; send application/json, or another type that holds {main}"
        raise UnsupportedMediaType(detail)

    def encode(self, answer: Answer, form: Form) -> bytes:
        """The picture.

        Raises:
            NotAcceptable: nobody has drawn one.
        """
        picture = answer.get(form.main)
        if not isinstance(picture, bytes):
            raise NotAcceptable("there is no picture of this answer; accept application/json")
        return picture
