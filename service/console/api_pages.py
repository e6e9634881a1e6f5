"""The pages that show the API, /docs and /redoc: they work offline, and behind any prefix.

Swagger UI and ReDoc come with a package. The pages name its files, and the document, by relative links.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html

from service.console.files import PageFile, add_files, read_files

__all__ = ["add_api_pages"]

_SWAGGER: Final = "swagger-ui-bundle.js"
_SWAGGER_STYLE: Final = "swagger-ui.css"
_REDOC: Final = "redoc.standalone.js"
_ICON: Final = "favicon.png"

_OUTSIDE: Final = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
"""A picture at the foot of ReDoc, which it takes from elsewhere, and leaves out where there is none."""

_NO_PICTURE: Final = b"data:,"

_SCRIPT: Final = re.compile(r"<script>(.*?)</script>", re.DOTALL)
"""A script within a page."""


def add_api_pages(app: FastAPI) -> None:
    """Add the two pages. They ask for the document beside them.

    Args:
        app: has the document at /openapi.json.
    """
    docs = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{app.title} - Swagger UI",
        swagger_js_url=f"docs/{_SWAGGER}",
        swagger_css_url=f"docs/{_SWAGGER_STYLE}",
        swagger_favicon_url=f"docs/{_ICON}",
    )
    redoc = get_redoc_html(
        openapi_url="openapi.json",
        title=f"{app.title} - ReDoc",
        redoc_js_url=f"redoc/{_REDOC}",
        redoc_favicon_url=f"redoc/{_ICON}",
        with_google_fonts=False,
    )
    files = _read()
    add_files(
        app,
        {
            "/docs": _page(bytes(docs.body)),
            "/redoc": _page(bytes(redoc.body)),
            **{f"/docs/{name}": files[name] for name in (_SWAGGER, _SWAGGER_STYLE, _ICON)},
            **{f"/redoc/{name}": files[name] for name in (_REDOC, _ICON)},
        },
    )


def _page(body: bytes) -> PageFile:
    """A page under a policy of its own: the script that stands in it may run, known by its digest, and no other."""
    digests = [hashlib.sha256(script.encode()).digest() for script in _SCRIPT.findall(body.decode())]
    scripts = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self'{scripts}",
            "style-src 'self' 'unsafe-inline'",  # both write styles into the page
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "worker-src blob:",  # the search of ReDoc
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return PageFile(body, "text/html; charset=utf-8", policy)


@cache
def _read() -> Mapping[str, PageFile]:
    """The files of Swagger UI and ReDoc.

    Raises:
        ModuleNotFoundError: the package that has them is not installed.
    """
    found = find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("the package fastapi-offline, which holds Swagger UI and ReDoc, is not installed")
    folder = Path(found.origin).parent / "static"
    inside = (folder / _REDOC).read_bytes().replace(_OUTSIDE, _NO_PICTURE)
    return read_files(folder) | {_REDOC: PageFile(inside, "text/javascript; charset=utf-8")}
