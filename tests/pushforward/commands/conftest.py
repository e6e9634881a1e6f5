from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pushforward.cli.group import cli


@pytest.fixture
def run() -> Callable[..., Result]:
    """Run a command line in this process; what it raises is raised here."""

    def invoke(*arguments: Any, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(a) for a in arguments], input=stdin, catch_exceptions=False)

    return invoke


@pytest.fixture(params=["local", "served"])
def where(request: pytest.FixtureRequest) -> Callable[..., list[str]]:
    """The options that name a flow of the test repository: run here, or asked of a server."""
    if request.param == "served":
        url = request.getfixturevalue("server")
        return lambda name, *more: ["--url", url, "--model", name, *more]
    repository = request.getfixturevalue("repository")
    return lambda name, *more: ["--repository", str(repository), "--model", name, *more]


@pytest.fixture
def run_outside() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line in a process of its own."""

    def invoke(*arguments: Any, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pushforward", *map(str, arguments)]
        return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)

    return invoke
