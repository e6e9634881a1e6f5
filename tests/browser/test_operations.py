"""What the server does is on the page as it happens, and is what /metrics says."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import expect

from service.access.keys import make_key
from tests.browser.conftest import ZOO
from tests.browser.marked import slow
from tests.browser.watched import until
from tests.server import Server


def rows_so_far(server, flow, direction):
    text = httpx.get(f"{server.url}/metrics").text
    return float(re.search(rf'rows_total{{direction="{direction}",flow="{flow}",version="1"}} (\S+)', text)[1])


def cell(page, flow, direction, column):
    table = page.get_by_role("region", name="By flow and direction")
    return table.locator("tr").filter(has_text=flow).filter(has_text=direction).locator("td").nth(column)


def test_rows_are_counted_as_they_are_served(open_page, server):
    page = open_page("/#/operations").page
    httpx.get(f"{server.url}/models/wine/sample", params={"n": 5000, "seed": 1})
    expect(cell(page, "wine", "inverse", 1)).to_be_visible()
    until(
        page,
        """() => [...document.querySelectorAll("tr")].some((row) => row.textContent.startsWith("wineinverse")
          && Number(row.children[2].textContent.replaceAll("\\u2009", "")) >= 5000
          && Number(row.children[3].textContent) > 0)""",
    )
    told = int(cell(page, "wine", "inverse", 1).inner_text().replace("\u2009", ""))
    assert told <= rows_so_far(server, "wine", "inverse")
    served = len(httpx.get(f"{server.url}/models").json()["models"])
    expect(page.get_by_role("region", name="Engines").locator("tbody tr")).to_have_count(served)
    expect(page.get_by_text("A canary row went through every engine")).to_be_visible()


def test_drift_is_by_the_quantiles_of_what_was_scored(open_page, server):
    page = open_page("/#/operations?since=page&flow=two-moons").page
    expect(page.locator(".drifts h3")).to_have_text("two-moons")
    until(page, "() => document.querySelector('.drifts p').textContent !== ''")
    rows = httpx.get(f"{server.url}/models/two-moons/sample", params={"n": 1000, "seed": 2}).json()["x"]
    far = [[9.0, 9.0]] * 1000
    httpx.post(f"{server.url}/models/two-moons/logprob", json={"x": [*rows, *far]})
    until(
        page,
        """() => {
          const rows = document.querySelector(".drifts p").textContent.split(" rows")[0];
          return Number(rows.replaceAll("\\u2009", "")) >= 2000;
        }""",
    )
    share = float(re.search(r"([\d.]+)\u202f% in the lowest", page.locator(".drifts p").inner_text())[1])
    assert 45 < share < 56


ENDS = "(each) => each.name.endsWith('/metrics')"


def counts(watched):
    return [request for request in watched.requests if request.url.endswith("/metrics")]


@pytest.mark.slow
def test_a_pause_asks_nobody(open_page):
    watched = open_page("/#/operations?live=no")
    page = watched.page
    expect(page.locator(".tally.now dd").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    before = len(counts(watched))
    page.wait_for_timeout(2500)
    assert before == 1
    assert len(counts(watched)) == before
    page.get_by_role("switch", name="Live").press("Space")
    until(
        page,
        "() => performance.getEntriesByType('resource').filter((each) => each.name.endsWith('/metrics')).length > 2",
    )


@pytest.fixture(scope="module")
def behind():
    """A server with keys, behind a prefix; and a key that may only infer."""
    made = make_key("page", frozenset({"infer"}))
    server = Server(
        "--repository", ZOO, "--default-flow", "two-moons", "--keys", made.stored.line(), "--root-path", "/at"
    )
    yield server, made.key
    server.kill()


def give_key(page, key):
    page.get_by_role("textbox", name="Key").fill(key)
    page.keyboard.press("Enter")


def test_a_key_without_the_scope_is_told_what_it_lacks(open_page, behind):
    server, key = behind
    watched = open_page("/at/#/operations", url=server.url)
    watched.allowed |= {401, 403}
    give_key(watched.page, key)
    expect(watched.page.get_by_role("alert")).to_contain_text("metrics")


def test_a_file_is_scored_with_the_key_and_behind_the_prefix(open_page, behind):
    server, key = behind
    watched = open_page("/at/#/score?model=wine", url=server.url)
    watched.allowed |= {401}
    give_key(watched.page, key)
    watched.page.get_by_role("button", name="Use an example").click()
    expect(watched.page.locator(".table tbody tr")).to_have_count(25)
    assert key not in watched.page.content()


@pytest.mark.parametrize(
    "view", [*map(slow, ("walk?model=faces", "walk?model=wine", "score?model=wine")), "operations"]
)
@pytest.mark.parametrize("scheme", ["light", slow("dark")])
def test_axe_finds_nothing_serious(open_page, view, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(f"/#/{view}", color_scheme=scheme).page
    expect(page.locator(".panel, .drop").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    if view.startswith("score"):
        page.get_by_role("button", name="Use an example").click()
        expect(page.locator(".table tbody tr").first).to_be_visible()
    found = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize(
    "view", ["walk?model=faces", *map(slow, ("walk?model=two-moons", "score?model=wine", "operations"))]
)
def test_nothing_is_wider_than_a_phone(open_page, view):
    page = open_page(f"/#/{view}", viewport={"width": 390, "height": 844}).page
    expect(page.locator(".panel, .drop").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
