"""The files about the project itself: they can be read, say what pyproject.toml says, and name commands that exist."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml

from tests.docs.readme import blocks
from tests.test_architecture import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_one_of_format_1_2_0():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    # What the schema of Citation File Format 1.2.0 requires, and the types of the rest.
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in {"software", "dataset"}
    assert all(isinstance(citation[key], str) for key in ("message", "title", "abstract", "version", "license"))
    assert all(isinstance(keyword, str) for keyword in citation["keywords"])
    assert citation["authors"] == [{"name": "The Pushforward authors"}]


def test_the_citation_agrees_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["keywords"] == PROJECT["keywords"]


def test_the_version_of_the_image_is_that_of_the_project():
    assert f"ARG VERSION={PROJECT['version']}\n" in (ROOT / "Dockerfile").read_text()


def test_the_hook_before_a_commit_runs_make_check():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (hook,) = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == ("make check", "system", False)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "README.md"])
def test_every_make_target_that_a_page_names_exists(page: str):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks(text, "sh")), flags=re.MULTILINE))
    named |= set(re.findall(r"`make ([a-z-]+)", text))
    makefile = (ROOT / "Makefile").read_text()
    assert {"test", "check"} <= named
    assert [target for target in sorted(named) if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)] == []
