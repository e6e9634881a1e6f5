"""The verdict on a mutant: killed by a test, killed by time, or survived.

A mutant is made in a copy of the project, never in the working tree. It meets the tests in rounds: first the nearest of
the tests that run its line, then the others of them, then whole files of tests by their nearness.
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.testing import run_tests
from cosmic_ray.work_item import TestOutcome

from tests.mutants.measurement import Measurement
from tests.mutants.sample import Mutant

__all__ = ["Verdict", "copy_tree", "enter", "judge"]

FIRST_ROUND = 4.0
"""The tests of the first round, in seconds: most mutants need no more."""
GRACE, FACTOR = 60.0, 4.0
"""A round that takes this many seconds and this many times what it should is a hang."""
NONE_RAN = "no tests ran in"
"""What pytest says where a test has another name now, as one that is named after a number of the code may have."""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Args:
        survived: whether every round passed.
        by: the end of what pytest wrote, where it was killed.
        tests: how many tests are known to run its line.
    """

    survived: bool
    by: str
    tests: int


def copy_tree(root: Path, copy: Path) -> None:
    """Copy what git tracks or would track, as it is on the disk."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():  # not one that was deleted and not committed
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name)


def enter(copy: Path) -> None:
    """Work in a copy from now on; what is imported is imported from it, by the processes of the tests as well."""
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)


def judge(mutant: Mutant, measurement: Measurement, seconds: float) -> Verdict:
    """Make a mutant in the current folder, run its tests, and unmake it.

    Args:
        mutant: what is changed.
        measurement: what the tests run.
        seconds: how many seconds of the tests that run its line it meets, and how many of the files near it.
    """
    tests = measurement.tests_of_line(mutant.file, mutant.line)
    first, others = split(take(tests, measurement.seconds, seconds), measurement.seconds)
    files = take(measurement.files_near(mutant.file), measurement.seconds_of_files, seconds)
    rounds = [(first, measurement.seconds), (others, measurement.seconds), (files, measurement.seconds_of_files)]
    with use_mutation(Path(mutant.file), get_operator(mutant.operator)(), mutant.occurrence):
        for names, lengths in rounds:
            survived, output = run(names, GRACE + FACTOR * sum(lengths[name] for name in names))
            if not survived:
                return Verdict(survived=False, by=output[-400:], tests=len(tests))
    return Verdict(survived=True, by="", tests=len(tests))


def run(names: list[str], limit: float) -> tuple[bool, str]:
    """Whether these tests pass within so many seconds, and what pytest wrote."""
    if not names:
        return True, ""
    command = shlex.join([sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *names])
    outcome, output = run_tests(command, limit)
    if outcome == TestOutcome.INCOMPETENT:
        raise RuntimeError(output)
    files = list(dict.fromkeys(name.partition("::")[0] for name in names))
    if NONE_RAN in output and names != files:
        return run(files, limit)
    return outcome == TestOutcome.SURVIVED, output


def take(names: Sequence[str], lengths: dict[str, float], seconds: float) -> list[str]:
    """The first names that together take no longer than this, and one at least."""
    ends = itertools.accumulate(lengths[name] for name in names)
    return [name for number, (name, end) in enumerate(zip(names, ends, strict=True)) if end <= seconds or not number]


def split(names: list[str], lengths: dict[str, float]) -> tuple[list[str], list[str]]:
    first = take(names, lengths, FIRST_ROUND)
    return first, names[len(first) :]
