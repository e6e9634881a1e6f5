"""The views of the console, used as a person would, with their numbers held against the API's."""

from __future__ import annotations

import json
import re

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.marked import slow
from tests.browser.test_flows import painted
from tests.browser.watched import until, wait_for_address, wait_for_map

MINUS = "\u2212"


def number(text: str) -> float:
    """The first number of a text of the page."""
    return float(re.search(r"[\u2212-]?\d+(\.\d+)?(e[\u2212-]?\d+)?", text)[0].replace(MINUS, "-"))


def entry(page, name: str):
    """The value beside a name in the reading of a row."""
    return page.locator(".reading .readout > div").filter(has=page.locator("dt", has_text=name)).first.locator("dd")


def test_a_row_that_is_picked_has_the_numbers_of_the_api(open_page, server):
    page = open_page("/#/density?model=two-moons").page
    map_ = page.get_by_role("application")
    expect(page.locator(".panel").first.locator("canvas").first).to_be_visible()
    page.get_by_role("spinbutton", name="x", exact=True).fill("0.5")
    page.get_by_role("spinbutton", name="y", exact=True).fill("0.25")
    page.keyboard.press("Tab")
    expect(entry(page, "log p(x)")).to_contain_text("7.6")
    asked = {"x": [[0.5, 0.25]], "return": ["z", "quantile", "typicality"]}
    told = httpx.post(f"{server.url}/models/two-moons/logprob", json=asked).json()
    assert number(entry(page, "log p(x)").inner_text()) == pytest.approx(told["log_prob"][0], abs=1e-3)
    assert number(entry(page, "quantile").inner_text()) == pytest.approx(100 * told["quantile"][0], abs=0.06)
    assert number(entry(page, "typicality").inner_text()) == pytest.approx(told["typicality"][0], abs=0.006)
    assert "at=0.5,0.25" in wait_for_address(page, "at=")
    assert painted(map_)


def test_pointing_and_clicking_at_the_map(open_page, server):
    page = open_page("/#/density").page
    map_ = page.get_by_role("application")
    expect(map_).to_be_visible()
    wait_for_map(page)
    box = map_.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5)
    expect(entry(page, "log p(x)")).to_be_visible()
    page.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.3)
    x, y = map(float, re.search(r"at=([^&,]+),([^&]+)", wait_for_address(page, "at=")).groups())
    page.mouse.move(5, 5)
    told = httpx.post(f"{server.url}/models/two-moons/logprob", json={"x": [[x, y]]}).json()["log_prob"][0]
    expect(page.locator(".reading")).to_contain_text(f"{told:.3f}".replace("-", MINUS))


def test_the_map_is_reached_by_the_keyboard(open_page):
    page = open_page("/#/density").page
    wait_for_map(page)
    page.get_by_role("application").focus()
    for key in ("ArrowLeft", "ArrowUp", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    wait_for_address(page, "at=")
    expect(entry(page, "log p(x)")).to_be_visible()


def test_a_map_is_drawn_soon_after_the_answer(open_page):
    """No clock of this machine is asserted on but the one that the issue names: 150 ms, of which it takes a few."""
    page = open_page("/#/density").page
    wait_for_map(page)
    assert page.evaluate("performance.getEntriesByName('heat map')[0].duration") < 150


def test_a_heat_map_shows_the_densities_of_the_api(open_page, server):
    """The brightest cell of the map is where the API has the greatest density of the same rows."""
    page = open_page("/#/density?n=0&box=-2,3,-1.5,2").page
    wait_for_map(page)
    found = page.evaluate(
        """() => {
          const node = document.querySelector("canvas[role=application]");
          const { left, top, right, bottom } = { left: 46, top: 10, right: 12, bottom: 38 };
          const data = node.getContext("2d").getImageData(0, 0, node.width, node.height);
          const [wide, high] = [node.width - left - right, node.height - top - bottom];
          let best = [Infinity, 0, 0];
          for (let y = 24; y < high; y++) for (let x = 0; x < wide; x++) {
            const at = 4 * ((y + top) * node.width + x + left);
            const sum = data.data[at] + data.data[at + 1] + data.data[at + 2];
            if (sum < best[0]) best = [sum, x / wide, y / high];
          }
          return best;
        }"""
    )
    x, y = -2 + 5 * found[1], 2 - 3.5 * found[2]
    at_best = httpx.post(f"{server.url}/models/two-moons/logprob", json={"x": [[x, y]]}).json()["log_prob"][0]
    side = np.stack(np.meshgrid(np.linspace(-2, 3, 120), np.linspace(-1.5, 2, 120)), -1).reshape(-1, 2)
    told = httpx.post(f"{server.url}/models/two-moons/logprob", json={"x": side.tolist()}).json()["log_prob"]
    assert at_best > max(told) - 0.12


def test_two_columns_of_a_wide_table_and_its_margins(open_page, server):
    page = open_page("/#/density?model=wine").page
    page.get_by_label("Across").select_option(label="alcohol")
    page.get_by_label("Up").select_option(label="proline")
    assert "cols=0,12" in wait_for_address(page, "cols=0,12")
    page.get_by_text("averaged out").click()
    expect(page.get_by_role("heading", name="The density of alcohol and proline alone")).to_be_visible()
    expect(page.locator(".pair-cell")).to_have_count(15)
    rows = "alcohol,malic_acid\n12,2\n"
    page.get_by_label("Add rows (CSV)").set_input_files(
        {"name": "few.csv", "mimeType": "text/csv", "buffer": rows.encode()}
    )
    expect(page.get_by_text("few.csv has no column ash")).to_be_visible()
    before = page.locator(".pair-cell canvas").first.evaluate("node => node.toDataURL()")
    whole = httpx.get(f"{server.url}/models/wine/sample?n=40&seed=3", headers={"Accept": "text/csv"}).text
    rows = f"{whole.strip()}\n" + "x," * 13 + "x\n"
    page.get_by_label("Add rows (CSV)").set_input_files(
        {"name": "held-out.csv", "mimeType": "text/csv", "buffer": rows.encode()}
    )
    expect(
        page.get_by_text("40 rows of held-out.csv in dark, samples in orange; 1 rows without numbers")
    ).to_be_visible()
    until(page, "data => document.querySelector('.pair-cell canvas').toDataURL() !== data", before)


def test_samples_are_those_of_the_api_and_the_same_for_the_same_seed(open_page, server):
    page = open_page("/#/sampling?model=wine").page
    page.get_by_role("spinbutton", name="Seed").fill("11")
    page.get_by_label("Rows", exact=True).fill("4")
    page.keyboard.press("Tab")
    told = httpx.get(f"{server.url}/models/wine/sample?n=4&seed=11").json()
    expect(page.locator("tbody tr")).to_have_count(4)
    expect(page.locator("tbody tr").nth(3).locator("td").last).to_have_text(
        f"{told['log_prob'][3]:.3f}".replace("-", MINUS)
    )
    shown = [number(text) for text in page.locator("tbody tr").nth(2).locator("td").all_inner_texts()[:13]]
    assert shown == pytest.approx(told["x"][2], rel=1e-4)


@pytest.mark.parametrize(("name", "ending"), [slow("CSV", "csv"), slow("NumPy", "npy"), ("Arrow", "arrows")])
def test_samples_are_downloaded(open_page, server, name, ending, tmp_path):
    page = open_page("/#/sampling?model=two-moons&n=300&seed=5").page
    with page.expect_download() as waited:
        page.get_by_role("button", name=name).click()
    path = tmp_path / waited.value.suggested_filename
    waited.value.save_as(path)
    assert path.suffix == f".{ending}"
    told = httpx.get(f"{server.url}/models/two-moons/sample?n=300&seed=5").json()["x"]
    if ending == "npy":
        assert np.load(path).tolist() == np.float32(told).tolist()
    elif ending == "csv":
        assert len(path.read_text().splitlines()) == 301
    else:
        import pyarrow as pa

        assert pa.ipc.open_stream(path.read_bytes()).read_all().column("x").to_pylist() == pytest.approx(
            [row[0] for row in told]
        )


def test_images_are_sampled_at_a_temperature(open_page):
    watched = open_page("/#/sampling?model=digits")
    page = watched.page
    expect(page.locator(".sheet")).to_be_visible()
    page.get_by_role("slider", name="Temperature").focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    assert "temperature=0.7" in wait_for_address(page, "temperature=0.7")
    expect(page.locator(".call-box")).to_contain_text("temperature=0.7")
    assert painted(page.locator(".sheet"))
    assert watched.asked("temperature=0.7")


def test_an_error_shows_the_servers_own_words(open_page, server):
    watched = open_page("/#/sampling?model=two-moons")
    watched.allowed.add(422)
    expect(watched.page.locator("tbody tr")).to_have_count(20)
    watched.page.evaluate("location.hash = '#/sampling?model=two-moons&temperature=-1'")
    told = httpx.get(f"{server.url}/models/two-moons/sample?n=20&seed=7&temperature=-1").json()
    expect(watched.page.get_by_role("alert")).to_contain_text(told["detail"])
    watched.page.evaluate("location.hash = '#/sampling?model=two-moons'")
    expect(watched.page.locator(".error-place")).to_be_empty()


def test_the_bars_of_the_chain_are_the_terms_of_the_trace(open_page, server):
    page = open_page("/#/chain?model=two-moons&t=3&row=4").page
    expect(page.locator(".bar-row")).to_have_count(11)
    told = httpx.post(f"{server.url}/models/two-moons/trace", json={"n": 1200, "seed": 7}).json()["steps"]
    expected = {step["name"]: -step["log_abs_det_jacobian"][4] for step in told[1:]}
    for row in page.locator(".bar-row").all():
        name, value = row.locator(".bar-name").inner_text(), row.locator(".bar-value").inner_text()
        assert number(value) == pytest.approx(expected[name], abs=0.0051)
    page.get_by_text("x to z").click()
    expect(page.locator(".bar-row .bar-name").first).to_have_text("standardize")
    whole = sum(step["log_abs_det_jacobian"][4] for step in told)
    assert number(page.get_by_text("Together").inner_text()) == pytest.approx(whole, abs=6e-4)


def test_the_bars_have_room_for_their_values(open_page):
    """The terms of larger images have four digits before the point."""
    page = open_page("/#/chain?model=faces").page
    values = page.locator(".bar-value")
    expect(values.first).to_be_visible()
    assert max(len(text) for text in values.all_inner_texts()) >= len("-1000.00")
    assert values.evaluate_all("nodes => nodes.every((node) => node.scrollWidth <= node.clientWidth)")


def test_the_chain_plays_and_stops_where_it_is_dragged(open_page):
    page = open_page("/#/chain?model=two-moons&t=0").page
    expect(page.locator(".bar-row")).to_have_count(11)
    page.get_by_role("button", name="Play").click()
    until(page, "() => Number(document.querySelector('.player input').value) > 0.4")
    page.get_by_label("Place in the chain").fill("11")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    assert "t=11" in wait_for_address(page, "t=11")
    expect(page.get_by_role("heading", name="x, the data")).to_be_visible()
    page.get_by_role("button", name="coupling 10").click()
    assert "t=1" in wait_for_address(page, "t=1")


@pytest.mark.parametrize("place", [slow(0), 0.5, slow(1)])
def test_the_areas_of_one_dimension_are_equal(open_page, place):
    """Under p(x) over [a^2, b^2] lies (b - a) / 2, as under p(z) = 1/2 over [a, b]."""
    page = open_page(f"/#/chain?model=square&t={place}&strip=0.25&wide=0.2").page
    expect(page.locator(".areas b")).to_have_count(2)
    latent, data = page.locator(".areas b").all()
    assert number(latent.inner_text()) == pytest.approx(0.2, abs=2e-3)
    assert latent.inner_text() == data.inner_text()


@pytest.mark.parametrize(
    "path", [slow("density?model=square&at=1"), slow("chain?model=wine"), "chain?model=digits&t=7"]
)
def test_other_kinds_of_flow_are_drawn(open_page, path):
    page = open_page(f"/#/{path}").page
    canvas = page.locator(".stage canvas").first
    expect(canvas).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert painted(canvas)


def test_the_address_is_the_whole_state(open_page):
    page = open_page("/#/density").page
    wait_for_map(page)
    page.get_by_text("log p(x)", exact=True).first.click()
    page.get_by_label("Rows over it").fill("0")
    page.get_by_role("spinbutton", name="x", exact=True).fill("1")
    page.get_by_role("spinbutton", name="y", exact=True).fill("-0.5")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Zoom in").click()
    address = wait_for_address(page, "box=")
    expect(entry(page, "log p(x)")).to_contain_text("nats")
    again = open_page(f"/{address}").page
    wait_for_map(again)
    expect(entry(again, "log p(x)")).to_have_text(entry(page, "log p(x)").inner_text())
    pictures = [each.locator("canvas[role=application]").evaluate("node => node.toDataURL()") for each in (page, again)]
    assert pictures[0] == pictures[1]


def test_every_view_names_a_request_that_answers(open_page, server):
    for path in ("density?model=two-moons&at=0.5,0.25", "chain?model=two-moons&t=1", "sampling?model=two-moons"):
        page = open_page(f"/#/{path}").page
        command = page.locator(".call-box .code").first
        expect(command).to_contain_text("curl")
        text = command.locator("code").inner_text()
        url, body = re.search(r"'(http[^']*)'", text)[1], re.search(r"-d '(.*)'", text)
        answer = httpx.get(url) if body is None else httpx.post(url, content=body[1])
        assert answer.status_code == 200, (text, answer.text)
        assert json.loads(answer.text)
