"""The proxy that the environment names for a server, in HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

These are read as httpx reads them. The proxy is found here, and handed to httpx, so that an error can name it.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.request import getproxies

import httpx

from pushforward.client.errors import ClientError

__all__ = ["Proxy", "find_proxy", "without_password"]


class Proxy(NamedTuple):
    """A proxy of the environment.

    Args:
        url: its address, with the user and the password that it may hold.
        variable: that names it.
    """

    url: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {without_password(httpx.URL(self.url))} of {self.variable}"


def find_proxy(url: httpx.URL) -> Proxy | None:
    """The proxy through which a server is to be asked; None for none.

    Args:
        url: of the server.

    Raises:
        ClientError: what the environment names is no address.
    """
    proxies = getproxies()
    scheme = url.scheme if proxies.get(url.scheme) else "all"
    address = proxies.get(scheme)
    if not address or any(_is_for(entry.strip(), url) for entry in proxies.get("no", "").split(",")):
        return None
    found = Proxy(address if "://" in address else f"http://{address}", f"{scheme.upper()}_PROXY")
    try:
        httpx.URL(found.url)
    except httpx.InvalidURL as error:
        raise ClientError(f"{found.variable} names no address of a proxy: {error}") from error
    return found


def without_password(url: httpx.URL) -> str:
    """An address as text, without the user and the password that it may hold."""
    return str(url.copy_with(username=None, password=None)) if url.userinfo else str(url)


def _is_for(entry: str, url: httpx.URL) -> bool:
    """Whether an entry of NO_PROXY is for a server: its host, or a domain that the host is in."""
    if entry == "*":
        return True
    if not entry:
        return False
    if "://" in entry:
        wanted = httpx.URL(entry)
        same_port = wanted.port is None or wanted.port == url.port
        return wanted.scheme in ("all", url.scheme) and wanted.host in ("", url.host) and same_port
    name = entry.strip("[]").lower()
    return url.host == name or (not _is_address(name) and url.host.endswith(f".{name.removeprefix('.')}"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    return True
