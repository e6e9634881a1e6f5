"""A real Chromium, and real servers for it. Without them the tests of this folder are skipped, and say why."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server import Server

ZOO = Path(__file__).parents[2] / "models" / "zoo"

NAMES = ("chromium", "chromium-browser", "google-chrome")


def _missing() -> str | None:
    """What is not there for these tests; None where nothing is missing."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: `make browser` installs it"
    if chromium() is None:
        return "no Chromium is found: `make browser` installs Debian's"
    return None


def chromium() -> str | None:
    """The browser: the one that CHROMIUM names, or the system's."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


WHY = _missing()


class _SkippedModule(pytest.Module):
    """A module that is not imported: it would import what is missing."""

    def collect(self) -> list:
        pytest.skip(WHY, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return _SkippedModule.from_parent(parent, path=module_path) if WHY else None


@pytest.fixture(scope="module")
def browser():
    """Chromium. It is closed after each module: its loop would be in the way of other tests of the same thread."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox it runs as root in a container; it opens the pages of this project alone.
        opened = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """The shipped flows."""
    started = Server("--repository", ZOO, "--default-flow", "two-moons")
    yield started
    started.kill()


@pytest.fixture
def open_page(browser, server) -> Iterator[Callable]:
    """Open an address of the server in a page of its own, which is held against all rules at the end."""
    from tests.browser.watched import Watched

    opened = []

    def open_(path: str = "/", *, url: str = server.url, **options: object) -> Watched:
        context = browser.new_context(**({"viewport": {"width": 1360, "height": 880}} | options))
        context.set_default_timeout(30_000)
        watched = Watched(context.new_page(), url)
        opened.append((context, watched))
        watched.page.goto(url + path)
        return watched

    yield open_
    for context, watched in opened:
        context.close()
        watched.check()
