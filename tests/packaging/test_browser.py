"""Where no Chromium is found, the tests of the console are skipped, and the run says so and how to get one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.server import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("processes", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_they_are_skipped_in_words(processes):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/browser", *processes]
    bare = {name: value for name, value in environment().items() if name != "CHROMIUM"} | {"PATH": "/nowhere"}
    done = subprocess.run(command, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=300, check=False)
    assert "make browser" in done.stdout
    assert "SKIPPED" in done.stdout
    assert "passed" not in done.stdout
    assert "error" not in done.stdout.lower()
