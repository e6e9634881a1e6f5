"""Flows of every kind in every view: with a context, in float64, without a trace, of colours, in several versions."""

from __future__ import annotations

import io
import re

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from service.bundle.manifest import ContextFeature
from tests.browser.marked import slow
from tests.browser.test_flows import painted
from tests.browser.test_score import drop, ranking, scored, to_csv
from tests.browser.watched import wait_for_address, wait_for_map
from tests.server import Server
from tests.service.bundles import affine, coupling, image, in_float64, install, square, traced

DOSE = [ContextFeature(name="dose"), ContextFeature(name="kind=b", column="kind", category="b")]

FLOWS = (
    traced(affine("dosed", 1, (2,), 2, context_features=DOSE)),
    traced(affine("dosed-line", 1, (1,), 2, context_features=DOSE)),
    traced(affine("dosed-table", 1, (3,), 2, context_features=DOSE)),
    traced(affine("dosed-image", 1, (4, 4, 1), 2, context_features=DOSE)),
    traced(affine("nameless", 1, (2,), 1)),
    traced(affine("colour", 1, (3, 3, 3))),
    traced(affine("large", 1, (16, 16, 1))),
    traced(affine("wide", 1, (700,), description="<img src=x onerror=alert(1)> & <b>not bold</b>")),
    in_float64(affine("plain"), "double"),
    traced(image()),
    square("line"),
    coupling(width=5),
    traced(affine("two", 1)),
    traced(affine("two", 2)),
)
OTHER_VIEWS = ("density", "chain", "sampling", "score")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    root = tmp_path_factory.mktemp("others")
    install(root, *FLOWS)
    server = Server("--repository", root, "--default-flow", "two")
    yield server
    server.kill()


@pytest.mark.parametrize("view", ["walk", *map(slow, OTHER_VIEWS)])
def test_every_kind_of_flow_is_shown_or_refused_in_words(open_page, others, view):
    watched = open_page(f"/#/{view}", url=others.url)
    page = watched.page
    for flow in sorted({part.manifest.name for part in FLOWS}):
        page.evaluate("hash => { location.hash = hash; }", f"#/{view}?model={flow}")
        expect(page.get_by_role("combobox", name="Flow")).to_have_value(re.compile(f"^{flow}/"))
        shown = page.locator(".stage canvas, .stage tbody, .stage .drop, .state p")
        expect(shown.first).to_be_visible()
        page.wait_for_load_state("networkidle")
        assert page.locator(".problem").count() == 0, (flow, page.locator(".problem").all_inner_texts())
        watched.check()


def test_every_kind_of_flow_has_its_picture(open_page, others):
    page = open_page(url=others.url).page
    names = {part.manifest.name for part in FLOWS}
    expect(page.locator(".card")).to_have_count(len(names))
    expect(page.get_by_label("A walk through images of large")).to_be_visible()
    for card in page.locator(".card").all():
        card.scroll_into_view_if_needed()
        expect(card.locator(".card-picture canvas")).to_be_visible()
    assert page.locator(".problem").count() == 0


@pytest.mark.parametrize("view", ["walk", *map(slow, OTHER_VIEWS)])
def test_a_context_is_given_by_name(open_page, others, view):
    watched = open_page(f"/#/{view}?model=dosed&t=1", url=others.url)
    page = watched.page
    context = page.get_by_role("group", name="Context")
    context.get_by_label("dose").fill("1.5")
    page.keyboard.press("Tab")
    context.get_by_label("kind").select_option(label="another")
    assert "context=1.5,0" in wait_for_address(page, "context=1.5,0")
    expect(page.locator(".call-box")).to_contain_text(re.compile(r"context=1\.5,0|\"context\":\[1\.5,0\]"))
    expect(page.locator(".stage canvas, .stage tbody, .stage .drop").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert page.locator(".problem").count() == 0


@pytest.mark.parametrize("is_told", [True, False], ids=["in the file", "on the page"])
def test_a_file_is_scored_at_its_context(open_page, others, is_told):
    rng = np.random.default_rng(0)
    x, context = rng.normal(size=(20, 2)).astype("f4"), rng.integers(0, 2, size=(20, 2)).astype("f4")
    if not is_told:
        context[:] = 2, 1
    asked = {"x": x.tolist(), "context": context.tolist()}
    expected = httpx.post(f"{others.url}/models/dosed/logprob", json=asked).json()["log_prob"]
    page = open_page("/#/score?model=dosed&context=2,1", url=others.url).page
    names = [each["name"] for each in httpx.get(f"{others.url}/models/dosed").json()["features"]]
    rows = np.hstack([x, context]) if is_told else x
    drop(page, "rows.csv", to_csv([*names, *(("dose", "kind=b") if is_told else ())], rows))
    scored(page)
    found = {row: value for _, row, value in ranking(page)}
    assert np.allclose([found[k] for k in range(20)], expected, atol=6e-4)


@pytest.mark.parametrize("flow", [slow("double"), "dosed-image", slow("colour"), slow("line")])
def test_a_file_of_every_kind_of_flow_is_scored(open_page, others, flow):
    told = httpx.get(f"{others.url}/models/{flow}").json()
    context = {"context": "0,1"} if told["context_width"] else {}
    x = np.array(httpx.get(f"{others.url}/models/{flow}/sample", params={"n": 9, "seed": 5, **context}).json()["x"])
    given = {"context": [0, 1]} if context else {}
    answer = httpx.post(f"{others.url}/models/{flow}/logprob", json={"x": x.tolist(), **given}).json()["log_prob"]
    state = "&context=0,1" if context else ""
    page = open_page(f"/#/score?model={flow}{state}", url=others.url).page
    flat = x.reshape(9, -1)
    names = [each["name"] for each in told["features"]] or [f"x{k}" for k in range(flat.shape[1])]
    drop(page, "rows.csv", to_csv(names, flat))
    scored(page)
    found = {row: value for _, row, value in ranking(page)}
    assert np.allclose([found[k] for k in range(9)], answer, atol=6e-4)


def test_a_context_moves_the_density_and_the_samples(open_page, others):
    page = open_page("/#/density?model=dosed&context=2,1&at=0.5,0.5", url=others.url).page
    wait_for_map(page)
    asked = {"x": [[0.5, 0.5]], "context": [2, 1]}
    told = httpx.post(f"{others.url}/models/dosed/logprob", json=asked).json()["log_prob"][0]
    expect(page.locator(".reading")).to_contain_text(f"{told:.3f}".replace("-", "\u2212"))
    again = open_page("/#/sampling?model=dosed&context=2,1&n=3", url=others.url).page
    drawn = httpx.get(f"{others.url}/models/dosed/sample?n=3&seed=7&context=2,1").json()["x"]
    first = again.locator("tbody tr").first.locator("td").first.inner_text().replace("\u2212", "-")
    assert float(first) == pytest.approx(np.float32(drawn[0][0]), rel=1e-4)


def test_a_version_is_chosen_and_kept_in_the_address(open_page, others):
    page = open_page("/#/sampling?model=two", url=others.url).page
    expect(page.get_by_role("combobox", name="Flow")).to_have_value("two/2")
    page.get_by_role("combobox", name="Flow").select_option("two/1")
    assert "version=1" in wait_for_address(page, "version=1")
    expect(page.locator(".call-box")).to_contain_text("/models/two/versions/1/sample")


def test_channels_in_front_and_squeezed_are_images_again(open_page, others):
    """As `Squeeze` makes them: y[4c + 2i + j, h, w] = x[c, 2h + i, 2w + j]."""
    height, width, channels = 4, 8, 3
    x = np.arange(height * width * channels, dtype=np.float32).reshape(height, width, channels)
    front = x.transpose(2, 0, 1)

    def squeeze(y):
        c, h, w = y.shape
        return y.reshape(c, h // 2, 2, w // 2, 2).transpose(0, 2, 4, 1, 3).reshape(4 * c, h // 2, w // 2)

    page = open_page(url=others.url).page
    for y in (front, squeeze(front), squeeze(squeeze(front))):
        found = page.evaluate(
            """async ([values, shape, event]) => {
              const { unsqueezed } = await import(new URL("console/lib/pictures.js", location.href).href);
              return [...unsqueezed(Float32Array.from(values), shape, event)];
            }""",
            [y.ravel().tolist(), list(y.shape), [height, width, channels]],
        )
        assert found == x.ravel().tolist()
    assert painted(page.locator(".card-picture canvas").first)


@pytest.mark.parametrize("dtype", ["float32", slow("float64"), "int64", slow("bool")])
def test_arrays_are_read_as_numpy_wrote_them(open_page, others, dtype):
    given = (np.arange(-6, 6) / (1 if dtype in ("int64", "bool") else 4)).reshape(3, 4).astype(dtype)
    file = io.BytesIO()
    np.save(file, given)
    page = open_page(url=others.url).page
    shape, data = page.evaluate(
        """async bytes => {
          const { readNpy } = await import(new URL("console/lib/arrays.js", location.href).href);
          const { shape, data } = readNpy(Uint8Array.from(bytes).buffer);
          return [shape, [...data].map(Number)];
        }""",
        list(file.getvalue()),
    )
    assert shape == [3, 4]
    assert data == given.ravel().astype(float).tolist()
