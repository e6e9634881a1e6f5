"""The table of results: for each figure a line with its values by round, its target, and why it is missing if it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from benchmarks.measure import MeasurementFailed
from benchmarks.serving import NotAnswered

__all__ = ["Line", "Table", "Target", "at_least", "at_most", "record_failures"]


@dataclass(frozen=True)
class Target:
    kind: Literal[">=", "<="]
    value: float

    def met(self, value: float) -> bool:
        return value >= self.value if self.kind == ">=" else value <= self.value

    def __str__(self) -> str:
        return f"{self.kind} {number(self.value)}"


def at_least(value: float) -> Target:
    return Target(">=", value)


def at_most(value: float) -> Target:
    return Target("<=", value)


@dataclass
class Line:
    """One figure. Where it is a ratio, `ours` and `theirs` hold what was divided, in the same order.

    Args:
        flow: columns of the flow.
        work: what was asked of the server.
        figure: what is counted, with its unit.
        target: what the median should reach.
        unit: of `ours` and `theirs`.
    """

    flow: int
    work: str
    figure: str
    target: Target | None = None
    unit: str = ""
    values: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failure: str | None = None
    wrong: bool = False

    def add(self, value: float) -> None:
        self.values.append(value)

    def ratio(self, ours: float, theirs: float) -> None:
        """Add ours / theirs, of one round."""
        self.ours.append(ours)
        self.theirs.append(theirs)
        self.values.append(ours / theirs if theirs > 0 else math.inf)

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None where there is no target or no value."""
        if self.target is None:
            return None
        if self.failure is not None:
            return False
        return self.target.met(median(self.values)) if self.values else None

    def cells(self) -> tuple[str, ...]:
        target = "" if self.target is None else str(self.target)
        met = {None: "", True: "yes", False: "no"}[self.met]
        head = (str(self.flow), self.work, self.figure)
        if self.failure is not None or not self.values:
            return (*head, self.failure or "none", "", "", target, met)
        spread = f"{number(min(self.values))} to {number(max(self.values))}" if len(self.values) > 1 else ""
        both = f"{number(median(self.ours))} : {number(median(self.theirs))} {self.unit}" if self.ours else ""
        return (*head, number(median(self.values)), spread, both, target, met)

    def as_json(self) -> dict[str, Any]:
        target = None if self.target is None else {"kind": self.target.kind, "value": self.target.value}
        names = ("flow", "work", "figure", "unit", "values", "ours", "theirs", "notes", "failure")
        return {**{name: getattr(self, name) for name in names}, "target": target, "met": self.met}


class Table:
    """The lines of a run, in the order in which they were asked for first."""

    HEADER = ("D", "work", "figure", "median", "min to max", "ours : theirs", "target", "met")

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def line(self, flow: int, work: str, figure: str, target: Target | None = None, unit: str = "") -> Line:
        """The line of this name; it is made if there is none yet."""
        for line in self.lines:
            if (line.flow, line.work, line.figure) == (flow, work, figure):
                return line
        self.lines.append(Line(flow, work, figure, target, unit))
        return self.lines[-1]

    @property
    def wrong(self) -> list[Line]:
        """Lines where an answer was wrong or a request was lost."""
        return [line for line in self.lines if line.wrong]

    def markdown(self) -> str:
        """The lines, and below them what their notes say."""
        cells = [self.HEADER, *(line.cells() for line in self.lines)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.HEADER))]
        ruled = [cells[0], tuple("-" * width for width in widths), *cells[1:]]
        notes = [f"D = {x.flow}, {x.work}, {x.figure}: {'; '.join(x.notes)}" for x in self.lines if x.notes]
        drawn = "\n".join(
            "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
            for row in ruled
        )
        return "\n\n".join([drawn, *notes])


@contextmanager
def record_failures(*lines: Line) -> Iterator[None]:
    """Where a measurement fails, its lines say so, and the run goes on. Those that have failed stay failed."""
    try:
        yield
    except NotAnswered as error:
        for line in lines:
            line.failure = str(error)
    except MeasurementFailed as error:
        for line in lines:
            line.failure, line.wrong = str(error), True


def number(value: float) -> str:
    """Three significant digits, in plain notation."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
