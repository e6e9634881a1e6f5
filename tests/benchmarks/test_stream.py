from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks import stream


@pytest.mark.slow
def test_a_small_stream_is_measured_and_resumed():
    result = CliRunner().invoke(stream.main, ["--rows", "200000", "--rounds", "1"], catch_exceptions=False)
    lines = [line for line in result.output.splitlines() if line.startswith("| 2 ")]
    assert len(lines) == 4
    assert all("failed" not in line for line in lines)
    assert "| yes |" in lines[-1]  # broken and resumed = unbroken
