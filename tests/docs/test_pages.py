"""Every page: its links lead somewhere, and each file, module and name that it mentions exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, anchors, broken_link, code, links, mentioned, missing
from tests.test_architecture import ROOT

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
MADE = {"docs/benchmarks.png"}
"""Files that a command writes and that are not part of the project."""
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
TERMS = re.findall(r"^\| \*\*([^*]+)\*\* \| (.+) \| ([^|]+) \|$", GLOSSARY, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page: Path):
    assert [why for target in links(page.read_text()) if (why := broken_link(page, target))] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_file_module_and_name_that_is_mentioned_exists(page: Path):
    assert [why for mention in mentioned(page.read_text()) if mention not in MADE and (why := missing(mention))] == []


def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n## Its `part`, two\n\n[a](page.md#its-part-two) ![b](#none) [c](other.md)\n")
    found = [broken_link(page, target) for target in links(page.read_text())]
    assert found == [None, "#none: page.md has no heading for #none", "other.md: there is no other.md"]


def test_code_is_not_read_as_prose():
    text = "# A\n\n```sh\n# b\n[c](d.md) `service/none.py`\n```\n"
    assert (anchors(text), links(text), code(text)) == ({"a"}, [], [])


EXISTING = ["service/plan.py", "service/engine/", "service.plan.Run", "models.flows.flow.Flow.fold", "tests.docs.pages"]
NOT_EXISTING = ["service/none.py", "service.none", "service.plan.Nothing", "service.plan.Run.none", "tests.docs.none"]


@pytest.mark.parametrize("mention", EXISTING)
def test_what_exists_is_found(mention: str):
    assert missing(mention) is None


@pytest.mark.parametrize("mention", NOT_EXISTING)
def test_what_does_not_exist_is_seen(mention: str):
    assert missing(mention) is not None


def test_files_and_names_are_read_out_of_any_text():
    text = "See service/plan.py, or `python -m tests.docs.pages`.\n```sh\nls ./models/zoo /models/a {x}/service/a\n"
    assert mentioned(text) == ["service/plan.py", "tests.docs.pages"]


def test_every_term_of_the_glossary_points_to_where_it_is_defined():
    assert len(TERMS) > 20
    for term, _, place in TERMS:
        assert len(mentioned(place)) == len(code(place)) > 0, term
        assert [missing(name) for name in mentioned(place)] == [None] * len(code(place)), term


def test_the_glossary_has_each_term_once_in_the_order_of_the_alphabet():
    terms = [term.lower() for term, _, _ in TERMS]
    assert terms == sorted(set(terms))
    assert len(TERMS) == len(re.findall(r"^\| \*\*", GLOSSARY, flags=re.MULTILINE))
