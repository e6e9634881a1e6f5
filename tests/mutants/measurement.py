"""What the tests run: which tests run each line, how long each test takes, and in which order a mutant meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from coverage import CoverageData

__all__ = ["TESTS", "Measurement", "measure", "nearest"]

TESTS = ("tests/laws", "tests/models", "tests/pushforward/commands", "tests/service")
COVERAGE, SECONDS = "coverage", "seconds.json"


def measure(tree: Path, folder: Path, jobs: int) -> None:
    """Run the tests once, without a mutant, and write what they run.

    Args:
        tree: a copy of the project.
        folder: where the measurement is written.
        jobs: how many processes.

    Raises:
        RuntimeError: where a test fails without a mutant.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-q", "-n", str(jobs), "-p", "no:cacheprovider", "-p", "tests.mutants.durations"]
    command = [sys.executable, "-m", "pytest", *options, f"--durations-file={folder / SECONDS}"]
    settings = tree / "mutants.coveragerc"
    settings.write_text(
        f"[run]\nsource = service,models\nparallel = true\nrelative_files = true\ndata_file = {folder / COVERAGE}\n"
    )
    command += ["--cov", f"--cov-config={settings}", "--cov-context=test", "--cov-report=", *TESTS]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    if subprocess.run(command, cwd=tree, env=environment, check=False).returncode:
        raise RuntimeError("the tests fail without a mutant")


@dataclass(frozen=True)
class Measurement:
    """What `measure` wrote into a folder."""

    folder: Path

    @cached_property
    def seconds(self) -> dict[str, float]:
        """The seconds of each test."""
        found: dict[str, float] = json.loads((self.folder / SECONDS).read_text())
        return found

    @cached_property
    def seconds_of_files(self) -> dict[str, float]:
        """The seconds of each file of tests."""
        found: dict[str, float] = defaultdict(float)
        for test, seconds in self.seconds.items():
            found[test.partition("::")[0]] += seconds
        return dict(found)

    def tests_of_line(self, file: str, line: int) -> list[str]:
        """The tests that run a line in their own process, nearest first."""
        contexts = self._coverage.contexts_by_lineno(file).get(line, [])
        tests = {context.rpartition("|")[0] for context in contexts} & self.seconds.keys()
        return nearest(file, sorted(tests, key=self.seconds.__getitem__))

    def files_near(self, file: str) -> list[str]:
        """The files of tests, the mirrored one first: for what runs in a subprocess, at import or in a fixture."""
        return nearest(file, sorted(self.seconds_of_files))

    @cached_property
    def _coverage(self) -> CoverageData:
        data = CoverageData(basename=str(self.folder / COVERAGE))
        data.read()
        return data


def nearest(file: str, tests: Iterable[str]) -> list[str]:
    """Tests by how near their place is to the mirrored place of a file; else their order stays."""
    path = PurePosixPath(file)
    mirrored = ("tests", *path.parent.parts, f"test_{path.name}")

    def distance(test: str) -> int:
        parts = test.partition("::")[0].split("/")
        shared = next((i for i, (a, b) in enumerate(zip(parts, mirrored, strict=False)) if a != b), len(mirrored))
        return len(mirrored) - shared

    return sorted(tests, key=distance)
