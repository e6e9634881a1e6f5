from __future__ import annotations

from pathlib import Path

from benchmarks.picture import draw
from benchmarks.table import Table, at_least


def test_a_picture_is_drawn_of_what_there_is(tmp_path: Path):
    table = Table()
    table.line(16, "work", "ours / theirs", at_least(2)).ratio(3, 1)
    table.line(16, "another", "ours / theirs", at_least(2)).failure = "not answered (415)"
    draw(tmp_path / "with.svg", table.lines, {16: {"naive": [(100.0, 0.001, 0.01), (200.0, 0.002, 0.02)]}})
    draw(tmp_path / "without.svg", [], {})
    drawn = (tmp_path / "with.svg").read_text()
    assert "D=16: work: ours / theirs" in drawn
    assert "another" not in drawn
    assert "naive, D = 16, p99" in drawn
    assert (tmp_path / "without.svg").stat().st_size > 1000
