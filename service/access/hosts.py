"""The names by which a server may be asked for, in the Host field of a request.

A page of a stranger can have its own name resolve to 127.0.0.1 (DNS rebinding). To the browser the server is then of
the page's own origin, and the page may read its answers. Only the Host field still shows the stranger's name.

Only a name of the public DNS can be a stranger's, and such a name has a dot: `localhost`, the name of a machine in its
network, and that of a service in Compose or Kubernetes have none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

__all__ = ["AllowedHosts", "split_authority"]

_AUTHORITY: Final = re.compile(r"(\[[0-9A-Za-z:.%_-]+\]|[^\s:/?#@\[\]\\]+)(?::([0-9]{0,5}))?")


def split_authority(text: str) -> tuple[str, int | None] | None:
    """The host and the port of ``host[:port]``: the host in lower case, without brackets and a dot at its end.

    Returns:
        None where the text is none; a port of None where none stands there.
    """
    found = _AUTHORITY.fullmatch(text)
    if found is None:
        return None
    host = found[1].strip("[]").lower().removesuffix(".")
    return (host, int(found[2]) if found[2] else None) if host else None


class AllowedHosts:
    """The names of one server. Names without a dot, such as ``localhost``, and addresses always pass.

    Args:
        names: further ones; ``*.example.org`` is every name below example.org, and ``*`` is every name.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        listed = [name.lower().removesuffix(".") for name in names]
        self._every = "*" in listed
        self._names = frozenset(listed)
        self._domains = tuple(name[1:] for name in listed if name.startswith("*."))

    def allow(self, field: str) -> bool:
        """Whether a Host field names this server."""
        if self._every:
            return True
        found = split_authority(field)
        if found is None:
            return False
        host, _ = found
        return _is_local(host) or host in self._names or host.endswith(self._domains) or _is_address(host)


def _is_local(host: str) -> bool:
    """Whether it is a name without a dot, plain or encoded. A number is none: browsers read it as an address."""
    return not {".", ":", "%"} & set(host) and not host[0].isdigit()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
