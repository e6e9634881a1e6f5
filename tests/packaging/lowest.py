"""The lowest versions that pyproject.toml allows, as requirements of pip; `make test-lowest` installs them.

It is run before anything is installed, so it needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

__all__ = ["constraint", "requirements"]

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
TOOLS = frozenset({"mypy", "pytest-cov", "ruff"})
"""Of the extra `dev`, what `make test-lowest` does not run: `make check` and `make coverage` run them, as locked."""


def requirements(*extras: str) -> list[str]:
    """The direct requirements of the project and of these extras, as pyproject.toml has them."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


def constraint(requirement: str) -> str:
    """The requirement at its lower bound, with its marker.

    Raises:
        ValueError: where it has no lower bound.
    """
    found = re.fullmatch(r"([\w.-]+)(?:>=|==)([\w.]+)(?:,[^;]*)?(;.*)?", requirement)
    if found is None:
        raise ValueError(f"{requirement!r} has no lower bound")
    name, version, marker = found.groups(default="")
    return f"{name}=={version}{marker}"


def main() -> None:
    """Print the requirements of everything that `make test-lowest` installs."""
    found = map(constraint, requirements("cpu", "train", "dev"))
    sys.stdout.writelines(f"{line}\n" for line in found if line.split("==")[0] not in TOOLS)


if __name__ == "__main__":
    main()
