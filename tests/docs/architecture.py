"""docs/architecture.md: its tables and its two pictures, made from the imports and from one request that is watched.

The rooms and their arrows are those of `tests.test_architecture`. The way of a request is what a server's own profile
function sees: `python -m tests.docs.architecture` is that server, and prints the files that each request enters.
"""

from __future__ import annotations

import ast
import functools
import html
import http.client
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from tests.test_architecture import ALLOWED, ROOT, modules, room

WINGS = {"pushforward": "#dbeafe", "service": "#dcfce7", "models": "#fef3c7"}
"""The packages of the project, and the colour of each."""

REQUESTS = {
    "one row": b'{"x": [[0.5, 0.25]]}',
    "two rows, and an argument": b'{"x": [[0.5, 0.25], [1.0, -0.5]], "return": ["z"]}',
}
"""What is sent to POST /logprob, after a server has answered it before."""

_TRIES, _ALIKE = 2000, 3
"""A request is sent at most so often, until so many of them have had the same way."""

_CHARACTER, _LINE, _GAP = 8.45, 36, 12
"""The width of a character of the pictures' font, the height of a box, and the room between two, in pixels."""


def summary(path: Path) -> str:
    """The first paragraph of a module's docstring."""
    return " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].split())


def place(name: str) -> str:
    """Where a room or a module lies: `service/engine/` or `service/plan.py`."""
    path = modules()[name]
    return f"{path.parent if path.name == '__init__.py' else path}".removeprefix(f"{ROOT}/") + (
        "/" if path.name == "__init__.py" else ""
    )


def _short(room_name: str) -> str:
    """What a room's box holds: its place without the package, which the colour tells."""
    return place(room_name).partition("/")[2] or place(room_name)


def direct(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no chain of other arrows stands for (the transitive reduction)."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = [start]
        while waiting:
            new = arrows[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    beyond = {name: reached(name) for name in arrows}
    return {
        name: {target for target in targets if not any(target in beyond[other] for other in targets - {target})}
        for name, targets in arrows.items()
    }


def levels(arrows: dict[str, set[str]]) -> dict[str, int]:
    """How long the longest chain of arrows from each name is."""
    known: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in known:
            known[name] = 1 + max((level(target) for target in arrows[name]), default=-1)
        return known[name]

    for name in arrows:
        level(name)
    return known


def _layers(arrows: dict[str, set[str]]) -> tuple[list[list[str]], dict[str, set[str]]]:
    """Names by level, the lowest first, and their arrows, each cut at every level that it passes.

    A place where an arrow only passes has the name ``source>target@level``.
    """
    level = levels(arrows)
    layers: list[list[str]] = [[] for _ in range(1 + max(level.values()))]
    links: dict[str, set[str]] = defaultdict(set)
    for name in sorted(arrows):
        layers[level[name]].append(name)
        for target in sorted(arrows[name]):
            above = name
            for passed in range(level[name] - 1, level[target], -1):
                through = f"{name}>{target}@{passed}"
                layers[passed].append(through)
                links[above].add(through)
                above = through
            links[above].add(target)
    return layers, links


def _ordered(layers: list[list[str]], links: dict[str, set[str]]) -> list[list[str]]:
    """Layers with few crossings: each name near the middle of those that it is linked with, wing beside wing."""
    wings = list(WINGS)
    linked: dict[str, set[str]] = defaultdict(set)
    for name, targets in links.items():
        for target in targets:
            linked[name].add(target)
            linked[target].add(name)
    at = {name: (i + 0.5) / len(layer) for layer in layers for i, name in enumerate(layer)}

    def key(name: str) -> tuple[int, float, str]:
        wing = name.partition(">")[2] or name
        near = [at[other] for other in linked[name]] or [at[name]]
        return wings.index(wing.split(".")[0]), statistics.mean(near), name

    for turn in range(12):
        for layer in layers if turn % 2 else reversed(layers):
            layer.sort(key=key)
            at.update((name, (i + 0.5) / len(layer)) for i, name in enumerate(layer))
    return layers


def _across(
    layers: list[list[str]], links: dict[str, set[str]], widths: dict[str, float], whole: float
) -> dict[str, float]:
    """The middle of each name: as near those that it is linked with as its neighbours in the layer let it be."""
    linked: dict[str, list[str]] = defaultdict(list)
    for name, targets in links.items():
        for target in targets:
            linked[name].append(target)
            linked[target].append(name)
    at: dict[str, float] = {}
    for layer in layers:
        x = 0.0
        for name in layer:
            at[name] = x + widths[name] / 2
            x += widths[name] + _GAP
    for turn in range(40):
        for layer in layers if turn % 2 else reversed(layers):
            wished = [statistics.mean(at[other] for other in linked[name]) for name in layer]
            least, most = list(wished), list(wished)
            left = 0.0
            for i, name in enumerate(layer):
                least[i] = max(wished[i], left + widths[name] / 2)
                left = least[i] + widths[name] / 2 + _GAP
            right = whole
            for i, name in reversed(list(enumerate(layer))):
                most[i] = min(wished[i], right - widths[name] / 2)
                right = most[i] - widths[name] / 2 - _GAP
            x = 0.0
            for i, name in enumerate(layer):
                at[name] = max(x + widths[name] / 2, (least[i] + most[i]) / 2)
                x = at[name] + widths[name] / 2 + _GAP
            x = whole
            for name in reversed(layer):
                at[name] = min(x - widths[name] / 2, at[name])
                x = at[name] - widths[name] / 2 - _GAP
    return at


def _text(x: float, y: float, text: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{extra}>{html.escape(text)}</text>'


def _box(x: float, y: float, width: float, text: str, colour: str) -> str:
    """A box around a text, its middle at x and y."""
    return (
        f'<rect x="{x - width / 2:.0f}" y="{y - _LINE / 2:.0f}" width="{width:.0f}" height="{_LINE}" rx="5" '
        f'fill="{colour}" stroke="#475569"/>' + _text(x, y + 5, text)
    )


def _svg(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14">'
    )
    arrow = (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#475569"/></marker></defs>'
    )
    ground = f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{html.escape(title)}</title>", arrow, ground, *parts, "</svg>\n"])


def rooms_picture() -> str:
    """Every room that has an arrow, above all that it imports, with the arrows of `direct`."""
    arrows = direct({name: set(targets) for name, targets in ALLOWED.items()})
    used = {name for name, targets in arrows.items() if targets} | set().union(*arrows.values())
    layers, links = _layers({name: targets for name, targets in arrows.items() if name in used})
    layers = _ordered(layers, links)
    widths = {name: 20 if ">" in name else _CHARACTER * len(_short(name)) + 20 for layer in layers for name in layer}
    step, margin = 74, 20
    whole = max(sum(widths[name] + _GAP for name in layer) for layer in layers) + 60 + 2 * margin
    height = step * len(layers) + 50
    across = _across(layers, links, widths, whole - 2 * margin)
    at = {
        name: (margin + across[name], height - 40 - step * number)
        for number, layer in enumerate(layers)
        for name in layer
    }
    parts = []
    for name, targets in sorted(links.items()):
        for target in sorted(targets):
            (x0, y0), (x1, y1) = at[name], at[target]
            y0 += 0 if ">" in name else _LINE / 2
            y1 -= 0 if ">" in target else _LINE / 2
            middle = (y0 + y1) / 2
            end = "" if ">" in target else ' marker-end="url(#arrow)"'
            parts.append(
                f'<path d="M{x0:.0f},{y0:.0f} C{x0:.0f},{middle:.0f} {x1:.0f},{middle:.0f} {x1:.0f},{y1:.0f}" '
                f'fill="none" stroke="#475569"{end}/>'
            )
    for name, (x, y) in sorted(at.items()):
        if ">" not in name:
            parts.append(_box(x, y, widths[name], _short(name), WINGS[name.split(".")[0]]))
    for number, (wing, colour) in enumerate(WINGS.items()):
        parts.append(_box(margin + 60, 40 + 44 * number, 120, wing, colour))
    return _svg(whole, height, "The rooms, each above the rooms that it imports", parts)


def request_picture(files: list[str]) -> str:
    """The files that a request enters, from top to bottom, each in the column of its room."""
    rooms = list(dict.fromkeys(room(name) or "" for name in files))
    cells = {name: name.rpartition(".")[2] for name in files}
    column = {}
    x = 40.0
    for each in rooms:
        shown = [*each.split(".")[1:], *(cells[name] for name in files if room(name) == each)]
        width = _CHARACTER * max(map(len, shown)) + 16
        column[each] = (x + width / 2, width)
        x += width + 10
    step, top = 48, 50
    at = {name: (column[room(name) or ""][0], top + step * (i + 0.7)) for i, name in enumerate(files)}
    height = top + step * len(files) + 20
    parts = []
    for each, (middle, width) in column.items():
        parts.append(
            f'<rect x="{middle - width / 2 - 4:.0f}" y="10" width="{width + 8:.0f}" height="{height - 20:.0f}" '
            f'fill="#f8fafc" stroke="#e2e8f0"/>'
        )
        parts += [
            _text(middle, 32 + 18 * line, part, extra=' font-weight="bold"')
            for line, part in enumerate(each.split(".")[1:])
        ]
    for name, following in itertools.pairwise(files):
        (x0, y0), (x1, y1) = at[name], at[following]
        y0, y1 = y0 + _LINE / 2, y1 - _LINE / 2
        parts.append(
            f'<path d="M{x0:.0f},{y0:.0f} C{x0:.0f},{y1:.0f} {x1:.0f},{y0:.0f} {x1:.0f},{y1:.0f}" fill="none" '
            f'stroke="#475569" marker-end="url(#arrow)"/>'
        )
    for number, name in enumerate(files, 1):
        x_of, y_of = at[name]
        parts.append(_text(26, y_of + 5, str(number), "end", ' fill="#64748b"'))
        parts.append(_box(x_of, y_of, column[room(name) or ""][1], cells[name], WINGS["service"]))
    return _svg(x + 10, height, "POST /logprob of one row: the files in the order in which it enters them", parts)


def rooms_table() -> list[tuple[str, str, str]]:
    """Of each room where it lies, what it is, and which rooms it imports."""
    known = modules()
    return [
        (
            f"`{place(name)}`",
            summary(known[name]),
            ", ".join(f"`{target}`" for target in sorted(targets)) or "none",
        )
        for name, targets in ALLOWED.items()
    ]


def request_table(files: list[str]) -> list[tuple[str, str, str]]:
    """Of each file that a request enters its number, where it lies and what it is."""
    known = modules()
    return [(str(i), f"`{place(name)}`", summary(known[name])) for i, name in enumerate(files, 1)]


@functools.cache
def ways() -> dict[str, list[str]]:
    """Of each request the modules that it enters, in that order: asked of a server of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.architecture"], check=True, capture_output=True, text=True, cwd=ROOT
    )
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


class _Watch:
    """A profile function that notes which modules of the project are entered, and on which thread."""

    def __init__(self) -> None:
        self._names = {str(path): name for name, path in modules().items()}
        self._entered: list[tuple[str, int]] | None = None
        self._lost = threading.Event()

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call":
            return
        function = frame.f_code.co_name
        # Names of asyncio's protocols: they part a request from what was done for the one before it.
        if function == "connection_made":
            self._entered = None
        elif function == "data_received" and self._entered is None:
            self._entered = []
        elif function == "connection_lost":
            self._lost.set()
        name = self._names.get(frame.f_code.co_filename)
        if name is not None and self._entered is not None and not self._lost.is_set():
            self._entered.append((name, threading.get_ident()))

    def way(self, address: tuple[str, int], body: bytes) -> list[str]:
        """Send a request until three of them have had the same way.

        A request whose rows another thread runs has no one order of files. One that meets a task which the event loop
        runs now and then has files of that task in its way.
        """
        seen: Counter[tuple[str, ...]] = Counter()
        head = b"POST /logprob HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        for _ in range(_TRIES):
            self._lost.clear()
            with socket.create_connection(address, timeout=60) as client:
                client.sendall(head + body)  # in one piece: in two, the order depends on when the second comes
                response = http.client.HTTPResponse(client)
                response.begin()
                response.read()
            if response.status != 200 or not self._lost.wait(60):
                raise AssertionError(f"the server answered {response.status}")
            entered = self._entered or []
            if len({thread for _, thread in entered}) == 1:
                way = tuple(dict.fromkeys(name for name, _ in entered))
                seen[way] += 1
                if seen[way] == _ALIKE:
                    return list(way)
        raise AssertionError(f"no {_ALIKE} of {_TRIES} requests had the same way on the event loop: {seen}")


def _serve() -> None:
    watch = _Watch()
    threading.setprofile(watch)
    sys.setprofile(watch)
    from service.process.server import serve
    from service.settings import Settings

    def ask(url: str) -> None:
        try:
            host, _, port = url.removeprefix("http://").partition(":")
            address = (host, int(port))
            found = {}
            for name, body in REQUESTS.items():
                found[name] = watch.way(address, body)
            print(json.dumps(found), flush=True)  # noqa: T201  a script
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = Settings(repository=ROOT / "models" / "zoo", default_flow="two-moons", port=0)
    serve(settings, lambda url, _: threading.Thread(target=ask, args=(url,)).start())


if __name__ == "__main__":
    _serve()
