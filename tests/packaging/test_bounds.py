"""The versions that pyproject.toml allows, against constraints.txt and against the modules that are imported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging import lowest

ROOT = Path(__file__).parents[2]
EXTRAS = ("cpu", "train", "dev")


def test_a_requirement_is_put_at_its_lower_bound():
    assert lowest.constraint("click>=8.2") == "click==8.2"
    assert lowest.constraint("uvicorn>=0.45,<0.55") == "uvicorn==0.45"
    assert lowest.constraint("uvloop>=0.19; sys_platform != 'win32'") == "uvloop==0.19; sys_platform != 'win32'"
    with pytest.raises(ValueError, match="no lower bound"):
        lowest.constraint("click")


def test_the_constraints_are_printed_by_a_python_that_has_nothing_installed():
    command = [sys.executable, "-I", "-S", str(ROOT / "tests" / "packaging" / "lowest.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    expected = {canonicalize_name(Requirement(one).name) for one in lowest.requirements(*EXTRAS)} - lowest.TOOLS
    assert {canonicalize_name(Requirement(line).name) for line in printed} == expected


@pytest.mark.parametrize("requirement", lowest.requirements(*EXTRAS))
def test_a_locked_version_is_within_its_bounds(requirement):
    locked = dict(
        re.fullmatch(r"(\S+)==(\S+)", line).groups() for line in (ROOT / "constraints.txt").read_text().splitlines()
    )
    wanted = Requirement(requirement)
    versions = {canonicalize_name(name): version for name, version in locked.items()}
    assert versions[canonicalize_name(wanted.name)] in wanted.specifier
