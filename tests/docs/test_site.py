"""The site of the documentation: every page is in its navigation, and the reference has every module of its rooms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.test_architecture import ALLOWED, ROOT, modules

DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
SHOWN = re.findall(r"^::: (\S+)$", "".join(page.read_text() for page in DOCS.rglob("*.md")), flags=re.MULTILINE)
NOT_SHOWN = {
    "service", "models", "pushforward", "pushforward.cli", "pushforward.commands", "models.recipes", "models.zoo",
}  # fmt: skip
"""Rooms without an interface in Python: what is at the top of a package, commands, and data."""


def pages(nav: list[Any]) -> list[str]:
    """The files that a navigation lists."""
    found: list[str] = []
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            found += [value] if isinstance(value, str) else pages(value)
    return found


def test_every_page_is_in_the_navigation_once_and_every_decision_in_their_index():
    decisions = {str(path.relative_to(DOCS)) for path in DOCS.glob("decisions/0*.md")}
    assert sorted(pages(SITE["nav"])) == sorted(
        {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} - decisions
    )
    index = (DOCS / "decisions" / "README.md").read_text()
    assert set(re.findall(r"\]\((.*\.md)\)", index)) == {Path(name).name for name in decisions}


def test_what_the_reference_shows_exists():
    assert [name for name in SHOWN if name not in modules()] == []


def test_the_reference_shows_every_room():
    for room in set(ALLOWED) - NOT_SHOWN:
        assert any(room == name or room.startswith(f"{name}.") for name in SHOWN), room
