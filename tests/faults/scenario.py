"""A scenario: what is done to a server, what must hold, and what was seen of each subject."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from benchmarks.serving import Server, free_port, naive, process

__all__ = ["ZOO", "Effort", "NotPossible", "Outcome", "Scenario", "Start", "Subject", "Without"]

ZOO: Final = Path(__file__).parents[2] / "models" / "zoo"

Subject = Literal["pushforward", "without its guard", "plain"]
"""Ours; ours with the guard taken out; a plain FastAPI and uvicorn app of one afternoon."""


class NotPossible(RuntimeError):
    """A scenario cannot be run here; the table says why."""


def _say_nothing(_: str) -> None:
    """Tell nobody how far a scenario is."""


@dataclass(frozen=True)
class Effort:
    """How much of a scenario is done.

    Args:
        share: of its full counts and seconds, at most 1.
        seed: of all that is random.
        tell: takes a few words on how far the scenario is.
    """

    share: float = 1.0
    seed: int = 0
    tell: Callable[[str], None] = _say_nothing

    def count(self, full: int, least: int = 1) -> int:
        """So many of `full`."""
        return max(least, round(full * self.share))

    def seconds(self, full: float, least: float = 2.0) -> float:
        """So long of `full`, in seconds."""
        return max(least, full * self.share)


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario.

    Args:
        held: whether what must hold did; None where it was not run.
        seen: the figures, in words.
    """

    held: bool | None
    seen: str


@dataclass(frozen=True)
class Start:
    """Starts the server of a subject, and ends it afterwards.

    Args:
        subject: whose server it is.
        options: of `pushforward serve`.
        removal: the guard of `tests.faults.injections` that is taken out; None for none.
    """

    subject: Subject
    options: tuple[str, ...] = ()
    removal: str | None = None

    @contextmanager
    def __call__(
        self,
        repository: Path | None = None,
        default: str = "wine",
        *,
        injections: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Server]:
        """Start a server.

        Args:
            repository: whose flows it serves; None for a copy of the shipped ones: without a guard they may be removed.
            default: the flow that answers where a request names none; the plain app serves its first version alone.
            injections: names in `tests.faults.injections`, beside the guard that is taken out.
            environment: of the process, beside this one's.
        """
        with tempfile.TemporaryDirectory() as name:
            root = Path(name) / "repository" if repository is None else repository
            if repository is None:
                shutil.copytree(ZOO, root, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
            with self._serve(root, default, injections, environment) as server:
                yield server

    def _serve(
        self, repository: Path, default: str, injections: tuple[str, ...], environment: Mapping[str, str] | None
    ) -> AbstractContextManager[Server]:
        if self.subject == "plain":
            return naive(repository / default / "1", quiet=True)
        injections = (*injections, *([] if self.removal is None else [self.removal]))
        module = ["tests.faults.injections", ",".join(injections)] if injections else ["pushforward"]
        port = free_port()
        command = [sys.executable, "-m", *module, "serve", "--port", str(port), "--repository", str(repository)]
        command += ["--default-flow", default, *self.options]
        quiet = bool(injections)  # what it logs then is meant
        return process("pushforward", command, port, environment=environment, ready="/health/ready", quiet=quiet)


Measure = Callable[[Start, Effort], Outcome]


@dataclass(frozen=True)
class Without:
    """How the guard of a scenario is taken out.

    Args:
        guard: what it is, in words.
        options: of `pushforward serve` in the place of the scenario's; None for the same.
        removal: its name in `tests.faults.injections`; None where options take it out.
    """

    guard: str
    options: tuple[str, ...] | None = None
    removal: str | None = None


@dataclass(frozen=True)
class Scenario:
    """What is done to a server.

    Args:
        name: on the command line.
        done: what is done, as the table says it.
        to_hold: what must hold.
        measure: does it, to a server that it starts or to several.
        options: of `pushforward serve`.
        without: how the guard is taken out; None where there is no single one.
        plain: whether a plain app can be given the same.
    """

    name: str
    done: str
    to_hold: str
    measure: Measure
    options: tuple[str, ...] = ()
    without: Without | None = field(default=None)
    plain: bool = True

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Whom it is done to."""
        guardless: tuple[Subject, ...] = () if self.without is None else ("without its guard",)
        plain: tuple[Subject, ...] = ("plain",) if self.plain else ()
        return ("pushforward", *guardless, *plain)

    def start(self, subject: Subject) -> Start:
        """What starts the server of a subject."""
        if subject != "without its guard" or self.without is None:
            return Start(subject, self.options)
        options = self.options if self.without.options is None else self.without.options
        return Start(subject, options, self.without.removal)
