"""The components of the console in one file: its styles and modules, put into a page that stands by itself.

A report is opened from a disk, where a page may load no module beside it. An import map therefore names each module by
its text, as a data: URL.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

__all__ = ["data_script", "inline_modules", "inline_styles"]

_CONSOLE: Final = "service.console"
"""The package whose folder ``static`` holds the modules. It is read, and not imported from."""

_START: Final = "report.js"

_PREFIX: Final = "pushforward/"
"""What the names of modules begin with in the import map."""

_IMPORT: Final = re.compile(r'(?P<before>\bfrom\s+|\bimport\s+)"\./(?P<name>[\w./-]+\.js)"')


def inline_styles() -> str:
    """The console's styles, and those that only a report has."""
    console = resources.files(_CONSOLE).joinpath("static", "console.css").read_text(encoding="utf-8")
    own = resources.files("models.evaluation").joinpath("style.css").read_text(encoding="utf-8")
    return f"{console}\n{own}"


@cache
def inline_modules() -> str:
    """The script of a report with every module that it needs, as elements of a page."""
    start = resources.files("models.evaluation").joinpath(_START).read_text(encoding="utf-8")
    modules = {_START: start}
    waiting = _imported(start)
    while waiting:
        name = waiting.pop()
        if name in modules:
            continue
        modules[name] = resources.files(_CONSOLE).joinpath("static", "lib", name).read_text(encoding="utf-8")
        waiting += _imported(modules[name])
    imports = json.dumps({"imports": {f"{_PREFIX}{name}": _as_url(text) for name, text in sorted(modules.items())}})
    return f'<script type="importmap">{imports}</script>\n<script type="module">import "{_PREFIX}{_START}";</script>'


def data_script(figures: Mapping[str, Any]) -> str:
    """What the figures of a page show, as an element of the page.

    Args:
        figures: by their names; NaN and infinities are not allowed.
    """
    text = json.dumps(figures, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="figures">{text}</script>'


def _imported(text: str) -> list[str]:
    return [found["name"] for found in _IMPORT.finditer(text)]


def _as_url(text: str) -> str:
    """A module whose imports go by the names of the import map: beside a data: URL lies nothing."""
    named = _IMPORT.sub(lambda found: f'{found["before"]}"{_PREFIX}{found["name"]}"', text)
    return "data:text/javascript;base64," + base64.b64encode(named.encode()).decode()
