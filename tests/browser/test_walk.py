"""A walk through latent space: chosen by picture, slid along without asking the server, and bent by directions."""

from __future__ import annotations

import re

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.marked import slow

FRAMES = 241


def samples(server, flow, n, **query):
    return httpx.get(f"{server.url}/models/{flow}/sample", params={"n": n, "seed": 7, **query}).json()["x"]


def walk(server, flow, points, **given):
    steps = (FRAMES - 1) // (len(points) - 1) + 1
    asked = {"points": points, "steps": steps, **given}
    return httpx.post(f"{server.url}/models/{flow}/interpolate", json=asked, timeout=60).json()


def told(locator) -> float:
    """The log_prob that the page tells."""
    expect(locator).to_contain_text("nats")
    return float(re.search("= ([\u2212\\d.]+) nats", locator.inner_text())[1].replace("\u2212", "-"))


def figures(page):
    return page.locator(".walk-figures").first


def painted(page) -> str:
    """What the page tells once its next frame is drawn."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return figures(page).inner_text()


def test_the_frame_under_the_slider_is_the_servers_own(open_page, server):
    page = open_page("/#/walk?model=digits&rows=0,3,5&at=0.75").page
    rows = samples(server, "digits", 28, temperature=0.8)
    answer = walk(server, "digits", [rows[0], rows[3], rows[5]])
    assert abs(told(figures(page)) - answer["log_prob"][90]) < 0.006
    shown = page.locator(".walk-picture canvas").first
    pixels = shown.evaluate(
        "node => Array.from(node.getContext('2d').getImageData(0, 0, 8, 8).data).filter((_, k) => k % 4 === 0)"
    )
    expected = np.clip(np.array(answer["x"][90]).ravel() * 255 / 16, 0, 255)
    low = np.clip((np.array(answer["x"][90]).ravel() + 0.5) * 255 / 17, 0, 255)
    assert min(np.abs(np.array(pixels) - each).max() for each in (expected, low)) <= 1


def test_sliding_asks_nobody(open_page):
    watched = open_page("/#/walk?model=digits&rows=0,3")
    page = watched.page
    told(figures(page))
    page.wait_for_load_state("networkidle")
    before = len(watched.asked("/models/"))
    slider = page.get_by_role("slider", name="Along the way")
    seen = set()
    for share in np.linspace(0, 1, 30):
        slider.fill(str(share))
        seen.add(painted(page))
    box = page.get_by_role("application", name=re.compile("log_prob along the way")).bounding_box()
    for share in np.linspace(0.2, 0.9, 10):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        seen.add(painted(page))
    assert len(seen) > 20
    assert len(watched.asked("/models/")) == before


def test_rows_are_chosen_by_picture_and_stay_in_the_address(open_page, server):
    page = open_page("/#/walk?model=digits&rows=none").page
    expect(page.get_by_text("No row is chosen")).to_be_visible()
    for name in ("Row 4", "Row 9", "Row 2"):
        page.get_by_role("button", name=name, exact=True).press("Enter")
    expect(page.get_by_text("3 rows: 4 \u2192 9 \u2192 2")).to_be_visible()
    page.wait_for_url(re.compile("rows=4,9,2"))
    rows = samples(server, "digits", 28, temperature=0.8)
    answer = walk(server, "digits", [rows[4], rows[9], rows[2]])
    assert abs(told(figures(page)) - answer["log_prob"][120]) < 0.006


@pytest.mark.parametrize("way", [slow("slerp"), "linear"])
def test_the_path_is_the_one_that_is_chosen(open_page, server, way):
    page = open_page("/#/walk?model=two-moons&rows=0,16").page
    told(figures(page))
    page.locator("label", has_text=way).click()
    page.get_by_role("slider", name="Along the way").fill("0.25")
    rows = samples(server, "two-moons", 20)
    expected = walk(server, "two-moons", [rows[0], rows[16]], path=way)["log_prob"][60]
    expect(figures(page)).to_contain_text(f"{expected:.2f}".replace("-", "\u2212"))


def test_directions_add_up_and_are_answered_once_each(open_page, server):
    watched = open_page("/#/walk?model=digits&rows=0,3&at=0")
    page = watched.page
    directions = page.get_by_role("region", name=re.compile("Directions"))
    directions.get_by_label("8", exact=True).fill("3")
    edited = directions.locator(".walk-figures")
    told(edited)
    asked = len(watched.asked("/edit"))
    assert asked == 1
    for strength in ("2", "1", "-1.5", "3"):
        directions.get_by_label("8", exact=True).fill(strength)
    assert len(watched.asked("/edit")) == asked
    rows = samples(server, "digits", 4, temperature=0.8)
    start = walk(server, "digits", [rows[0], rows[3]])["x"][0]
    edit = {"x": [start], "direction": "8", "strength": [3]}
    one = httpx.post(f"{server.url}/models/digits/edit", json=edit).json()
    assert abs(told(edited) - one["log_prob"][0][0]) < 0.02
    directions.get_by_label("1", exact=True).fill("-1")
    expect(edited).to_contain_text("1 \u22121.0")
    page.wait_for_load_state("networkidle")
    vectors = httpx.get(f"{server.url}/models/digits").json()["manifest"]["directions"]
    both = (3 * np.array(vectors["8"]) - np.array(vectors["1"])).tolist()
    two = httpx.post(f"{server.url}/models/digits/edit", json={"x": [start], "direction": both, "strength": [1]}).json()
    assert abs(told(edited) - two["log_prob"][0][0]) < 0.05


@pytest.mark.parametrize("flow", [slow("two-moons"), "wine", slow("square")])
def test_every_kind_of_flow_walks(open_page, flow):
    page = open_page(f"/#/walk?model={flow}").page
    before = told(figures(page))
    page.get_by_role("slider", name="Along the way").fill("0.1")
    expect(figures(page)).not_to_contain_text(f"{before:.2f}".replace("-", "\u2212"))
