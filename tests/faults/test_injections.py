from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.faults.__main__ import SCENARIOS
from tests.faults.injections import INJECTIONS, STEPS, Steps
from tests.server import environment


def test_every_guard_that_a_scenario_takes_out_is_there():
    named = {scenario.without.removal for scenario in SCENARIOS if scenario.without is not None}
    assert named - {None, "digests"} <= set(INJECTIONS)


def test_what_is_put_in_the_place_of_something_is(tmp_path):
    command = [sys.executable, "-m", "tests.faults.injections", ",".join(INJECTIONS), "--version"]
    env = {**environment(), STEPS: str(tmp_path / "steps")}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr


def test_the_step_of_a_number_fails_and_no_other(tmp_path):
    steps, other = Steps(tmp_path / "steps"), Steps(tmp_path / "steps")
    steps.arm(2)
    other.take(LookupError)
    with pytest.raises(LookupError):
        other.take(LookupError)
    other.take(LookupError)
    assert steps.counted == 3


def test_a_process_is_killed_at_a_step(tmp_path):
    Steps(tmp_path / "steps").arm(1, kill=True)
    code = (
        "import pathlib, sys; from tests.faults.injections import Steps; Steps(pathlib.Path(sys.argv[1])).take(OSError)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "steps")], env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
