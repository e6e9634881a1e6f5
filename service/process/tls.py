"""The certificate of a server and its key: checked before the start, and loaded again when the files change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final

from service.access.watched_file import WatchedFile, read_file
from service.errors import InvalidArgument, PushforwardError

__all__ = ["CIPHERS", "Certificate"]

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: those that are authenticated and have forward secrecy, as all of TLS 1.3 do. uvicorn's own list has none
of them."""

_log = logging.getLogger(__name__)


class Certificate:
    """The files of a certificate and its key.

    Args:
        certificate: PEM, with the certificates of its chain behind it.
        key: PEM, without a password.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (WatchedFile(certificate), WatchedFile(key))

    def check(self) -> None:
        """Check that a server can use them.

        Raises:
            InvalidArgument: they cannot be read, do not belong together, or the key has a password.
        """
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def refresh(self, context: ssl.SSLContext) -> None:
        """Load the files again where they have changed, for the connections that come. Wrong files change nothing.

        Args:
            context: of the server.
        """
        if not [file for file in self._files if file.has_changed()]:
            return
        try:
            self.check()  # a context that has taken a certificate without its key would serve neither
            self._load(context)
        except PushforwardError as error:
            _log.error("the certificate stays as it is: %s", error.detail)
        else:
            _log.warning("the certificate in %s was loaded again", self._files[0].path)

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key = (file.path for file in self._files)
        for path in (certificate, key):
            try:
                read_file(path, 0)
            except OSError as error:
                raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error

        def refuse_password() -> str:
            raise InvalidArgument(f"the key in {key} has a password, and nobody is there to type it")

        try:
            context.load_cert_chain(certificate, key, refuse_password)
        except (OSError, ValueError) as error:  # of OpenSSL, too
            why = getattr(error, "reason", None) or error
            raise InvalidArgument(f"{certificate} and {key} are no certificate and its key: {why}") from error
