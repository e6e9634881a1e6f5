"""The checks before a server loads anything: log, repository, port. Loads nothing that serving needs."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
from typing import Final, NamedTuple, Protocol

from service.access.key_source import KeySource
from service.bundle.store import Repository
from service.errors import InvalidArgument, Reason
from service.process.tls import Certificate
from service.settings import Settings, environment_name, flag_name, unknown_variables

__all__ = [
    "REUSES_PORTS",
    "Announce",
    "ServerStatus",
    "Terminal",
    "bind",
    "check_access",
    "check_environment",
    "check_repository",
    "listen_error",
    "server_urls",
    "start_log",
]

_log = logging.getLogger(__name__)

REUSES_PORTS: Final = sys.platform == "linux"
"""True where sockets of several processes can listen on one port, and the system spreads connections over them.

Other systems have the socket option too, and give every connection to one of the sockets.
"""


_CLIENT_KEY: Final = "PUSHFORWARD_KEY"


class ServerStatus(NamedTuple):
    """The status of a server when it begins to answer.

    Args:
        flows: the names of the flows that are ready.
        loaded: whether it has tried to load all flows.
    """

    flows: frozenset[str]
    loaded: bool


class Announce(Protocol):
    """Tells whoever started the server that it answers."""

    def __call__(self, url: str, status: ServerStatus, /, *admin_url: str) -> None:
        """Tell.

        Args:
            url: of the server.
            status: of the server.
            admin_url: of its port for administration and metrics, if it has one.
        """
        ...


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
        logging.getLogger("pushforward.access").setLevel(logging.INFO)


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


def check_access(settings: Settings) -> None:
    """Check who may ask: keys and certificate can be read, and no other machine may ask without a key by oversight.

    Raises:
        InvalidArgument: a file cannot be used; or another machine could ask without a key, and nobody has said so.
    """
    keys = KeySource(settings.keys_file, settings.keys)
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise InvalidArgument(
            f"{flag_name('tls_certificate')} and {flag_name('tls_key')} are given together, or not at all"
        )
    if settings.tls_certificate is not None and settings.tls_key is not None:
        Certificate(settings.tls_certificate, settings.tls_key).check()
    if settings.admin_port is not None and settings.admin_port == settings.port != 0:
        raise InvalidArgument(f"{flag_name('admin_port')} is the port of the server itself: choose another")
    if keys.ring is not None or settings.insecure:
        return
    hosts = {"host": settings.host} | ({} if settings.admin_port is None else {"admin_host": settings.admin_host})
    for field, host in hosts.items():
        if not _is_loopback(host):
            how = f"{flag_name(field)} {host} ({environment_name(field)})"
            raise InvalidArgument(
                f"other machines reach {how}, and the server has no keys",
                (
                    Reason(("--keys-file",), "make one by `pushforward key`, and name the file that has its line"),
                    Reason(
                        ("--insecure",), f"or say so ({environment_name('insecure')}=true) where anyone may ask who can"
                    ),
                ),
            )


def _is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address. A name is what it resolves to."""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
        return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)
    except (OSError, ValueError, UnicodeError):  # told when it is listened on
        return False


def check_environment() -> None:
    """Warn of each environment variable that is called as settings are and is none, with the nearest that is one."""
    for name, nearest in unknown_variables(os.environ):
        if name == _CLIENT_KEY:
            _log.warning("%s is for clients; a server knows the keys of --keys-file and PUSHFORWARD_KEYS", name)
            continue
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


def server_urls(settings: Settings, *sockets: socket.socket) -> list[str]:
    """The URLs of the server behind each socket."""
    scheme = "http" if settings.tls_certificate is None else "https"
    found = [each.getsockname()[:2] for each in sockets]
    return [f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}" for host, port in found]
