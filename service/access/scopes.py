"""The scope that a path needs: the one table that says which key may ask for what.

The table is read for each request, whichever door it came through, before any route is looked for. A path that it does
not name needs `infer`, also where no route has it: what a later route serves is never open by an oversight.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, get_args

__all__ = ["OPEN_PATHS", "SCOPES", "Scope", "required_scope"]

Scope: TypeAlias = Literal["infer", "admin", "metrics"]
"""What a key may do: use the flows, change what is served, read the counts. None of them includes another."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

OPEN_PATHS: Final = frozenset(
    {
        "/",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/health/live",
        "/health/ready",
        "/v2/health/live",
        "/v2/health/ready",
    }
)
"""Paths that need no key: probes, and pages that are the same on every server."""

_PAGE_FILE: Final = re.compile(r"/(?:console|docs|redoc)(?:/[a-z][a-z0-9._-]*)+")
"""The paths of the files that these pages load. No part of one begins with a dot: dots lead out of the folder."""

_SUBTREES: Final[tuple[tuple[str, Scope], ...]] = (
    ("/metrics", "metrics"),
    ("/repository", "admin"),
    ("/v2/repository", "admin"),
)
"""Paths, and all below them, that need another scope than `infer`."""


def required_scope(path: str) -> Scope | None:
    """The scope that a request needs.

    Args:
        path: as the routes see it: decoded, and without the prefix of a proxy.

    Returns:
        The scope, or None where anyone may ask.
    """
    if path in OPEN_PATHS or _PAGE_FILE.fullmatch(path):
        return None
    for root, scope in _SUBTREES:
        if path == root or path.startswith(f"{root}/"):
            return scope
    return "infer"
