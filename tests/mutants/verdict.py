"""The verdict on a mutant: killed by a test, or survived.

A mutant is made in a copy of the project, never in the working tree. It meets files of tests in rounds of increasing
breadth, until a test fails or its time is spent.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator

from tests.mutants.nearness import nearest, read_tests, rounds
from tests.mutants.sample import Mutant

__all__ = ["Verdict", "copy_tree", "enter", "failing", "judge"]

HANG = 240
"""A test that takes so many seconds with a mutant hangs, and kills it. The longest takes ten on an idle machine."""
ROUND = 3600.0
"""A round that takes so many seconds hangs outside of its tests."""

PACKAGES = {"benchmarks", "models", "pushforward", "service", "tests"}
LIBRARIES = (
    "fastapi",
    "httpx",
    "hypothesis",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "pyarrow",
    "scipy.stats",
    "torch",
    "zuko",
)


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Args:
        survived: whether every round passed.
        by: the test that failed; the end of what pytest wrote, where none has a name; empty for a survivor.
        files: the files of tests that it met.
    """

    survived: bool
    by: str
    files: list[str]


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
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # two changes of one file within a second would look alike
    sys.dont_write_bytecode = True
    for name in LIBRARIES:
        importlib.import_module(name)


def judge(mutant: Mutant, seconds: float) -> Verdict:
    """Make a mutant in the current folder, run the tests near it, and unmake it.

    Args:
        mutant: what is changed.
        seconds: the processor time after which no further round is begun.
    """
    end, met = processor_seconds() + seconds, []
    with use_mutation(Path(mutant.file), get_operator(mutant.operator)(), mutant.occurrence):
        for files in rounds(nearest(mutant.file, read_tests(Path()))):
            met += files
            passed, output = run(files)
            if not passed:
                found = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.MULTILINE)
                return Verdict(survived=False, by=found[1] if found else output[-400:], files=met)
            if processor_seconds() >= end:
                break
    return Verdict(survived=True, by="", files=met)


def failing(tests: Iterable[str]) -> str:
    """What pytest says of these tests in the current folder as it is; empty where all pass."""
    passed, output = run(sorted(set(tests)), "--maxfail=1000")
    return "" if passed else output


def run(tests: Sequence[str], *options: str) -> tuple[bool, str]:
    """Whether tests pass, and what pytest wrote; the first failure ends it where no option says otherwise.

    pytest runs in a fork of this process, which has the libraries already: to import them takes longer than most tests.
    """
    imported = "ignore:Module already imported so cannot be rewritten"
    options = ("-q", "-p", "no:cacheprovider", "-W", imported, f"--timeout={HANG}", *(options or ("-x",)))
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = multiprocessing.get_context("fork").Process(
            target=run_here, args=([*options, *tests], output.fileno()), daemon=False
        )
        process.start()
        process.join(ROUND)
        if process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
        output.seek(0)
        return process.exitcode == 0, output.read()


def run_here(arguments: list[str], output: int) -> None:
    """Run pytest on the copy, with nothing of this project imported from elsewhere."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = os.fdopen(output, "w")
    sys.path.insert(0, str(Path.cwd()))
    for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
        del sys.modules[name]
    code = pytest.main(arguments)
    sys.stdout.flush()
    os._exit(code)


def processor_seconds() -> float:
    """The time that the processes of the tests have taken of the processors so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
