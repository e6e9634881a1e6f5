"""The cap on connections: of all clients together, and of one client's address."""

from __future__ import annotations

import ipaddress
import resource
from collections import Counter
from typing import Final

from service.errors import TooManyConnections

__all__ = ["ConnectionCaps", "within_descriptors"]

_MARGIN: Final = 256
"""So many connections over the cap are told why they are refused; those beyond are only ended."""

_OWN_DESCRIPTORS: Final = 64
"""What a server opens beside its connections."""


def within_descriptors(wanted: int) -> int:
    """A cap on connections that leaves room in the process's limit on open files.

    A process without descriptors can accept nothing, and so not refuse either: clients would hang.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, limit - _OWN_DESCRIPTORS - _MARGIN))


class ConnectionCaps:
    """The connections that are open.

    Args:
        most: of all clients together.
        most_of_client: of one address, or of one network of 64 bits in IPv6; 0 for no cap.
    """

    def __init__(self, most: int, most_of_client: int = 0) -> None:
        self._most = most
        self._most_of_client = most_of_client
        self._open = 0
        self._of_client: Counter[str] = Counter()

    @property
    def overrun(self) -> bool:
        """Whether there are far more connections than the cap, so that no more are to be told of it."""
        return self._open > self._most + _MARGIN

    def enter(self, address: str) -> None:
        """Count a connection. It counts until `leave`, also where it is refused.

        Args:
            address: of the client.

        Raises:
            TooManyConnections: it is one too many.
        """
        self._open += 1
        if self._most_of_client:
            client = _client(address)
            self._of_client[client] += 1
            if self._of_client[client] > self._most_of_client:
                raise TooManyConnections(
                    f"there are {self._most_of_client} connections of this client, which is the cap"
                )
        if self._open > self._most:
            raise TooManyConnections(f"the server has {self._most} connections, which is its cap")

    def leave(self, address: str) -> None:
        """Count a connection no more."""
        self._open -= 1
        if self._most_of_client:
            client = _client(address)
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]


def _client(address: str) -> str:
    """The address, or the network of an address of IPv6: one client has all addresses of it."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, 64), strict=False))
