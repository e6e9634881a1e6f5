"""The console: the page at / that shows the flows of a server, live, by the calls that everyone uses.

It has no build step: plain modules of JavaScript and styles, which lie beside this module and are served as they are.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from service.console.files import PageFile, add_files, read_files

__all__ = ["POLICY", "add_console"]

_FOLDER: Final = Path(__file__).parent / "static"

_START: Final = "index.html"

_ROOT: Final = "{{root}}"
"""Where the page names its own files: what stands before their paths."""

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types console",
    )
)
"""What the console may load and run: its own files, and nothing that stands within the page."""


def add_console(app: FastAPI, prefix: str = "") -> None:
    """Add the console.

    Args:
        app: the application.
        prefix: of the paths behind a proxy, such as ``/flows``. The page names its files with it, so that it is found
            at ``/flows`` and at ``/flows/``; without one it names them by relative links, which hold behind a proxy
            that the server does not know of.
    """
    start = (_FOLDER / _START).read_text(encoding="utf-8").replace(_ROOT, f"{prefix}/" if prefix else "")
    page = PageFile(start.encode(), "text/html; charset=utf-8", POLICY)
    add_files(app, {"/": page} | {f"/console/{path}": file for path, file in _read().items() if path != _START})


@cache
def _read() -> dict[str, PageFile]:
    return read_files(_FOLDER)
