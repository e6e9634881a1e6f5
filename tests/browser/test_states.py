"""What the page does when there is nothing to show, no key, or no server, and that everyone can use it."""

from __future__ import annotations

import re
import shutil

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from service.access.keys import make_key
from tests.browser.conftest import ZOO
from tests.browser.marked import slow
from tests.browser.watched import until, wait_for_map
from tests.server import Server

VIEWS = (
    "flows",
    "density?model=two-moons&at=0.5,0.25",
    "density?model=wine",
    "chain?model=two-moons&t=4",
    "chain?model=square&t=1",
    "chain?model=digits&t=9",
    "sampling?model=wine",
    "sampling?model=digits",
)


@pytest.fixture
def serve():
    """Start servers that end with the test."""
    started = []

    def start(*options: object) -> Server:
        started.append(Server(*options))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.mark.parametrize("view", [VIEWS[0], *map(slow, VIEWS[1:])])
def test_axe_finds_nothing_serious_and_a_phone_scrolls_in_one_direction(open_page, view):
    page = open_page(f"/#/{view}", reduced_motion="reduce").page
    expect(page.locator("canvas, tbody").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious_violations(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert serious_violations(page) == []


def serious_violations(page) -> list:
    """What axe finds that keeps somebody from using the page."""
    found = Axe().run(page).response["violations"]
    return [
        (each["id"], [node["html"][:120] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


def test_the_keyboard_alone_leads_from_the_flows_to_a_row(open_page):
    page = open_page(reduced_motion="reduce").page
    expect(page.locator(".card")).to_have_count(5)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText") == "Density":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Density", exact=True)).to_be_visible()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "CANVAS":
            break
    wait_for_map(page)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".reading .readout")).to_be_visible()


def test_a_phone_shows_the_view_in_the_menu_and_tab_begins_at_the_top(open_page):
    page = open_page("/#/operations", viewport={"width": 360, "height": 740}).page
    link = page.get_by_role("navigation", name="Views").get_by_role("link", name="Operations")
    expect(link).to_be_in_viewport(ratio=0.99)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()


def test_a_server_that_goes_away_and_returns(open_page, serve):
    server = serve("--repository", ZOO, "--default-flow", "two-moons")
    watched = open_page("/#/sampling?model=two-moons", url=server.url)
    watched.may_fail = True
    page = watched.page
    expect(page.locator("tbody tr")).to_have_count(20)
    server.kill()
    page.get_by_role("button", name="Another seed").click()
    expect(page.get_by_text("The server does not answer.").first).to_be_visible()
    again = serve("--repository", ZOO, "--default-flow", "two-moons", "--port", server.port)
    assert again.port == server.port
    expect(page.get_by_text("The server does not answer.")).to_have_count(0, timeout=30_000)
    expect(page.locator("tbody tr")).to_have_count(20)
    expect(page.get_by_role("spinbutton", name="Seed")).to_have_value("8")


@pytest.mark.slow
def test_a_view_that_is_opened_while_the_server_is_away(open_page, serve):
    server = serve("--repository", ZOO, "--default-flow", "two-moons")
    watched = open_page("/#/sampling?model=two-moons", url=server.url)
    watched.may_fail = True
    page = watched.page
    expect(page.locator("tbody tr")).to_have_count(20)
    server.kill()
    page.get_by_role("link", name="Chain").click()
    expect(page.get_by_text("The server does not answer.").first).to_be_visible()
    serve("--repository", ZOO, "--default-flow", "two-moons", "--port", server.port)
    expect(page.locator(".bar-row")).to_have_count(11, timeout=60_000)


def test_flows_that_are_still_loading_appear_by_themselves(open_page, serve):
    server = serve("--repository", ZOO, "--default-flow", "two-moons", "--startup-seconds", 0)
    watched = open_page("/#/sampling?model=digits", url=server.url)
    expect(watched.page.locator(".sheet")).to_be_visible(timeout=60_000)


def test_a_server_with_keys_asks_for_one_and_keeps_it_in_memory(open_page, serve):
    made = make_key("page", frozenset({"infer"}))
    server = serve("--repository", ZOO, "--default-flow", "two-moons", "--keys", made.stored.line())
    watched = open_page("/#/sampling?model=two-moons", url=server.url)
    watched.allowed |= {401, 403}
    page = watched.page
    expect(page.get_by_role("heading", name="This server asks for a key")).to_be_visible()
    page.get_by_role("textbox", name="Key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("the key is none of this server's")).to_be_visible()
    page.get_by_role("textbox", name="Key").fill(made.key)
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(20)
    expect(page.locator(".call-box")).to_contain_text('Bearer $KEY"')
    assert made.key not in page.content()
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    expect(page.get_by_role("heading", name="This server asks for a key")).to_be_visible()


@pytest.mark.slow
def test_an_empty_repository_says_so_and_shows_what_comes(open_page, serve, tmp_path):
    shutil.copytree(ZOO / "square", tmp_path / "square")
    server = serve("--repository", tmp_path, "--watch", "--watch-seconds", 0.1)
    page = open_page(url=server.url).page
    expect(page.get_by_role("article", name="square").locator("canvas")).to_be_visible()
    page.wait_for_load_state("networkidle")  # what is asked of a flow that is gone gets 404
    assert httpx.delete(f"{server.url}/repository/square/versions/1").status_code == 200
    expect(page.get_by_role("heading", name="There is no flow here yet")).to_be_visible(timeout=30_000)
    shutil.copytree(ZOO / "wine", tmp_path / "wine")
    expect(page.get_by_role("article", name="wine")).to_be_visible(timeout=60_000)
    expect(page.locator(".card-picture canvas")).to_be_visible()


def test_a_flow_that_is_refused_says_why_and_the_others_are_shown(open_page, serve, tmp_path):
    shutil.copytree(ZOO / "square", tmp_path / "square")
    shutil.copytree(ZOO / "wine", tmp_path / "wine")
    (tmp_path / "wine" / "1" / "forward.onnx").write_bytes(b"no graph")
    server = serve("--repository", tmp_path)
    watched = open_page(url=server.url)
    page = watched.page
    card = page.get_by_role("article", name="wine")
    expect(card).to_contain_text("forward.onnx")
    expect(page.get_by_role("article", name="square").locator("canvas")).to_be_visible()
    page.evaluate("location.hash = '#/sampling?model=wine'")
    expect(page.get_by_role("heading", name=re.compile("^wine is "))).to_be_visible()
    page.evaluate("location.hash = '#/sampling?model=nothing'")
    expect(page.get_by_role("heading", name="No such flow")).to_be_visible()


def test_behind_a_prefix(open_page, serve):
    server = serve("--repository", ZOO, "--default-flow", "two-moons", "--root-path", "/flows")
    for path in ("/flows", "/flows/"):
        watched = open_page(path + "#/sampling?model=two-moons", url=server.url)
        expect(watched.page.locator("tbody tr")).to_have_count(20)
        assert watched.asked("/flows/models/two-moons/versions/1/sample")
        assert all("/flows" in request.url for request in watched.requests)


def test_the_policy_runs_no_script_within_the_page(open_page):
    page = open_page().page
    expect(page.locator(".card").first).to_be_visible()
    until(page, "() => document.title === 'Pushforward'")
    answer = httpx.get(page.url.partition("#")[0])
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|\bstyle=", answer.text)
