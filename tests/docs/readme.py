"""The README's curl examples: found, run against a server, compared; `python -m tests.docs.readme` writes them anew.

An example is a fenced block of the language `console`: a line `$ curl ...`, goes on while lines end in a backslash,
and the answer stands below it, up to the next `$` or the end of the block.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
ADDRESS = "localhost:8000"


@dataclass(frozen=True)
class Example:
    command: str
    answer: str


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def examples(text: str) -> list[Example]:
    found = []
    for block in blocks(text, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            last = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
            found.append(Example("\n".join(lines[: last + 1]), "\n".join(lines[last + 1 :]).strip()))
    return found


def run(command: str, address: str = ADDRESS) -> str:
    """Run one command as a shell would, against a server at another address than the printed one.

    Every command of a pipeline has to succeed, and the environment is that of a stranger: a setting of Python's from
    outside, such as PYTHONUNBUFFERED, can make an example pass that fails without it.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # this very `python` first
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace(ADDRESS, address)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {"PATH": path},
    )
    if done.returncode != 0:
        raise AssertionError(f"{command!r} ended with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


MADE = {"request_id"}
"""Names whose values the server makes anew for each request."""


def same(shown: object, came: object) -> bool:
    """Equal, numbers up to what another processor may round differently."""
    if isinstance(shown, float) or isinstance(came, float):
        numbers = isinstance(shown, int | float) and isinstance(came, int | float)
        return numbers and math.isclose(shown, came, rel_tol=1e-3, abs_tol=1e-4)
    if isinstance(shown, dict) and isinstance(came, dict):
        return list(shown) == list(came) and all(k in MADE or same(shown[k], came[k]) for k in shown)
    if isinstance(shown, list) and isinstance(came, list):
        return len(shown) == len(came) and all(map(same, shown, came))
    return shown == came


def agrees(shown: str, came: str) -> bool:
    try:
        return same(json.loads(shown), json.loads(came))
    except json.JSONDecodeError:
        return shown == came


def rewritten(text: str) -> str:
    for example in examples(text):
        old = f"$ {example.command}\n{example.answer}"
        text = text.replace(old.rstrip() + "\n", f"$ {example.command}\n{run(example.command)}\n")
    return text


if __name__ == "__main__":
    README.write_text(rewritten(README.read_text()))
