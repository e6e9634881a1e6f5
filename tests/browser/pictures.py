"""The pictures of the console in docs/console/, taken of a real server by a real browser: `make pictures`."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, ImageColor
from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.conftest import ZOO, chromium
from tests.browser.watched import until, wait_for_map
from tests.server import Server

FOLDER = Path(__file__).parents[2] / "docs" / "console"

SHOTS = {
    "flows": ("flows", "light"),
    "density": ("density?model=two-moons&at=0.9,0.5", "light"),
    "chain": ("chain?model=two-moons&t=6.5&row=3", "dark"),
    "areas": ("chain?model=square&t=1", "light"),
    "score": ("score?model=two-moons", "light"),
    "operations": ("operations", "dark"),
}
"""The pictures: each a view and a theme."""

SIZE = {"width": 1280, "height": 860}

DRAWN = "node => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(node.toDataURL()))))"
"""A canvas as it is after the next frame."""

FRAMES = 36
FRAME_MS = 70
REST_MS = 900
COLOURS = 40
GREYS = 72
ACCENTS = ("#c4401f", "#444bd0", "#e9eafb", "#1d1a2b", "#dd8f7c", "#a0a4e6", "#ddd7cd", "#5c576d")
"""Colours of the walk beside greys."""

BUSY = 120

WALK = "walk?model=faces&rows=0,16,9&at=0"
"""The walk that is recorded."""


def main() -> None:
    """Take them all."""
    FOLDER.mkdir(exist_ok=True)
    server = Server("--repository", ZOO, "--default-flow", "two-moons")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            for name, (view, scheme) in SHOTS.items():
                page = browser.new_page(viewport=SIZE, color_scheme=scheme, reduced_motion="no-preference")
                page.goto(f"{server.url}/#/{view}")
                settle(page)
                save(Image.open(io.BytesIO(page.screenshot())), FOLDER / f"{name}.png")
                page.close()
            page = browser.new_page(viewport=SIZE, color_scheme="light", reduced_motion="reduce")
            record(page, f"{server.url}/#/chain?model=two-moons&t=0&grid=off", FOLDER / "chain.gif")
            page.close()
            page = browser.new_page(viewport={"width": 1180, "height": 900}, color_scheme="light")
            record_walk(page, f"{server.url}/#/{WALK}", FOLDER / "walk.gif")
            browser.close()
    finally:
        server.kill()


def settle(page: Page) -> None:
    """Wait until a page shows what it has to show."""
    if "#/score" in page.url:
        page.get_by_role("button", name="Use an example").click()
        expect(page.locator(".table tbody tr").first).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    if "#/density" in page.url:
        wait_for_map(page)
    page.wait_for_load_state("networkidle")
    if "#/operations" in page.url:
        keep_busy(page)
    if "#/flows" in page.url:  # the opening is on its way between two rows then
        until(page, "since => performance.now() > since", 4000)


def keep_busy(page: Page) -> None:
    """Ask for rows for some time, so that there is something to see."""
    url = page.url.partition("#")[0]
    for k in range(BUSY):
        flow = ("two-moons", "wine", "digits")[k % 3]
        page.request.get(f"{url}models/{flow}/sample", params={"n": 40 + 160 * (k % 7), "seed": k})
        x = page.request.get(f"{url}models/{flow}/sample", params={"n": 60, "seed": k}).json()["x"]
        page.request.post(f"{url}models/{flow}/logprob", data={"x": x})
        page.wait_for_timeout(120)


def save(picture: Image.Image, path: Path) -> None:
    """Save a picture."""
    picture.convert("RGB").save(path, optimize=True)


def record(page: Page, url: str, path: Path) -> None:
    """Record the chain from the base to the data.

    Args:
        page: of a browser that keeps still by itself.
        url: of the view.
        path: of the GIF.
    """
    page.goto(url)
    slider = page.get_by_label("Place in the chain")
    expect(page.locator(".bar-row").first).to_be_visible()
    last = float(slider.get_attribute("max") or 1)
    frames = []
    for k in range(FRAMES):
        slider.fill(f"{last * k / (FRAMES - 1):.2f}")
        data = page.locator(".chain-holder canvas").evaluate(DRAWN)
        frames.append(on_ground(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2])))))
    times = [REST_MS, *[FRAME_MS] * (FRAMES - 2), 2 * REST_MS]
    colours = frames[-1].quantize(COLOURS)
    small = [frame.quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    small[0].save(path, save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)


def record_walk(page: Page, url: str, path: Path) -> None:
    """Record a walk from row to row, there and back.

    Args:
        page: of a browser.
        url: of the view.
        path: of the GIF.
    """
    page.goto(url)
    slider = page.get_by_role("slider", name="Along the way")
    expect(page.locator(".strip canvas, .walk-picture canvas").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    panel = page.locator(".panel", has=slider)
    panel.scroll_into_view_if_needed()
    last = float(slider.get_attribute("max") or 1)
    frames = []
    for k in range(FRAMES):
        slider.fill(f"{last * k / (FRAMES - 1):.3f}")
        slider.blur()
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        frame = Image.open(io.BytesIO(panel.screenshot())).convert("RGB")
        frames.append(frame.resize((frame.width * 3 // 4, frame.height * 3 // 4), Image.Resampling.LANCZOS))
    colours = Image.new("P", (1, 1))
    greys = [level * 255 // (GREYS - 1) for level in range(GREYS) for _ in range(3)]
    colours.putpalette([*greys, *(level for accent in ACCENTS for level in ImageColor.getrgb(accent))])
    there = [frame.quantize(palette=colours, dither=Image.Dither.NONE) for frame in frames]
    small = [*there, *there[-2:0:-1]]
    times = [REST_MS, *[FRAME_MS] * (FRAMES - 2), REST_MS, *[FRAME_MS] * (FRAMES - 2)]
    small[0].save(path, save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)


def on_ground(picture: Image.Image) -> Image.Image:
    """A picture of a canvas, on the ground of the page."""
    ground = Image.new("RGBA", picture.size, "#ffffff")
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


if __name__ == "__main__":
    main()
