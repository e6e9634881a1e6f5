"""A stranger's bundle in the commands that run it themselves: one that hangs, or takes too much memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pushforward.cli.group import main
from tests.service.bundles import coupling, install
from tests.service.hanging import hanging

RUN_A_BUNDLE = {
    "evaluate": ["BUNDLE", "ROWS"],
    "calibrate": ["BUNDLE", "ROWS", "--out", "OUT"],
    "direction": ["BUNDLE", "--positive", "ROWS", "--negative", "ROWS", "--name", "up", "--out", "OUT"],
    "logprob": ["ROWS", "--bundle", "BUNDLE"],
    "sample": ["--bundle", "BUNDLE", "-n", "3"],
    "interpolate": ["ROWS", "--bundle", "BUNDLE"],
    "edit": ["ROWS", "--direction", "1,0", "--bundle", "BUNDLE"],
    "check": ["BUNDLE"],
    "reseal": ["BUNDLE"],
}


@pytest.fixture
def refusal(tmp_path, monkeypatch, capsys):
    """Runs a command on a bundle under limits, and returns the one line that it ends with."""

    def run(command: str, bundle: Path, *limits: str, width: int = 2) -> str:
        rows = tmp_path / "rows.csv"
        np.savetxt(rows, np.random.default_rng(0).normal(size=(40, width)), delimiter=",")
        known = {"BUNDLE": bundle, "ROWS": rows, "OUT": tmp_path / "out"}
        given = [str(known.get(each, each)) for each in RUN_A_BUNDLE[command]]
        monkeypatch.setattr(sys, "argv", ["pushforward", command, *given, *limits])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 1
        lines = capsys.readouterr().err.splitlines()
        (line,) = lines if command != "reseal" else lines[:1]  # which goes on, and counts at its end
        return line

    return run


QUICK = ("logprob", "calibrate")
COMMANDS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RUN_A_BUNDLE]


@pytest.mark.parametrize("command", COMMANDS)
def test_one_that_hangs_is_given_up(refusal, tmp_path, command):
    bundle = install(tmp_path / "repository", hanging("long")).path("long")
    assert "within 1 s (--load-seconds)" in refusal(command, bundle, "--load-seconds", "1")


@pytest.mark.parametrize("command", COMMANDS)
def test_one_that_takes_too_much_memory_is_refused(refusal, tmp_path, command):
    bundle = install(tmp_path / "repository", coupling("large", width=512, hidden=2048)).path("large")
    line = refusal(command, bundle, "--load-bytes", "1048576", width=512)
    assert "more memory than 1048576 bytes" in line
    assert "(--load-bytes)" in line
