"""The key that a client sends: given by the caller, or by the environment. It is shown nowhere."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from typing import Final

import httpx

from pushforward.client.errors import InvalidInput

__all__ = ["KEY_VARIABLE", "BearerKey", "find_key"]

KEY_VARIABLE: Final = "PUSHFORWARD_KEY"
"""The environment variable that holds a key."""

_KEY: Final = re.compile(r"[A-Za-z0-9._~+/=-]+")


class BearerKey(httpx.Auth):
    """Puts a key into each request. It has no text of its own that would show it.

    Args:
        key: the key.

    Raises:
        InvalidInput: it holds what no key holds, such as a line end.
    """

    def __init__(self, key: str) -> None:
        if not _KEY.fullmatch(key):
            raise InvalidInput("the key holds characters that no key has, such as spaces or line ends")
        self._field = f"Bearer {key}"

    def __repr__(self) -> str:
        return "BearerKey(...)"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the field."""
        request.headers["Authorization"] = self._field
        yield request


def find_key(given: str | None) -> BearerKey | None:
    """The key to send; None for none.

    Args:
        given: by the caller; None to look into the environment. An empty text is no key.

    Raises:
        InvalidInput: it holds what no key holds.
    """
    key = (os.environ.get(KEY_VARIABLE, "") if given is None else given).strip()
    return BearerKey(key) if key else None
