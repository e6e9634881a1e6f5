"""The access policy: the one place that says whether a request may be answered. Both doors ask it, with the same words.

A request passes if it names this server, comes from no foreign page, and brings a key that may do what it asks for and
has not used up its budget. Without keys anyone may ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from service.access.hosts import AllowedHosts
from service.access.keys import Caller, KeyRing
from service.access.origins import Origins
from service.access.scopes import Scope, required_scope
from service.errors import (
    ForeignOrigin,
    KeyMissing,
    KeyUnknown,
    MisdirectedRequest,
    RouteNotFound,
    ScopeMissing,
)

__all__ = ["AccessPolicy", "by_name"]

_ASK: Final = "send the header Authorization: Bearer KEY"

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
"""A character that no path of the server holds. The patterns of the routes end in ``$``, which passes over a line end:
the route ``/metrics`` would answer ``/metrics%0A``, which needs another scope."""


def by_name(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """The header fields of a request by their names in lower case. One that stands there twice has both values."""
    found: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


class AccessPolicy:
    """The access policy of one server.

    Args:
        keys: who may ask; None for anyone.
        hosts: the names of the server.
        origins: whose pages may use it.
        separate: whether `admin` and `metrics` are answered at a port of their own, and nothing else there.
    """

    def __init__(
        self,
        keys: KeyRing | None = None,
        hosts: AllowedHosts | None = None,
        origins: Origins | None = None,
        *,
        separate: bool = False,
    ) -> None:
        self.keys = keys
        self.hosts = hosts or AllowedHosts()
        self.origins = origins or Origins()
        self._separate = separate

    def check_host(self, fields: Mapping[str, str]) -> None:
        """Hold the Host field against the names of the server. A request of HTTP/1.0 may have none.

        Raises:
            MisdirectedRequest: it names another.
        """
        host = fields.get("host")
        if host and not self.hosts.allow(host):
            raise MisdirectedRequest(
                f"this server is not known as {host[:100]!r}. Start it with --allowed-host and the name if it is, or "
                "ask for its address"
            )

    def admit(self, method: str, path: str, fields: Mapping[str, str], *, at_admin_port: bool = False) -> Caller | None:
        """Let a request through, and take it off the budget of its key.

        Args:
            method: of the request.
            path: as the routes see it: decoded, without a prefix. The template of a route is as good.
            fields: by their names in lower case, as `by_name` gives them.
            at_admin_port: whether it came in at the port of `admin` and `metrics`.

        Returns:
            Who asks; None where anyone may.

        Raises:
            MisdirectedRequest: the Host field names another server.
            ForeignOrigin: a page of another origin asks for more than to read.
            RouteNotFound: the path is answered at another port, or is none of a server's.
            KeyMissing, KeyUnknown: there is no key, or none of the server's.
            ScopeMissing: the key may not do this.
            BudgetSpent: the key has made its requests of this minute.
        """
        self.check_host(fields)
        if self.origins.is_foreign(method, fields):
            raise ForeignOrigin(
                f"a page of another origin ({fields.get('origin', 'unknown')[:100]}) may not call this server; start "
                "it with --cors-origin and that origin if it may"
            )
        scope = required_scope(path)
        if scope is None:
            return None
        if self._separate and (scope == "infer") == at_admin_port:
            raise RouteNotFound("there is no such route at this port: administration and metrics have one of their own")
        caller = None if self.keys is None else self._caller(fields.get("authorization"), scope)
        if _CONTROL.search(path):
            raise RouteNotFound("there is no such route: the path holds a control character")
        if caller is not None:
            caller.take_request()
        return caller

    def _caller(self, field: str | None, scope: Scope) -> Caller:
        """Who asks.

        Args:
            field: the Authorization of the request, or None.
            scope: that the request needs.
        """
        if self.keys is None or field is None:
            raise KeyMissing(f"this server answers to keys alone: {_ASK}")
        scheme, _, key = field.strip(" \t").partition(" ")
        caller = self.keys.find(key.strip(" \t").encode("latin-1")) if scheme.lower() == "bearer" else None
        if caller is None:
            what = "the key is none of this server's" if scheme.lower() == "bearer" else "Authorization is no Bearer"
            raise KeyUnknown(f"{what}: {_ASK}")
        if scope not in caller.stored.scopes:
            has = ", ".join(sorted(caller.stored.scopes))
            raise ScopeMissing(f"the call needs the scope {scope}, and the key {caller.stored.name} has {has}")
        return caller
