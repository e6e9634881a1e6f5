"""The id of a request: the client's own, or one made here. It is in the answer, in a problem, and in the log."""

from __future__ import annotations

import itertools
import re
import secrets
from typing import Final

__all__ = ["ID_FIELD", "RequestIds", "read_request_id"]

ID_FIELD: Final = "x-request-id"

_READABLE: Final = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")


def read_request_id(value: bytes) -> bytes | None:
    """A client's id; None where it is longer than 128 characters, or holds any that is not printable ASCII."""
    return value if _READABLE.fullmatch(value) else None


class RequestIds:
    """Ids that no other process has made: a random start, and a number."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(8).encode()
        self._numbers = itertools.count(1)

    def make(self) -> bytes:
        """A new id."""
        return b"%b-%x" % (self._start, next(self._numbers))
