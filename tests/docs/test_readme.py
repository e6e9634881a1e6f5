"""The README is the first thing a stranger runs: its commands exist, and its curls give what it shows."""

from __future__ import annotations

import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushforward.cli.group import COMMANDS
from service.bundle.store import Repository
from tests.docs.readme import README, Example, agrees, blocks, examples, run
from tests.server import Server

ROOT = README.parent
TEXT = README.read_text()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where `pushforward serve`, with nothing said, serves the shipped flows."""
    server = Server()
    yield server.url.removeprefix("http://")
    assert server.stop() == 0


@pytest.mark.parametrize("example", examples(TEXT), ids=lambda example: example.command[:60])
def test_a_curl_gives_what_is_shown(address: str, example: Example):
    assert shutil.which("curl"), "the README's examples are run with curl, which is not installed"
    came = run(example.command, address)
    assert agrees(example.answer, came), came


def test_the_python_block_runs(address: str):
    (block,) = blocks(TEXT, "python")
    names: dict[str, object] = {}
    exec(compile(block.replace("localhost:8000", address), "README.md", "exec"), names)
    assert len(names["rows"]) == 1000
    assert len(names["log_prob"]) == 1


def test_every_make_target_is_there():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks(TEXT, "sh")), flags=re.MULTILINE))
    assert {"serve", "test", "check", "bench"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_command_and_option_named_is_there():
    words = re.findall(r"(?<!`)pushforward ([a-z]+)((?: [^`\n#]+)?)", TEXT)
    named = [(name, rest) for name, rest in words if name in COMMANDS]
    assert {"serve", "train", "check", "inspect"} <= {name for name, _ in named}
    reference = (ROOT / "docs" / "cli.md").read_text()
    for name, rest in named:
        _, _, section = reference.partition(f"## pushforward {name}\n")
        for option in re.findall(r"--[a-z-]+", rest):
            assert option in section.partition("\n## ")[0], f"{name} {option}"


def test_the_shipped_flows_are_the_ones_listed():
    names = re.findall(r"^\| `([a-z0-9-]+)` \|", TEXT, flags=re.MULTILINE)
    assert sorted(names) == Repository(ROOT / "models" / "zoo").names()


def test_every_page_linked_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_python_version_asked_for_is_the_one_written():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"].removeprefix(">=") in TEXT
    assert sys.version_info >= tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))


def test_every_base_dependency_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["cpu"], *extras["train"], *extras["dev"]]
    locked = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in Path(ROOT / "constraints.txt").read_text().splitlines()
    }
    for requirement in asked:
        assert re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-") in locked, requirement
