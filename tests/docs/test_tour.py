"""The tour is what the service draws: the page as the script has it, each picture there, each of the size drawn now."""

from __future__ import annotations

import io
import re
from pathlib import Path

import PIL.Image
import pytest

from tests.docs.tour import DOCS, PAGE, write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    docs = tmp_path_factory.mktemp("docs")
    write(docs)
    return docs


def size(file: Path) -> tuple[int, int]:
    return PIL.Image.open(io.BytesIO(file.read_bytes())).size


def test_the_page_is_the_one_that_the_script_writes():
    assert (DOCS / "tour.md").read_text() == PAGE, "run `python -m tests.docs.tour`"


def test_every_picture_is_shown_and_is_there(made: Path):
    shown = set(re.findall(r"\]\((tour/[a-z]+\.png)\)", PAGE))
    assert shown == {f"tour/{file.name}" for file in (made / "tour").iterdir()}
    assert shown == {f"tour/{file.name}" for file in (DOCS / "tour").iterdir()}


def test_the_pictures_have_the_size_that_is_drawn_now(made: Path):
    found = {file.name: size(file) for file in (DOCS / "tour").iterdir()}
    assert found == {file.name: size(file) for file in (made / "tour").iterdir()}
