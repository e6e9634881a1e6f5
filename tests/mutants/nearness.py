"""The tests that can see a change of a file, in increasing breadth."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

__all__ = ["nearest", "read_tests", "rounds"]

FOLDERS = ("tests/laws", "tests/models", "tests/pushforward/commands", "tests/service")
WIDE = {
    "models": ("tests/laws/test_bijections.py", "tests/laws/test_flows.py", "tests/laws/test_parity.py"),
    "service": ("tests/service/api/native/test_verbs.py", "tests/service/test_doors.py"),
}
"""The tests that run most of a package."""


def read_tests(root: Path) -> dict[str, str]:
    """The text of each file of tests, by its path from the root."""
    files = (path for folder in FOLDERS for path in (root / folder).rglob("test_*.py"))
    return {path.relative_to(root).as_posix(): path.read_text() for path in sorted(files)}


def nearest(file: str, tests: Mapping[str, str]) -> list[str]:
    """The files of tests in the order in which a change meets them.

    The mirrored file comes first. Then come those that import the module, those of its folder, the widest of its
    package, and all others; among equals the nearest in the tree come first.

    Args:
        file: the path of the file that is changed.
        tests: the text of each file of tests, by its path.
    """
    path = PurePosixPath(file)
    mirrored = ("tests", *path.parent.parts, f"test_{path.name}")
    module = re.compile(rf"\b{re.escape('.'.join(path.with_suffix('').parts))}\b")

    def order(test: str) -> tuple[int, int]:
        parts = PurePosixPath(test).parts
        shared = next((i for i, (a, b) in enumerate(zip(parts, mirrored, strict=False)) if a != b), len(mirrored))
        groups = (
            parts == mirrored,
            module.search(tests[test]) is not None,
            parts[:-1] == mirrored[:-1],
            test in WIDE[path.parts[0]],
        )
        return groups.index(True) if any(groups) else len(groups), -shared

    return sorted(tests, key=order)


def rounds(files: list[str]) -> Iterator[list[str]]:
    """One file, then two, then four, and so on: most mutants need only the first."""
    start, count = 0, 1
    while start < len(files):
        yield files[start : start + count]
        start, count = start + count, 2 * count
