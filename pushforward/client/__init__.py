"""The client: a served flow as NumPy functions.

`Client` is for code that blocks, `AsyncClient` for code that does not. Both are imported when they are first used: the
command line needs no httpx where it runs a bundle in its own process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pushforward.client.async_client import AsyncClient
    from pushforward.client.client import Client

__all__ = ["AsyncClient", "Client"]

_HOME: Final = {"AsyncClient": "pushforward.client.async_client", "Client": "pushforward.client.client"}


def __getattr__(name: str) -> Any:  # noqa: ANN401  a class (PEP 562)
    if name not in __all__:
        raise AttributeError(f"module 'pushforward.client' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
