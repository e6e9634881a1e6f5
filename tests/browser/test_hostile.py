"""Words of others are text: names, descriptions, headers and errors are shown as they are, and nothing in them runs."""

from __future__ import annotations

import shlex
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from models.training.report import write_report
from service.bundle.manifest import ContextFeature, Feature
from tests.browser.marked import slow
from tests.browser.test_score import drop, scored, to_csv
from tests.browser.watched import until, wait_for_address
from tests.models.training.test_report import findings
from tests.server import Server
from tests.service.bundles import affine, install, traced

SCRIPT = "<script>globalThis.ran = 1</script><img src=/nowhere onerror='globalThis.ran = 1'>"
BREAKING = '"><svg onload=globalThis.ran=1>'
NAMES = (SCRIPT, "__proto__", "javascript:globalThis.ran=1,2")
COMMON = "50%, and more: <b>"

FLOW = traced(
    affine(
        "hostile",
        1,
        (3,),
        1,
        description=f"{SCRIPT}{BREAKING}",
        features=[Feature(name=name, unit=BREAKING) for name in NAMES],
        context_features=[ContextFeature(name=f"{BREAKING}{SCRIPT}")],
        directions={name: [1.0, 0.5, 0.25] for name in (*NAMES, COMMON)},
    )
)

VIEWS = ("flows", "density", "chain", "sampling", "walk", "score", "operations")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    install(root, FLOW, affine("broken", 1, description=SCRIPT))
    (root / "broken" / "1" / "forward.onnx").write_bytes(SCRIPT.encode())
    server = Server("--repository", root, "--default-flow", "hostile")
    yield server
    server.kill()


def nothing_ran(watched) -> None:
    page = watched.page
    made = "img, iframe, object, base, script:not([src]):not([type]), svg[onload]"
    assert page.evaluate("made => [globalThis.ran, document.querySelectorAll(made).length]", made) == [None, 0]
    assert not watched.asked("/nowhere")
    watched.check()


def test_what_a_bundle_says_is_text_in_every_view(open_page, hostile):
    watched = open_page("/#/flows", url=hostile.url)
    page = watched.page
    expect(page.get_by_role("article", name="hostile")).to_contain_text(f"{SCRIPT}{BREAKING}")
    for view in VIEWS[1:]:
        page.evaluate("hash => { location.hash = hash; }", f"#/{view}?model=hostile&at=0,0,0")
        expect(page.locator("h1")).to_be_visible()
        page.wait_for_load_state("networkidle")
        if view not in ("chain", "operations"):
            expect(page.locator("#main")).to_contain_text(SCRIPT)
        assert page.locator(".problem").count() == 0, (view, page.locator(".problem").all_inner_texts())
        nothing_ran(watched)


def test_what_an_address_says_is_text(open_page, hostile):
    watched = open_page("/", url=hostile.url)
    watched.allowed |= {400, 404, 422}
    page = watched.page
    for state in (
        "density?model={}",
        "sampling?model=hostile&seed={}&context={}",
        "walk?model=hostile&rows={}&edit={}:1",
    ):
        page.evaluate("hash => { location.hash = hash; }", f"#/{state.replace('{}', quote(SCRIPT))}")
        expect(page.locator("h1, h2").first).to_be_visible()
        page.wait_for_load_state("networkidle")
        nothing_ran(watched)


@pytest.mark.parametrize("name", [*map(slow, NAMES), COMMON])
def test_a_direction_of_any_name_stays_where_it_is_moved(open_page, hostile, name):
    watched = open_page("/#/walk?model=hostile", url=hostile.url)
    page = watched.page
    moved = page.get_by_role("slider", name=name, exact=True)
    moved.press("ArrowRight")
    address = wait_for_address(page, "edit=")
    expect(page.locator(".walk-figures").last).to_contain_text("nats with")
    assert float(moved.input_value()) == pytest.approx(1 / 12)
    again = open_page(f"/{address}", url=hostile.url).page
    expect(again.get_by_role("slider", name=name, exact=True)).to_have_value(moved.input_value())
    nothing_ran(watched)


def test_headers_and_cells_of_a_file_are_text(open_page, hostile):
    watched = open_page("/#/score?model=hostile&context=0", url=hostile.url)
    page = watched.page
    quoted = ['"{}"'.format(name.replace('"', '""')) for name in (*NAMES, SCRIPT + "more")]
    text = to_csv(quoted, [[1, 2, 3, 4]] * 30) + f'1,2,"{SCRIPT}",4\n'
    drop(page, f"{BREAKING}.csv", text)
    scored(page)
    expect(page.get_by_label("Bad rows")).to_contain_text(NAMES[2])
    expect(page.locator(".table thead")).to_contain_text(SCRIPT)
    drop(page, "rows.csv", f"{SCRIPT}\n1\n")
    expect(page.get_by_role("alert")).to_be_visible()
    nothing_ran(watched)


NAME = "rows$(touch ran) 'a' \"; touch ran; \".csv"


def test_a_files_name_is_one_word_of_the_command(open_page):
    page = open_page("/#/score?model=two-moons").page
    drop(page, NAME, to_csv(("x", "y"), [[0, 0]] * 3))
    scored(page)
    assert shlex.split(page.locator(".call-box code").inner_text())[-1] == f"@{NAME}"


@pytest.mark.parametrize(
    "start", [b"ARROW1\x00\x00", b"PK\x03\x04\x00\x00", b"\x93NUMPY"], ids=["feather", "zip", "npy"]
)
def test_a_files_name_is_no_part_of_the_program_that_turns_it(open_page, start):
    page = open_page("/#/score?model=two-moons").page
    drop(page, NAME, start)
    command = page.get_by_label("the command", exact=True).inner_text()
    python, flag, program, given, made = shlex.split(command)
    assert (python, flag, given, made) == ("python", "-c", NAME, NAME)
    compile(program, "program", "exec")
    assert "sys.argv[1]" in program


def test_a_reports_words_are_text(open_page, tmp_path):
    found = findings(
        3, columns=list(NAMES), name=SCRIPT, description=SCRIPT, data=BREAKING, notes=[SCRIPT], warnings=[SCRIPT],
        stopped=SCRIPT, serve=SCRIPT, chosen=SCRIPT, recipe={SCRIPT: f"</pre>{SCRIPT}"}, published={SCRIPT: 1.0},
    )  # fmt: skip
    watched = open_page(str(write_report(found, tmp_path)), url="file://")
    until(watched.page, "() => document.querySelectorAll('.picture img').length === 0")
    expect(watched.page.locator("h1")).to_contain_text(SCRIPT)
    nothing_ran(watched)
