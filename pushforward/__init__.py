"""Pushforward: the client in Python, and the command line. Imports no torch and starts no server.

::

    import pushforward

    with pushforward.Client("http://127.0.0.1:8000") as client:
        client.log_prob(client.sample(5, seed=7).x)

The names are fetched when they are first used: the command line lives in this package too, and `pushforward serve`
needs no client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pushforward import answers, errors
    from pushforward.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "answers", "errors"]

_CLASSES: Final = ("AsyncClient", "Client")


def __getattr__(name: str) -> Any:  # noqa: ANN401  a class or a module (PEP 562)
    if name not in __all__:
        raise AttributeError(f"module 'pushforward' has no attribute {name!r}")
    if name in _CLASSES:
        return getattr(importlib.import_module("pushforward.client"), name)
    return importlib.import_module(f"pushforward.{name}")
