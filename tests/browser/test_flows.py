"""The console opens, and shows every served flow as a card."""

from __future__ import annotations

import math
import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.marked import slow
from tests.browser.watched import until

TWO_FRAMES = """async node => {
  const first = node.toDataURL();
  for (let k = 0; k < 5; k++) await new Promise(requestAnimationFrame);
  return [first, node.toDataURL()];
}"""


@pytest.fixture
def flows(server):
    return httpx.get(f"{server.url}/models").json()["models"]


def test_every_flow_is_a_card_with_a_picture_and_its_figures(open_page, server, flows):
    page = open_page().page
    expect(page.locator(".card")).to_have_count(len(flows))
    for flow in flows:
        card = page.get_by_role("article", name=flow["name"], exact=True)
        card.scroll_into_view_if_needed()
        expect(card.locator(".card-picture canvas")).to_be_visible()
        manifest = httpx.get(f"{server.url}/models/{flow['name']}").json()["manifest"]
        held_out = f"{manifest['calibration']['mean']:.2f}".replace("-", "\u2212")
        expect(card.locator(".figures")).to_contain_text(held_out)
        assert painted(card.locator(".card-picture canvas"))


def painted(canvas) -> bool:
    """Whether a canvas has more than one colour."""
    return canvas.evaluate(
        """node => {
          const data = node.getContext("2d").getImageData(0, 0, node.width, node.height).data;
          return new Set(new Uint32Array(data.buffer)).size > 4;
        }"""
    )


def test_how_to_call_it_names_this_server_and_answers(open_page, server):
    page = open_page().page
    card = page.get_by_role("article", name="wine", exact=True)
    card.get_by_text("How to call it").click()
    command = card.locator(".code").first.inner_text()
    url = re.search(r"'(http[^']*)'", command)[1]
    assert url.startswith(server.url)
    assert httpx.get(url).json()["n"] == 3
    told: dict[str, object] = {}
    python = card.locator(".code").nth(1).locator("code").inner_text()
    exec(python.replace("client.log_prob", "found = client.log_prob"), told)
    assert len(told["found"]) == 3
    told["client"].close()


def test_images_are_given_in_bits(open_page, server):
    page = open_page().page
    row = [httpx.get(f"{server.url}/models/digits/sample?n=1&seed=1").json()["x"][0]]
    told = httpx.post(f"{server.url}/models/digits/logprob", json={"x": row, "return": ["bits_per_dim"]}).json()
    mean = httpx.get(f"{server.url}/models/digits").json()["calibration"]["mean"]
    bits = told["bits_per_dim"][0] + (told["log_prob"][0] - mean) / 64 / math.log(2)
    card = page.get_by_role("article", name="digits")
    expect(card).to_contain_text(f"{bits:.2f} bits/dim")


def test_a_first_load_is_small_and_quick(open_page):
    watched = open_page()
    expect(watched.page.locator(".card").first).to_be_visible()
    files = [request for request in watched.requests if "/console/" in request.url or request.url.endswith("/")]
    sizes = [request.sizes()["responseBodySize"] for request in files]
    assert sum(sizes) < 300_000
    assert len(files) > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_as_the_system_says_and_as_chosen(open_page, scheme):
    page = open_page(color_scheme=scheme).page
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != ground


@pytest.mark.parametrize("page_path", ["/docs", slow("/redoc")])
def test_the_pages_of_the_api_need_nobody_else(open_page, page_path):
    page = open_page(page_path).page
    expect(page.locator("text=Log-densities of rows >> visible=true").first).to_be_visible(timeout=60_000)
    page.wait_for_load_state("networkidle")


def test_where_motion_is_unwelcome_nothing_moves_until_it_is_asked_for(open_page):
    page = open_page(reduced_motion="reduce").page
    canvas = page.locator(".hero-picture canvas")
    expect(canvas).to_be_visible()
    until(page, "() => document.querySelectorAll('.card-picture canvas').length > 2")
    first, again = canvas.evaluate(TWO_FRAMES)
    assert first == again
    page.get_by_role("button", name="Play").click()
    before = canvas.evaluate("node => node.toDataURL()")
    until(page, "old => document.querySelector('.hero-picture canvas').toDataURL() !== old", before)
    page.get_by_role("button", name="Pause").click()
