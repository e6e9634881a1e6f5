"""What is looked at before anything is loaded: the log, the repository, the port. Loads nothing that serving needs."""

from __future__ import annotations

import logging
import socket
import sys
from typing import Final, NamedTuple

from service.bundle.store import Repository
from service.errors import InvalidArgument, Reason
from service.settings import Settings

__all__ = ["REUSES_PORTS", "Standing", "bind", "cannot_listen", "check_repository", "start_log", "url"]

REUSES_PORTS: Final = sys.platform == "linux"
"""Whether sockets of several processes can listen on one port, and the system shares out connections among them.

Others have the option too, and give every connection to one of the sockets.
"""


class Standing(NamedTuple):
    """What a server can say when it begins to answer.

    Args:
        flows: the names of those that are ready.
        loaded: whether it has tried all of them.
    """

    flows: frozenset[str]
    loaded: bool


def start_log(settings: Settings) -> None:
    """Log to standard error, as the settings say."""
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if settings.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)


def check_repository(settings: Settings) -> None:
    """Look whether there is something to serve.

    Raises:
        InvalidArgument: the repository holds no flow, or the default flow is not among them.
    """
    names = Repository(settings.repository).names()
    if not names:
        detail = f"{settings.repository} holds no flow: there is no <name>/<version>/ with a flow.json in it"
        raise InvalidArgument(detail, (Reason(("--repository",), "train or install a flow first"),))
    if settings.default_flow is not None and settings.default_flow not in names:
        detail = f"the default flow {settings.default_flow!r} is not in the repository; there are {', '.join(names)}"
        raise InvalidArgument(detail, (Reason(("--default-flow",), "name one of them"),))


def bind(host: str, port: int, *, reuse: bool = False) -> socket.socket:
    """A socket that is bound but does not listen yet: a port in use is known before anything is loaded.

    Args:
        host: address.
        port: 0 for any that is free.
        reuse: whether other sockets that say the same may listen on this port; see `REUSES_PORTS`.

    Raises:
        InvalidArgument: something listens there, or it cannot be listened on.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise cannot_listen(host, port, error.strerror or str(error)) from error
    return bound


def cannot_listen(host: str, port: int, why: str) -> InvalidArgument:
    """The error of an address that is not to be had."""
    hint = Reason(("--port",), "choose another, or 0 for any that is free")
    return InvalidArgument(f"cannot listen on {host}, port {port}: {why}", (hint,))


def url(bound: socket.socket) -> str:
    """Where a socket is reached."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
