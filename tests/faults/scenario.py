"""A scenario: what is done to a server, what must hold, and what was seen of each subject."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

from benchmarks.serving import Server

__all__ = ["Effort", "NotPossible", "Outcome", "Scenario", "Start", "Subject"]

Subject = Literal["pushforward", "without its guard", "plain"]
"""Ours; ours with the guard taken out; a plain FastAPI and uvicorn app of one afternoon."""


class NotPossible(RuntimeError):
    """A scenario cannot be run here; the table says why."""


@dataclass(frozen=True)
class Effort:
    """How much of a scenario is done.

    Args:
        share: of its full counts and seconds, at most 1.
        seed: of all that is random.
    """

    share: float = 1.0
    seed: int = 0

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


Start = Callable[[], AbstractContextManager[Server]]
"""Starts the server of a subject, and ends it afterwards."""

Measure = Callable[[Start, Effort], Outcome]


@dataclass(frozen=True)
class Scenario:
    """What is done to a server.

    Args:
        name: on the command line.
        done: what is done, as the table says it.
        to_hold: what must hold.
        measure: does it, to a server that it starts or to several.
        options: of `pushforward serve`.
        without: options that take the guard out; None where no option does.
        plain: whether a plain app can be given the same.
    """

    name: str
    done: str
    to_hold: str
    measure: Measure
    options: tuple[str, ...] = ()
    without: tuple[str, ...] | None = None
    plain: bool = True

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Whom it is done to."""
        guardless: tuple[Subject, ...] = () if self.without is None else ("without its guard",)
        plain: tuple[Subject, ...] = ("plain",) if self.plain else ()
        return ("pushforward", *guardless, *plain)
