"""A Parquet file is scored like a CSV file, however it was written."""

from __future__ import annotations

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from tests.browser.test_score import drop, ranking, rows_of, scored

WAYS = {
    "as by default": {},
    "without compression": {"compression": "none"},
    "gzip": {"compression": "gzip"},
    "no dictionary": {"use_dictionary": False},
    "small pages": {"data_page_size": 64, "write_batch_size": 7},
    "pages of version 2": {"data_page_version": "2.0"},
    "row groups": {"row_group_size": 6},
    "bytes apart": {"use_dictionary": False, "column_encoding": {"x": "BYTE_STREAM_SPLIT", "y": "PLAIN"}},
}


def written(tmp_path, table, **how) -> bytes:
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, **how)
    return path.read_bytes()


def test_however_it_was_written(open_page, server, tmp_path):
    rows = rows_of(server, "two-moons", 21)
    rows[5] = rows[4]
    expected = httpx.post(f"{server.url}/logprob", json={"x": rows.tolist()}).json()["log_prob"]
    columns = {"note": pa.array([f"n{k}" for k in range(21)]), "y": rows[:, 1].astype("f8"), "x": rows[:, 0]}
    page = open_page("/#/score?model=two-moons").page
    for way, how in WAYS.items():
        drop(page, "rows.parquet", written(tmp_path, pa.table(columns), **how))
        scored(page)
        found = {row: value for _, row, value in ranking(page)}
        assert np.allclose([found[k] for k in range(21)], expected, atol=6e-4), way


def test_whole_numbers_and_empty_cells(open_page, server, tmp_path):
    table = pa.table({"x": pa.array([0, 1, None, 2], pa.int64()), "y": pa.array([0, -1, 1, 0], pa.int32())})
    page = open_page("/#/score?model=two-moons").page
    drop(page, "rows.parquet", written(tmp_path, table))
    scored(page)
    expect(page.get_by_role("region", name="Bad rows")).to_contain_text("Row 2 (line 4), x: the cell is empty")
    asked = {"x": [[0, 0], [1, -1], [2, 0]]}
    expected = httpx.post(f"{server.url}/logprob", json=asked).json()["log_prob"]
    found = {row: value for _, row, value in ranking(page)}
    assert np.allclose([found[k] for k in (0, 1, 3)], expected, atol=6e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[:-1], "does not end as one"),
        (lambda data: data[: len(data) // 2] + data[-8:], "broken"),
        (lambda data: b"PAR1" + bytes(20), "does not end as one"),
    ],
)
def test_a_broken_one_is_refused_in_words(open_page, tmp_path, change, said):
    data = written(tmp_path, pa.table({"x": [1.0], "y": [2.0]}))
    page = open_page("/#/score?model=two-moons").page
    drop(page, "rows.parquet", change(data))
    expect(page.get_by_role("alert")).to_contain_text(said)


def test_an_unknown_compression_says_what_to_do(open_page, tmp_path):
    page = open_page("/#/score?model=two-moons").page
    drop(page, "rows.parquet", written(tmp_path, pa.table({"x": [1.0], "y": [2.0]}), compression="lz4"))
    expect(page.get_by_role("alert")).to_contain_text("Write the file with snappy")
