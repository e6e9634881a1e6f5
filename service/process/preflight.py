"""The checks before a server loads anything: log, repository, port. Loads nothing that serving needs."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import Final, NamedTuple

from service.bundle.store import Repository
from service.errors import InvalidArgument, Reason
from service.settings import Settings, environment_name, flag_name, unknown_variables

__all__ = [
    "REUSES_PORTS",
    "ServerStatus",
    "Terminal",
    "bind",
    "check_environment",
    "check_repository",
    "listen_error",
    "server_url",
    "start_log",
]

_log = logging.getLogger(__name__)

REUSES_PORTS: Final = sys.platform == "linux"
"""True where sockets of several processes can listen on one port, and the system spreads connections over them.

Other systems have the socket option too, and give every connection to one of the sockets.
"""


class ServerStatus(NamedTuple):
    """The status of a server when it begins to answer.

    Args:
        flows: the names of the flows that are ready.
        loaded: whether it has tried to load all flows.
    """

    flows: frozenset[str]
    loaded: bool


class Terminal:
    """The terminal that the process was started on, if it was."""

    def __init__(self) -> None:
        self._was_there = _reads_from_terminal()

    def is_lost(self) -> bool:
        """Whether it is gone. Its end sends SIGHUP, which then asks for no reload: nobody is there any more."""
        return self._was_there and not _reads_from_terminal()


def _reads_from_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False


def start_log(settings: Settings) -> None:
    """Log to standard error, at the level of the settings."""
    logging.basicConfig(
        level=settings.log_level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if settings.access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)


def check_repository(settings: Settings) -> None:
    """Check that the repository holds flows. One that is named in the settings and not among them is a warning.

    Raises:
        InvalidArgument: the repository holds no flow.
    """
    names = Repository(settings.repository).names()
    if not names:
        detail = f"{settings.repository} holds no flow: there is no <name>/<version>/ with a flow.json in it"
        raise InvalidArgument(detail, (Reason(("--repository",), "train or install a flow first"),))
    if settings.default_flow is not None and settings.default_flow not in names:
        answers = (
            f"{names[0]} answers" if len(names) == 1 else f"there are {', '.join(names)}, and none of them answers"
        )
        how = f"{flag_name('default_flow')} ({environment_name('default_flow')})"
        absent = "the default flow %r is not in the repository; %s a request that names no flow. Set %s"
        _log.warning(absent, settings.default_flow, answers, how)
    for name in sorted((settings.isolated_flows or frozenset()) - set(names)):
        how = f"{flag_name('isolate')} ({environment_name('isolate')})"
        _log.warning("the flow %r, to run in processes of its own, is not in the repository. Set %s", name, how)


def check_environment() -> None:
    """Warn of each environment variable that is called as settings are and is none, with the nearest that is one."""
    for name, nearest in unknown_variables(os.environ):
        hint = "" if nearest is None else f"; did you mean {nearest}?"
        _log.warning("the environment variable %s is no setting, and is passed over%s", name, hint)


def bind(host: str, port: int, *, reuse: bool = False) -> socket.socket:
    """Bind a socket that does not listen yet, so that a port in use is known before anything is loaded.

    Args:
        host: the address.
        port: 0 for any that is free.
        reuse: whether other sockets with this option may listen on the port (`REUSES_PORTS`).

    Returns:
        The socket.

    Raises:
        InvalidArgument: another process listens there, or the address cannot be listened on.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise listen_error(host, port, error.strerror or str(error)) from error
    return bound


def listen_error(host: str, port: int, why: str) -> InvalidArgument:
    """The error of an address that cannot be listened on.

    Args:
        host: the address.
        port: the port.
        why: the reason.
    """
    hint = Reason(("--port",), "choose another, or 0 for any that is free")
    return InvalidArgument(f"cannot listen on {host}, port {port}: {why}", (hint,))


def server_url(bound: socket.socket) -> str:
    """The URL of the server behind a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
