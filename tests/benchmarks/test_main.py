"""The whole bench, short: real servers, a real table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_quick_run_gives_a_table_and_a_picture(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = json.loads((tmp_path / "benchmarks.json").read_text())["lines"]
    assert len({line["work"] for line in lines}) >= 9
    assert [line for line in lines if line["target"] and not line["values"] and not line["failure"]] == []
    wrong = [line["values"] for line in lines if line["figure"] == "answers that were wrong or missing"]
    assert wrong == [[0], [0]]
    assert (tmp_path / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
