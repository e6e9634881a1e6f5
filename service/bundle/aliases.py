"""The aliases of a flow: names of versions, such as `stable` and `canary`, in a file beside the versions.

`<repository>/<name>/aliases.json` is an object from alias to version. It is replaced whole, so that nobody reads a part
of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from service.bundle.durable import replace_durably
from service.bundle.store import Repository
from service.errors import DataError, Reason

__all__ = ["ALIASES_FILE", "ALIAS_PATTERN", "is_alias", "read_aliases", "write_aliases"]

ALIASES_FILE: Final = "aliases.json"

ALIAS_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,31}$"
"""The pattern of an alias. It begins with a letter, so that no version is one."""

_MAX_BYTES: Final = 1 << 20
_MAX_ALIASES: Final = 1000


def is_alias(text: str) -> bool:
    """Say whether a text may be the name of an alias.

    Example:
        >>> is_alias("stable"), is_alias("2"), is_alias("Stable")
        (True, False, False)
    """
    return re.fullmatch(ALIAS_PATTERN[1:-1], text) is not None


def read_aliases(repository: Repository, name: str) -> dict[str, int]:
    """Read the aliases of a flow.

    Args:
        repository: that holds the flow.
        name: of the flow.

    Returns:
        Alias -> version; empty where there is no file.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    path = repository.root / name / ALIASES_FILE
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DataError(f"the aliases of {name} cannot be read: {error.strerror}") from error
    try:
        found = json.loads(text) if len(text) <= _MAX_BYTES else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or len(found) > _MAX_ALIASES:
        raise DataError(f"the aliases of {name} cannot be read: {ALIASES_FILE} is no JSON object of aliases")
    wrong = [alias for alias, named in found.items() if not is_alias(alias) or type(named) is not int or named < 1]
    if wrong:
        reason = f"expected {ALIAS_PATTERN} and a positive integer"
        raise DataError(
            f"the aliases of {name} cannot be read: {wrong[0][:64]!r} in {ALIASES_FILE}: {reason}",
            tuple(Reason((ALIASES_FILE, alias[:64]), reason) for alias in wrong),
        )
    return found


def write_aliases(repository: Repository, name: str, aliases: Mapping[str, int]) -> None:
    """Replace the aliases of a flow, all or nothing.

    Args:
        repository: that holds the flow.
        name: of the flow.
        aliases: alias -> version.

    Raises:
        OSError: the repository cannot be written; the aliases are the old ones.
    """
    folder = repository.root / name
    text = json.dumps(dict(sorted(aliases.items())), indent=1) + "\n"
    # A server may run as another user than the one who writes.
    replace_durably(folder / ALIASES_FILE, text.encode(), prefix=".aliases-", mode=0o644)
