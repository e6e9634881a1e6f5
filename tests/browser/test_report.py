"""The report of a fit is one file that draws its figures in a browser, from a disk, with the console's components."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from models.training.report import write_report
from tests.browser.marked import slow
from tests.browser.watched import until
from tests.models.training.test_report import conditional_findings, findings

EVENTS = {"one column": (1,), "two columns": (2,), "wide": (10,), "image": (4, 4, 1)}


@pytest.mark.parametrize("scheme", ["light", slow("dark")])
@pytest.mark.parametrize("event", [slow("one column"), slow("two columns"), "wide", "image"], ids=str)
def test_every_picture_becomes_a_figure(open_page, tmp_path, event, scheme):
    page = open_page(str(write_report(findings(*EVENTS[event]), tmp_path)), url="file://", color_scheme=scheme).page
    until(page, "() => document.querySelectorAll('.picture img').length === 0")
    places = page.locator(".picture")
    for place in places.all():
        expect(place.locator("canvas").first).to_be_visible()
    until(page, PAINTED)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


PAINTED = """() => [...document.querySelectorAll('.picture canvas')].every((canvas) => {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size > 2;
})"""


def test_an_epoch_is_read_by_keyboard(open_page, tmp_path):
    found = findings(2)
    page = open_page(str(write_report(found, tmp_path)), url="file://").page
    curve = page.get_by_role("application", name=re.compile("Mean log-likelihood"))
    curve.press("ArrowRight")
    said = page.locator("[data-figure=loss] [role=status]")
    expect(said).to_contain_text(re.compile(r"Epoch \d"))
    epoch = int(re.search(r"Epoch (\d+)", said.inner_text())[1])
    told = found.history[epoch - 1].validation
    expect(said).to_contain_text(f"{told:.3f}".replace("-", "\u2212"))


def test_ranks_are_there_where_a_context_is(open_page, tmp_path):
    page = open_page(str(write_report(conditional_findings(), tmp_path)), url="file://").page
    expect(page.locator("[data-figure=ranks] canvas")).to_have_count(3)


def test_axe_finds_nothing_serious_in_a_report(open_page, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(str(write_report(findings(2), tmp_path)), url="file://").page
    until(page, "() => document.querySelectorAll('.picture img').length === 0")
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []
