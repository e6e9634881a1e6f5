"""The source of a server's keys: a file, the environment, or both. A file that changes is read again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from service.access.keys import KeyRing, StoredKey, parse_keys
from service.access.watched_file import WatchedFile, read_file
from service.errors import InvalidArgument, PushforwardError, Reason

__all__ = ["KeySource", "read_key_file"]

_log = logging.getLogger(__name__)

_LONGEST: Final = 1 << 20
"""In bytes, of a file of keys."""


def read_key_file(path: Path) -> str:
    """The text of a file of keys.

    Raises:
        InvalidArgument: it cannot be read, or is none.
    """
    try:
        data = read_file(path, _LONGEST + 1)
    except OSError as error:
        raise InvalidArgument(f"the keys in {path} cannot be read: {error.strerror}") from error
    if len(data) > _LONGEST:
        raise InvalidArgument(f"{path} has more than {_LONGEST} bytes, and so is no file of keys")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{path} is no text in UTF-8, and so no file of keys") from None


class KeySource:
    """The keys of one server.

    Args:
        file: has a key on each line; None for none.
        text: keys in the same form, with semicolons or line ends between them; None for none.

    Attributes:
        ring: the keys; None where neither is given, so that anyone may ask.

    Raises:
        InvalidArgument: the file cannot be read, there is no key in either, or a key is not in the form.
    """

    def __init__(self, file: Path | None, text: str | None) -> None:
        self._fixed = () if text is None else parse_keys(text, "PUSHFORWARD_KEYS", semicolons=True)
        self._watched = None if file is None else WatchedFile(file)
        self._text = text
        self.ring: KeyRing | None = None
        if file is not None or text is not None:
            keys = self._read()
            if not keys:
                place = "PUSHFORWARD_KEYS" if file is None else str(file)
                raise InvalidArgument(f"{place} holds no key", (Reason((place,), "make one with `pushforward key`"),))
            self.ring = KeyRing(keys)

    def refresh(self) -> bool:
        """Read the file again where it has changed. A file that cannot be read, or is wrong, changes nothing.

        Returns:
            Whether there are other keys now.
        """
        if self.ring is None or self._watched is None or not self._watched.has_changed():
            return False
        try:
            keys = self._read()
        except PushforwardError as error:
            _log.error("the keys stay as they are: %s", error.detail)
            return False
        self.ring.replace(keys)
        _log.warning("the keys were read again: %s", ", ".join(key.name for key in keys) or "there is none left")
        return True

    def _read(self) -> tuple[StoredKey, ...]:
        if self._watched is None:
            return self._fixed
        path = self._watched.path
        own = parse_keys(read_key_file(path), str(path))
        if self._text is None:
            return own
        return parse_keys("\n".join(key.line() for key in (*own, *self._fixed)), f"{path} and PUSHFORWARD_KEYS")
