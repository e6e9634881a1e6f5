"""The files of a page: read once, sent compressed to whoever takes that, and asked for again only when changed."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response

__all__ = ["PageFile", "add_files", "read_files"]

_MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}

_HEADERS: Final = {
    "Cache-Control": "no-cache",  # kept, and asked about: another version of the server has other files
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class PageFile:
    """One file of a page.

    Args:
        content: its bytes.
        media_type: of the bytes.
        policy: the Content-Security-Policy of a page; None for a file that is none.
    """

    def __init__(self, content: bytes, media_type: str, policy: str | None = None) -> None:
        self._content = content
        self._headers = {
            **_HEADERS,
            "Content-Type": media_type,
            "ETag": f'W/"{hashlib.sha256(content).hexdigest()[:32]}"',
        }
        if policy is not None:
            self._headers["Content-Security-Policy"] = policy

    @cached_property
    def _compressed(self) -> bytes:
        return gzip.compress(self._content, 6, mtime=0)

    def respond(self, request: Request) -> Response:
        """The answer to a request for it: the bytes, or that the client has them."""
        if self._headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=self._headers)
        if not _takes_gzip(request.headers.get("accept-encoding", "")):
            return Response(self._content, headers=self._headers)
        return Response(self._compressed, headers={**self._headers, "Content-Encoding": "gzip"})


def _takes_gzip(field: str) -> bool:
    """Whether an Accept-Encoding names gzip, and not with a weight of zero."""
    for item in field.lower().split(","):
        name, _, weight = item.replace(" ", "").partition(";q=")
        if name == "gzip":
            return weight.strip("0.") != "" or weight == ""
    return False


def read_files(folder: Path) -> dict[str, PageFile]:
    """Every file of a folder and those below it that a page may load, by its path within the folder.

    Args:
        folder: of the files; those of another kind, such as modules of Python, are left out.
    """
    return {
        path.relative_to(folder).as_posix(): PageFile(path.read_bytes(), _MEDIA_TYPES[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in _MEDIA_TYPES
    }


def add_files(app: FastAPI, files: Mapping[str, PageFile]) -> None:
    """Add a route for each file.

    Args:
        app: the application.
        files: by their paths at the server, such as ``/console/app.js``.
    """
    for path, file in files.items():
        app.add_route(path, _endpoint(file), include_in_schema=False)


def _endpoint(file: PageFile) -> Callable[[Request], Response]:
    def endpoint(request: Request) -> Response:  # on a thread: the first request compresses
        return file.respond(request)

    return endpoint
