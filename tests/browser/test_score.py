"""A file is dropped on the page: its rows are scored, ranked and saved, bad ones are named, the page stays alive."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import ZOO
from tests.browser.marked import slow
from tests.browser.test_flows import painted
from tests.browser.watched import until, wait_for_address

NAN = float("nan")


def rows_of(server, flow, n, seed=3):
    found = httpx.get(f"{server.url}/models/{flow}/sample", params={"n": n, "seed": seed}).json()["x"]
    return np.array(found, np.float32)


def names_of(server, flow):
    return [each["name"] for each in httpx.get(f"{server.url}/models/{flow}").json()["features"]]


def to_csv(names, rows, mark=","):
    return "\n".join([mark.join(names), *(mark.join(map(repr, map(float, row))) for row in rows)]) + "\n"


def drop(page, name: str, text: str | bytes) -> None:
    """Drop a file on the page, as a person does."""
    data = list(text.encode() if isinstance(text, str) else text)
    transfer = page.evaluate_handle(
        """([name, data]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(data)], name));
          return transfer;
        }""",
        [name, data],
    )
    page.locator(".drop").dispatch_event("drop", {"dataTransfer": transfer})


def scored(page) -> None:
    expect(page.locator(".progress-words")).to_contain_text(re.compile("are scored"), timeout=60_000)


def ranking(page):
    expect(page.locator(".table tbody tr").first).to_be_visible()
    read = "rows => rows.map((row) => [...row.cells].map((cell) => cell.innerText))"
    cells = page.locator(".table tbody tr").evaluate_all(read)
    return [(int(plain(rank)), int(plain(row)), float(plain(value))) for rank, row, value, *_ in cells]


def plain(text: str) -> str:
    return text.replace("\u2009", "").replace("\u2212", "-")


def shown(number: int) -> str:
    """A count as the page writes it."""
    return f"{number:,}".replace(",", "\u2009")


def test_the_ranking_and_the_alarms_are_the_servers_own(open_page, server):
    names, rows = names_of(server, "wine"), rows_of(server, "wine", 400)
    rows[7, 3], rows[100, 0] = 90, 40
    asked = {"x": rows.tolist(), "return": ["quantile"], "alarm_rate": 0.05}
    answer = httpx.post(f"{server.url}/models/wine/logprob", json=asked, timeout=60).json()
    watched = open_page("/#/score?model=wine&rate=0.05")
    page = watched.page
    drop(page, "wine.csv", to_csv([*names, "note"], [[*row, 0] for row in rows]))
    scored(page)
    order = np.argsort(answer["log_prob"], kind="stable")[:25]
    for (rank, row, value), k in zip(ranking(page), order, strict=True):
        assert (rank, row) == (list(order).index(k) + 1, k)
        assert abs(value - answer["log_prob"][k]) < 0.001
    alarms = page.locator(".tally .alarm dd")
    expect(alarms).to_have_text(str(sum(answer["anomaly"])))
    before = len(watched.asked("/models/"))
    slider = page.get_by_role("slider", name="Alarm rate")
    for key in ("End", "Home"):
        slider.press(key)
    fewer = httpx.post(f"{server.url}/models/wine/logprob", json=asked | {"alarm_rate": 0.001}, timeout=60).json()
    expect(alarms).to_have_text(str(sum(fewer["anomaly"])))
    assert len(watched.asked("/models/")) == before
    wait_for_address(page, "rate=0.001")


def test_held_out_rows_raise_as_many_alarms_as_the_server_says(open_page, server):
    """The golden rows lie on the scale's own values, where a digit more or less would move a row."""
    with np.load(ZOO / "wine" / "1" / "golden.npz") as golden:
        rows = golden["x"]
    held = httpx.get(f"{server.url}/models/wine").json()["calibration"]["quantiles"]
    rate = 20.5 / len(held)
    page = open_page(f"/#/score?model=wine&rate={rate}").page
    drop(page, "golden.csv", to_csv(names_of(server, "wine"), rows))
    scored(page)
    asked = {"x": rows.tolist(), "alarm_rate": rate}
    answer = httpx.post(f"{server.url}/models/wine/logprob", json=asked).json()
    expect(page.locator(".tally .alarm dd")).to_have_text(str(sum(answer["anomaly"])))


@pytest.mark.parametrize("mark", [",", slow(";"), slow("\t")])
def test_bad_rows_are_named_and_the_others_are_scored(open_page, server, mark):
    rows = rows_of(server, "two-moons", 6)
    lines = to_csv(("y", "x"), rows[:, ::-1], mark).splitlines()
    lines[2:2] = [mark.join(("NA", "0.5")), mark.join(("1", "nan")), "3", "", mark.join(("1e39", '"0"'))]
    page = open_page("/#/score?model=two-moons").page
    drop(page, "rows.csv", "\r\n".join(lines))
    scored(page)
    bad = page.get_by_role("region", name="Bad rows")
    for text in (
        'Row 1 (line 3), y: "NA" looks like a missing value',
        "Row 2 (line 4), x: nan is not finite",
        "Row 3 (line 5): the line has 1 cell, and the first has 2",
        "Row 4 (line 7), y: 1e39 is beyond the range of float32",
    ):
        expect(bad.get_by_text(text)).to_be_visible()
    expected = httpx.post(f"{server.url}/logprob", json={"x": rows.tolist()}).json()["log_prob"]
    assert np.allclose(sorted(value for _, _, value in ranking(page)), sorted(expected), atol=6e-4)


def test_the_result_is_saved_with_a_reason_for_each_bad_row(open_page, server):
    rows = rows_of(server, "two-moons", 200)
    lines = to_csv(("id", "x", "y"), [(k, *row) for k, row in enumerate(rows)]).splitlines()
    lines[50] = "49,,1.0"
    page = open_page("/#/score?model=two-moons&rate=0.1").page
    drop(page, "rows.csv", "\n".join(lines))
    scored(page)
    with page.expect_download() as saving:
        page.get_by_role("button", name="Download").click()
    assert saving.value.suggested_filename == "rows-scored.csv"
    found = list(csv.DictReader(io.StringIO(Path(saving.value.path()).read_text())))
    assert [float(each["id"]) for each in found] == list(range(200))
    assert found[49]["reason"] == "x: the cell is empty"
    kept = [k for k in range(200) if k != 49]
    asked = {"x": rows[kept].tolist(), "return": ["quantile"], "alarm_rate": 0.1}
    answer = httpx.post(f"{server.url}/logprob", json=asked).json()
    for name in ("log_prob", "quantile"):
        assert np.allclose([float(found[k][name]) for k in kept], answer[name], rtol=1e-6, atol=1e-6)
    assert [found[k]["anomaly"] == "true" for k in kept] == answer["anomaly"]
    assert sorted(int(found[k]["rank"]) for k in kept) == list(range(1, 200))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.feather", b"ARROW1\x00\x00", "read_feather"),
        ("rows.csv", b"a,b\n1,2\n", "has no column x, y"),
        ("rows.csv", b"", "no rows"),
        ("rows.csv", b"1,2,3\n4,5,6\n", "A line has 3 cells"),
        ("rows.csv", "x,y\n1,2\n".encode("utf-16"), "UTF-16"),
        ("rows.png", b"\x89PNG\r\n\x1a\n\x00\x00", "no text"),
    ],
)
def test_a_file_that_is_no_table_says_what_to_do(open_page, name, content, said):
    page = open_page("/#/score?model=two-moons").page
    drop(page, name, content)
    expect(page.get_by_role("alert")).to_contain_text(said)


def test_pages_of_the_ranking_are_in_the_address(open_page):
    page = open_page("/#/score?model=two-moons&order=high").page
    page.get_by_role("button", name="Use an example").click()
    scored(page)
    first = ranking(page)
    assert [rank for rank, _, _ in first] == list(range(3000, 2975, -1))
    assert [value for _, _, value in first] == sorted((value for _, _, value in first), reverse=True)
    page.get_by_role("button", name="Next").press("Enter")
    wait_for_address(page, "from=25")
    expect(page.get_by_text("26 to 50 of")).to_be_visible()


def test_images_are_ranked_as_pictures(open_page):
    """An example of large images is of fewer rows: no more than some megabytes."""
    watched = open_page("/#/score?model=faces")
    page = watched.page
    page.get_by_role("button", name="Use an example").click()
    scored(page)
    expect(page.locator(".table tbody canvas")).to_have_count(25)
    assert all(painted(canvas) for canvas in page.locator(".table tbody canvas").all()[:3])
    (asked,) = watched.asked("/sample")
    assert int(re.search(r"[?&]n=(\d+)", asked.url)[1]) * 32 * 32 <= 600_000


def test_a_server_that_goes_away_is_waited_for(open_page, server, tmp_path):
    rows = rows_of(server, "two-moons", 1000)
    watched = open_page("/#/score?model=two-moons")
    watched.may_fail = True
    page = watched.page
    until(page, "() => document.querySelector('.drop') !== null")
    gone = [True]
    page.context.route("**/logprob*", lambda route: route.abort("connectionrefused") if gone[0] else route.continue_())
    drop(page, "rows.csv", to_csv(("x", "y"), rows))
    expect(page.locator(".progress-words")).to_contain_text("does not answer")
    gone[0] = False
    scored(page)
    expect(page.locator(".tally dd").first).to_have_text(shown(1000))


@pytest.mark.slow
def test_a_million_rows_keep_the_page_alive(open_page, server, tmp_path):
    """No task of the page takes 200 ms, and what it holds does not grow with the file."""
    n = 1_000_000
    some = rows_of(server, "two-moons", 10_000)
    text = to_csv(("x", "y"), some)
    head, body = text.split("\n", 1)
    path = tmp_path / "rows.csv"
    path.write_text(f"{head}\n" + body * (n // len(some)))
    page = open_page("/#/score?model=two-moons").page
    page.evaluate(
        """() => {
          globalThis.tasks = [[0, performance.now()]];
          const heard = (list) => tasks.push(...list.getEntries().map((each) => [each.duration, each.startTime]));
          new PerformanceObserver(heard).observe({ type: "longtask" });
        }"""
    )
    page.get_by_label("Choose a file").set_input_files(path)
    expect(page.locator(".progress-words")).to_contain_text("are scored", timeout=600_000)
    expect(page.locator(".tally dd").first).to_have_text(shown(n))
    expect(page.locator(".table tbody tr").first).to_be_visible()
    slider = page.get_by_role("slider", name="Alarm rate")
    for _ in range(20):
        slider.press("ArrowRight")
    tasks = page.evaluate("[...tasks, [0, performance.now()]]")
    longest = max(tasks, default=(0, 0))
    assert longest[0] < 200, f"a task of {longest[0]:.0f} ms at {longest[1]:.0f} ms"
    session = page.context.browser.new_browser_cdp_session()
    pids = [
        each["id"] for each in session.send("SystemInfo.getProcessInfo")["processInfo"] if each["type"] == "renderer"
    ]
    peaks = [int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024 for pid in pids]
    assert max(peaks) < 700, peaks  # MiB; an empty page takes some 150
