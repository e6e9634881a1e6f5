"""The mutants that no test can kill, since what they change makes no difference; equivalent.toml has the reasons."""

from __future__ import annotations

import tomllib
from pathlib import Path

__all__ = ["reasons"]

LIST = Path(__file__).parent / "equivalent.toml"


def reasons() -> dict[tuple[str, str, str], str]:
    """The reason of each, by its file, the lines that change and what they become."""
    listed = tomllib.loads(LIST.read_text()).get("mutant", [])
    return {(one["file"], one["before"], one["after"]): one["reason"] for one in listed}
