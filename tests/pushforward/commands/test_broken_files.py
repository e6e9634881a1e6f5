"""Every command, with every broken file and place that it can be given: one clear message, and a status."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pushforward.cli.group import COMMANDS, main
from tests.pushforward.commands.broken import BUNDLES, FILES, PLACES, full_disk
from tests.service import bundles
from tests.unwritable import as_nobody

Arguments = Callable[[Path], list[Any]]


@dataclass(frozen=True)
class Takes:
    """What a command can be given.

    Args:
        bundle: a bundle's folder -> arguments; None where it takes none.
        rows: a file of rows -> arguments, with BUNDLE for a good bundle.
        place: where to write -> arguments, with BUNDLE and ROWS for good ones.
        needs: what the installation must hold for that.
    """

    bundle: Arguments | None = None
    rows: Arguments | None = None
    place: Arguments | None = None
    needs: str | None = None


TAKES: dict[str, Takes] = {
    "serve": Takes(bundle=None, rows=lambda f: ["--repository", f, "--port", "0"]),
    "key": Takes(rows=lambda f: ["--add-to", f], place=lambda p: ["--add-to", p]),
    "train": Takes(
        rows=lambda f: [f, "--name", "new", "--out", "OUT", "--epochs", "1", "--quiet"],
        place=lambda p: ["ROWS", "--name", "new", "--out", p, "--epochs", "1", "--quiet"],
        needs="torch",
    ),
    "export": Takes(rows=lambda f: [f], bundle=lambda b: [b], needs="torch"),
    "import": Takes(
        rows=lambda f: [f"{f}:make", "--name", "new", "--out", "OUT"],
        needs="torch",
    ),
    "check": Takes(bundle=lambda b: [b]),
    "reseal": Takes(bundle=lambda b: [b]),
    "repository": Takes(
        bundle=lambda b: ["install", b, "--repository", "OUT"],
        place=lambda p: ["install", "BUNDLE", "--repository", p],
    ),
    "inspect": Takes(bundle=lambda b: [b]),
    "evaluate": Takes(
        bundle=lambda b: [b, "ROWS"],
        rows=lambda f: ["BUNDLE", f],
        place=lambda p: ["BUNDLE", "ROWS", "--out", p],
        needs="scipy",
    ),
    "calibrate": Takes(
        bundle=lambda b: [b, "ROWS", "--out", "OUT"],
        rows=lambda f: ["BUNDLE", f, "--out", "OUT"],
        place=lambda p: ["BUNDLE", "ROWS", "--out", p],
    ),
    "direction": Takes(
        bundle=lambda b: [b, "--positive", "ROWS", "--negative", "OTHERS", "--name", "up", "--out", "OUT"],
        rows=lambda f: ["BUNDLE", "--positive", f, "--negative", "ROWS", "--name", "up", "--out", "OUT"],
        place=lambda p: ["BUNDLE", "--positive", "ROWS", "--negative", "OTHERS", "--name", "up", "--out", p],
    ),
    "logprob": Takes(
        bundle=lambda b: ["ROWS", "--bundle", b],
        rows=lambda f: [f, "--bundle", "BUNDLE"],
        place=lambda p: ["ROWS", "--bundle", "BUNDLE", "--out", f"{p}.csv"],
    ),
    "sample": Takes(
        bundle=lambda b: ["--bundle", b, "--temperature", "0.5"],
        rows=lambda f: ["--bundle", "BUNDLE", "--context", f"@{f}"],
        place=lambda p: ["--bundle", "BUNDLE", "-n", "9", "--out", f"{p}.npy"],
    ),
    "posterior": Takes(
        bundle=lambda b: ["--bundle", b],
        rows=lambda f: ["--bundle", "BUNDLE", "--context", f"@{f}"],
        place=lambda p: ["--bundle", "BUNDLE", "-n", "9", "--out", f"{p}.csv"],
    ),
    "interpolate": Takes(
        bundle=lambda b: ["ROWS", "--bundle", b],
        rows=lambda f: [f, "--bundle", "BUNDLE"],
        place=lambda p: ["ROWS", "--bundle", "BUNDLE", "--out", f"{p}.csv"],
    ),
    "edit": Takes(
        bundle=lambda b: ["ROWS", "--direction", "1,0", "--bundle", b],
        rows=lambda f: [f, "--direction", "1,0", "--bundle", "BUNDLE"],
        place=lambda p: ["ROWS", "--direction", "1,0", "--bundle", "BUNDLE", "--out", f"{p}.csv"],
    ),
}


def test_every_command_is_here() -> None:
    assert set(TAKES) == set(COMMANDS)


@pytest.fixture
def places() -> Iterator[Path]:
    """A folder that every user can reach, with a good bundle, rows and others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        bundles.install(folder / "repository", bundles.affine())
        np.savetxt(folder / "good.csv", np.random.default_rng(0).normal(size=(40, 2)), delimiter=",")
        np.savetxt(folder / "others.csv", np.random.default_rng(1).normal(size=(40, 2)) + 1, delimiter=",")
        shutil.copy(folder / "good.csv", folder / "spoilt.csv")
        yield folder
        for each in (folder, *folder.rglob("*")):
            each.chmod(0o755)


@pytest.fixture
def fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], places: Path
) -> Callable[..., list[str]]:
    """Run a command that must fail, and return what it says."""
    known = {
        "BUNDLE": places / "repository" / "affine" / "1",
        "ROWS": places / "good.csv",
        "OTHERS": places / "others.csv",
        "OUT": places / "out",
    }
    monkeypatch.chdir(places)

    def run(command: str, arguments: list[Any], state: Any = None) -> list[str]:
        pytest.importorskip(TAKES[command].needs or "numpy")
        given = [str(known.get(each, each)) for each in arguments]
        monkeypatch.setattr(sys, "argv", ["pushforward", command, *given])
        with state or nullcontext(), pytest.raises(SystemExit) as caught:
            main()
        lines = capsys.readouterr().err.splitlines()
        assert caught.value.code not in (0, None), lines
        return lines

    return run


def assert_clear(lines: list[str]) -> None:
    """One message, with what it leaves out behind it, and no sign of an error that nobody foresaw."""
    shown = "\n".join(lines)
    assert "Traceback" not in shown
    assert "unforeseen" not in shown
    messages = [line for line in lines if line.startswith("Error: ")]
    assert len(messages) == 1, shown
    assert len(messages[0]) > len("Error: ") + 10, shown
    rest = [line for line in lines if not line.startswith(("Error: ", "  ", "Usage: ", "Try ")) and line]
    assert all(": left as it is: " in line for line in rest), shown


def cases(role: str, faults: Iterable[str]) -> list[Any]:
    """Every command of a role with every fault. The quick tests take every fourth, other ones for each command."""
    commands = [command for command, takes in TAKES.items() if getattr(takes, role)]
    return [
        pytest.param(command, fault, marks=() if (row + column) % 4 == 0 else pytest.mark.slow)
        for row, command in enumerate(commands)
        for column, fault in enumerate(faults)
    ]


# Not faults to these: one runs no graph, the other adds a line to a file that is empty or not there.
RIGHT = {
    ("inspect", "failing run"),
    *(("key", fault) for fault in ("missing", "empty csv", "empty npy", "empty parquet")),
}


@pytest.mark.parametrize(("command", "fault"), cases("bundle", BUNDLES))
def test_a_broken_bundle(fails, places, command, fault):
    folder = places / "repository" / "affine" / "1"
    if (command, fault) in RIGHT:
        pytest.skip("not a fault to this command")
    given = BUNDLES[fault](folder)
    state = as_nobody() if fault.startswith("unreadable") else None
    if state is not None:
        (places / "out").mkdir()
        (places / "out").chmod(0o777)
    assert_clear(fails(command, TAKES[command].bundle(given), state))


@pytest.mark.parametrize(("command", "fault"), cases("rows", FILES))
def test_broken_rows(fails, places, command, fault):
    (places / "out").mkdir()
    (places / "out").chmod(0o777)
    if (command, fault) in RIGHT:
        pytest.skip("not a fault to this command")
    given = FILES[fault](places / "spoilt.csv")
    state = None
    if fault == "unreadable":
        fails(command, TAKES[command].rows(places / "missing.csv"))  # imports what another user may not read
        state = as_nobody()
    assert_clear(fails(command, TAKES[command].rows(given), state))


@pytest.mark.parametrize(("command", "fault"), cases("place", PLACES))
def test_a_place_that_takes_nothing(fails, places, command, fault):
    (places / "unwritable").mkdir()
    (places / "unwritable").chmod(0o555)
    given = PLACES[fault](places)
    state = {"unwritable": as_nobody, "full": full_disk}.get(fault, nullcontext)()
    assert_clear(fails(command, TAKES[command].place(given), state))


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="there is no device that is full")
@pytest.mark.parametrize("command", ["inspect", "logprob", "sample"])
def test_an_output_that_is_full(places, command, run_outside):
    bundle = places / "repository" / "affine" / "1"
    arguments = {
        "inspect": [bundle],
        "logprob": [places / "good.csv", "--bundle", bundle],
        "sample": ["--bundle", bundle],
    }
    with Path("/dev/full").open("wb") as full:
        done = run_outside(command, *arguments[command], stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
