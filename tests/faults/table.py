"""The table of docs/reliability.md: a row for each scenario, a column for each subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.faults.scenario import Outcome, Scenario, Subject

__all__ = ["BEGIN", "END", "Cell", "render", "replace"]

BEGIN: Final = "<!-- begin faults -->"
END: Final = "<!-- end faults -->"
COLUMNS: Final[tuple[Subject, ...]] = ("pushforward", "without its guard", "plain")
HEAD: Final = "| scenario | what is done | what must hold | Pushforward | without its guard | plain app |"
RULE: Final = "| --- | --- | --- | --- | --- | --- |"
WORDS: Final = {True: "held", False: "**fell**", None: ""}


@dataclass(frozen=True)
class Cell:
    """What came of a scenario for a subject."""

    scenario: Scenario
    subject: Subject
    outcome: Outcome


def render(cells: Sequence[Cell]) -> str:
    """The table in Markdown."""
    return "\n".join([HEAD, RULE, *_rows(cells).values()])


def replace(page: str, cells: Sequence[Cell]) -> str:
    """A page with these rows in its table; rows of scenarios that were not run stay as they are.

    Raises:
        ValueError: the page has no table between its marks.
    """
    before, begin, rest = page.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no table between {BEGIN} and {END}")
    kept = {line.split("|")[1].strip(): line for line in old.splitlines() if line.startswith("| `")}
    rows = "\n".join([HEAD, RULE, *{**kept, **_rows(cells)}.values()])
    return f"{before}{begin}\n\n{rows}\n\n{end}{after}"


def _rows(cells: Sequence[Cell]) -> dict[str, str]:
    """The line of each scenario, by what stands in its first column."""
    lines = {}
    for scenario in dict.fromkeys(cell.scenario for cell in cells):
        found = {cell.subject: _text(cell) for cell in cells if cell.scenario is scenario}
        name = f"`{scenario.name}`"
        columns = [name, scenario.done, scenario.to_hold, *(found.get(subject, "") for subject in COLUMNS)]
        lines[name] = "| " + " | ".join(text.replace("|", "/") for text in columns) + " |"
    return lines


def _text(cell: Cell) -> str:
    scenario, outcome = cell.scenario, cell.outcome
    guardless = cell.subject == "without its guard" and scenario.without is not None
    word = WORDS[outcome.held] + (f" without {scenario.without.guard}" if guardless and scenario.without else "")
    return ": ".join(filter(None, [word, outcome.seen]))
