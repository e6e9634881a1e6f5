"""The origins whose pages may use a server: its own, and those that are named (CORS).

A browser sends a form or a text of any page to any server without asking. A request that could change or cost
something, and that a browser says a foreign page has made, is therefore refused, whatever its media type. Programs
send neither Origin nor Sec-Fetch-Site.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from service.access.hosts import split_authority

__all__ = ["Origins", "is_preflight"]

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS: Final = {"http": 80, "https": 443}
_METHODS: Final = "GET, HEAD, POST, PUT, DELETE"
_REQUEST_FIELDS: Final = "Accept, Authorization, Content-Type, Pushforward-Timeout-Ms, X-Request-Id"
_ANSWER_FIELDS: Final = "*, Retry-After, X-Request-Id"
_KEPT_SECONDS: Final = 600


def is_preflight(method: str, fields: Mapping[str, str]) -> bool:
    """Whether a browser asks if a page may make a request.

    Args:
        method: of the request.
        fields: by their names in lower case.
    """
    return method == "OPTIONS" and "origin" in fields and "access-control-request-method" in fields


class Origins:
    """The origins of one server.

    Args:
        named: origins such as ``https://example.org``; ``*`` is every origin.
    """

    def __init__(self, named: Iterable[str] = ()) -> None:
        self._named = frozenset(name.lower().removesuffix("/") for name in named)
        self.any_named = bool(self._named)

    def allow(self, origin: str) -> bool:
        """Whether pages of an origin are named."""
        return "*" in self._named or origin.lower() in self._named

    def is_foreign(self, method: str, fields: Mapping[str, str]) -> bool:
        """Whether a request that is not safe comes from a page that is neither the server's own nor named.

        Args:
            method: of the request.
            fields: by their names in lower case.
        """
        if method in _SAFE_METHODS:
            return False
        origin, site = fields.get("origin"), fields.get("sec-fetch-site")
        if origin is not None and self.allow(origin):
            return False
        if site is not None and site.strip().lower() not in ("same-origin", "none"):
            return True
        return origin is not None and not _is_own(origin, fields.get("host", ""))

    def answer_fields(self, origin: str | None) -> dict[str, str]:
        """The header fields of an answer by which the browser gives it to a page."""
        if not self.any_named:
            return {}
        if origin is None or not self.allow(origin):
            return {"Vary": "Origin"}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": _ANSWER_FIELDS,
            "Vary": "Origin",
        }

    def preflight_fields(self, fields: Mapping[str, str]) -> dict[str, str]:
        """The header fields of an answer to a preflight of a named origin, beside `answer_fields`.

        Args:
            fields: of the request, by their names in lower case.
        """
        answer = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _REQUEST_FIELDS,
            "Access-Control-Max-Age": str(_KEPT_SECONDS),
        }
        if fields.get("access-control-request-private-network", "").lower() == "true":
            answer["Access-Control-Allow-Private-Network"] = "true"
        return answer


def _is_own(origin: str, host: str) -> bool:
    """Whether an origin is the server's own, as the Host field of the same request names it."""
    scheme, _, authority = origin.partition("://")
    theirs, own = split_authority(authority), split_authority(host)
    usual = _PORTS.get(scheme.lower())
    if theirs is None or own is None or usual is None:  # such as null, the origin of a page in a sandbox
        return False
    return theirs[0] == own[0] and (theirs[1] or usual) == (own[1] or usual)
