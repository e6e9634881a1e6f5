"""The examples of docs/http.md and docs/scores.md give what they show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.readme import Example, agrees, examples, run
from tests.server import Server

PAGES = [Path(__file__).parents[2] / "docs" / name for name in ("http.md", "scores.md")]
EXAMPLES = [example for page in PAGES for example in examples(page.read_text())]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = Server()
    yield server.url.removeprefix("http://")
    assert server.stop() == 0


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.command[:60])
def test_an_example_gives_what_is_shown(address: str, example: Example):
    assert agrees(example.answer, run(example.command, address)), run(example.command, address)
